//! Near misses: the target came close to where memwatch steps in, and got away by itself. Pure.
//!
//! How near is near is [`Signals::nearly`](super::trouble::Signals::nearly)'s; this owns when it is over, and that it
//! is told once, with the moment at which it was nearest. Told is little: who lives at the brink, as a build at its
//! brake does, is told of once in a while and not at every turn.

use super::trouble::Cause;
use std::time::Duration;

/// After one that was told, none for so long.
const QUIET: Duration = Duration::from_secs(600);

/// One that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The rule that it came near to, at the nearest: with what would have been enough as the threshold.
    pub cause: Cause,
    /// When that was.
    pub at: Duration,
    /// How long it was near.
    pub lasted: Duration,
}

/// What is seen of it from look to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Brink {
    near: Option<Near>,
    /// memwatch has stepped in, so that what follows is no escape, until it is not near any more.
    stepped_in: bool,
    quiet_until: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Near {
    worst: Cause,
    at: Duration,
    since: Duration,
    last: Duration,
}

impl Brink {
    /// Takes one look in: how near it is, and whether memwatch steps in or has something under way. It is over when
    /// it has not been near for `away`.
    pub fn see(
        &mut self,
        now: Duration,
        nearly: Option<Cause>,
        steps_in: bool,
        away: Duration,
    ) -> Option<NearMiss> {
        if steps_in {
            self.near = None;
            self.stepped_in = true;
            return None;
        }
        let Some(cause) = nearly else {
            self.stepped_in = false;
            let is_over = |near: &mut Near| now.saturating_sub(near.last) >= away;
            let over = self.near.take_if(is_over)?;
            return Some(self.over(now, over));
        };
        if self.stepped_in || now < self.quiet_until {
            return None;
        }
        match &mut self.near {
            Some(near) => {
                near.last = now;
                if cause.nearness_permille() > near.worst.nearness_permille() {
                    (near.worst, near.at) = (cause, now);
                }
            }
            None => {
                self.near = Some(Near {
                    worst: cause,
                    at: now,
                    since: now,
                    last: now,
                });
            }
        }
        None
    }

    /// Nobody looks any more: what was near has come to its end.
    pub fn leave(&mut self, now: Duration) -> Option<NearMiss> {
        let over = self.near.take()?;
        Some(self.over(now, over))
    }

    fn over(&mut self, now: Duration, near: Near) -> NearMiss {
        self.quiet_until = now + QUIET;
        NearMiss {
            cause: near.worst,
            at: near.at,
            lasted: near.last.saturating_sub(near.since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::world::{MIB, Process, World, leak, run, thrash};
    use crate::watch::{Measure, Rule};
    use proptest::prelude::*;

    const AWAY: Duration = Duration::from_secs(3);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn left(us: u64) -> Option<Cause> {
        Some(Cause {
            rule: Rule::Exhaustion,
            measure: Measure::Fill,
            observed: us,
            threshold: 50_000,
            lasted: Duration::ZERO,
            fill_bytes_per_s: 1,
            headroom_bytes: 1,
        })
    }

    #[test]
    fn it_is_told_when_it_is_over_with_its_nearest_moment() {
        let mut brink = Brink::default();
        for (at, near) in [
            (0, None),
            (10, left(90_000)),
            (20, left(60_000)),
            (30, left(80_000)),
            (40, None),
        ] {
            assert_eq!(brink.see(ms(at), near, false, AWAY), None, "{at}");
        }
        let told = brink.see(ms(3030), None, false, AWAY).expect("it is over");
        assert_eq!((told.at, told.lasted), (ms(20), ms(20)));
        assert_eq!(told.cause.observed, 60_000);
        assert_eq!(brink.see(ms(9000), None, false, AWAY), None, "once");
    }

    #[test]
    fn what_memwatch_stepped_in_on_is_no_escape() {
        let mut brink = Brink::default();
        brink.see(ms(0), left(90_000), false, AWAY);
        brink.see(ms(1), left(50_000), true, AWAY);
        // It is still filled up when that is over.
        brink.see(ms(500), left(90_000), false, AWAY);
        brink.see(ms(501), None, false, AWAY);
        assert_eq!(brink.see(ms(9000), None, false, AWAY), None);
        brink.see(ms(9100), left(90_000), false, AWAY);
        assert!(
            brink.see(ms(20_000), None, false, AWAY).is_some(),
            "another time"
        );
    }

    #[test]
    fn who_lives_at_the_brink_is_told_of_once_in_ten_minutes() {
        let mut brink = Brink::default();
        let hour = (0..3600).map(|s| Duration::from_secs(10 * s));
        let told: Vec<_> = hour
            .filter_map(|at| {
                brink.see(at, left(90_000), false, AWAY);
                brink.see(at + AWAY, None, false, AWAY)
            })
            .collect();
        assert!(told.len() <= 60, "{}", told.len());
        assert!(told.len() >= 55, "{}", told.len());
    }

    #[test]
    fn an_end_while_it_is_near_is_told() {
        let mut brink = Brink::default();
        brink.see(ms(0), left(90_000), false, AWAY);
        assert!(brink.leave(ms(5)).is_some());
        assert!(brink.leave(ms(6)).is_none());
    }

    /// One that fills to so much of its limit, at a pace that takes 8 s for all of it, and stays there.
    fn filled_to(permille: u64) -> World {
        let limit = 1024 * MIB;
        World::quiet(limit).with(Process {
            most_bytes: limit / 1000 * permille,
            ..leak(7, limit / 8)
        })
    }

    #[test]
    fn who_fills_nine_tenths_and_a_little_has_come_near_and_who_stops_before_has_not() {
        let spell = Duration::from_secs(20);
        let near = run(&filled_to(920), spell);
        assert_eq!(near.orders, []);
        let [told] = near.near_misses.as_slice() else {
            panic!("{:?}", near.near_misses);
        };
        assert_eq!(told.cause.rule, Rule::Exhaustion);
        assert!(
            (500..1000).contains(&told.cause.nearness_permille()),
            "{told:?}"
        );
        assert_eq!(run(&filled_to(870), spell).near_misses, []);
        // And who goes on is ended, which is no escape.
        let ended = run(&filled_to(1000), spell);
        assert!(!ended.orders.is_empty());
        assert_eq!(ended.near_misses, []);
    }

    #[test]
    fn half_the_stall_that_a_rule_asks_for_is_near() {
        let spell = Duration::from_secs(30);
        let near = run(&thrash(200), spell);
        assert_eq!(near.orders, []);
        let [told] = near.near_misses.as_slice() else {
            panic!("{:?}", near.near_misses);
        };
        assert_eq!((told.cause.rule, told.cause.threshold), (Rule::Stall, 300));
        assert!((190..=210).contains(&told.cause.observed), "{told:?}");
        assert_eq!(run(&thrash(100), spell).near_misses, []);
        let ended = run(&thrash(600), Duration::from_secs(5));
        assert!(!ended.orders.is_empty());
        assert_eq!(ended.near_misses, [], "{:?}", ended.orders);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        /// Whatever it does, a target comes near once in a few minutes at most, as far as is told.
        #[test]
        fn nobody_is_told_of_by_the_dozen(
            permille in 500u64..940,
            stalled in 0u64..290,
            refaults in 0u64..2000,
        ) {
            let world = World {
                full_permille: stalled,
                refaults_per_s: refaults,
                cache_bytes_per_s: 64 * MIB,
                ..filled_to(permille)
            };
            let outcome = run(&world, Duration::from_secs(60));
            prop_assert!(outcome.near_misses.len() <= 1, "{:?}", outcome.near_misses);
        }
    }
}
