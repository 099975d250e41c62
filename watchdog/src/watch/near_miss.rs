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
    use crate::watch::{Measure, Rule};

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
}
