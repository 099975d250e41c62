//! The limits of one test: how much its process may grow and how long it may take. Pure.
//!
//! A test that is over a limit is asked to fail, and if it does not, its process is to end. How long that may
//! take the slope decides: what has doubled its limit meanwhile is not waited for. A test that was asked and is
//! in its teardown then has failed: that has the limits anew, as fixtures of a whole session may end in it. Whom
//! the pressure of the target hits is [`super::policy`]'s.

use std::time::Duration;

/// How long a test that was asked to fail is given. Code in C answers when it returns; the longest call that
/// was measured and returns at all by itself takes a fifth of a second, and ten times that under reclaim.
pub const GRACE: Duration = Duration::from_secs(2);

/// A test that runs, with its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunningTest {
    /// Which, of its process.
    pub serial: u64,
    /// For how long.
    pub elapsed: Duration,
    /// For how long it has been in its teardown, if it is.
    pub teardown: Option<Duration>,
    /// By how much its process and those that it started have grown.
    pub growth_bytes: u64,
    /// The most by which they may.
    pub memory_limit_bytes: Option<u64>,
    /// The longest that it may take.
    pub timeout: Option<Duration>,
    /// Whether it listens when it is asked.
    pub can_abort: bool,
}

/// The limit that a test is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// It has grown so much, and may so much.
    Memory {
        /// Bytes.
        growth_bytes: u64,
        /// Bytes.
        limit_bytes: u64,
    },
    /// It has taken so long, and may so long.
    Time {
        /// So far.
        elapsed: Duration,
        /// At most.
        limit: Duration,
    },
}

/// What is to be done to a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestOrder {
    /// Ask it to fail.
    Abort(Excess),
    /// End its process and those that it started.
    Kill(Excess),
}

/// The rule for the tests of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestRule {
    asked: Option<Asked>,
    answered: Option<Answered>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    serial: u64,
    at: Duration,
    excess: Excess,
    in_teardown: bool,
    was_killed: bool,
}

/// A test that has failed as it was asked to.
#[derive(Clone, Copy, Debug)]
struct Answered {
    serial: u64,
    /// What it had not given back, if memory was what it was asked for.
    kept_bytes: u64,
}

impl TestRule {
    /// Takes in what runs, and decides.
    pub fn step(&mut self, now: Duration, test: &RunningTest) -> Option<TestOrder> {
        self.take_answer(test);
        let excess = excess(&self.judged(test))?;
        match self.asked.filter(|asked| asked.serial == test.serial) {
            None => {
                self.asked = Some(Asked {
                    serial: test.serial,
                    at: now,
                    excess,
                    in_teardown: test.teardown.is_some(),
                    was_killed: !test.can_abort,
                });
                Some(if test.can_abort {
                    TestOrder::Abort(excess)
                } else {
                    TestOrder::Kill(excess)
                })
            }
            Some(asked) if !asked.was_killed => {
                let doubled = matches!(
                    excess,
                    Excess::Memory { growth_bytes, limit_bytes } if growth_bytes / 2 >= limit_bytes
                );
                let over = now.saturating_sub(asked.at) >= GRACE || doubled;
                over.then(|| {
                    self.asked = Some(Asked {
                        was_killed: true,
                        ..asked
                    });
                    TestOrder::Kill(excess)
                })
            }
            Some(_) => None,
        }
    }

    /// Sees whether the test has failed since it was asked to.
    fn take_answer(&mut self, test: &RunningTest) {
        let has_failed = |asked: &mut Asked| {
            let is_asked = asked.serial == test.serial && !asked.was_killed;
            is_asked && !asked.in_teardown && test.teardown.is_some()
        };
        if let Some(asked) = self.asked.take_if(has_failed) {
            self.answered = Some(Answered {
                serial: test.serial,
                kept_bytes: match asked.excess {
                    Excess::Memory { .. } => test.growth_bytes,
                    Excess::Time { .. } => 0,
                },
            });
        }
    }

    /// What counts against the limits: all of it, or of a test that has failed what its teardown takes.
    fn judged(&self, test: &RunningTest) -> RunningTest {
        match self.answered.filter(|it| it.serial == test.serial) {
            None => *test,
            Some(answered) => RunningTest {
                elapsed: test.teardown.unwrap_or(test.elapsed),
                growth_bytes: test.growth_bytes.saturating_sub(answered.kept_bytes),
                ..*test
            },
        }
    }
}

