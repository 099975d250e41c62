//! What a run does when something happens: a signal came, the deciding thread has something to tell, the
//! time is up. Waiting for it is [`super::run`]'s.

use super::channel::Rehearsal;
use super::identity;
use super::run::{Ended, Run, Running, TIMEOUT_GRACE};
use super::signals::{self, Change, Reaction, Sender};
use super::story::TIMEOUT;
use super::watched::Heard;
use crate::act::{self, Mode};
use crate::host::clock;
use crate::host::place::Place;
use crate::host::tree;
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SignalFd, siginfo};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

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
                        self.watched
                            .beside(&self.helpers, act::target::thaw, Mode::Real);
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
        let of_the_command =
            in_our_group && self.watched.guarded.target.place.pids().contains(&pid);
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
        if let Place::Tree(_) = self.watched.guarded.target.place {
            tree::bury_orphans(*pid);
        }
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
        let channel = Arc::clone(&self.way.channel);
        if let Some(rehearsal) = channel.rehearsal() {
            self.learn(rehearsal);
        }
        while let Some(pidfd) = channel.next_dying() {
            // Waits for the victim's mmap lock, perhaps for long.
            self.helpers
                .start(move || _ = act::signal::release_memory(pidfd.as_fd()));
        }
        let mut ended = None;
        let mut stepped_in = false;
        while let Some((_, notice)) = channel.next() {
            let heard = self.watched.hear(&notice, &self.helpers);
            if let Some(testing) = &mut self.testing {
                let limit_bytes = self.watched.guarded.limit_bytes;
                testing.hear(&notice, &mut self.watched.story, limit_bytes);
            }
            match heard {
                Heard::Noted => {}
                Heard::Ordered(order) => {
                    self.terminal.ordered(&order, self.orders.attach.dry_run);
                    stepped_in = true;
                }
                Heard::Frozen(order, outcome) => {
                    self.terminal.ordered(&order, self.orders.attach.dry_run);
                    self.terminal
                        .frozen(&self.watched.guarded.target.place, outcome);
                    stepped_in = true;
                }
                Heard::Gone => ended = self.target_is_gone(),
            }
        }
        if stepped_in {
            self.surroundings.see_machine(&mut self.watched);
            self.drafting.happened(clock::now());
        }
        self.keep_up_with_tests();
        ended
    }

    pub(super) fn keep_up_with_tests(&mut self) {
        if let Some(testing) = &mut self.testing {
            let current_bytes = self.watched.guarded.current_bytes();
            testing.keep_up(&mut self.watched.story, clock::now(), current_bytes);
        }
    }

    pub(super) fn target_is_gone(&mut self) -> Option<Ended> {
        match self.subject {
            // A command that was started here ends when it has been reaped, and not before.
            Running::Child { .. } => {
                self.lose_guard("the command's cgroup was removed by somebody else");
                None
            }
            Running::Adopted(_) | Running::Cgroup => Some(Ended::Target),
        }
    }

    /// Whoever runs on has no guard, and must know it.
    pub(super) fn lose_guard(&mut self, how: &str) {
        let note = format!("{how}: what still runs has no guard");
        self.terminal.warn(&note);
        self.watched.notes.push(note);
    }

    /// Whether the kill works: memwatch says that it guards, or that it does not.
    fn learn(&mut self, rehearsal: Rehearsal) {
        match rehearsal {
            Ok(took) => {
                self.rehearsal = Some(took);
                self.terminal
                    .guarding(&self.watched.guarded.target.place, took);
            }
            Err(error) => {
                let lost = identity::not_rehearsed(&error);
                let note = format!("not guarding: {error}; what is left is {}", lost.fallback);
                self.terminal.warn(&note);
                self.watched.notes.push(note);
                self.features_lost.push(lost);
            }
        }
    }

    pub(super) fn time_is_up(&mut self, deadline: Option<Duration>) -> Option<Duration> {
        let limit = self.orders.attach.timeout?;
        if deadline == Some(limit) {
            if let Some(testing) = &mut self.testing {
                testing.ask_for_stacks(TIMEOUT);
            }
            self.watched.ask_all(limit, TIMEOUT_GRACE, &self.helpers);
            return Some(limit + TIMEOUT_GRACE);
        }
        self.watched.end_all(limit, &self.helpers);
        None
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
