//! What a run looks after a few times a second, because no event tells of it: the deciding thread's life,
//! what the programs in the kernel have to say, cgroups inside the target, the live line.

use super::channel::NESTED;
use super::run::{Ended, Run, Running};
use crate::bpf;
use crate::host::cgroup;
use crate::host::clock;
use crate::host::reread::Reread;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// From this share of stall on, page faults are sampled: somebody will want to know whose they were.
const HOT_PERMILLE: u64 = 100;

impl Run {
    /// The deciding thread ends when it is told to, or with the target. Earlier it is missed: whoever
    /// runs on has no guard, and must know it.
    pub(super) fn miss_decider(&mut self) {
        let Some(decider) = self.decider.take_if(|decider| decider.is_finished()) else {
            return;
        };
        let how = match decider.join() {
            Ok(realtime) => {
                self.refused.realtime = realtime;
                // A target that nobody is left in may go; a command's is memwatch's own to remove.
                if !matches!(self.subject, Running::Child { .. }) {
                    return;
                }
                "the command's cgroup was removed by somebody else"
            }
            Err(_) => "the deciding thread has failed",
        };
        let note = format!("{how}: what still runs has no guard");
        self.terminal.warn(&note);
        self.notes.push(note);
    }

    pub(super) fn keep_house(&mut self) -> Option<Ended> {
        self.miss_decider();
        self.helpers.look_after(clock::now());
        self.take_events();
        self.take_guard_kills();
        self.find_nested();
        let status = &self.channel.status;
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
        let limit = self.guarded.limit_bytes;
        self.terminal
            .live(status, limit, clock::now().saturating_sub(self.began.0));
        let empty = || cgroup::pids(&self.guarded.target.dir).is_empty();
        match &self.subject {
            Running::Child { .. } => None,
            Running::Adopted(_) | Running::Cgroup => empty().then_some(Ended::Target),
        }
    }

    /// Cgroups that the command makes inside its own, as a nested test runner or a container does.
    fn find_nested(&mut self) {
        let found: BTreeMap<u64, PathBuf> = cgroup::descendants(&self.guarded.target.dir)
            .into_iter()
            .filter_map(|dir| Some((cgroup::id(&dir).ok()?, dir)))
            .collect();
        // By id: a cgroup that is removed and made again under its old name is another.
        self.nested.retain(|id| found.contains_key(id));
        self.nested_left_out = self.nested_left_out.max(found.len().saturating_sub(NESTED));
        for (id, dir) in found {
            if self.nested.len() < NESTED
                && !self.nested.contains(&id)
                && let Ok(procs) = Reread::open(&dir.join("cgroup.procs"))
                && self.channel.hand_over_nested(procs)
            {
                self.nested.insert(id);
            }
        }
    }

    pub(super) fn take_guard_kills(&mut self) {
        for note in self.kernel.left_behind() {
            self.terminal.warn(&note);
            self.notes.push(note);
        }
        for (name, kill) in self.kernel.guard_kills() {
            self.story.guard_kill(name, &kill, &self.orders.settings);
        }
    }

    pub(super) fn take_events(&mut self) {
        self.kernel.flush_logs();
        while let Some(event) = self.events.pop() {
            match event {
                bpf::Event::OomVictim { pid, comm, .. } => self.story.kernel_oom(pid, &comm),
                bpf::Event::Hang { tid, comm, .. } => self.story.hung(tid, &comm),
                _ => {}
            }
        }
    }
}
