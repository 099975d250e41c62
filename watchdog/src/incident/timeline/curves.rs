//! What the looks of the flight recorder say, as curves over time: counters become rates between two looks, and
//! where a look did not go that far a curve goes on to the next that did.

use super::super::Flight;
use crate::host::psi::Psi;
use crate::watch::facts::{MachineFacts, TargetFacts};
use crate::watch::replay::RecordedLook;

/// Values at moments, in µs from the start of the run, in order.
pub type Curve = Vec<(i64, f64)>;

/// Between two looks that are closer a rate would be noise.
const CLOSEST_US: i64 = 100_000;

/// All curves of a recording. One without points was not recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// Share of time in which some of the target's tasks waited for memory.
    pub target_some: Curve,
    /// In which all of them did.
    pub target_full: Curve,
    /// Share of time in which some of the machine's tasks did.
    pub machine_some: Curve,
    /// In which all of them did.
    pub machine_full: Curve,
    /// What was charged to the target.
    pub current_bytes: Curve,
    /// Its limit.
    pub limit_bytes: Curve,
    /// Where it is braked.
    pub high_bytes: Curve,
    /// Anonymous memory of the target.
    pub anon_bytes: Curve,
    /// What of it was in swap.
    pub swap_bytes: Curve,
    /// What the machine could still hand out.
    pub available_bytes: Curve,
    /// What the ZFS ARC held.
    pub arc_bytes: Curve,
    /// What it does not shrink below.
    pub arc_min_bytes: Curve,
    /// Swap of the machine in use.
    pub machine_swap_bytes: Curve,
    /// All memory of the machine, if it was seen.
    pub machine_total_bytes: Option<u64>,
    /// Page faults a second.
    pub faults: Curve,
    /// Those of them that waited for a disk, a second.
    pub major_faults: Curve,
    /// Pages that came back soon after they were reclaimed, a second.
    pub refaults: Curve,
    /// Pages that the target's tasks looked at in reclaim, a second.
    pub scanned: Curve,
    /// Pages that they freed, a second.
    pub reclaimed: Curve,
    /// Time that they spent in it, as tasks at once.
    pub reclaim_tasks: Curve,
}

impl Curves {
    /// Of the looks in `flight`.
    #[must_use]
    pub fn of(flight: &Flight) -> Self {
        let at = |look: &RecordedLook| super::within_reason(flight.since_start_us(look));
        let target = |read: &dyn Fn(&TargetFacts) -> Option<u64>| {
            let values = flight
                .looks
                .iter()
                .map(|look| (at(look), read(&look.target)));
            known(values)
        };
        let held = |facts: &TargetFacts| {
            // Of a look at the machine alone: not zero, but not read.
            (*facts != TargetFacts::default()).then_some(facts.current_bytes)
        };
        let machine = |read: &dyn Fn(&MachineFacts) -> Option<u64>| {
            let values = flight
                .looks
                .iter()
                .map(|look| (at(look), look.machine.as_ref().and_then(read)));
            known(values)
        };
        let share = |counter: Vec<(i64, u64)>| {
            let mut curve = rates(&counter);
            for (_, value) in &mut curve {
                *value = (*value / 1e6).min(1.0);
            }
            curve
        };
        let stall = |psi: Option<Psi>, full: bool| {
            psi.map(|psi| if full { psi.full_us } else { psi.some_us })
        };
        let reclaim = |read: fn(&crate::watch::facts::Reclaim) -> u64| {
            target(&|facts| facts.reclaim.as_ref().map(read))
        };
        let mut in_reclaim = rates(&reclaim(|it| it.stall_ns));
        for (_, value) in &mut in_reclaim {
            *value /= 1e9;
        }
        let stat = |read: fn(&crate::host::memory::MemoryStat) -> u64| {
            target(&|facts| facts.stat.as_ref().map(read))
        };
        let swap = |it: &MachineFacts| {
            Some(
                it.meminfo
                    .swap_total_bytes
                    .saturating_sub(it.meminfo.swap_free_bytes),
            )
        };
        Self {
            target_some: share(target(&|facts| stall(facts.psi, false))),
            target_full: share(target(&|facts| stall(facts.psi, true))),
            machine_some: share(machine(&|it| stall(it.psi, false))),
            machine_full: share(machine(&|it| stall(it.psi, true))),
            current_bytes: levels(target(&held)),
            limit_bytes: levels(target(&|facts| facts.limit_bytes)),
            high_bytes: levels(target(&|facts| facts.stat?.high_bytes)),
            anon_bytes: levels(stat(|it| it.anon_bytes)),
            swap_bytes: levels(stat(|it| it.swap_bytes)),
            available_bytes: levels(machine(&|it| Some(it.meminfo.available_bytes))),
            arc_bytes: levels(machine(&|it| Some(it.arc?.size_bytes))),
            arc_min_bytes: levels(machine(&|it| Some(it.arc?.c_min_bytes))),
            machine_swap_bytes: levels(machine(&swap)),
            machine_total_bytes: machine(&|it| Some(it.meminfo.total_bytes))
                .last()
                .map(|&(_, total)| total),
            faults: rates(&stat(|it| it.faults)),
            major_faults: rates(&stat(|it| it.major_faults)),
            refaults: rates(&stat(|it| it.refault_pages)),
            scanned: rates(&reclaim(|it| it.scanned_pages)),
            reclaimed: rates(&reclaim(|it| it.reclaimed_pages)),
            reclaim_tasks: in_reclaim,
        }
    }
}

