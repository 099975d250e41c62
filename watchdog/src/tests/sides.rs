//! One figure for each side of each test, from as many runs as there are, with what the machine did to all
//! tests alike taken out. Which runs of a test can be compared is `pair`'s.

use std::collections::BTreeMap;

use super::noise::{FEWEST, Prior, lower_median};
use super::pair::{Pair, Values};
use super::run::{Measured, Run};
use crate::incident::Text;

/// So many runs of a test on both sides make wall-clock time something to judge it by. A disk or a scheduler that keeps one
/// test waiting doubles its time in one run of fifty; in two runs of three, about never.
pub(super) const RUNS_FOR_WALL: usize = 3;

/// Memory by which a test of any size may move: allocators take arenas of a MiB each, and keep some or none.
pub(super) const MEMORY_FLOOR: f64 = (8 << 20) as f64;
/// Time by which a test of any length may move: a collection of garbage, a slice that somebody else ran in.
pub(super) const TIME_FLOOR_US: f64 = 50_000.0;
/// Added to both sides' times, so that what is a few milliseconds long has no large changes.
const SOFT_US: f64 = 10_000.0;
/// Tests from here on tell how fast the machine was.
const TELLING_US: f64 = 20_000.0;

pub(super) const MEMORY_NOISE: Prior = Prior {
    least: 0.02,
    guess: 0.05,
    most_by_tail: 0.12,
};
pub(super) const TIME_NOISE: Prior = Prior {
    least: 0.03,
    guess: 0.12,
    most_by_tail: 0.12,
};

/// The tests that both sides have, with their runs.
pub(super) struct Sides<'r> {
    rows: Vec<Row<'r>>,
    /// How many runs the base has. Its runs are numbered first.
    base_runs: usize,
    runs: usize,
    is_parallel: bool,
}

/// The runs of one test that came to their end, with their numbers.
struct Row<'r> {
    id: &'r Text,
    base: Vec<(usize, &'r Measured)>,
    new: Vec<(usize, &'r Measured)>,
}

/// A figure that may be known of a run of a test.
trait Of: Fn(&Measured) -> Option<f64> + Copy {}
impl<F: Fn(&Measured) -> Option<f64> + Copy> Of for F {}

impl<'r> Sides<'r> {
    pub(super) fn new(base: &'r [Run], new: &'r [Run]) -> Self {
        let mut rows: BTreeMap<&'r Text, Row<'r>> = BTreeMap::new();
        for (number, run) in base.iter().chain(new).enumerate() {
            for (id, test) in run.tests.iter().filter(|(_, test)| test.is_whole()) {
                let row = rows.entry(id).or_insert_with(|| Row::new(id));
                let is_base = number < base.len();
                let side = if is_base { &mut row.base } else { &mut row.new };
                side.push((number, test));
            }
        }
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.retain(|row| !row.base.is_empty() && !row.new.is_empty());
        Self {
            rows,
            base_runs: base.len(),
            runs: base.len() + new.len(),
            is_parallel: base.iter().chain(new).any(Run::is_parallel),
        }
    }

    /// How many tests ran to their end on both.
    pub(super) fn tests(&self) -> usize {
        self.rows.len()
    }

    /// Memory.
    pub(super) fn memory(&self) -> Vec<Pair<'r>> {
        let of = |test: &Measured| test.memory_bytes.map(|bytes| bytes as f64);
        let pace = Pace(vec![1.0; self.runs]);
        self.pairs(
            |row| [pace.values(&row.base, of), pace.values(&row.new, of)],
            MEMORY_FLOOR,
        )
    }

    /// Wall-clock time, and by how much the new side's machine was slower.
    pub(super) fn wall(&self) -> (Vec<Pair<'r>>, f64) {
        let of = |test: &Measured| Some(test.wall_us as f64);
        let pace = self.pace(of);
        let pairs = self.pairs(
            |row| [pace.values(&row.base, of), pace.values(&row.new, of)],
            SOFT_US,
        );
        (pairs, pace.slowdown(self.base_runs))
    }

    /// Time as few runs tell it: CPU time, and what the test waited in that run, of either side, in which it
    /// waited least. What was waited once more or longer may have been anybody's doing.
    pub(super) fn steady(&self) -> (Vec<Pair<'r>>, f64) {
        let of = |test: &Measured| test.cpu_us.map(|us| us as f64);
        let waited = |test: &Measured| Some(test.wall_us.saturating_sub(test.cpu_us?) as f64);
        let pace = self.pace(of);
        let values = |row: &Row<'r>| {
            let runs = row.base.iter().chain(&row.new);
            let least = runs
                .filter_map(|(_, test)| waited(test))
                .min_by(f64::total_cmp);
            [&row.base, &row.new].map(|side| {
                let values = pace.values(side, of).into_iter();
                values
                    .map(|(test, cpu)| (test, cpu + least.unwrap_or(0.0)))
                    .collect()
            })
        };
        (self.pairs(values, SOFT_US), pace.slowdown(self.base_runs))
    }

    fn pairs(&self, values: impl Fn(&Row<'r>) -> [Values<'r>; 2], soft: f64) -> Vec<Pair<'r>> {
        let pairs = self.rows.iter();
        let pairs = pairs.filter_map(|row| Pair::of(row.id, values(row), self.is_parallel, soft));
        pairs.collect()
    }

    /// How fast each run's machine was, as all tests together show it: the middle of how much longer each took
    /// than it does in the base.
    fn pace(&self, of: impl Of) -> Pace {
        let mut times = vec![Vec::new(); self.runs];
        for row in &self.rows {
            let mut base: Vec<f64> = row.base.iter().filter_map(|(_, test)| of(test)).collect();
            base.sort_by(f64::total_cmp);
            let middle = if base.is_empty() {
                0.0
            } else {
                lower_median(&base)
            };
            if middle < TELLING_US {
                continue;
            }
            for (number, test) in row.base.iter().chain(&row.new) {
                times[*number].extend(of(test).map(|time| time.max(1.0) / middle));
            }
        }
        let paces = times.into_iter().map(|mut times| {
            times.sort_by(f64::total_cmp);
            // A few tests tell as much of themselves as of the machine.
            if times.len() < FEWEST {
                1.0
            } else {
                lower_median(&times)
            }
        });
        Pace(paces.collect())
    }
}

impl<'r> Row<'r> {
    fn new(id: &'r Text) -> Self {
        Self {
            id,
            base: Vec::new(),
            new: Vec::new(),
        }
    }
}

/// By how much each run's machine was slower than the base's.
struct Pace(Vec<f64>);

impl Pace {
    /// A figure of these runs of a test as the base's machine would have had it.
    fn values<'r>(&self, runs: &[(usize, &'r Measured)], of: impl Of) -> Values<'r> {
        let values = runs.iter();
        let values = values.filter_map(|(n, test)| Some((*test, of(test)? / self.0[*n])));
        values.collect()
    }

    fn slowdown(&self, base_runs: usize) -> f64 {
        let middle = |part: &[f64]| {
            let mut part = part.to_vec();
            part.sort_by(f64::total_cmp);
            lower_median(&part)
        };
        middle(&self.0[base_runs..]) / middle(&self.0[..base_runs])
    }
}
