//! The process that is about to be ended, watched from outside: when did the signal take effect?
//! Times are µs of `CLOCK_MONOTONIC`, as in memwatch's recordings.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

/// How often the tables look: what they see is later than what was by at most about this much.
pub(crate) const GRAIN: std::time::Duration = std::time::Duration::from_micros(500);

/// A process that has not been seen dying yet.
pub(crate) struct Victim {
    pub(crate) pid: u32,
    stat: File,
}

impl Victim {
    /// The process whose pid stands in `culprit`; `None` while that has not been written.
    pub(crate) fn named_in(culprit: &Path) -> Result<Option<Self>> {
        let Ok(text) = fs::read_to_string(culprit) else {
            return Ok(None);
        };
        text.parse().ok().map(Self::of).transpose()
    }

    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = File::open(&path).with_context(|| format!("{path}: it was never seen alive"))?;
        Ok(Self { pid, stat })
    }

    /// Whether a fatal signal was delivered and the process has begun to exit. It still has its memory
    /// then: `PF_EXITING` is set before anything is given back (`kernel/exit.c`, `do_exit`).
    pub(crate) fn is_exiting(&self) -> bool {
        is_exiting(&self.stat())
    }

    /// Whether it sleeps and waits for nothing that is its own: what pages in waits for the disk.
    pub(crate) fn is_asleep(&self) -> bool {
        fields(&self.stat()).next() == Some("S")
    }

    /// The text of `/proc/PID/stat`; empty once it was reaped (ESRCH).
    fn stat(&self) -> String {
        let mut text = [0; 1024];
        let len = self.stat.read_at(&mut text, 0).unwrap_or(0);
        String::from_utf8_lossy(&text[..len]).into_owned()
    }
}

/// What follows the name in the text of `/proc/PID/stat`: that may hold spaces and brackets.
pub(crate) fn fields(stat: &str) -> impl Iterator<Item = &str> {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace()
}

/// By the flags in the text of `/proc/PID/stat`.
fn is_exiting(stat: &str) -> bool {
    const PF_EXITING: u32 = 0x4;
    let flags = fields(stat).nth(6).and_then(|flags| flags.parse().ok());
    flags.is_none_or(|flags: u32| flags & PF_EXITING != 0)
}

/// Now.
pub(crate) fn now_us() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing, and every Linux has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_behind_any_name() {
        let alive = "7 (a) b (c) S 1 7 7 0 -1 4194560 11799 0 2 0";
        assert!(!is_exiting(alive));
        assert!(is_exiting(&alive.replace("4194560", "4194564")));
        assert!(is_exiting(""));
    }

    #[test]
    fn this_process_lives() {
        let victim = Victim::of(std::process::id()).expect("alive");
        assert!(!victim.is_exiting());
    }
}
