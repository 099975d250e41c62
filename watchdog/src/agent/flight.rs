//! The flight recorder's slow side: of each target that stirs the looks of the last five minutes, in fixed memory,
//! until they go into a record, a recording or the black box.
//!
//! Which look is worth sending is [`super::recorder`]'s, on the deciding thread; which go when there is no more room
//! is [`thinning`]'s. Whoever wants looks takes in first what waits in the queues: nobody depends on another slow
//! thread that may hang.

use super::channel::TargetId;
use super::recorder::{Crowd, Lane, Look, MEMBERS, Recorder, weight};
use crate::incident::Flight;
use crate::watch::Member;
use crate::watch::replay::RecordedLook;
use crate::watch::thinning::{self, Kept, LOOKS, MARKS, OLDEST};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Of so many looks the processes are kept, too.
const CROWDS: usize = 32;
/// So many of them, the biggest.
const KEPT_MEMBERS: usize = 16;
/// A look that went so far is worth as many that did not.
const WORTH_OF_MACHINE: u32 = 2;
const WORTH_OF_MEMBERS: u32 = 3;
/// The look on which something was ordered.
const WORTH_OF_ORDER: u32 = 1000;
/// Looks that wait for the disk of `--record`.
const UNWRITTEN: usize = 4096;

/// Of all targets of a memwatch.
#[derive(Debug)]
pub struct Flights {
    lane: Arc<Lane>,
    hangar: Mutex<Hangar>,
}

/// What the lock is for. Never taken by the deciding thread.
#[derive(Debug)]
struct Hangar {
    at_most: usize,
    rings: BTreeMap<TargetId, Ring>,
    /// One that is ahead of the looks.
    crowd: Option<Crowd>,
    /// For `--record`, if there is one.
    unwritten: Option<Vec<RecordedLook>>,
    /// Looks that the disk was too slow for.
    unwritable: u64,
}

/// The looks at one target, in the order of time.
#[derive(Debug)]
struct Ring {
    name: Option<String>,
    uid: Option<u32>,
    looks: Vec<Place>,
    /// What was lost before its first.
    lost_before: u64,
}

#[derive(Clone, Debug)]
struct Place {
    look: RecordedLook,
    ordered: bool,
}

/// A target of which looks are kept, for the black box.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Which.
    pub id: TargetId,
    /// Its cgroup, once somebody has said.
    pub name: Option<String>,
    /// The user who had it guarded, if one did.
    pub uid: Option<u32>,
    /// All that is kept of it.
    pub looks: Vec<RecordedLook>,
}

impl Flights {
    /// Room for the looks at so many targets; made when they stir. `lane` is what the deciding thread sends by.
    #[must_use]
    pub fn new(lane: Lane, targets: usize) -> Self {
        Self {
            lane: Arc::new(lane),
            hangar: Mutex::new(Hangar {
                at_most: targets.max(1),
                rings: BTreeMap::new(),
                crowd: None,
                unwritten: None,
                unwritable: 0,
            }),
        }
    }

    /// The deciding thread's end for one target.
    #[must_use]
    pub fn recorder(&self, of: TargetId, every_look: bool) -> Recorder {
        Recorder::new(Arc::clone(&self.lane), of, every_look)
    }

    /// From now on every look is kept for a disk, too.
    pub fn also_for_disk(&self) {
        self.open().unwritten = Some(Vec::with_capacity(64));
    }

    /// What has come for the disk since the last call.
    pub(super) fn for_disk(&self) -> Vec<RecordedLook> {
        self.open()
            .unwritten
            .as_mut()
            .map_or_else(Vec::new, std::mem::take)
    }

    /// Looks that were lost, on their way or for want of a fast disk.
    pub fn lost(&self) -> u64 {
        self.lane.dropped.load(Ordering::Relaxed) + self.open().unwritable
    }

    /// Takes in what waits, and drops what nobody wants any more.
    pub fn look_after(&self, now: Duration) {
        let line_us = (now.saturating_sub(OLDEST)).as_micros() as u64;
        let mut hangar = self.open();
        hangar.rings.retain(|_, ring| ring.newest_us() >= line_us);
    }