fn excess(test: &RunningTest) -> Option<Excess> {
    let memory = test
        .memory_limit_bytes
        .filter(|&limit| test.growth_bytes > limit);
    let time = test.timeout.filter(|&limit| test.elapsed > limit);
    memory
        .map(|limit_bytes| Excess::Memory {
            growth_bytes: test.growth_bytes,
            limit_bytes,
        })
        .or(time.map(|limit| Excess::Time {
            elapsed: test.elapsed,
            limit,
        }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn growing(mib: u64) -> RunningTest {
        RunningTest {
            serial: 1,
            growth_bytes: mib * MIB,
            memory_limit_bytes: Some(100 * MIB),
            can_abort: true,
            ..RunningTest::default()
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_is_asked_once_and_killed_after_the_grace() {
        let mut rule = TestRule::default();
        assert_eq!(
            rule.step(ms(0), &growing(100)),
            None,
            "a limit may be used up"
        );
        assert!(matches!(
            rule.step(ms(50), &growing(101)),
            Some(TestOrder::Abort(_))
        ));
        assert_eq!(rule.step(ms(100), &growing(150)), None);
        assert!(matches!(
            rule.step(ms(2050), &growing(150)),
            Some(TestOrder::Kill(_))
        ));
        assert_eq!(rule.step(ms(2100), &growing(150)), None, "it dies");
    }

    #[test]
    fn what_doubles_its_limit_is_not_waited_for() {
        let mut rule = TestRule::default();
        rule.step(ms(0), &growing(120));
        assert!(matches!(
            rule.step(ms(50), &growing(200)),
            Some(TestOrder::Kill(_))
        ));
    }

    #[test]
    fn the_next_test_is_judged_for_itself() {
        let mut rule = TestRule::default();
        rule.step(ms(0), &growing(120));
        let next = RunningTest {
            serial: 2,
            ..growing(101)
        };
        assert!(matches!(
            rule.step(ms(60), &next),
            Some(TestOrder::Abort(_))
        ));
    }

    #[test]
    fn who_has_failed_as_asked_has_the_limits_anew_for_the_teardown_and_no_longer() {
        let mut rule = TestRule::default();
        let slow = |elapsed: u64, teardown: Option<u64>| RunningTest {
            serial: 1,
            elapsed: ms(elapsed),
            teardown: teardown.map(ms),
            timeout: Some(ms(3000)),
            can_abort: true,
            ..RunningTest::default()
        };
        let asked = rule.step(ms(3050), &slow(3050, None));
        assert!(matches!(asked, Some(TestOrder::Abort(_))));
        for teardown in [0, 50, 2500, 3000] {
            let at = 3100 + teardown;
            let step = rule.step(ms(at), &slow(at, Some(teardown)));
            assert_eq!(step, None, "{teardown}");
        }
        let asked = rule.step(ms(6150), &slow(6150, Some(3050)));
        assert!(matches!(asked, Some(TestOrder::Abort(_))), "{asked:?}");
        assert_eq!(rule.step(ms(8100), &slow(8100, Some(5000))), None);
        let killed = rule.step(ms(8150), &slow(8150, Some(5050)));
        assert!(matches!(killed, Some(TestOrder::Kill(_))), "{killed:?}");
        assert_eq!(rule.step(ms(9000), &slow(9000, Some(5900))), None);
    }

    #[test]
    fn what_a_failed_test_could_not_give_back_is_not_its_teardowns() {
        let mut rule = TestRule::default();
        rule.step(ms(0), &growing(120));
        let teardown = |mib: u64| RunningTest {
            teardown: Some(ms(10)),
            ..growing(mib)
        };
        for mib in [150, 250] {
            assert_eq!(rule.step(ms(5000), &teardown(mib)), None, "{mib}");
        }
        let asked = rule.step(ms(5050), &teardown(251));
        assert!(matches!(asked, Some(TestOrder::Abort(_))), "{asked:?}");
    }

    #[test]
    fn a_teardown_that_takes_too_long_by_itself_is_asked_and_killed_as_any_test() {
        let mut rule = TestRule::default();
        let slow = |elapsed: u64| RunningTest {
            serial: 1,
            elapsed: ms(elapsed),
            teardown: Some(ms(elapsed - 100)),
            timeout: Some(ms(3000)),
            can_abort: true,
            ..RunningTest::default()
        };
        let asked = rule.step(ms(3050), &slow(3050));
        assert!(matches!(asked, Some(TestOrder::Abort(_))), "{asked:?}");
        let killed = rule.step(ms(5050), &slow(5050));
        assert!(matches!(killed, Some(TestOrder::Kill(_))), "{killed:?}");
    }

    #[test]
    fn time_counts_where_nothing_else_does_and_who_cannot_listen_is_killed() {
        let mut rule = TestRule::default();
        let slow = RunningTest {
            serial: 1,
            elapsed: ms(3001),
            timeout: Some(ms(3000)),
            ..RunningTest::default()
        };
        assert!(matches!(
            rule.step(ms(0), &slow),
            Some(TestOrder::Kill(Excess::Time { .. }))
        ));
    }

    proptest! {
        #[test]
        fn within_its_limits_nobody_is_touched(
            growth in 0u64..100, elapsed in 0u64..3000, steps in 1usize..20, can_abort: bool,
        ) {
            let mut rule = TestRule::default();
            for step in 0..steps {
                let test = RunningTest {
                    elapsed: ms(elapsed),
                    timeout: Some(ms(3000)),
                    can_abort,
                    ..growing(growth)
                };
                prop_assert_eq!(rule.step(ms(step as u64 * 50), &test), None);
            }
        }

        #[test]
        fn nobody_is_asked_or_killed_twice(growths in proptest::collection::vec(0u64..500, 1..60)) {
            let mut rule = TestRule::default();
            let mut orders = Vec::new();
            for (step, &growth) in growths.iter().enumerate() {
                orders.extend(rule.step(ms(step as u64 * 200), &growing(growth)));
            }
            let kills = orders.iter().filter(|order| matches!(order, TestOrder::Kill(_))).count();
            prop_assert!(orders.len() <= 2 && kills <= 1);
            prop_assert!(orders.first().is_none_or(|order| matches!(order, TestOrder::Abort(_))));
        }
    }
}
