//! The deciding thread's end of the flight recorder: which looks are worth keeping, and the queues by which they
//! go to the slow side. One mechanism for the recorder that is always on and for `--record FILE`, which wants
//! every look.
//!
//! Queues of fixed size, made once; what does not fit is dropped and counted. A look and the processes that it saw
//! go by two of them: most looks saw none, and a place for a look is then not as large as one with processes.
//! What the slow side does with them is [`super::flight`]'s.

use super::channel::TargetId;
use crate::host::psi::Psi;
use crate::watch::{Facts, MachineFacts, Member, TargetFacts};
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most processes that go with a look, the biggest; `--record` has so many.
pub const MEMBERS: usize = 32;
/// Between two looks with processes, unless something was ordered.
const MEMBERS_APART: Duration = Duration::from_millis(100);
/// Between two looks with the machine's figures, unless something was ordered.
const MACHINE_APART: Duration = Duration::from_millis(250);
/// A target whose memory has changed by less, of its own or at all, is as it was.
const CHANGED_PART: u64 = 16;
const CHANGED_BYTES: u64 = 16 << 20;
/// A target that waited for memory for less is at rest.
const STALLED_US: u64 = 1000;

/// One look on its way. Its processes are in a queue of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) of: TargetId,
    pub(super) at: Duration,
    pub(super) target: TargetFacts,
    pub(super) machine: Option<MachineFacts>,
    /// The number of the crowd that goes with it.
    pub(super) crowd: Option<u64>,
    pub(super) victim_gone: bool,
    /// Whether the policy ordered something on this look.
    pub(super) ordered: bool,
}

/// The processes of one look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    pub(super) number: u64,
    pub(super) members: [Member; MEMBERS],
    pub(super) len: usize,
}

/// What lies between the deciding thread and the slow side. One for all targets of a memwatch.
#[derive(Debug)]
pub struct Lane {
    pub(super) looks: ArrayQueue<Look>,
    pub(super) crowds: ArrayQueue<Crowd>,
    pub(super) dropped: AtomicU64,
    crowds_sent: AtomicU64,
}

impl Lane {
    /// With room for so many looks, and for the processes of so many of them.
    #[must_use]
    pub fn new(looks: usize, crowds: usize) -> Self {
        Self {
            looks: ArrayQueue::new(looks),
            crowds: ArrayQueue::new(crowds),
            dropped: AtomicU64::new(0),
            crowds_sent: AtomicU64::new(0),
        }
    }

    /// Sends a look. One without room for its processes goes without.
    fn send(&self, mut look: Look, members: Option<&[Member]>) {
        look.crowd = members.and_then(|members| {
            let number = self.crowds_sent.fetch_add(1, Ordering::Relaxed);
            let (biggest, len) = biggest(members);
            let crowd = Crowd {
                number,
                members: biggest,
                len,
            };
            self.crowds.push(crowd).is_ok().then_some(number)
        });
        if self.looks.push(look).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The last look at a target that sat still: no more is kept of it, for there may be a thousand.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    at: Duration,
    current_bytes: u64,
    psi: Option<Psi>,
    io_psi: Option<Psi>,
}

/// The deciding thread's end, of one target.
#[derive(Debug)]
pub struct Recorder {
    lane: Arc<Lane>,
    of: TargetId,
    /// Whether somebody wants every look, with everything in it.
    every_look: bool,
    /// The target's memory and stall as they were told last.
    told: Option<(u64, u64)>,
    quiet: Option<Quiet>,
    members_at: Option<Duration>,
    machine_at: Option<Duration>,
}

impl Recorder {
    /// One for a target; `every_look` is for `--record`.
    #[must_use]
    pub fn new(lane: Arc<Lane>, of: TargetId, every_look: bool) -> Self {
        Self {
            lane,
            of,
            every_look,
            told: None,
            quiet: None,
            members_at: None,
            machine_at: None,
        }
    }

    /// Takes a look, and what came of it. `closely` is whether its processes are looked at: then each look is
    /// kept; else those that tell something new, with the last that did not before them.
    pub fn take(&mut self, at: Duration, facts: &Facts, closely: bool, ordered: bool) {
        let target = facts.target;
        if !(self.every_look || closely || ordered || self.is_news(&target)) {
            self.quiet = Some(Quiet {
                at,
                current_bytes: target.current_bytes,
                psi: target.psi,
                io_psi: target.io_psi,
            });
            return;
        }
        if let Some(quiet) = self.quiet.take() {
            let before = TargetFacts {
                current_bytes: quiet.current_bytes,
                limit_bytes: target.limit_bytes,
                psi: quiet.psi,
                io_psi: quiet.io_psi,
                stat: None,
                reclaim: None,
            };
            self.send(quiet.at, before, None, None, false, false);
        }
        let whole = self.every_look || ordered;
        let due = |last: Option<Duration>, apart| {
            whole || last.is_none_or(|last| at.saturating_sub(last) >= apart)
        };
        let machine = facts
            .machine
            .filter(|_| due(self.machine_at, MACHINE_APART));
        let members = facts
            .members
            .filter(|_| due(self.members_at, MEMBERS_APART));
        self.machine_at = machine.map(|_| at).or(self.machine_at);
        self.members_at = members.map(|_| at).or(self.members_at);
        self.told = Some((target.current_bytes, stalled_us(&target)));
        self.send(at, target, machine, members, facts.victim_gone, ordered);
    }

