//! The processes of the target as [`super::eye`] sees them at a look: who is below whom, what they hold, and what
//! they have spent.

use super::GENERATIONS;
use crate::host::clock;
use crate::host::place::Place;
use crate::host::process::{self, Stat, stat_of};
use std::collections::HashMap;
use std::time::Duration;

/// The processes of the target at one look.
pub(super) struct Processes {
    pub(super) stats: HashMap<u32, Stat>,
    page_bytes: u64,
}

impl Processes {
    pub(super) fn read(place: &Place, page_bytes: u64) -> Self {
        let stats = place
            .pids()
            .into_iter()
            .filter_map(|pid| Some((pid, stat_of(pid)?)));
        Self {
            stats: stats.collect(),
            page_bytes,
        }
    }

    /// Everybody below it.
    pub(super) fn descendants(&self, of: u32) -> Vec<u32> {
        let mut found = vec![of];
        let mut at = 0;
        while let Some(&parent) = found.get(at) {
            let children = self
                .stats
                .iter()
                .filter(|(pid, stat)| stat.ppid == parent && **pid != of);
            let new: Vec<u32> = children
                .map(|(pid, _)| *pid)
                .filter(|pid| !found.contains(pid))
                .collect();
            found.extend(new);
            at += 1;
        }
        found.remove(0);
        found
    }

    /// The nearest above it of whom that holds.
    pub(super) fn nearest_above(&self, of: u32, holds: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = of;
        for _ in 0..GENERATIONS {
            at = self.stats.get(&at)?.ppid;
            if holds(at) {
                return Some(at);
            }
        }
        None
    }

    /// Whether it may have started at that moment or later.
    pub(super) fn started_since(&self, pid: u32, moment: Duration) -> bool {
        let stat = self.stats.get(&pid);
        stat.is_some_and(|stat| clock::may_have_started_since(stat.start_ticks, moment))
    }

    /// What it and those below it have spent, with theirs that are over and were waited for.
    pub(super) fn cpu_time(&self, of: u32) -> Duration {
        let all = std::iter::once(of).chain(self.descendants(of));
        let stats = all.filter_map(|pid| self.stats.get(&pid));
        let ticks = stats.map(|stat| stat.user_ticks + stat.system_ticks + stat.children_ticks);
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// What it holds; nothing if it is no more.
    pub(super) fn rss_bytes(&self, pid: u32) -> u64 {
        let statm = std::fs::read(format!("/proc/{pid}/statm")).ok();
        let resident = statm.and_then(|text| process::parse_statm(&text, self.page_bytes));
        resident.map_or(0, |resident| resident.anon_bytes + resident.shared_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn what_children_spent_counts_when_they_are_over() {
        let works = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo over; read it";
        let mut shell = Command::new("sh")
            .args(["-c", works])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let out = shell.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("its word");
        let stats = [(shell.id(), stat_of(shell.id()).expect("it waits"))];
        let processes = Processes {
            stats: stats.into(),
            page_bytes: 4096,
        };
        let spent = processes.cpu_time(shell.id());
        drop(shell.stdin.take());
        shell.wait().expect("our child");
        assert!(spent >= Duration::from_millis(50), "{spent:?}");
    }
}