    /// Targets whose name nobody has said yet.
    pub fn unnamed(&self) -> Vec<TargetId> {
        let hangar = self.open();
        let unnamed = hangar.rings.iter().filter(|(_, ring)| ring.name.is_none());
        unnamed.map(|(id, _)| *id).collect()
    }

    /// Says how one is called, and which user had it guarded.
    pub fn name(&self, id: TargetId, name: String, uid: Option<u32>) {
        if let Some(ring) = self.open().rings.get_mut(&id) {
            ring.name = Some(name);
            ring.uid = uid;
        }
    }

    /// The looks at a target, for the record of a run that began then; `None` if there are none.
    pub fn of(&self, id: TargetId, began: Duration) -> Option<Flight> {
        let hangar = self.open();
        let ring = hangar.rings.get(&id)?;
        Some(Flight {
            began_us: began.as_micros() as u64,
            looks: ring.looks.iter().map(|place| place.look.clone()).collect(),
            lost: self
                .lane
                .dropped
                .load(Ordering::Relaxed)
                .saturating_sub(ring.lost_before),
        })
    }

    /// It is guarded no more.
    pub fn forget(&self, id: TargetId) {
        self.open().rings.remove(&id);
    }

    /// The looks at all of them since then.
    pub fn tails(&self, since_us: u64) -> Vec<Tail> {
        let hangar = self.open();
        let tails = hangar.rings.iter().map(|(&id, ring)| Tail {
            id,
            name: ring.name.clone(),
            uid: ring.uid,
            looks: ring
                .since(since_us)
                .map(|place| place.look.clone())
                .collect(),
        });
        tails.collect()
    }

    /// Whether a target waited for memory for at least this share of the time between two of its looks since then.
    pub fn stalled_since(&self, since_us: u64, permille: u64) -> bool {
        let hangar = self.open();
        hangar.rings.values().any(|ring| {
            let mut stalls = ring
                .since(since_us)
                .filter_map(|place| Some((place.look.at_us, place.look.target.psi?.some_us)));
            let first = stalls.next();
            let spans = first.zip(stalls.next_back());
            spans.is_some_and(|((from_us, before_us), (to_us, after_us))| {
                after_us.saturating_sub(before_us) * 1000 >= (to_us - from_us).max(1000) * permille
            })
        })
    }

    fn open(&self) -> MutexGuard<'_, Hangar> {
        let mut hangar = self.hangar.lock().unwrap_or_else(PoisonError::into_inner);
        hangar.take_in(&self.lane);
        hangar
    }
}

impl Hangar {
    fn take_in(&mut self, lane: &Lane) {
        while let Some(look) = lane.looks.pop() {
            let members = look.crowd.and_then(|number| self.crowd(number, lane));
            let recorded = recorded(&look, members.as_ref());
            if let Some(unwritten) = &mut self.unwritten {
                if unwritten.len() < UNWRITTEN {
                    unwritten.push(recorded.clone());
                } else {
                    self.unwritable += 1;
                }
            }
            self.make_room_for(look.of);
            let lost_before = lane.dropped.load(Ordering::Relaxed);
            let ring = self.rings.entry(look.of);
            let ring = ring.or_insert_with(|| Ring::new(lost_before));
            ring.keep(recorded, look.ordered);
        }
    }

    /// The processes of a look; they were sent before it, in the same order.
    fn crowd(&mut self, number: u64, lane: &Lane) -> Option<Crowd> {
        while let Some(crowd) = self.crowd.take().or_else(|| lane.crowds.pop()) {
            if crowd.number == number {
                return Some(crowd);
            }
            if crowd.number > number {
                self.crowd = Some(crowd);
                break;
            }
        }
        None
    }

    /// The one that has been quiet for longest gives way.
    fn make_room_for(&mut self, id: TargetId) {
        if self.rings.len() < self.at_most || self.rings.contains_key(&id) {
            return;
        }
        let quietest = self.rings.iter().min_by_key(|(_, ring)| ring.newest_us());
        if let Some(quietest) = quietest.map(|(id, _)| *id) {
            self.rings.remove(&quietest);
        }
    }
}

