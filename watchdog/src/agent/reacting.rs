//! What a run does when something happens: a signal came, the deciding thread has something to tell, the
//! time is up. Waiting for it is [`super::run`]'s.

use super::channel::{Notice, Rehearsal};
use super::identity;
use super::run::{Condemned, Ended, Run, Running, TIMEOUT_GRACE};
use super::signals::{self, Change, Reaction, Sender};
use crate::act::{self, Mode, Outcome};
use crate::host::cgroup;
use crate::host::clock;
use crate::watch::Rung;
use crate::watch::victim::Scope;
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SignalFd, siginfo};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// How long an act may take whose outcome is told.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is told of one that took longer.
const LATE: Outcome = Outcome::Refused {
    errno: libc::ETIMEDOUT,
};

impl Run {
    pub(super) fn take_signals(&mut self, signals: &SignalFd) -> Option<Ended> {
        while let Ok(Some(info)) = signals.read_signal() {
            let reaction = signals::react(info.ssi_signo as i32, self.sender_of(&info));
            let ended = match reaction {
                Reaction::Reap => self.reap(),
                Reaction::Ignore => None,
                Reaction::Forward(signal) | Reaction::Shared(signal) => match &self.subject {
                    Running::Child { pid } => {
                        if matches!(reaction, Reaction::Forward(_)) {
                            let _ = nix::sys::signal::kill(Pid::from_raw(*pid as i32), signal);
                        }
                        // A frozen command could not take it.
                        self.beside(act::target::thaw, Mode::Real);
                        None
                    }
                    Running::Adopted(_) | Running::Cgroup => obey(signal),
                },
            };
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    fn sender_of(&self, info: &siginfo) -> Sender {
        let pid = info.ssi_pid;
        // 0 is a sender outside of our pid namespace.
        let in_our_group = pid != 0
            && nix::unistd::getpgid(Some(Pid::from_raw(pid as i32))) == Ok(nix::unistd::getpgrp());
        let of_the_command = in_our_group && cgroup::pids(&self.guarded.target.dir).contains(&pid);
        if info.ssi_code == libc::SI_KERNEL || of_the_command {
            Sender::Group
        } else {
            Sender::Other
        }
    }

    pub(super) fn reap(&mut self) -> Option<Ended> {
        let Running::Child { pid } = &self.subject else {
            return None;
        };
        let leader = Pid::from_raw(*pid as i32);
        match signals::change_of(leader)? {
            Change::StoppedByTerminal => {
                signals::stop_self();
                // The shell continues both; kill(1) may have continued memwatch alone.
                let _ = nix::sys::signal::kill(leader, Signal::SIGCONT);
                None
            }
            change => Some(Ended::Leader(change)),
        }
    }

    pub(super) fn hear(&mut self) -> Option<Ended> {
        if let Some(rehearsal) = self.channel.rehearsal() {
            self.learn(rehearsal);
        }
        while let Some(pidfd) = self.channel.next_dying() {
            // Waits for the victim's mmap lock, perhaps for long.
            self.helpers
                .start(move || _ = act::signal::release_memory(pidfd.as_fd()));
        }
        let mut ended = None;
        while let Some(notice) = self.channel.next() {
            self.story.hear(&notice);
            match &notice {
                Notice::Ordered { order, at, .. } => {
                    self.terminal.ordered(order, self.orders.attach.dry_run);
                    let whole = order
                        .victim
                        .is_some_and(|victim| victim.scope == Scope::Target);
                    if whole && self.mode() == Mode::Real {
                        self.condemn(order.rung, *at);
                    }
                    if order.rung == Rung::Freeze {
                        if self.mode() == Mode::Real {
                            self.guarded.target.say_frozen();
                        }
                        let outcome = self.freeze();
                        // Late is not never.
                        self.froze |= matches!(outcome, Outcome::Delivered | LATE);
                        self.story.froze(outcome);
                        self.terminal.frozen(&self.guarded.target.dir, outcome);
                    } else if order.rung == Rung::Sigkill && whole {
                        self.beside(act::target::kill, self.mode());
                    }
                }
                Notice::TargetGone => ended = Some(Ended::Target),
                Notice::Hit { .. } | Notice::Struck { .. } | Notice::Recovered { .. } => {}
            }
        }
        // A command that was started here ends when it has been reaped, and not before.
        ended.filter(|_| !matches!(self.subject, Running::Child { .. }))
    }

    fn condemn(&mut self, rung: Rung, at: Duration) {
        let settings = &self.orders.settings;
        let asked_until = at + settings.term_grace;
        self.condemned = match rung {
            Rung::Sigkill => Some(Condemned {
                grace_until: at,
                pardoned_at: None,
            }),
            Rung::Sigterm => Some(Condemned {
                grace_until: asked_until,
                pardoned_at: Some(asked_until + settings.cooldown),
            }),
            Rung::Warn | Rung::Freeze => self.condemned,
        };
    }

    /// Whether the kill works: memwatch says that it guards, or that it does not.
    fn learn(&mut self, rehearsal: Rehearsal) {
        match rehearsal {
            Ok(took) => {
                self.rehearsal = Some(took);
                self.terminal.guarding(&self.guarded.target.dir, took);
            }
            Err(error) => {
                let lost = identity::not_rehearsed(&error);
                let note = format!("not guarding: {error}; what is left is {}", lost.fallback);
                self.terminal.warn(&note);
                self.notes.push(note);
                self.features_lost.push(lost);
            }
        }
    }

    /// Acts on the whole target by a file of its cgroup. Waits for the kernel's cgroup lock, which whoever
    /// makes a cgroup under pressure holds for long: beside.
    fn beside(&self, act: fn(&Path, Mode) -> Outcome, mode: Mode) {
        let dir = self.guarded.target.dir.clone();
        self.helpers.start(move || _ = act(&dir, mode));
    }

    /// The same for the one act whose outcome must be told.
    fn freeze(&self) -> Outcome {
        let (dir, mode) = (self.guarded.target.dir.clone(), self.mode());
        self.helpers
            .ask(PATIENCE, move || act::target::freeze(&dir, mode))
            .unwrap_or(LATE)
    }

    pub(super) fn time_is_up(&mut self, deadline: Option<Duration>) -> Option<Duration> {
        let limit = self.orders.attach.timeout?;
        if deadline == Some(limit) {
            self.ask_all(limit);
            return Some(limit + TIMEOUT_GRACE);
        }
        let outcome = self.signal_all(libc::SIGKILL);
        // And forks under way.
        self.beside(act::target::kill, self.mode());
        self.story.timeout(limit, Rung::Sigkill, outcome);
        None
    }

    /// Asks everybody, as timeout(1) does: a shell alone would end and leave its children running.
    fn ask_all(&mut self, limit: Duration) {
        if self.mode() == Mode::Real {
            self.condemned = Some(Condemned {
                grace_until: clock::now() + TIMEOUT_GRACE,
                pardoned_at: None,
            });
        }
        let outcome = self.signal_all(libc::SIGTERM);
        self.beside(act::target::thaw, self.mode());
        self.story.timeout(limit, Rung::Sigterm, outcome);
    }

    /// Everybody who is there now; waits for nothing.
    fn signal_all(&self, signal: i32) -> Outcome {
        let send = |pid| {
            act::signal::pidfd_open(pid).map_or(Outcome::Gone, |pidfd| {
                act::signal::send(pidfd.as_fd(), signal, self.mode())
            })
        };
        cgroup::pids(&self.guarded.target.dir)
            .into_iter()
            .map(send)
            .fold(Outcome::Gone, |so_far, outcome| match so_far {
                Outcome::Delivered => so_far,
                _ => outcome,
            })
    }
}

/// What was not started here gets no signals from here. Told to end, memwatch lets it go; told to stop,
/// it stops. A signal that it was started to ignore tells it nothing.
fn obey(signal: Signal) -> Option<Ended> {
    match signal {
        _ if signals::is_ignored(signal) => None,
        Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT => {
            Some(Ended::Detached)
        }
        Signal::SIGTSTP => {
            signals::stop_self();
            None
        }
        _ => None,
    }
}
