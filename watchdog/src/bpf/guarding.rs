//! The guard as an agent uses it: puts targets under it, lifts it, and takes in what it did. The guard itself
//! is in the kernel (`watchdog-ebpf/src/guard.rs`).

use super::load::LoadError;
use super::programs::Programs;
use super::reader::Row;
use super::standing::is_free;
use crate::host::clock;
use memwatch_ebpf::{ANY_USER, BUCKETS, GuardTerms, Kill, MAX_ARMED, Name, StallWindow};
use std::fmt;
use std::str::FromStr;
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

/// In words that [`Terms::from_str`] understands: nanoseconds in the order of the fields, and the user.
impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for duration in [self.stale_after, self.budget, self.window, self.pause] {
            write!(f, "{} ", duration.as_nanos())?;
        }
        match self.uid {
            Some(uid) => write!(f, "{uid}"),
            None => write!(f, "any"),
        }
    }
}

/// Not the words of [`Terms`].
#[derive(Debug, thiserror::Error)]
#[error("these are no terms of the guard")]
pub struct NoTerms;

impl FromStr for Terms {
    type Err = NoTerms;

    fn from_str(text: &str) -> Result<Self, NoTerms> {
        let mut words = text.split(' ');
        let mut duration = || {
            let ns = words.next().and_then(|word| word.parse().ok());
            ns.map(Duration::from_nanos).ok_or(NoTerms)
        };
        Ok(Self {
            stale_after: duration()?,
            budget: duration()?,
            window: duration()?,
            pause: duration()?,
            uid: match words.next() {
                Some("any") => None,
                Some(uid) => Some(uid.parse().map_err(|_| NoTerms)?),
                None => return Err(NoTerms),
            },
        })
    }
}

/// A target whose memwatch died before it was under the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unguarded {
    /// The target.
    pub cgroup_id: u64,
    /// Its depth below the v2 root, as far as that can be known.
    pub level: Option<u32>,
    /// On what terms.
    pub terms: Terms,
}

impl Programs {
    /// Puts targets of the dead under the guard, as their memwatches would have done, those that are not yet.
    /// The signs of life that they depend on are those of a place that nobody has, so nobody gives any.
    ///
    /// # Errors
    /// No row or no place is free.
    pub fn guard_for_the_dead(&mut self, targets: &[Unguarded]) -> Result<(), LoadError> {
        // What is gone with this process is no help to them.
        let Some(_lock) = self.home.lock()? else {
            return Ok(());
        };
        let rows = self.taken_rows()?;
        let is_guarded = |target: &&Unguarded| {
            rows.iter()
                .any(|row| row.cgroup_id == target.cgroup_id && row.guard.stale_after_ns != 0)
        };
        let targets: Vec<_> = targets
            .iter()
            .filter(|target| !is_guarded(target))
            .collect();
        if targets.is_empty() {
            return Ok(());
        }
        let names = |slot| {
            rows.iter()
                .any(|row| !is_free(row) && row.heartbeat_slot == slot)
        };
        let nobody = self.home.claim(|slot| !names(slot))?;
        for target in targets {
            let row = self.add_row(target.cgroup_id, target.level, nobody.slot)?;
            self.put_under(row, &target.terms)?;
        }
        Ok(())
    }

    /// Puts a target under the guard: if the owner of its heartbeat goes silent, the kernel acts on
    /// these terms. The heartbeat must have been given before.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn arm(&mut self, row: Row, terms: &Terms) -> Result<(), LoadError> {
        let _lock = self.home.lock()?;
        self.put_under(row, terms)
    }

    /// The caller holds the lock.
    fn put_under(&mut self, row: Row, terms: &Terms) -> Result<(), LoadError> {
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

    /// What the guard has done in these targets, by the ids of their cgroups, and nobody has read yet; each
    /// kill is returned once.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn take_kills(&mut self, of: impl Fn(u64) -> bool) -> Result<Vec<(Name, Kill)>, LoadError> {
        self.take_kills_of(|kill| of(kill.cgroup_id))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_understood_as_they_were_written() {
        let terms = Terms {
            stale_after: Duration::from_secs(3),
            budget: Duration::from_millis(300),
            window: Duration::from_secs(3),
            pause: Duration::from_millis(600),
            uid: None,
        };
        let for_a_user = Terms {
            uid: Some(1000),
            ..terms
        };
        for terms in [terms, for_a_user] {
            assert_eq!(terms.to_string().parse::<Terms>().expect("terms"), terms);
        }
        for text in ["", "1 2 3 4", "1 2 3 4 root", "1 2 x 4 any", "-1 2 3 4 any"] {
            assert!(text.parse::<Terms>().is_err(), "{text}");
        }
    }
}