impl Ring {
    fn new(lost_before: u64) -> Self {
        Self {
            name: None,
            uid: None,
            looks: Vec::with_capacity(LOOKS + 1),
            lost_before,
        }
    }

    fn newest_us(&self) -> u64 {
        self.looks.last().map_or(0, |place| place.look.at_us)
    }

    fn since(&self, since_us: u64) -> impl DoubleEndedIterator<Item = &Place> {
        let from = self
            .looks
            .partition_point(|place| place.look.at_us < since_us);
        self.looks[from..].iter()
    }

    fn keep(&mut self, mut look: RecordedLook, ordered: bool) {
        let now_us = look.at_us;
        if let Some(members) = &mut look.members {
            members.sort_by_key(|member| std::cmp::Reverse(weight(member)));
            members.truncate(KEPT_MEMBERS);
            members.shrink_to_fit();
        }
        let times = self.looks.iter().map(|place| place.look.at_us);
        let old = thinning::too_old(times, now_us);
        self.looks.drain(..old);
        self.looks.push(Place { look, ordered });
        let marks = self.marks();
        if self.looks.len() > LOOKS {
            let all = self.looks.iter().map(Place::kept);
            if let Some(at) = thinning::least_missed(all, now_us, &marks) {
                self.looks.remove(at);
            }
        }
        self.thin_crowds(now_us, &marks);
    }

    fn marks(&self) -> Vec<u64> {
        let ordered = self.looks.iter().rev().filter(|place| place.ordered);
        ordered.map(|place| place.look.at_us).take(MARKS).collect()
    }

    /// Fewer looks keep their processes: those are most of what a look takes.
    fn thin_crowds(&mut self, now_us: u64, marks: &[u64]) {
        let with_crowd = |place: &&Place| place.look.members.is_some();
        let crowded = || self.looks.iter().filter(with_crowd);
        if crowded().count() <= CROWDS {
            return;
        }
        let worth = crowded().map(|place| Kept {
            at_us: place.look.at_us,
            worth: if place.ordered { WORTH_OF_ORDER } else { 1 },
        });
        let Some(least) = thinning::least_missed(worth, now_us, marks) else {
            return;
        };
        let crowded = self.looks.iter_mut();
        let mut crowded = crowded.filter(|place| place.look.members.is_some());
        if let Some(place) = crowded.nth(least) {
            place.look.members = None;
        }
    }
}

impl Place {
    fn kept(&self) -> Kept {
        let further = [
            (self.ordered, WORTH_OF_ORDER),
            (self.look.members.is_some(), WORTH_OF_MEMBERS),
            (self.look.machine.is_some(), WORTH_OF_MACHINE),
        ];
        let worth = further
            .iter()
            .filter(|(is, _)| *is)
            .map(|&(_, worth)| worth);
        Kept {
            at_us: self.look.at_us,
            worth: worth.max().unwrap_or(1),
        }
    }
}

