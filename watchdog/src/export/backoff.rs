//! When a receiver that did not take a record is tried again: later each time, up to a bound, never all at the same
//! moment, and not before it wants to be. Pure, apart from chance.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Of one receiver.
#[derive(Clone, Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// From `least` on, doubled each time, up to `most`.
    #[must_use]
    pub fn new((least, most): (Duration, Duration)) -> Self {
        Self {
            least,
            most,
            failures: 0,
        }
    }

    /// It has taken something.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// It has not; how long it is to be left alone. `after` is what it asked for.
    pub fn next(&mut self, after: Option<Duration>) -> Duration {
        let doubled = self.least.saturating_mul(1 << self.failures.min(20));
        self.failures += 1;
        // Half of it is chance, so that machines which failed together do not come back together.
        let whole = doubled.min(self.most);
        let half = whole / 2;
        let pause = half + whole.saturating_sub(half).mul_f64(chance());
        pause.max(after.unwrap_or(Duration::ZERO))
    }
}

/// From 0 to 1. No secret hangs on it.
fn chance() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn pauses_double_up_to_the_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new((S(1), S(60)));
        for whole in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let pause = backoff.next(None);
            assert!(pause >= S(whole) / 2 && pause <= S(whole), "{pause:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next(None) <= S(60));
        }
        backoff.reset();
        assert!(backoff.next(None) <= S(1));
    }

    #[test]
    fn what_the_receiver_asks_for_is_the_least() {
        let mut backoff = Backoff::new((S(1), S(60)));
        assert_eq!(backoff.next(Some(S(300))), S(300));
        assert!(backoff.next(Some(S(0))) >= S(1));
    }

    #[test]
    fn two_do_not_come_at_the_same_time() {
        let pauses: std::collections::BTreeSet<Duration> = (0..50)
            .map(|_| Backoff::new((S(1), S(60))).next(None))
            .collect();
        assert!(pauses.len() > 40, "{pauses:?}");
    }
}
