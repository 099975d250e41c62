//! Signals and job control: the command and memwatch behave as one.
//!
//! memwatch stays in the command's process group, so what the terminal sends reaches both; memwatch
//! takes it from a signalfd and lets the command decide. What another process sends to memwatch alone
//! is passed on. When the terminal stops the command, memwatch stops itself, so that the shell sees its
//! job stopped.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// What memwatch takes for itself. SIGTTOU is only blocked, so that a line written from the background
/// is written rather than stopping us; SIGPIPE is left alone.
const TAKEN: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGTTOU,
    Signal::SIGCHLD,
];

/// The set of them.
pub fn taken() -> SigSet {
    TAKEN.into_iter().collect()
}

/// The descriptor they come out of; they must be blocked.
///
/// # Errors
/// No descriptors left.
pub fn open() -> nix::Result<SignalFd> {
    SignalFd::with_flags(&taken(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// What to do about one signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// See what became of the command.
    Reap,
    /// Pass it on to the command.
    Forward(Signal),
    /// The command has it already, or it is none of its business.
    Ignore,
}

/// Decides by who sent it: `sender_group` is the sender's process group, if it still lives.
///
/// The kernel's own (the terminal's Ctrl-C) went to the whole group. So did, most likely, what somebody
/// in our own group sent; sudo(8) draws the same line.
pub fn react(signal: i32, code: i32, own_group: i32, sender_group: Option<i32>) -> Reaction {
    match Signal::try_from(signal) {
        Ok(Signal::SIGCHLD) => Reaction::Reap,
        Ok(Signal::SIGTSTP | Signal::SIGTTOU) | Err(_) => Reaction::Ignore,
        Ok(_) if code == libc::SI_KERNEL || sender_group == Some(own_group) => Reaction::Ignore,
        Ok(signal) => Reaction::Forward(signal),
    }
}

/// What became of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ended by itself.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
    /// The terminal stopped it.
    StoppedByTerminal,
}

/// The next change of `leader`, if there is one. An ended leader stays a zombie, so that its pid stays
/// its own until the report is written.
pub fn change_of(leader: Pid) -> Option<Change> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
    loop {
        // A first look that takes nothing: an exit must be left in place, a stop must not.
        match waitid(Id::Pid(leader), flags | WaitPidFlag::WNOWAIT).ok()? {
            WaitStatus::Exited(_, code) => return Some(Change::Exited(code)),
            WaitStatus::Signaled(_, signal, _) => return Some(Change::Killed(signal as i32)),
            WaitStatus::Stopped(_, signal) => {
                let stop = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
                let _ = waitid(Id::Pid(leader), stop);
                if matches!(signal, Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU) {
                    return Some(Change::StoppedByTerminal);
                }
            }
            _ => return None,
        }
    }
}

/// Stops this process, as the terminal stopped the command; returns when the shell continues both.
pub fn stop_self() {
    let _ = nix::sys::signal::raise(Signal::SIGSTOP);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminals_signals_are_not_sent_twice() {
        assert_eq!(
            react(libc::SIGINT, libc::SI_KERNEL, 10, None),
            Reaction::Ignore
        );
        assert_eq!(
            react(libc::SIGINT, libc::SI_USER, 10, Some(10)),
            Reaction::Ignore
        );
        assert_eq!(
            react(libc::SIGINT, libc::SI_USER, 10, Some(11)),
            Reaction::Forward(Signal::SIGINT)
        );
        assert_eq!(
            react(libc::SIGTERM, libc::SI_USER, 10, None),
            Reaction::Forward(Signal::SIGTERM)
        );
    }

    #[test]
    fn stopping_is_the_commands_own_affair() {
        assert_eq!(
            react(libc::SIGTSTP, libc::SI_USER, 10, None),
            Reaction::Ignore
        );
        assert_eq!(
            react(libc::SIGCHLD, libc::CLD_EXITED, 10, None),
            Reaction::Reap
        );
    }
}