impl Curves {
    /// What is needed of them to draw a window: that which lies in it, and a point before and after.
    #[must_use]
    pub fn within(mut self, window: super::Window) -> Self {
        for curve in [
            &mut self.target_some,
            &mut self.target_full,
            &mut self.machine_some,
            &mut self.machine_full,
            &mut self.current_bytes,
            &mut self.limit_bytes,
            &mut self.high_bytes,
            &mut self.anon_bytes,
            &mut self.swap_bytes,
            &mut self.available_bytes,
            &mut self.arc_bytes,
            &mut self.arc_min_bytes,
            &mut self.machine_swap_bytes,
            &mut self.faults,
            &mut self.major_faults,
            &mut self.refaults,
            &mut self.scanned,
            &mut self.reclaimed,
            &mut self.reclaim_tasks,
        ] {
            let first = curve.partition_point(|&(at, _)| at < window.from_us);
            let end = curve.partition_point(|&(at, _)| at <= window.to_us);
            curve.truncate(end.saturating_add(1));
            curve.drain(..first.saturating_sub(1).min(curve.len()));
        }
        self
    }
}

fn known(values: impl Iterator<Item = (i64, Option<u64>)>) -> Vec<(i64, u64)> {
    values
        .filter_map(|(at, value)| Some((at, value?)))
        .collect()
}

pub(super) fn levels(values: Vec<(i64, u64)>) -> Curve {
    values
        .into_iter()
        .map(|(at, value)| (at, value as f64))
        .collect()
}

/// By how much a counter grew a second, at the end of each stretch. One that goes back was begun anew.
fn rates(counter: &[(i64, u64)]) -> Curve {
    let mut curve = Curve::new();
    let Some(&(mut from, mut value)) = counter.first() else {
        return curve;
    };
    for &(at, now) in &counter[1..] {
        let Some(grown) = now.checked_sub(value) else {
            (from, value) = (at, now);
            continue;
        };
        let took = at.saturating_sub(from);
        if took < CLOSEST_US {
            continue;
        }
        if curve.is_empty() {
            curve.push((from, grown as f64 * 1e6 / took as f64));
        }
        curve.push((at, grown as f64 * 1e6 / took as f64));
        (from, value) = (at, now);
    }
    curve
}

/// The most that a curve comes to; 0 for none.
#[must_use]
pub fn most(curve: &Curve) -> f64 {
    curve.iter().map(|&(_, value)| value).fold(0.0, f64::max)
}

/// At most about four points for each of `columns` that the window has: the first, the least, the most and the
/// last, so that no peak is lost.
#[must_use]
pub fn thinned(curve: &Curve, window: super::Window, columns: usize) -> Curve {
    let column = |at: i64| (window.place(at) * columns as f64).floor() as i64;
    let mut thin = Curve::new();
    for points in curve.chunk_by(|one, other| column(one.0) == column(other.0)) {
        if points.len() <= 4 {
            thin.extend_from_slice(points);
            continue;
        }
        let by = |one: &&(i64, f64), other: &&(i64, f64)| one.1.total_cmp(&other.1);
        let mut kept = vec![points[0], points[points.len() - 1]];
        kept.extend(points.iter().min_by(by));
        kept.extend(points.iter().max_by(by));
        kept.sort_by_key(|&(at, _)| at);
        kept.dedup();
        thin.extend(kept);
    }
    thin
}
