//! A sequence of runs, each compared with those before it: where a test got worse.

use std::collections::HashSet;

use super::compare::{Change, compare};
use super::limit::{Figure, Limit};
use super::run::Run;
use crate::incident::Text;

/// So many runs before one are its base: enough for a steady middle, few enough that the base follows what the
/// tests become.
const BASE: usize = 10;

/// A test that is worse in a run than in those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worse {
    /// The run's place in the sequence.
    pub run: usize,
    /// What changed, against the middle of the base.
    pub change: Change,
    /// Whether it was not so in the run before already.
    pub is_new: bool,
}

/// Compares each of `runs`, the oldest first, with up to ten before it at the default limits.
#[must_use]
pub fn worsenings(runs: &[Run]) -> Vec<Worse> {
    let mut worse = Vec::new();
    let mut before: HashSet<(Text, Figure)> = HashSet::new();
    for at in 1..runs.len() {
        let base = &runs[at.saturating_sub(BASE)..at];
        let found = compare(base, &runs[at..=at], &Limit::DEFAULT);
        let now = found
            .regressions
            .iter()
            .map(|it| (it.id.clone(), it.figure))
            .collect();
        worse.extend(found.regressions.into_iter().map(|change| Worse {
            run: at,
            is_new: !before.contains(&(change.id.clone(), change.figure)),
            change,
        }));
        before = now;
    }
    worse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::simulated;

    #[test]
    fn a_doubling_is_new_in_the_run_in_which_it_begins() {
        let run = |mib: u64| {
            let tests = [
                ("tests/test_a.py::test_first", 1),
                ("tests/test_a.py::test_a", mib),
            ];
            Run::of(&simulated::record(&tests)).expect("tests")
        };
        let runs: Vec<Run> = [100, 101, 100, 200, 201, 99].map(run).into();
        let found = worsenings(&runs);
        let found: Vec<_> = found.iter().map(|it| (it.run, it.is_new)).collect();
        assert_eq!(found, [(3, true), (4, false)]);
    }
}
