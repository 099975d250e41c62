//! What a run measured of each of its tests: a record's suite, as far as runs are compared by it.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use crate::incident::suite::{Outcome, Test};
use crate::incident::{Record, Text, Timestamp};

/// The tests of one run, by their node ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The record's.
    pub id: Uuid,
    /// When it began.
    pub started_at: Timestamp,
    /// The most memory that all of it was charged at once.
    pub peak_bytes: Option<u64>,
    /// What was measured of each. A test that ran several times is there once, as it ran last: a plugin that
    /// repeats failed tests counts that one, too.
    pub tests: BTreeMap<Text, Measured>,
}

/// What one test took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// How it ended.
    pub outcome: Outcome,
    /// How far its process grew, with the processes that it started.
    pub memory_bytes: Option<u64>,
    /// From its setup to the end of its teardown.
    pub wall_us: u64,
    /// CPU time of its process meanwhile.
    pub cpu_us: Option<u64>,
    /// Whether it was the first test of its process, which pays for what all after it find ready.
    pub is_first: bool,
    /// Whether it looks as if it had set up something for others, too: it kept a good part of the memory that
    /// it took, or its setup is most of it. Where several processes run tests, others do so in every run.
    pub sets_up: bool,
}

/// The record is of a run without tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the record has no tests; run pytest under memwatch with its plugin: memwatch attach --report FILE -- pytest"
)]
pub struct NoTests;

impl Run {
    /// Takes from a record what there is to compare.
    ///
    /// # Errors
    /// The record has no tests.
    pub fn of(record: &Record) -> Result<Self, NoTests> {
        let suite = record
            .suite
            .as_ref()
            .filter(|suite| !suite.tests.is_empty());
        let suite = suite.ok_or(NoTests)?;
        let mut processes = HashSet::new();
        let tests = suite.tests.iter().map(|test| {
            let measured = Measured {
                outcome: test.outcome,
                memory_bytes: test.growth_bytes(),
                wall_us: test.wall_us,
                cpu_us: test.cpu_us,
                is_first: processes.insert(test.pid),
                sets_up: sets_up(test),
            };
            (test.id.clone(), measured)
        });
        Ok(Self {
            id: record.id,
            started_at: record.started_at.clone(),
            peak_bytes: record.peak_bytes,
            tests: tests.collect(),
        })
    }

    /// Whether several processes ran its tests. Which of them meets a shared fixture, an import or a cache
    /// first is then another test in every run.
    #[must_use]
    pub fn is_parallel(&self) -> bool {
        self.tests.values().filter(|test| test.is_first).count() > 1
    }

    /// The time of all its tests together: of the work, not from the first to the last, which depends on how
    /// many ran at once.
    #[must_use]
    pub fn total_us(&self) -> u64 {
        self.tests.values().map(|test| test.wall_us).sum()
    }
}

fn sets_up(test: &Test) -> bool {
    /// Less is what an allocator keeps of anything.
    const KEPT: u64 = 8 << 20;

    let keeps = match (test.retained_bytes(), test.growth_bytes()) {
        (Some(kept), Some(growth)) => kept >= KEPT.max(growth / 5),
        _ => false,
    };
    keeps
        || test
            .setup_us
            .is_some_and(|us| us.saturating_mul(2) >= test.wall_us)
}

impl Measured {
    /// Whether it ran to its end. What a test took that failed half-way says nothing of what it takes.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Passed | Outcome::Xpassed | Outcome::Xfailed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::simulated;

    #[test]
    fn a_repeated_test_counts_as_it_ran_last_and_the_first_of_a_process_is_known() {
        let mut record = simulated::record(&[("a", 10), ("b", 20), ("a", 30)]);
        let suite = record.suite.as_mut().expect("tests");
        suite.tests[0].outcome = Outcome::Failed;
        let run = Run::of(&record).expect("tests");
        let test = |id: &str| &run.tests[&Text::from(id)];
        assert_eq!(test("a").memory_bytes, Some(30 << 20));
        assert!(test("a").is_whole() && !test("a").is_first);
        suite_of_another_process(&mut record);
        assert!(Run::of(&record).expect("tests").tests[&Text::from("b")].is_first);
    }

    fn suite_of_another_process(record: &mut Record) {
        record.suite.as_mut().expect("tests").tests[1].pid += 1;
    }

    #[test]
    fn what_keeps_memory_or_is_mostly_setup_may_have_set_up_something() {
        let test = |kept: u64, setup_us| {
            let mut record = simulated::record(&[("a", 50)]);
            let test = &mut record.suite.as_mut().expect("tests").tests[0];
            test.rss_after_bytes = test.rss_before_bytes.map(|before| before + (kept << 20));
            test.setup_us = Some(setup_us);
            Run::of(&record).expect("tests").tests[&Text::from("a")].sets_up
        };
        assert!(!test(9, 0), "less than a fifth");
        assert!(test(10, 0));
        assert!(test(0, 50_000) && !test(0, 49_999));
    }

    #[test]
    fn a_record_without_tests_is_refused() {
        assert_eq!(Run::of(&simulated::record(&[])), Err(NoTests));
    }
}
