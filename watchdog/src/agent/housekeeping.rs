//! What a run looks after a few times a second, because no event tells of it: the deciding thread's life,
//! what the programs in the kernel have to say, cgroups inside the target, the live line.

use super::blocked;
use super::run::{Ended, Run, Running};
use super::watched::Watched;
use crate::bpf;
use crate::host::clock;
use crate::incident::{LiveStatus, Record};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// From this share of stall on, page faults are sampled: somebody will want to know whose they were.
const HOT_PERMILLE: u64 = 100;

impl Run {
    /// The deciding thread ends when it is told to. Earlier it is missed.
    pub(super) fn miss_decider(&mut self) {
        let Some(decider) = self.decider.take_if(|decider| decider.is_finished()) else {
            return;
        };
        match decider.join() {
            Ok(realtime) => self.refused.realtime = realtime,
            Err(_) => self.lose_guard("the deciding thread has failed"),
        }
    }

    pub(super) fn keep_house(&mut self) -> Option<Ended> {
        self.miss_decider();
        self.helpers.look_after(clock::now());
        self.way.inbox.sweep();
        self.watched.look_after_flight();
        self.take_events();
        self.take_guard_kills();
        self.keep_up_with_tests();
        self.watched.find_nested(&self.way);
        for found in self.blocked.iter().flat_map(blocked::Watch::news) {
            self.watched.story.blocked(&found);
        }
        let status = &self.watched.status;
        let is_hot = status.some_permille.load(Ordering::Relaxed) >= HOT_PERMILLE;
        self.kernel.heat(is_hot);
        self.surroundings.keep_up(is_hot);
        for hung in self.surroundings.take_hung() {
            self.watched.story.hung(hung.tid, &hung.comm);
        }
        let seen = |count: &AtomicU64| count.load(Ordering::Relaxed);
        tracing::trace!(
            looks = seen(&status.looks),
            current_bytes = seen(&status.current_bytes),
            some_permille = seen(&status.some_permille),
            full_permille = seen(&status.full_permille),
            "looked"
        );
        // What the daemon does it keeps.
        if self.drafting.is_due(clock::now()) && !self.entrusted.is_guarding() {
            let record = self.so_far();
            self.drafting.write(record);
        }
        let elapsed = clock::now().saturating_sub(self.watched.began.0);
        if self.terminal.wants_live(elapsed) {
            self.terminal.live(self.live(elapsed));
        }
        match &self.subject {
            Running::Child { .. } => None,
            Running::Adopted(_) | Running::Cgroup => {
                self.watched.is_empty().then_some(Ended::Target)
            }
        }
    }

    /// What the live line shows; pressure that the daemon looks at is not known here.
    fn live(&self, elapsed: Duration) -> LiveStatus {
        let Watched {
            guarded, status, ..
        } = &self.watched;
        let looked = |count: &AtomicU64| {
            let read = || count.load(Ordering::Relaxed);
            (!self.entrusted.is_guarding()).then(read)
        };
        let permille = |count| looked(count).and_then(|share| u32::try_from(share).ok());
        LiveStatus {
            elapsed_us: elapsed.as_micros() as u64,
            memory_bytes: looked(&status.current_bytes).or_else(|| guarded.current_bytes()),
            limit_bytes: guarded.limit_bytes,
            full_permille: permille(&status.full_permille),
            some_permille: permille(&status.some_permille),
        }
    }

    /// What has happened until now.
    fn so_far(&self) -> Record {
        let over = (clock::now(), SystemTime::now());
        let mut record = self.watched.so_far(over, &self.kernel);
        record.command = self.command();
        record.machine = self.watched.machine.as_deref().cloned();
        record
    }

    pub(super) fn take_guard_kills(&mut self) {
        for note in self.kernel.left_behind() {
            self.terminal.warn(&note);
            self.watched.notes.push(note);
        }
        let limit_bytes = self.watched.guarded.limit_bytes;
        for (name, kill) in self.kernel.guard_kills() {
            let settings = &self.watched.settings;
            self.watched.story.guard_kill(name, &kill, settings);
            self.drafting.happened(clock::now());
            if let Some(testing) = &mut self.testing {
                let at = Duration::from_nanos(kill.time_ns);
                testing.was_killed(
                    name.tgid,
                    at,
                    "memwatch's guard in the kernel killed its process",
                    limit_bytes,
                );
            }
        }
    }

    pub(super) fn take_events(&mut self) {
        self.kernel.flush_logs();
        while let Some((_, event)) = self.way.channel.next_event() {
            self.watched.witness(&event);
            let bpf::Event::OomVictim { pid, .. } = &event else {
                continue;
            };
            self.drafting.happened(clock::now());
            if let Some(testing) = &mut self.testing {
                testing.was_killed(
                    *pid,
                    clock::now(),
                    "the kernel's OOM killer took its process",
                    self.watched.guarded.limit_bytes,
                );
            }
        }
    }
}
