//! One figure for each side of each test, from as many runs as there are, with what the machine did to all
//! tests alike taken out.

use std::collections::BTreeSet;

use super::noise::{FEWEST, Prior, Shift, lower_median, own_deviation};
use super::run::{Measured, Run};
use crate::incident::Text;

/// So many runs on both sides make wall-clock time something to judge by. A disk or a scheduler that keeps one
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

/// A test that both sides have, with its figure on each.
#[derive(Clone, Debug)]
pub(super) struct Pair<'r> {
    pub(super) id: &'r Text,
    pub(super) base: f64,
    pub(super) new: f64,
    pub(super) shift: Shift,
    /// Whether nearly all new runs tell of it: they are above nearly all of the base's, and by a third of the
    /// change at least. A test that at times takes thrice as long does so on both sides.
    pub(super) stands_out: bool,
}

/// The tests that both sides have.
pub(super) fn in_both<'r>(base: &'r [Run], new: &'r [Run]) -> Vec<&'r Text> {
    let ids = |runs: &'r [Run]| -> BTreeSet<&'r Text> {
        runs.iter().flat_map(|run| run.tests.keys()).collect()
    };
    ids(base).intersection(&ids(new)).copied().collect()
}

/// Memory, of the tests of which it is known on both sides for runs of the same sort: the first test of a
/// process is compared with firsts alone, and with xdist it is another in every run.
pub(super) fn memory<'r>(ids: &[&'r Text], base: &'r [Run], new: &'r [Run]) -> Vec<Pair<'r>> {
    ids.iter()
        .filter_map(|id| {
            let of = |runs: &'r [Run], is_first: bool| -> Vec<f64> {
                let tests = whole(runs, id).map(|(_, test)| test);
                let tests = tests.filter(|test| test.is_first == is_first);
                tests
                    .filter_map(|test| test.memory_bytes)
                    .map(|bytes| bytes as f64)
                    .collect()
            };
            [false, true]
                .into_iter()
                .find_map(|is_first| pair(id, of(base, is_first), of(new, is_first), MEMORY_FLOOR))
        })
        .collect()
}

/// Wall-clock time, and by how much the new side's machine was slower.
pub(super) fn wall<'r>(ids: &[&'r Text], base: &'r [Run], new: &'r [Run]) -> (Vec<Pair<'r>>, f64) {
    let of = |test: &Measured| Some(test.wall_us as f64);
    let pace = Pace::of(ids, [base, new], of);
    let pairs = ids.iter().filter_map(|id| {
        pair(
            id,
            pace.values(base, id, 0, of),
            pace.values(new, id, base.len(), of),
            SOFT_US,
        )
    });
    (pairs.collect(), pace.slowdown(base.len()))
}

/// Time as few runs tell it: CPU time, and what the test waited in that run, of either side, in which it waited
/// least. What was waited once more or longer may have been anybody's doing.
pub(super) fn steady<'r>(
    ids: &[&'r Text],
    base: &'r [Run],
    new: &'r [Run],
) -> (Vec<Pair<'r>>, f64) {
    let of = |test: &Measured| test.cpu_us.map(|us| us as f64);
    let pace = Pace::of(ids, [base, new], of);
    let pairs = ids.iter().filter_map(|id| {
        let waits = whole(base, id)
            .chain(whole(new, id))
            .filter_map(|(_, test)| {
                let waited = test.wall_us.saturating_sub(test.cpu_us?);
                Some(waited as f64)
            });
        let waited = waits.min_by(f64::total_cmp)?;
        let with_wait = |runs: &'r [Run], first: usize| -> Vec<f64> {
            let values = pace.values(runs, id, first, of);
            values.into_iter().map(|cpu| cpu + waited).collect()
        };
        pair(id, with_wait(base, 0), with_wait(new, base.len()), SOFT_US)
    });
    (pairs.collect(), pace.slowdown(base.len()))
}

/// The runs of a test that came to their end, with the run's number.
fn whole<'r>(runs: &'r [Run], id: &Text) -> impl Iterator<Item = (usize, &'r Measured)> {
    let tests = runs.iter().enumerate();
    let tests = tests.filter_map(move |(n, run)| Some((n, run.tests.get(id)?)));
    tests.filter(|(_, test)| test.is_whole())
}

fn pair(id: &Text, mut base: Vec<f64>, mut new: Vec<f64>, soft: f64) -> Option<Pair<'_>> {
    if base.is_empty() || new.is_empty() {
        return None;
    }
    base.sort_by(f64::total_cmp);
    new.sort_by(f64::total_cmp);
    let logarithms =
        |side: &[f64]| -> Vec<f64> { side.iter().map(|it| (it + soft).ln()).collect() };
    let own = own_deviation([&logarithms(&base), &logarithms(&new)]);
    let (was, is) = (lower_median(&base), lower_median(&new));
    let low = new[(new.len() - 1) / 5];
    let shift = Shift {
        level: was + soft,
        change: ((is + soft) / (was + soft)).ln(),
        own,
    };
    Some(Pair {
        id,
        base: was,
        new: is,
        shift,
        stands_out: low > base[(base.len() - 1) * 4 / 5] && low - was >= (is - was) / 3.0,
    })
}

/// How fast each run's machine was, as all tests together show it: the middle of how much longer each took than
/// it does in the base.
struct Pace(Vec<f64>);

impl Pace {
    fn of(
        ids: &[&Text],
        [base, new]: [&[Run]; 2],
        figure: impl Fn(&Measured) -> Option<f64>,
    ) -> Self {
        let runs = || base.iter().chain(new);
        let known: Vec<(&Text, f64)> = ids
            .iter()
            .filter_map(|id| {
                let values = whole(base, id).filter_map(|(_, test)| figure(test));
                let mut values: Vec<f64> = values.collect();
                values.sort_by(f64::total_cmp);
                let middle = (!values.is_empty()).then(|| lower_median(&values))?;
                (middle >= TELLING_US).then_some((*id, middle))
            })
            .collect();
        let pace = |run: &Run| {
            let times = known.iter().filter_map(|(id, middle)| {
                let test = run.tests.get(*id).filter(|test| test.is_whole())?;
                Some(figure(test)?.max(1.0) / middle)
            });
            let mut times: Vec<f64> = times.collect();
            times.sort_by(f64::total_cmp);
            // A few tests tell as much of themselves as of the machine.
            if times.len() < FEWEST {
                1.0
            } else {
                lower_median(&times)
            }
        };
        Self(runs().map(pace).collect())
    }

    /// A test's figures in `runs`, the first of which is the one of that number, as the base's machine would
    /// have had them.
    fn values(
        &self,
        runs: &[Run],
        id: &Text,
        first: usize,
        figure: impl Fn(&Measured) -> Option<f64>,
    ) -> Vec<f64> {
        whole(runs, id)
            .filter_map(|(n, test)| Some(figure(test)? / self.0[first + n]))
            .collect()
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
