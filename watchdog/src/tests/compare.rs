//! What is worse in new runs than in those of a base, and whether that is too much.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::limit::{Excess, Figure, Limit};
use super::noise::{beyond, lower_median};
use super::pair::Pair;
use super::run::Run;
use super::sides::{MEMORY_FLOOR, MEMORY_NOISE, RUNS_FOR_WALL, Sides, TIME_FLOOR_US, TIME_NOISE};
use crate::incident::Text;
use crate::incident::suite::Outcome;

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Runs of the base.
    pub base_runs: usize,
    /// Runs that were compared with it.
    pub new_runs: usize,
    /// Tests that ran to their end on both sides.
    pub compared: usize,
    /// What a test's time was judged by.
    pub time_is: Basis,
    /// How much longer all tests took alike, which is the machine's doing or that of code that all share.
    pub slowdown: f64,
    /// The limits that were crossed, as they are written.
    pub crossed: Vec<String>,
    /// What is worse by a limit and beyond the noise, the largest first.
    pub regressions: Vec<Change>,
    /// What looks worse, but cannot be told from what happens anyway.
    pub unsure: Vec<Unsure>,
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

/// A change that crosses a limit and is none to believe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unsure {
    /// What changed.
    #[serde(flatten)]
    pub change: Change,
    /// Why it is not believed.
    pub why: Doubt,
}

/// Why a change is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// It took longer, but not of the CPU, and there are fewer than three runs on a side.
    Waited,
    /// In all runs of one side it set up something for other tests of its process, and in none of the other's.
    SetUp,
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
    let sides = Sides::new(base, new);
    let memory = sides.memory();
    let (wall, wall_slowdown) = sides.wall();
    let (steady, steady_slowdown) = sides.steady();
    let (time_is, slowdown) = if base.len().min(new.len()) >= RUNS_FOR_WALL {
        (Basis::Wall, wall_slowdown)
    } else {
        (Basis::Cpu, steady_slowdown)
    };

    let (memory, mut unsure) = worse(&memory, Figure::Memory, limits);
    // Of a test that ran too seldom, or set up something in some of the runs, fewer runs tell than there are.
    let by_wall = wall.iter().filter(|pair| pair.runs >= RUNS_FOR_WALL);
    let by_wall: HashSet<&Text> = by_wall.map(|pair| pair.id).collect();
    let is_by_wall = |it: &Worse| by_wall.contains(&it.change.id);
    let (mut time, unsure_wall) = worse(&wall, Figure::Time, limits);
    let (steady, unsure_steady) = worse(&steady, Figure::Time, limits);
    let waited = time
        .extract_if(.., |it| !is_by_wall(it))
        .collect::<Vec<_>>();
    time.extend(steady.into_iter().filter(|it| !is_by_wall(it)));
    unsure.extend(unsure_wall.into_iter().filter(|(it, _)| is_by_wall(it)));
    unsure.extend(unsure_steady.into_iter().filter(|(it, _)| !is_by_wall(it)));
    unsure.extend(waited.into_iter().map(|it| (it, Doubt::Waited)));
    let mut known: HashSet<(Text, Figure)> = time.iter().map(Worse::key).collect();
    unsure.retain(|(it, _)| known.insert(it.key()));

    let mut crossed = Vec::new();
    let mut regressions = [memory, time].concat();
    regressions.sort_by(|a, b| b.change_factor().total_cmp(&a.change_factor()));
    unsure.sort_by(|(a, _), (b, _)| b.change_factor().total_cmp(&a.change_factor()));
    for limit in limits {
        if regressions.iter().any(|it| it.crossed.contains(limit)) {
            crossed.push(*limit);
        }
    }
    let totals = totals(base, new);
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
    Comparison {
        base_runs: base.len(),
        new_runs: new.len(),
        compared: sides.tests(),
        time_is,
        slowdown,
        crossed: crossed.iter().map(Limit::to_string).collect(),
        regressions: regressions.into_iter().map(|it| it.change).collect(),
        unsure: unsure
            .into_iter()
            .map(|(it, why)| Unsure {
                change: it.change,
                why,
            })
            .collect(),
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
    fn key(&self) -> (Text, Figure) {
        (self.change.id.clone(), self.change.figure)
    }

    fn change_factor(&self) -> f64 {
        self.change.new as f64 / self.change.base.max(1) as f64
    }
}

/// Those of `pairs` that are beyond the noise and worse by one of `limits` at least; and those that would be if
/// their sides could be compared.
fn worse(
    pairs: &[Pair<'_>],
    figure: Figure,
    limits: &[Limit],
) -> (Vec<Worse>, Vec<(Worse, Doubt)>) {
    let (prior, floor) = match figure {
        Figure::Memory => (MEMORY_NOISE, MEMORY_FLOOR),
        Figure::Time => (TIME_NOISE, TIME_FLOOR_US),
    };
    let worse = |pair: &Pair<'_>| {
        let crosses = |limit: &&Limit| {
            matches!(limit, Limit::Test(of, excess)
                if *of == figure && excess.is_met(pair.base, pair.new))
        };
        let worse = Worse {
            change: Change {
                id: pair.id.clone(),
                figure,
                base: pair.base as u64,
                new: pair.new as u64,
            },
            crossed: limits.iter().filter(crosses).copied().collect(),
        };
        let is_worse = pair.stands_out && pair.new - pair.base >= floor;
        (is_worse && !worse.crossed.is_empty()).then_some(worse)
    };
    let (fair, unfair): (Vec<&Pair<'_>>, Vec<_>) = pairs.iter().partition(|pair| pair.is_fair);
    let shifts: Vec<_> = fair.iter().map(|pair| pair.shift).collect();
    let found = fair.into_iter().zip(beyond(&shifts, prior));
    let found = found.filter_map(|(pair, is_beyond)| is_beyond.then(|| worse(pair))?);
    let unfair = unfair.into_iter().filter_map(worse);
    (
        found.collect(),
        unfair.map(|it| (it, Doubt::SetUp)).collect(),
    )
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
fn totals(base: &[Run], new: &[Run]) -> Vec<Apart> {
    let in_any = |runs: &[Run], id: &Text| runs.iter().any(|run| run.tests.contains_key(id));
    let time = |run: &Run| {
        let tests = run.tests.iter();
        let tests = tests.filter(|(id, _)| in_any(base, id) && in_any(new, id));
        Some(tests.map(|(_, test)| test.wall_us).sum::<u64>())
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
