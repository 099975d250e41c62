//! The rehearsal: before memwatch says that it guards, the deciding thread kills a child of its own, by
//! the calls by which it kills a victim.
//!
//! A sandbox may refuse what only a kill needs, and nobody would know before it is needed. What follows
//! from a rehearsal that fails is [`super::run`]'s and [`super::pass`]'s.

use crate::act::{Mode, Outcome, signal};
use crate::host::clock;
use nix::sys::signal::{SigSet, SigmaskHow};
use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a child that only waits may take to die: a tenth of a millisecond, a hundred where the machine
/// is emulated and busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the kill cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// There was nobody to rehearse on.
    #[error("no child could be made: {0}")]
    NoChild(io::Error),
    /// The child could not be taken hold of.
    #[error("pidfd_open was refused: {0}")]
    NoPidfd(io::Error),
    /// The signal was not taken.
    #[error("pidfd_send_signal was refused: {0}")]
    NotSent(io::Error),
    /// The signal was taken, and the end of the child was not seen.
    #[error("a child that was sent SIGKILL was not seen to end within {PATIENCE:?}")]
    NotSeen,
}

impl RehearsalError {
    /// Whether it has shown that nobody can be killed; else nothing was shown.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::NoPidfd(_) | Self::NotSent(_))
    }
}

/// Kills a child; how long that took, from opening its pidfd to seeing it gone.
///
/// # Errors
/// One of the calls that a kill takes was refused.
pub fn rehearse() -> Result<Duration, RehearsalError> {
    let child = Child::start().map_err(RehearsalError::NoChild)?;
    let began = clock::now();
    let pidfd = signal::pidfd_open(child.pid()).map_err(RehearsalError::NoPidfd)?;
    let sent = signal::send(pidfd.as_fd(), libc::SIGKILL, Mode::Real);
    if sent != Outcome::Delivered {
        let errno = match sent {
            Outcome::Refused { errno } => errno,
            _ => libc::ESRCH,
        };
        return Err(RehearsalError::NotSent(io::Error::from_raw_os_error(errno)));
    }
    if !signal::exits_within(&pidfd, PATIENCE) {
        return Err(RehearsalError::NotSeen);
    }
    Ok(clock::now().saturating_sub(began))
}

/// A process that only waits. It shares memwatch's memory, so that nothing is copied to make it.
pub(super) struct Child {
    pid: i32,
    stack: Option<Box<Stack>>,
}

#[repr(align(16))]
struct Stack([u8; 8 << 10]);

impl Child {
    pub(super) fn start() -> io::Result<Self> {
        let mut stack = Box::new(Stack([0; 8 << 10]));
        let top = stack.0.as_mut_ptr_range().end;
        // SAFETY: reads a number.
        let parent = unsafe { libc::getpid() };
        // It takes no signal but SIGKILL; and none comes to this thread's handlers on its stack.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // No signal at its end: the command's SIGCHLD is not to be mistaken for it.
        // SAFETY: the child has a stack of its own, which outlives it, and only makes system calls.
        let pid = unsafe {
            libc::clone(
                wait_for_the_end,
                top.cast::<c_void>(),
                libc::CLONE_VM,
                parent as usize as *mut c_void,
            )
        };
        let made = if pid < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(pid)
        };
        before.thread_set_mask()?;
        Ok(Self {
            pid: made?,
            stack: Some(stack),
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Whether it is dead within [`PATIENCE`]; it is not taken away yet.
    pub(super) fn is_dead(&self) -> bool {
        signal::pidfd_open(self.pid()).is_ok_and(|pidfd| signal::exits_within(&pidfd, PATIENCE))
    }

    /// Takes the ended child away; `false` if it has not ended within [`PATIENCE`].
    fn reap(&self) -> bool {
        let until = clock::now() + PATIENCE;
        loop {
            let how = libc::__WCLONE | libc::WNOHANG;
            // SAFETY: nothing is written for a null status.
            let ended = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), how) };
            if ended == self.pid || ended < 0 {
                return true;
            }
            if clock::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Drop for Child {
    /// However the rehearsal went, nobody is left. The number is the child's until it is waited for.
    fn drop(&mut self) {
        // SAFETY: no pointers are passed.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        if !self.reap() {
            // It may still run on its stack.
            std::mem::forget(self.stack.take());
        }
    }
}

/// What the child does. It shares errno and whatever else a thread has with its parent, so there are
/// system calls here that cannot fail or do not return, and nothing else.
extern "C" fn wait_for_the_end(parent: *mut c_void) -> i32 {
    let parent = parent as usize as libc::c_long;
    // SAFETY: no memory is read or written; null means for ever and nothing to wait for.
    unsafe {
        // If memwatch dies before the kill.
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        while libc::syscall(libc::SYS_getppid) == parent {
            libc::syscall(libc::SYS_ppoll, 0usize, 0usize, 0usize, 0usize, 0usize);
        }
    }
    0
}

#[cfg(test)]
#[path = "../../../tests/support/refuse.rs"]
mod refuse;

#[cfg(test)]
mod tests {
    use super::refuse::refuse;
    use super::*;

    /// Whether this thread has a child whose end nobody is told of, as those of a rehearsal are. Other tests drill.
    fn has_children() -> bool {
        let how = libc::__WCLONE | libc::__WNOTHREAD | libc::WNOHANG;
        // SAFETY: nothing is written for a null status.
        unsafe { libc::waitpid(-1, std::ptr::null_mut(), how) >= 0 }
    }

    /// Rehearses in a sandbox. A filter is a thread's own and ends with it; so is a child not another's.
    fn rehearse_without(call: libc::c_long) -> (RehearsalError, bool) {
        let rehearsed = std::thread::spawn(move || {
            refuse(call).expect("a filter");
            (rehearse().expect_err("it is refused"), has_children())
        });
        rehearsed.join().expect("no panic")
    }

    #[test]
    fn a_kill_is_rehearsed() {
        assert!(rehearse().expect("nothing is refused here") > Duration::ZERO);
    }

    #[test]
    fn what_a_sandbox_refuses_is_named_and_nobody_is_left() {
        for (call, name) in [
            (libc::SYS_pidfd_send_signal, "pidfd_send_signal was refused"),
            (libc::SYS_pidfd_open, "pidfd_open was refused"),
            (libc::SYS_clone, "no child could be made"),
        ] {
            let (error, left) = rehearse_without(call);
            let told = error.to_string();
            assert_eq!(told, format!("{name}: Permission denied (os error 13)"));
            assert_eq!(error.is_refusal(), call != libc::SYS_clone);
            assert!(!left, "{name}");
        }
    }
}
