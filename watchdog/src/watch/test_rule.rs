//! The limits of one test: how much its process may grow and how long it may take. Pure.
//!
//! A test that is over a limit is asked to fail, and if it does not, its process is to end. How long that may
//! take the slope decides: what has doubled its limit meanwhile is not waited for. Whom the pressure of the
//! target hits is [`super::policy`]'s.

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
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    serial: u64,
    at: Duration,
    was_killed: bool,
}

impl TestRule {
    /// Takes in what runs, and decides.
    pub fn step(&mut self, now: Duration, test: &RunningTest) -> Option<TestOrder> {
        let excess = excess(test)?;
        match self.asked.filter(|asked| asked.serial == test.serial) {
            None => {
                self.asked = Some(Asked {
                    serial: test.serial,
                    at: now,
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

    /// Whether this test was asked to fail, or its process told to end.
    #[must_use]
    pub fn has_asked(&self, serial: u64) -> bool {
        self.asked.is_some_and(|asked| asked.serial == serial)
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
