//! What is worse in new runs than in those of a base, and whether that is too much.

use std::collections::BTreeMap;

use serde::Serialize;

use super::limit::{Excess, Figure, Limit};
use super::noise::{beyond, lower_median};
use super::run::Run;
use super::sides::{self, MEMORY_FLOOR, MEMORY_NOISE, Pair, TIME_FLOOR_US, TIME_NOISE};
use crate::incident::Text;
use crate::incident::suite::Outcome;

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Runs of the base.
    pub base_runs: usize,
    /// Runs that were compared with it.
    pub new_runs: usize,
    /// Tests that both have.
    pub compared: usize,
    /// What a test's time was judged by.
    pub time_is: Basis,
    /// How much longer all tests took alike, which is the machine's doing or that of code that all share.
    pub slowdown: f64,
    /// The limits that were crossed, as they are written.
    pub crossed: Vec<String>,
    /// What is worse by a limit and beyond the noise, the largest first.
    pub regressions: Vec<Change>,
    /// Whose wall-clock time is worse, but not what a single run can be believed about.
    pub unsure: Vec<Change>,
    /// Those that ended differently.
    pub ended_differently: Vec<Ended>,
    /// Those that the base does not have.
    pub new_tests: Vec<Text>,
    /// Those that only the base has.
    pub gone_tests: Vec<Text>,
    /// The runs as wholes.
    pub totals: Vec<Total>,
}

/// What a test's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Wall-clock time: there are three runs or more on both sides.
    Wall,
    /// CPU time and the least that it waited in any run: there are fewer.
    Cpu,
}

/// A test's figure on both sides: bytes, or microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The test.
    pub id: Text,
    /// Of what.
    pub figure: Figure,
    /// The middle of the base's runs.
    pub base: u64,
    /// The middle of the new ones.
    pub new: u64,
}

/// A test that ended differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// The test.
    pub id: Text,
    /// How it mostly ended in the base; `None` if it was not there.
    pub base: Option<Outcome>,
    /// How it mostly ends now.
    pub new: Outcome,
}

/// A figure of the runs as wholes: the middle one of each side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Total {
    /// Of what.
    pub figure: Figure,
    /// In the base.
    pub base: u64,
    /// Now.
    pub new: u64,
}

/// Compares. Both sides must have a run.
#[must_use]
pub fn compare(base: &[Run], new: &[Run], limits: &[Limit]) -> Comparison {
    let ids = sides::in_both(base, new);
    let memory = sides::memory(&ids, base, new);
    let (wall, wall_slowdown) = sides::wall(&ids, base, new);
    let many = base.len().min(new.len()) >= sides::RUNS_FOR_WALL;
    let (time_is, time, slowdown) = if many {
        (Basis::Wall, wall.clone(), wall_slowdown)
    } else {
        let (steady, slowdown) = sides::steady(&ids, base, new);
        (Basis::Cpu, steady, slowdown)
    };

    let memory = worse(&memory, Figure::Memory, limits);
    let time = worse(&time, Figure::Time, limits);
    let mut unsure = if many {
        Vec::new()
    } else {
        worse(&wall, Figure::Time, limits)
    };
    unsure.retain(|change| !time.iter().any(|it| it.change.id == change.change.id));

    let mut crossed = Vec::new();
    let mut regressions = [memory, time].concat();
    regressions.sort_by(|a, b| b.change_factor().total_cmp(&a.change_factor()));
    unsure.sort_by(|a, b| b.change_factor().total_cmp(&a.change_factor()));
    for limit in limits {
        if regressions.iter().any(|it| it.crossed.contains(limit)) {
            crossed.push(*limit);
        }
    }
    let totals = totals(&ids, base, new);
    let ended_differently = ended_differently(base, new);
    for limit in limits {
        let is_crossed = match limit {
            Limit::Test(..) => false,
            Limit::Total(figure, excess) => totals
                .iter()
                .any(|total| total.total.figure == *figure && total.is_worse(*excess)),
            Limit::Failed(count) => {
                let failed = ended_differently.iter();
                let failed = failed
                    .filter(|it| it.new.is_failure() && !it.base.is_some_and(Outcome::is_failure));
                failed.count() as u64 >= *count
            }
        };
        if is_crossed {
            crossed.push(*limit);
        }
    }
    let change = |it: Worse| it.change;
    Comparison {
        base_runs: base.len(),
        new_runs: new.len(),
        compared: ids.len(),
        time_is,
        slowdown,
        crossed: crossed.iter().map(Limit::to_string).collect(),
        regressions: regressions.into_iter().map(change).collect(),
        unsure: unsure.into_iter().map(change).collect(),
        ended_differently,
        new_tests: only_in(new, base),
        gone_tests: only_in(base, new),
        totals: totals.into_iter().map(|it| it.total).collect(),
    }
}

