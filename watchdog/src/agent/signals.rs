//! Signals and job control: the command and memwatch behave as one.
//!
//! memwatch stays in the command's process group, so what the terminal sends reaches both; memwatch
//! takes it from a signalfd and lets the command decide. What another process sends to memwatch alone
//! is passed on. When the terminal stops the command, memwatch stops itself, so that the shell sees its
//! job stopped.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::io;

/// What memwatch takes for itself. SIGTTOU is only blocked, so that a line written from the background
/// is written rather than stopping us; SIGPIPE is ignored by Rust's runtime.
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
pub fn open() -> io::Result<SignalFd> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&taken(), flags)?)
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The terminal, or the command itself from memwatch's own process group, as `kill 0` does: the
    /// whole group got it, and so the command.
    Group,
    /// Anybody else; it came to memwatch alone, as far as one can tell. A script that started memwatch
    /// shares its group too, so the group alone says nothing.
    Other,
}

/// What to do about one signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// See what became of the command.
    Reap,
    /// Pass it on to the command.
    Forward(Signal),
    /// The command has it already.
    Shared(Signal),
    /// It is nobody's business.
    Ignore,
}

/// Decides by who sent it.
pub fn react(signal: i32, sender: Sender) -> Reaction {
    match (Signal::try_from(signal), sender) {
        (Ok(Signal::SIGCHLD), _) => Reaction::Reap,
        (Ok(Signal::SIGTTOU) | Err(_), _) => Reaction::Ignore,
        (Ok(signal), Sender::Group) => Reaction::Shared(signal),
        (Ok(signal), Sender::Other) => Reaction::Forward(signal),
    }
}

/// Whether memwatch was started with `signal` ignored, as nohup(1) does with SIGHUP. It handles none of
/// them itself, so that is still so.
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: a zeroed action is valid, and the call only fills it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as i32, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
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
    loop {
        // A first look that takes nothing: an exit must be left in place, a stop must not.
        let (code, status) = wait(leader, libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT)?;
        match code {
            libc::CLD_EXITED => return Some(Change::Exited(status)),
            libc::CLD_KILLED | libc::CLD_DUMPED => return Some(Change::Killed(status)),
            libc::CLD_STOPPED => {
                let _ = wait(leader, libc::WSTOPPED);
                if matches!(status, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) {
                    return Some(Change::StoppedByTerminal);
                }
            }
            _ => return None,
        }
    }
}

/// `si_code` and `si_status` of what waitid(2) finds at once. nix has no word for a realtime signal, and
/// the status of a process that one has ended would be lost.
fn wait(leader: Pid, what: i32) -> Option<(i32, i32)> {
    // SAFETY: a zeroed siginfo is valid and the call fills it; its pid stays 0 if there is nothing, and
    // is followed by a status if there is something.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let id = leader.as_raw() as libc::id_t;
        let found = libc::waitid(libc::P_PID, id, &mut info, what | libc::WNOHANG) == 0
            && info.si_pid() != 0;
        found.then(|| (info.si_code, info.si_status()))
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
    fn what_the_whole_group_got_is_not_sent_twice() {
        assert_eq!(
            react(libc::SIGINT, Sender::Group),
            Reaction::Shared(Signal::SIGINT)
        );
        assert_eq!(
            react(libc::SIGTERM, Sender::Other),
            Reaction::Forward(Signal::SIGTERM)
        );
    }

    #[test]
    fn what_is_about_memwatch_alone_goes_nowhere() {
        assert_eq!(react(libc::SIGTTOU, Sender::Other), Reaction::Ignore);
        assert_eq!(react(libc::SIGCHLD, Sender::Other), Reaction::Reap);
    }

    #[test]
    fn an_ignored_signal_is_known() {
        assert!(is_ignored(Signal::SIGPIPE), "Rust's runtime ignores it");
        assert!(!is_ignored(Signal::SIGUSR2));
    }
}
