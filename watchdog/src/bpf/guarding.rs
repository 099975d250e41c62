//! The guard as an agent uses it: puts targets under it, lifts it, and takes in what it did. The guard itself
//! is in the kernel (`watchdog-ebpf/src/guard.rs`).

use super::load::LoadError;
use super::programs::Programs;
use super::reader::Row;
use crate::host::clock;
use memwatch_ebpf::{ANY_USER, BUCKETS, GuardTerms, Kill, MAX_ARMED, Name, StallWindow};
use std::time::Duration;

/// When the guard may act in a target, and how soon again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A heartbeat older than this is stale.
    pub stale_after: Duration,
    /// Stall within the window from which the guard acts.
    pub budget: Duration,
    /// The window.
    pub window: Duration,
    /// The least time between two kills.
    pub pause: Duration,
    /// The user on whose behalf, whose processes alone may be hit; `None` for any.
    pub uid: Option<u32>,
}

impl Terms {
    fn for_kernel(&self) -> GuardTerms {
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        GuardTerms {
            stale_after_ns: ns(self.stale_after).max(1),
            budget_ns: ns(self.budget),
            bucket_ns: (ns(self.window) / BUCKETS as u64).max(1),
            pause_ns: ns(self.pause),
            uid: self.uid.unwrap_or(ANY_USER),
            ..GuardTerms::default()
        }
    }
}

impl Programs {
    /// Puts a target under the guard: if the owner of its heartbeat goes silent, the kernel acts on
    /// these terms. The heartbeat must have been given before.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn arm(&mut self, row: Row, terms: &Terms) -> Result<(), LoadError> {
        let _lock = self.home.lock()?;
        let mut target = self.rows.get(&row.0, 0)?;
        target.guard = terms.for_kernel();
        self.rows.set(row.0, target, 0)?;
        for place in 0..MAX_ARMED {
            if self.armed.get(&place, 0)? == 0 {
                return Ok(self.armed.set(place, row.0 + 1, 0)?);
            }
        }
        // More than the clock has places for: guarded all the same, by who is at hand.
        Ok(())
    }

    /// Takes a target from under the guard.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn disarm(&mut self, row: Row) -> Result<(), LoadError> {
        let _lock = self.home.lock()?;
        let mut target = self.rows.get(&row.0, 0)?;
        target.guard = GuardTerms::default();
        self.rows.set(row.0, target, 0)?;
        self.clear_place(row)
    }

    pub(super) fn clear_place(&mut self, row: Row) -> Result<(), LoadError> {
        for place in 0..MAX_ARMED {
            if self.armed.get(&place, 0)? == row.0 + 1 {
                self.armed.set(place, 0, 0)?;
            }
        }
        Ok(())
    }

    /// The stall that the guard's window of a target holds, a reclaim under way left out.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn guarded_stall(&self, row: Row) -> Result<Duration, LoadError> {
        let window: StallWindow = self.stalls.get(&row.0, 0)?;
        let bucket_ns = self.rows.get(&row.0, 0)?.guard.bucket_ns.max(1);
        let epoch = clock::now().as_nanos() as u64 / bucket_ns;
        let fresh = |&(counted, _): &(u64, u64)| epoch.saturating_sub(counted) < BUCKETS as u64;
        let buckets = window.epochs.into_iter().zip(window.stall_ns);
        let stall_ns = buckets.filter(fresh).map(|(_, stall_ns)| stall_ns).sum();
        Ok(Duration::from_nanos(stall_ns))
    }

    /// What the guard has done in a target and nobody has read yet; each kill is returned once.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn take_kills(&mut self, cgroup_id: u64) -> Result<Vec<(Name, Kill)>, LoadError> {
        self.take_kills_of(|kill| kill.cgroup_id == cgroup_id)
    }

    /// What the guard did in targets whose memwatch had died, as found when this one came.
    /// Once.
    pub fn take_left_behind(&mut self) -> Vec<(Name, Kill)> {
        std::mem::take(&mut self.left_behind)
    }

    fn take_kills_of(
        &mut self,
        wanted: impl Fn(&Kill) -> bool,
    ) -> Result<Vec<(Name, Kill)>, LoadError> {
        let names: Vec<Name> = self.kills.keys().collect::<Result<_, _>>()?;
        let mut taken = Vec::new();
        for name in names {
            if let Ok(kill) = self.kills.get(&name, 0)
                && wanted(&kill)
                && self.kills.remove(&name).is_ok()
            {
                taken.push((name, kill));
            }
        }
        taken.sort_by_key(|(_, kill)| kill.time_ns);
        Ok(taken)
    }

    /// Removes the rows of the dead that have no target any more, and takes in what the guard did there.
    pub(super) fn sweep(&mut self, populated: impl Fn(u64) -> bool) -> Result<(), LoadError> {
        for (target, row) in self.taken_rows()?.iter().zip(0..) {
            let dead = target.cgroup_id != 0 && !self.home.lives(target.heartbeat_slot);
            if dead && !populated(target.cgroup_id) {
                self.remove_row(Row(row))?;
            }
        }
        let living: Vec<u64> = self
            .taken_rows()?
            .iter()
            .filter(|target| self.home.lives(target.heartbeat_slot))
            .map(|target| target.cgroup_id)
            .collect();
        self.left_behind = self.take_kills_of(|kill| !living.contains(&kill.cgroup_id))?;
        Ok(())
    }
}
