//! What a run looks after a few times a second, because no event tells of it: the deciding thread's life,
//! what the programs in the kernel have to say, cgroups inside the target, the live line.

use super::blocked;
use super::run::{Ended, Run, Running};
use crate::host::clock;
use std::sync::atomic::{AtomicU64, Ordering};

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
        self.take_events();
        self.take_guard_kills();
        self.watched.find_nested(&self.way);
        for found in self.blocked.iter().flat_map(blocked::Watch::news) {
            self.watched.story.blocked(&found);
        }
        let status = &self.watched.status;
        self.kernel
            .heat(status.some_permille.load(Ordering::Relaxed) >= HOT_PERMILLE);
        let seen = |count: &AtomicU64| count.load(Ordering::Relaxed);
        tracing::trace!(
            looks = seen(&status.looks),
            current_bytes = seen(&status.current_bytes),
            some_permille = seen(&status.some_permille),
            full_permille = seen(&status.full_permille),
            "looked"
        );
        let limit = self.watched.guarded.limit_bytes;
        self.terminal.live(
            status,
            limit,
            clock::now().saturating_sub(self.watched.began.0),
        );
        match &self.subject {
            Running::Child { .. } => None,
            Running::Adopted(_) | Running::Cgroup => {
                self.watched.is_empty().then_some(Ended::Target)
            }
        }
    }

    pub(super) fn take_guard_kills(&mut self) {
        for note in self.kernel.left_behind() {
            self.terminal.warn(&note);
            self.watched.notes.push(note);
        }
        for (name, kill) in self.kernel.guard_kills() {
            let settings = &self.watched.settings;
            self.watched.story.guard_kill(name, &kill, settings);
        }
    }

    pub(super) fn take_events(&mut self) {
        self.kernel.flush_logs();
        while let Some((_, event)) = self.way.channel.next_event() {
            self.watched.witness(&event);
        }
    }
}
