//! Who ran: a lane for each process that was looked at, ran tests, or had something done to it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::suite::Outcome;
use super::super::{Comm, Record, Text};
use super::Curve;
use super::marks::{Mark, signed};

/// A process over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Lane {
    /// The process id.
    pub pid: u32,
    /// Its name, if anybody has told it.
    pub comm: Option<Comm>,
    /// Its worker of pytest-xdist.
    pub worker: Option<Text>,
    /// Its anonymous memory, as looked at.
    pub anon_bytes: Curve,
    /// The tests that it ran.
    pub bars: Vec<Bar>,
    /// What happened to it.
    pub marks: Vec<Mark>,
    /// The most memory that it was seen to hold.
    pub peak_bytes: u64,
    /// Whether it was chosen or ended.
    pub is_victim: bool,
    /// Whether it was the nearest that was not chosen.
    pub is_rival: bool,
}

/// A test in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Its place among the record's tests.
    pub number: usize,
    /// When it began.
    pub from_us: i64,
    /// When it ended.
    pub to_us: i64,
    /// Its node id.
    pub id: Text,
    /// How it ended.
    pub outcome: Outcome,
}

/// The lanes of `record`, those that matter first: victims, the nearest rivals, workers that ran tests, and then by
/// the memory that they held.
#[must_use]
pub fn lanes(record: &Record, marks: &[Mark]) -> Vec<Lane> {
    // A number may be given again: with the start time it names one process.
    let mut seen: BTreeMap<(u32, u64), Lane> = BTreeMap::new();
    let mut latest: HashMap<u32, u64> = HashMap::new();
    if let Some(flight) = &record.flight {
        for look in &flight.looks {
            let at = super::within_reason(flight.since_start_us(look));
            for member in look.members.iter().flatten() {
                let name = (member.pid, member.start_ticks);
                let lane = seen.entry(name).or_insert_with(|| Lane::new(member.pid));
                lane.comm = Some(Comm::new(&member.comm));
                lane.anon_bytes.push((at, member.anon_bytes as f64));
                lane.peak_bytes = lane.peak_bytes.max(member.anon_bytes);
                latest.insert(member.pid, member.start_ticks);
            }
        }
    }
    let chosen = record
        .interventions
        .iter()
        .filter_map(|it| it.victim.as_ref());
    let ended = record.victims.iter().map(|victim| &victim.process);
    for process in chosen.chain(ended) {
        let lane = lane(&mut seen, &latest, process.pid, process.start_time_ticks);
        lane.comm = lane.comm.or(Some(process.comm));
        lane.is_victim = true;
        lane.peak_bytes = lane
            .peak_bytes
            .max(process.anon_bytes.or(process.rss_bytes).unwrap_or(0));
    }
    for rival in record
        .interventions
        .iter()
        .filter_map(|it| it.rivals.first())
    {
        let lane = lane(
            &mut seen,
            &latest,
            rival.process.pid,
            rival.process.start_time_ticks,
        );
        lane.comm = lane.comm.or(Some(rival.process.comm));
        lane.is_rival = true;
        lane.peak_bytes = lane.peak_bytes.max(rival.process.anon_bytes.unwrap_or(0));
    }
    for victim in &record.kernel_oom {
        let lane = lane(&mut seen, &latest, victim.pid, None);
        lane.comm = lane.comm.or(Some(victim.comm));
        lane.is_victim = true;
    }
    let tests = record.suite.iter().flat_map(|suite| &suite.tests);
    for (number, test) in tests.enumerate() {
        let lane = lane(&mut seen, &latest, test.pid, None);
        lane.worker = lane.worker.take().or_else(|| test.worker.clone());
        lane.peak_bytes = lane.peak_bytes.max(test.peak_bytes.unwrap_or(0));
        lane.bars.push(Bar {
            number,
            from_us: signed(test.at_us),
            to_us: signed(test.at_us.saturating_add(test.wall_us)),
            id: test.id.clone(),
            outcome: test.outcome,
        });
    }
    let of_lanes: HashSet<u32> = seen.keys().map(|&(pid, _)| pid).collect();
    for mark in marks {
        let Some(pid) = mark.pid.filter(|pid| of_lanes.contains(pid)) else {
            continue;
        };
        lane(&mut seen, &latest, pid, None).marks.push(mark.clone());
    }
    let mut lanes: Vec<Lane> = seen.into_values().collect();
    lanes.sort_by_key(|lane| {
        let rank = match () {
            () if lane.is_victim => 0,
            () if lane.is_rival => 1,
            () if !lane.bars.is_empty() => 2,
            () => 3,
        };
        (rank, std::cmp::Reverse(lane.peak_bytes), lane.pid)
    });
    lanes
}

fn lane<'l>(
    seen: &'l mut BTreeMap<(u32, u64), Lane>,
    latest: &HashMap<u32, u64>,
    pid: u32,
    start: Option<u64>,
) -> &'l mut Lane {
    let start = start.filter(|&start| seen.contains_key(&(pid, start)));
    let start = start.or_else(|| latest.get(&pid).copied()).unwrap_or(0);
    seen.entry((pid, start)).or_insert_with(|| Lane::new(pid))
}

impl Lane {
    fn new(pid: u32) -> Self {
        Self {
            pid,
            comm: None,
            worker: None,
            anon_bytes: Curve::new(),
            bars: Vec::new(),
            marks: Vec::new(),
            peak_bytes: 0,
            is_victim: false,
            is_rival: false,
        }
    }
}
