//! The one clock: CLOCK_MONOTONIC, the same that `bpf_ktime_get_ns` reads, so that times stamped in
//! the kernel and here can be subtracted.

use std::time::Duration;

/// Time since an arbitrary point that stays fixed while the machine is up (suspend not counted).
pub fn now() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// Time since the machine was started, suspend counted: the clock of a process's start.
pub fn since_boot() -> Duration {
    read(libc::CLOCK_BOOTTIME)
}

/// Clock ticks of /proc in a second (proc_pid_stat(5)): 100 on every machine that memwatch runs on.
pub fn ticks_per_s() -> u64 {
    // SAFETY: sysconf reads no memory of ours.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64
}

/// Whether a process started at that moment or later, as far as the ticks in which its start is told can say: one that
/// started less than a tick earlier counts too.
pub fn may_have_started_since(start_ticks: u64, moment: Duration) -> bool {
    of_start(start_ticks) + Duration::from_secs(1) / ticks_per_s() as u32 >= moment
}

/// When a process started, on the clock of [`now`], up to a tick earlier than it did: from field 22 of
/// proc_pid_stat(5), which is on that of [`since_boot`].
pub fn of_start(start_ticks: u64) -> Duration {
    let after_boot = Duration::from_millis(start_ticks.saturating_mul(1000) / ticks_per_s());
    now().saturating_sub(since_boot().saturating_sub(after_boot))
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `ts` is valid for writing; either clock exists on every Linux since 2.6.39, so this cannot fail.
    unsafe { libc::clock_gettime(clock, &mut ts) };
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::stat_of;

    #[test]
    fn a_process_started_when_it_did() {
        let before = now();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let after = now();
        let start_ticks = stat_of(child.id()).map(|stat| stat.start_ticks);
        child.kill().expect("ours");
        child.wait().expect("ours");
        let start_ticks = start_ticks.expect("it lives");
        // The two clocks are read a moment apart.
        let slack = Duration::from_millis(50);
        assert!(may_have_started_since(start_ticks, before - slack));
        assert!(!may_have_started_since(start_ticks, after + slack));
    }
}
