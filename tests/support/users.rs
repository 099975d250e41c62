//! Being somebody else, for tests that root runs.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::thread;

use tokio::runtime;

pub(crate) const NOBODY: u32 = 65534;
pub(crate) const OTHER: u32 = 65533;

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// Runs `act` on a thread that is that user, in all that the kernel asks about.
pub(crate) fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let acting = scope.spawn(|| {
            // SAFETY: no pointers are passed. The system call itself changes this thread alone, libc's
            // wrapper would change all.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            assert_eq!(changed, 0, "root may be anybody");
            act()
        });
        acting
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
