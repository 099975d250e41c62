//! Acts on a whole target at once: `cgroup.kill` and `cgroup.freeze`.
//!
//! Both take the kernel's cgroup lock and may wait for it, so they are never done on the deciding thread,
//! which signals the members it knows by pidfd.

use super::{Mode, Outcome};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Kills every process in the cgroup and below, forks under way included (kernel/cgroup/cgroup.c,
/// `cgroup_kill_write`; 5.14). A threaded cgroup refuses.
pub fn kill(dir: &Path, mode: Mode) -> Outcome {
    write(dir, "cgroup.kill", "1", mode)
}

/// Stops every process in the cgroup and below where it is. They can still be killed.
pub fn freeze(dir: &Path, mode: Mode) -> Outcome {
    write(dir, "cgroup.freeze", "1", mode)
}

/// Lets a frozen cgroup run on.
pub fn thaw(dir: &Path, mode: Mode) -> Outcome {
    write(dir, "cgroup.freeze", "0", mode)
}

fn write(dir: &Path, file: &str, text: &str, mode: Mode) -> Outcome {
    if mode == Mode::DryRun {
        return Outcome::DryRun;
    }
    let written = OpenOptions::new()
        .write(true)
        .open(dir.join(file))
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written.map_err(|e| e.raw_os_error()) {
        Ok(()) => Outcome::Delivered,
        Err(Some(libc::ENOENT | libc::ENODEV)) => Outcome::Gone,
        Err(errno) => Outcome::Refused {
            errno: errno.unwrap_or(0),
        },
    }
}