    fn send(
        &self,
        at: Duration,
        target: TargetFacts,
        machine: Option<MachineFacts>,
        members: Option<&[Member]>,
        victim_gone: bool,
        ordered: bool,
    ) {
        let look = Look {
            of: self.of,
            at,
            target,
            machine,
            crowd: None,
            victim_gone,
            ordered,
        };
        self.lane.send(look, members);
    }

    /// Whether the target is not as it was told last. What it is at the first look is no news: of a thousand that
    /// only sit there nothing is kept.
    fn is_news(&mut self, target: &TargetFacts) -> bool {
        let now = (target.current_bytes, stalled_us(target));
        let (bytes, us) = *self.told.get_or_insert(now);
        let noticed = (bytes / CHANGED_PART).max(CHANGED_BYTES);
        now.0.abs_diff(bytes) >= noticed || now.1.saturating_sub(us) >= STALLED_US
    }
}

fn stalled_us(target: &TargetFacts) -> u64 {
    target.psi.map_or(0, |psi| psi.some_us)
}

/// As many as there is room for: all in their order, or of more the biggest.
fn biggest(members: &[Member]) -> ([Member; MEMBERS], usize) {
    let mut kept = [Member::default(); MEMBERS];
    let len = members.len().min(MEMBERS);
    if members.len() <= MEMBERS {
        kept[..len].copy_from_slice(members);
        return (kept, len);
    }
    // An insertion into a few places, as nothing may be allocated here.
    let mut filled = 0;
    for member in members {
        let at = kept[..filled].partition_point(|other| weight(other) >= weight(member));
        if at < MEMBERS {
            filled = (filled + 1).min(MEMBERS);
            kept.copy_within(at..filled - 1, at + 1);
            kept[at] = *member;
        }
    }
    (kept, len)
}

/// By what a process is big: that of the leader, whom the policy spares for last, is to be known whatever its size.
pub(super) fn weight(member: &Member) -> (bool, u64) {
    let resident = member.anon_bytes.saturating_add(member.shared_bytes);
    (member.leader, resident)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn facts(current_bytes: u64, some_us: u64) -> Facts<'static> {
        Facts {
            target: TargetFacts {
                current_bytes,
                psi: Some(Psi {
                    some_us,
                    full_us: 0,
                }),
                ..TargetFacts::default()
            },
            machine: Some(MachineFacts::default()),
            members: None,
            victim_gone: false,
        }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sent(lane: &Lane) -> Vec<(u64, bool)> {
        let looks = std::iter::from_fn(|| lane.looks.pop());
        let ms = |look: Look| (look.at.as_millis() as u64, look.machine.is_some());
        looks.map(ms).collect()
    }

    #[test]
    fn of_a_target_that_sits_still_nothing_is_sent() {
        let lane = Arc::new(Lane::new(8, 2));
        let mut recorder = Recorder::new(Arc::clone(&lane), 1, false);
        for second in 0..100 {
            recorder.take(
                at(second * 1000),
                &facts(100 * MIB + second, second),
                false,
                false,
            );
        }
        assert_eq!(sent(&lane), []);
    }

    #[test]
    fn the_look_before_goes_first() {
        let lane = Arc::new(Lane::new(8, 2));
        let mut recorder = Recorder::new(Arc::clone(&lane), 1, false);
        recorder.take(at(1000), &facts(100 * MIB, 0), false, false);
        recorder.take(at(2000), &facts(101 * MIB, 0), false, false);
        recorder.take(at(3000), &facts(150 * MIB, 0), false, false);
        recorder.take(at(3100), &facts(151 * MIB, 0), false, false);
        recorder.take(at(3300), &facts(151 * MIB, 2000), false, false);
        let expected = [(2000, false), (3000, true), (3100, false), (3300, true)];
        assert_eq!(sent(&lane), expected);
    }

    #[test]
    fn who_is_looked_at_closely_is_kept_with_processes_now_and_then() {
        let lane = Arc::new(Lane::new(64, 64));
        let members = [Member::default(); 3];
        let mut recorder = Recorder::new(Arc::clone(&lane), 1, false);
        for n in 0..40 {
            let facts = Facts {
                members: Some(&members),
                ..facts(MIB, 0)
            };
            recorder.take(at(n * 5), &facts, true, n == 3);
        }
        assert_eq!(lane.looks.len(), 40);
        let crowded: Vec<u64> = std::iter::from_fn(|| lane.looks.pop())
            .filter(|look| look.crowd.is_some())
            .map(|look| look.at.as_millis() as u64)
            .collect();
        assert_eq!(crowded, [0, 15, 115], "the one with an order, too");
        assert_eq!(lane.crowds.len(), 3);
    }

    #[test]
    fn of_a_crowd_the_biggest_and_the_leader() {
        let member = |pid: u32| Member {
            pid,
            anon_bytes: u64::from(pid * 37 % 100) * MIB,
            leader: pid == 100,
            ..Member::default()
        };
        let members: Vec<Member> = (1..=100).map(member).collect();
        let (kept, len) = biggest(&members);
        assert_eq!(len, MEMBERS);
        let mut expected = members;
        expected.sort_by_key(|member| std::cmp::Reverse(weight(member)));
        let pids = |members: &[Member]| members.iter().map(|m| m.pid).collect::<Vec<_>>();
        assert_eq!(pids(&kept), pids(&expected[..MEMBERS]));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let lane = Arc::new(Lane::new(2, 1));
        let mut recorder = Recorder::new(Arc::clone(&lane), 1, true);
        for second in 0..5 {
            recorder.take(at(second), &facts(0, 0), false, false);
        }
        assert_eq!(lane.dropped.load(Ordering::Relaxed), 3);
    }
}