fn recorded(look: &Look, crowd: Option<&Crowd>) -> RecordedLook {
    let members =
        crowd.map(|crowd| -> Vec<Member> { crowd.members[..crowd.len.min(MEMBERS)].to_vec() });
    RecordedLook {
        at_us: look.at.as_micros() as u64,
        target: look.target,
        machine: look.machine,
        members,
        victim_gone: look.victim_gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::psi::Psi;
    use crate::watch::{Facts, MachineFacts, TargetFacts};

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn facts(ms: u64, members: Option<&[Member]>) -> Facts<'_> {
        Facts {
            target: TargetFacts {
                current_bytes: ms << 20,
                psi: Some(Psi {
                    some_us: ms * 100,
                    full_us: 0,
                }),
                ..TargetFacts::default()
            },
            machine: Some(MachineFacts::default()),
            members,
            victim_gone: false,
        }
    }

    fn flights(targets: usize) -> Flights {
        Flights::new(Lane::new(256, 64), targets)
    }

    #[test]
    fn what_is_kept_of_five_minutes_is_bounded_and_the_order_is_whole() {
        let flights = flights(1);
        let mut recorder = flights.recorder(7, false);
        let members = [Member::default(); 20];
        let order = 100_000;
        for ms in (0..300_000).step_by(20) {
            recorder.take(at(ms), &facts(ms, Some(&members)), true, ms == order);
            if ms % 1000 == 0 {
                flights.look_after(at(ms));
            }
        }
        let flight = flights.of(7, at(5)).expect("looks");
        assert_eq!((flight.began_us, flight.lost), (5000, 0));
        assert_eq!(flight.looks.len(), LOOKS);
        let crowds = flight.looks.iter().filter_map(|look| look.members.as_ref());
        let lengths: Vec<usize> = crowds.map(Vec::len).collect();
        assert_eq!(lengths, [KEPT_MEMBERS; CROWDS]);
        let ordered = flight.looks.iter().find(|look| look.at_us == order * 1000);
        let ordered = ordered.expect("the look with the order");
        assert!(ordered.members.is_some() && ordered.machine.is_some());
        let near = |look: &&RecordedLook| look.at_us.abs_diff(order * 1000) <= 60_000;
        assert_eq!(flight.looks.iter().filter(near).count(), 7, "all around it");
        assert!(flights.of(8, at(0)).is_none());
    }

    #[test]
    fn the_quietest_gives_way() {
        let flights = flights(2);
        for (id, ms) in [(1, 10), (2, 20), (1, 30), (3, 40)] {
            flights
                .recorder(id, false)
                .take(at(ms), &facts(ms, None), true, false);
        }
        assert!(flights.of(2, at(0)).is_none());
        assert!(flights.of(1, at(0)).is_some() && flights.of(3, at(0)).is_some());
        assert_eq!(flights.unnamed(), [1, 3]);
        flights.name(3, "three".into(), Some(1000));
        assert_eq!(flights.unnamed(), [1]);
        flights.look_after(OLDEST + at(35));
        assert!(
            flights.of(1, at(0)).is_none(),
            "nothing new for five minutes"
        );
        let tail = &flights.tails(0)[0];
        assert_eq!(
            (tail.name.as_deref(), tail.uid),
            (Some("three"), Some(1000))
        );
        flights.forget(3);
        assert!(flights.tails(0).is_empty());
    }

    #[test]
    fn a_crowd_without_its_look_is_passed_over() {
        let lane = Lane::new(2, 8);
        let flights = Flights::new(lane, 1);
        let mut recorder = flights.recorder(1, true);
        let member = |pid| {
            [Member {
                pid,
                ..Member::default()
            }]
        };
        // Of four looks two find no room; their processes did.
        for pid in 1..=4u32 {
            recorder.take(at(pid.into()), &facts(0, Some(&member(pid))), true, false);
        }
        flights.look_after(at(5));
        recorder.take(at(5), &facts(0, Some(&member(5))), true, false);
        let flight = flights.of(1, at(0)).expect("looks");
        let pids = flight.looks.iter().map(|look| {
            let members = look.members.as_ref().expect("processes");
            (look.at_us / 1000, members[0].pid)
        });
        assert_eq!(pids.collect::<Vec<_>>(), [(1, 1), (2, 2), (5, 5)]);
        assert_eq!(flights.lost(), 2);
    }

    #[test]
    fn a_stall_is_seen_as_the_share_of_the_time_between_looks() {
        let flights = flights(1);
        let mut recorder = flights.recorder(1, false);
        for ms in [0, 500, 1000] {
            recorder.take(at(ms), &facts(ms, None), true, false);
        }
        assert!(flights.stalled_since(0, 100), "a tenth");
        assert!(!flights.stalled_since(0, 101));
        assert!(
            !flights.stalled_since(1_000_000, 1),
            "one look tells nothing"
        );
    }

    #[test]
    fn for_a_disk_every_look_is_kept_until_it_is_taken() {
        let flights = flights(1);
        flights.also_for_disk();
        let mut recorder = flights.recorder(1, true);
        let members = [Member::default(); 20];
        for ms in 0..3 {
            recorder.take(at(ms), &facts(0, Some(&members)), false, false);
        }
        let taken = flights.for_disk();
        assert_eq!(taken.len(), 3);
        assert!(
            taken
                .iter()
                .all(|look| look.members.as_ref().is_some_and(|m| m.len() == 20))
        );
        assert_eq!(flights.for_disk(), []);
    }
}
