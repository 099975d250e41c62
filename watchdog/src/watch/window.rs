//! Counters into rates: a sliding window over samples that come at uneven times.
//!
//! Fixed memory: samples closer together than the window's grain replace one another, so looks every
//! 2 ms and looks every second fit the same ring. It is small, since a daemon has nine windows for each of a
//! thousand targets.

use std::time::Duration;

/// A window is divided into so many grains.
const GRAINS: usize = 40;
/// How many samples a window keeps: the newest, and as many that are a grain or more apart as cover the span.
const SAMPLES: usize = GRAINS + 2;

/// A sliding window over one counter or level.
#[derive(Clone, Debug)]
pub struct Window {
    span: Duration,
    /// When, in ns, and what.
    samples: [(u64, u64); SAMPLES],
    /// How many samples are valid, the newest at `newest`.
    len: usize,
    newest: usize,
}

/// What changed between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Newest minus oldest; a level may fall.
    pub by: i64,
    /// The time between the two.
    pub over: Duration,
}

impl Change {
    /// Change a second, rounded towards zero.
    pub fn per_second(self) -> i64 {
        let nanos = i128::try_from(self.over.as_nanos())
            .unwrap_or(i128::MAX)
            .max(1);
        let rate = i128::from(self.by) * 1_000_000_000 / nanos;
        i64::try_from(rate).unwrap_or(if rate < 0 { i64::MIN } else { i64::MAX })
    }
}

impl Window {
    /// A window that can answer for spans up to `span`.
    pub fn new(span: Duration) -> Self {
        Self {
            span,
            samples: [(0, 0); SAMPLES],
            len: 0,
            newest: 0,
        }
    }

    /// Forgets everything: after a kill the past says nothing about the present.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds a sample. Time never runs backwards: a sample older than the newest is passed over.
    pub fn push(&mut self, now: Duration, value: u64) {
        let sample = (u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), value);
        if self.len > 0 {
            if sample.0 < self.samples[self.newest].0 {
                return;
            }
            // Only what is a grain away from the one before it stays.
            let newest = Duration::from_nanos(self.samples[self.newest].0);
            let settled = self.nth(1).map(|(at, _)| at);
            if settled.is_some_and(|at| newest.saturating_sub(at) < self.grain()) {
                self.samples[self.newest] = sample;
                return;
            }
        }
        self.newest = (self.newest + 1) % SAMPLES;
        self.samples[self.newest] = sample;
        self.len = (self.len + 1).min(SAMPLES);
    }

    /// The newest value.
    pub fn latest(&self) -> Option<u64> {
        self.nth(0).map(|(_, value)| value)
    }

    /// The change over exactly `span` up to the newest sample; between two samples the value is taken to
    /// have gone from one to the other in a straight line. `None` until that much time was seen.
    pub fn change(&self, span: Duration) -> Option<Change> {
        let (end, last) = self.nth(0)?;
        let start = end.checked_sub(span).filter(|&start| start < end)?;
        let before = (1..self.len).find(|&n| self.nth(n).is_some_and(|(at, _)| at <= start))?;
        let first = between(self.nth(before)?, self.nth(before - 1)?, start);
        Some(Change {
            by: difference(last, first),
            over: span,
        })
    }

    /// The change over as much of `span` as was seen; `None` with fewer than two samples.
    pub fn change_up_to(&self, span: Duration) -> Option<Change> {
        self.change(span).or_else(|| {
            let (end, last) = self.nth(0)?;
            let (start, first) = self.nth(self.len.checked_sub(1)?)?;
            let over = end.saturating_sub(start);
            (!over.is_zero()).then(|| Change {
                by: difference(last, first),
                over,
            })
        })
    }

    fn grain(&self) -> Duration {
        self.span / GRAINS as u32
    }

    /// The `n`th newest sample.
    fn nth(&self, n: usize) -> Option<(Duration, u64)> {
        let (at_ns, value) = self.samples[(self.newest + SAMPLES - n % SAMPLES) % SAMPLES];
        (n < self.len).then(|| (Duration::from_nanos(at_ns), value))
    }
}

/// The value at `at` on the line from one sample to the next.
fn between((from_at, from): (Duration, u64), (to_at, to): (Duration, u64), at: Duration) -> u64 {
    let nanos = |d: Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
    let whole = nanos(to_at.saturating_sub(from_at)).max(1);
    let part = nanos(at.saturating_sub(from_at));
    let moved = (i128::from(to) - i128::from(from)) * part / whole;
    u64::try_from(i128::from(from) + moved).unwrap_or(from)
}

fn difference(last: u64, first: u64) -> i64 {
    i64::try_from(i128::from(last) - i128::from(first)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn no_answer_before_the_span_was_seen() {
        let mut w = Window::new(ms(1000));
        w.push(ms(0), 5);
        assert_eq!(w.change(ms(100)), None);
        w.push(ms(99), 6);
        assert_eq!(w.change(ms(100)), None);
        assert_eq!(
            w.change_up_to(ms(100)),
            Some(Change {
                by: 1,
                over: ms(99)
            })
        );
        w.push(ms(150), 8);
        assert_eq!(
            w.change(ms(100)),
            Some(Change {
                by: 3,
                over: ms(100)
            })
        );
    }

    #[test]
    fn a_window_that_began_between_two_samples_is_not_diluted() {
        let mut w = Window::new(ms(3000));
        // Calm until 940, then stalled all of the time; a sample every 94 ms, the window's grain.
        for at in (0..=3940).step_by(94) {
            w.push(ms(at), at.saturating_sub(940));
        }
        let change = w.change(ms(2900)).expect("seen");
        assert_eq!((change.by, change.over), (2900, ms(2900)));
    }

    #[test]
    fn a_level_may_fall() {
        let mut w = Window::new(ms(1000));
        w.push(ms(0), 1000);
        w.push(ms(500), 400);
        assert_eq!(w.change(ms(500)).map(Change::per_second), Some(-1200));
    }

    #[test]
    fn a_clear_forgets() {
        let mut w = Window::new(ms(1000));
        w.push(ms(0), 1);
        w.push(ms(1000), 2);
        w.clear();
        assert_eq!((w.latest(), w.change_up_to(ms(1))), (None, None));
    }

    proptest! {
        /// However dense the sampling, what was seen for longer than the span answers for all of it.
        #[test]
        fn the_whole_span_is_covered(gaps in proptest::collection::vec(1u64..60, 1..50)) {
            let mut w = Window::new(ms(1000));
            let mut at = 0;
            for gap in gaps.iter().cycle().take(4000) {
                at += gap;
                w.push(ms(at), at);
                if at > 1000 + gaps[0] {
                    prop_assert!(w.change(ms(1000)).is_some(), "at {at}");
                }
            }
        }

        /// Whatever the sampling, a steady counter's rate is found, over the span and nothing else.
        #[test]
        fn a_steady_rate_is_found(gaps in proptest::collection::vec(1u64..400, 2..400), span in 1u64..1000) {
            let mut w = Window::new(ms(1000));
            let mut at = 0;
            for gap in &gaps {
                at += gap;
                w.push(ms(at), at * 7);
            }
            let longest = *gaps.iter().max().expect("not empty");
            match w.change(ms(span)) {
                Some(change) => {
                    prop_assert_eq!(change.per_second(), 7000);
                    prop_assert_eq!(change.over, ms(span));
                }
                None => prop_assert!(at - gaps[0] < span + longest + 64, "{at} seen, {span} asked"),
            }
        }
    }
}
