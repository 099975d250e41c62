//! Signals to one process, by pidfd: the process that was looked at is the one that is hit, or nobody.

use super::{Mode, Outcome};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Opens a pidfd, close-on-exec. No allocation: the deciding thread opens them.
///
/// # Errors
/// ESRCH if there is no such process, EMFILE if there are no descriptors left.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends `signal`. Never waits.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32, mode: Mode) -> Outcome {
    if mode == Mode::DryRun {
        return Outcome::DryRun;
    }
    // SAFETY: a null siginfo means what kill(2) would fill in.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Outcome::of(result < 0)
}

/// Whether the process has exited, all threads of it (fs/pidfs.c: a pidfd becomes readable then).
pub fn has_exited(pidfd: impl AsFd) -> bool {
    exits_within(pidfd, Duration::ZERO)
}

/// The same, waited for at most for `patience`.
pub fn exits_within(pidfd: impl AsFd, patience: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: pidfd.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = libc::timespec {
        tv_sec: patience.as_secs() as i64,
        tv_nsec: patience.subsec_nanos().into(),
    };
    // SAFETY: one valid pollfd and a valid timespec.
    let ready = unsafe { libc::ppoll(&mut poll, 1, &timeout, std::ptr::null()) };
    ready == 1 && poll.revents & libc::POLLIN != 0
}

/// Takes a dying process's anonymous memory away before it gets around to it itself: it may be stuck
/// in uninterruptible sleep. May wait for the process's mmap lock, so never on the deciding thread.
///
/// EINVAL (it is not dying yet) and ENOSYS (before 5.15) cost nothing but the help.
pub fn release_memory(pidfd: BorrowedFd<'_>) -> Outcome {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_process_mrelease, pidfd.as_raw_fd(), 0) };
    Outcome::of(result < 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_signal_reaches_the_process_and_then_nobody() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let pidfd = pidfd_open(child.id()).expect("it runs");
        assert!(!has_exited(&pidfd));
        assert_eq!(
            send(pidfd.as_fd(), libc::SIGKILL, Mode::DryRun),
            Outcome::DryRun
        );
        assert!(
            child.try_wait().expect("ours").is_none(),
            "a dry run kills nobody"
        );
        assert_eq!(
            send(pidfd.as_fd(), libc::SIGKILL, Mode::Real),
            Outcome::Delivered
        );
        child.wait().expect("ours");
        assert!(has_exited(&pidfd));
        assert_eq!(
            send(pidfd.as_fd(), libc::SIGKILL, Mode::Real),
            Outcome::Gone
        );
    }

    #[test]
    fn a_process_that_is_gone_cannot_be_opened() {
        let mut child = Command::new("true").spawn().expect("true");
        child.wait().expect("ours");
        let error = pidfd_open(child.id()).expect_err("reaped");
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
