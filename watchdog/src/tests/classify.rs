//! Which tests are slow, which take much memory, and which are neither.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::noise::lower_median;
use super::run::Run;
use crate::incident::Text;

/// What a test can be marked with, by the name that pytest's `-m` takes. A test with none of them is fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Marker {
    /// It takes long.
    Slow,
    /// It takes much memory.
    MemoryIntensive,
}

/// From where on a test is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Wall-clock time.
    pub slow: Duration,
    /// Growth of its process while it runs.
    pub memory_bytes: u64,
}

/// A test, what it takes, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Classified {
    /// The test.
    pub id: Text,
    /// The middle of its runs.
    pub wall_us: u64,
    /// The middle of its runs; `None` if none of them knows it.
    pub memory_bytes: Option<u64>,
    /// What it is marked with.
    pub markers: Vec<Marker>,
}

impl Bounds {
    /// A second is what a person waits without losing the thread; a suite of a thousand such tests takes a
    /// quarter of an hour, so whoever leaves the slow ones out has the answer before that.
    pub const SLOW: Duration = Duration::from_secs(1);
    /// A worker of pytest with its imports holds 50 to 100 MiB. A test that takes as much again is what decides
    /// how many workers fit.
    pub const MEMORY_BYTES: u64 = 100 << 20;
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            slow: Self::SLOW,
            memory_bytes: Self::MEMORY_BYTES,
        }
    }
}

impl Marker {
    /// As pytest knows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::MemoryIntensive => "memory_intensive",
        }
    }
}

/// All tests of `runs`, by their names. What failed half-way, was skipped or killed counts only where nothing
/// else is known of a test: a test that is killed for its memory is memory-intensive.
#[must_use]
pub fn classify(runs: &[Run], bounds: Bounds) -> Vec<Classified> {
    let mut tests: BTreeMap<&Text, Vec<_>> = BTreeMap::new();
    for run in runs {
        for (id, test) in &run.tests {
            tests.entry(id).or_default().push(test);
        }
    }
    let classified = tests.into_iter().map(|(id, mut runs)| {
        if runs.iter().any(|test| test.is_whole()) {
            runs.retain(|test| test.is_whole());
        }
        // What it takes where it finds ready what all need. A test that does set up something in every run is
        // marked by that: whoever leaves the marked ones out does not want it done.
        let later = runs.iter().filter(|test| !test.is_first);
        let memory = match middle(later.filter_map(|test| test.memory_bytes).collect()) {
            None => middle(runs.iter().filter_map(|test| test.memory_bytes).collect()),
            memory => memory,
        };
        let wall_us = middle(runs.iter().map(|test| test.wall_us).collect()).unwrap_or(0);
        let is_slow = u128::from(wall_us) >= bounds.slow.as_micros();
        let is_large = memory.is_some_and(|bytes| bytes >= bounds.memory_bytes);
        let markers = [(is_slow, Marker::Slow), (is_large, Marker::MemoryIntensive)];
        let markers = markers
            .into_iter()
            .filter_map(|(is, marker)| is.then_some(marker));
        Classified {
            id: id.clone(),
            wall_us,
            memory_bytes: memory,
            markers: markers.collect(),
        }
    });
    classified.collect()
}

fn middle(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    (!values.is_empty()).then(|| lower_median(&values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::suite::Outcome;
    use crate::tests::simulated;

    /// A run of these tests after one that begins the process.
    fn run(tests: &[(&str, u64, u64)], outcome: Outcome) -> Run {
        let mut record = simulated::record(&[("first", 400)]);
        let suite = record.suite.as_mut().expect("tests");
        suite.tests.extend(tests.iter().map(|(id, mib, ms)| {
            let mut test = simulated::test(id, mib << 20, ms * 1000);
            test.outcome = outcome;
            test
        }));
        Run::of(&record).expect("tests")
    }

    fn markers(runs: &[Run], id: &str) -> Vec<Marker> {
        let tests = classify(runs, Bounds::default());
        let test = tests.into_iter().find(|test| test.id.as_str() == id);
        test.expect("a test of that name").markers
    }

    #[test]
    fn a_test_is_slow_or_large_or_both_from_the_bounds_on() {
        let tests = [
            ("fast", 99, 999),
            ("slow", 0, 1000),
            ("large", 100, 1),
            ("both", 500, 5000),
        ];
        let runs = [run(&tests, Outcome::Passed)];
        assert_eq!(markers(&runs, "fast"), []);
        assert_eq!(markers(&runs, "slow"), [Marker::Slow]);
        assert_eq!(markers(&runs, "large"), [Marker::MemoryIntensive]);
        assert_eq!(
            markers(&runs, "both"),
            [Marker::Slow, Marker::MemoryIntensive]
        );
    }

    #[test]
    fn the_middle_of_the_runs_counts_and_a_failure_only_where_nothing_else_is_known() {
        let passed = |mib| run(&[("a", mib, 1)], Outcome::Passed);
        let killed = run(&[("a", 900, 1)], Outcome::Killed);
        assert_eq!(markers(&[passed(1), passed(900), passed(2)], "a"), []);
        assert_eq!(
            markers(&[passed(1), killed.clone(), killed.clone()], "a"),
            []
        );
        assert_eq!(markers(&[killed], "a"), [Marker::MemoryIntensive]);
    }

    #[test]
    fn what_the_first_test_of_a_process_pays_for_is_not_its_own_where_that_is_known() {
        let alone = run(&[], Outcome::Passed);
        let mut other = simulated::record(&[("other", 400), ("first", 3)]);
        assert_eq!(
            markers(std::slice::from_ref(&alone), "first"),
            [Marker::MemoryIntensive]
        );
        other.id = uuid::Uuid::now_v7();
        let other = Run::of(&other).expect("tests");
        assert_eq!(markers(&[alone, other], "first"), []);
    }
}