impl Comparison {
    /// Whether a limit was crossed.
    #[must_use]
    pub fn is_regression(&self) -> bool {
        !self.crossed.is_empty()
    }
}

/// A change beyond the noise, and the limits that it crosses.
#[derive(Clone, Debug)]
struct Worse {
    change: Change,
    crossed: Vec<Limit>,
}

impl Worse {
    fn change_factor(&self) -> f64 {
        self.change.new as f64 / self.change.base.max(1) as f64
    }
}

/// Those of `pairs` that are beyond the noise and worse by one of `limits` at least.
fn worse(pairs: &[Pair<'_>], figure: Figure, limits: &[Limit]) -> Vec<Worse> {
    let (prior, floor) = match figure {
        Figure::Memory => (MEMORY_NOISE, MEMORY_FLOOR),
        Figure::Time => (TIME_NOISE, TIME_FLOOR_US),
    };
    let shifts: Vec<_> = pairs.iter().map(|pair| pair.shift).collect();
    let found = beyond(&shifts, prior);
    let found = pairs
        .iter()
        .zip(found)
        .filter(|(pair, is_beyond)| *is_beyond && pair.stands_out && pair.new - pair.base >= floor);
    let mut worse: Vec<_> = found
        .map(|(pair, _)| Worse {
            change: Change {
                id: pair.id.clone(),
                figure,
                base: pair.base as u64,
                new: pair.new as u64,
            },
            crossed: limits
                .iter()
                .copied()
                .filter(|limit| {
                    matches!(limit, Limit::Test(of, excess)
                        if *of == figure && excess.is_met(pair.base, pair.new))
                })
                .collect(),
        })
        .collect();
    worse.retain(|it| !it.crossed.is_empty());
    worse
}

/// A figure of both sides' runs, and whether all of the new are above all of the base's.
struct Apart {
    total: Total,
    is_apart: bool,
}

impl Apart {
    fn is_worse(&self, excess: Excess) -> bool {
        self.is_apart && excess.is_met(self.total.base as f64, self.total.new as f64)
    }
}

/// Time of the tests that both sides have, and the most memory that was held at once.
fn totals(ids: &[&Text], base: &[Run], new: &[Run]) -> Vec<Apart> {
    let time = |run: &Run| {
        let tests = ids.iter().filter_map(|id| run.tests.get(*id));
        Some(tests.map(|test| test.wall_us).sum::<u64>())
    };
    let of = |figure: Figure, value: &dyn Fn(&Run) -> Option<u64>| {
        let side = |runs: &[Run]| {
            let mut values: Vec<u64> = runs.iter().filter_map(value).collect();
            values.sort_unstable();
            values
        };
        let (was, is) = (side(base), side(new));
        Some(Apart {
            is_apart: is.first()? > was.last()?,
            total: Total {
                figure,
                base: lower_median(&was),
                new: lower_median(&is),
            },
        })
    };
    let memory = of(Figure::Memory, &|run| run.peak_bytes);
    [memory, of(Figure::Time, &time)]
        .into_iter()
        .flatten()
        .collect()
}

/// Tests whose most frequent outcome is another, and new ones that fail.
fn ended_differently(base: &[Run], new: &[Run]) -> Vec<Ended> {
    let was = outcomes(base);
    let is = outcomes(new).into_iter();
    is.filter_map(|(id, outcome)| {
        let before = was.get(id).copied();
        let differs = before.map_or(outcome.is_failure(), |before| before != outcome);
        differs.then(|| Ended {
            id: id.clone(),
            base: before,
            new: outcome,
        })
    })
    .collect()
}

/// How each test ended most often; of several equally often, the latest run's.
fn outcomes(runs: &[Run]) -> BTreeMap<&Text, Outcome> {
    let mut all: BTreeMap<&Text, Vec<Outcome>> = BTreeMap::new();
    for run in runs {
        for (id, test) in &run.tests {
            all.entry(id).or_default().push(test.outcome);
        }
    }
    let most = |outcomes: Vec<Outcome>| {
        let count = |outcome: &Outcome| outcomes.iter().filter(|it| *it == outcome).count();
        // The last of several equal ones.
        outcomes.iter().copied().max_by_key(count)
    };
    let most = all
        .into_iter()
        .filter_map(|(id, outcomes)| Some((id, most(outcomes)?)));
    most.collect()
}

fn only_in(these: &[Run], those: &[Run]) -> Vec<Text> {
    let mut ids: Vec<Text> = these
        .iter()
        .flat_map(|run| run.tests.keys())
        .filter(|id| !those.iter().any(|run| run.tests.contains_key(*id)))
        .cloned()
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
