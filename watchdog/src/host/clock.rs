//! The one clock: CLOCK_MONOTONIC, the same that `bpf_ktime_get_ns` reads, so that times stamped in
//! the kernel and here can be subtracted.

use std::time::Duration;

/// Time since an arbitrary point that stays fixed while the machine is up (suspend not counted).
pub fn now() -> Duration {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `ts` is valid for writing; CLOCK_MONOTONIC exists on every Linux, so this cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}
