//! A record over time: what its looks say as curves, what was done as marks, who ran as lanes, all on one axis. Pure.
//! How it looks is `picture`'s in a browser, `spark`'s on a terminal, `export::trace`'s in Perfetto.

mod curves;
mod lanes;
mod marks;
#[cfg(test)]
mod tests;

use super::Record;

pub use curves::{Curve, Curves, most, thinned};
pub use lanes::{Bar, Lane, lanes};
pub use marks::{Mark, Sort, marks};

/// A stretch of time, in µs from the start of the run; before it is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Where it begins.
    pub from_us: i64,
    /// Where it ends: later than that.
    pub to_us: i64,
}

impl Window {
    /// From one to the other, a millisecond at the least.
    #[must_use]
    pub fn new(from_us: i64, to_us: i64) -> Self {
        let from_us = within_reason(from_us);
        Self {
            from_us,
            to_us: to_us.clamp(from_us + 1_000, LONGEST_US + 1_000),
        }
    }

    /// How long it is.
    #[must_use]
    pub fn span_us(self) -> i64 {
        self.to_us - self.from_us
    }

    /// Where a moment lies in it: 0 at its beginning, 1 at its end.
    #[must_use]
    pub fn place(self, at_us: i64) -> f64 {
        (at_us.saturating_sub(self.from_us)) as f64 / self.span_us() as f64
    }

    /// Whether a moment lies in it.
    #[must_use]
    pub fn holds(self, at_us: i64) -> bool {
        (self.from_us..=self.to_us).contains(&at_us)
    }

    /// Round moments in it, about `most` of them, the first first.
    #[must_use]
    pub fn ticks(self, most: i64) -> Vec<i64> {
        let step = STEPS_US
            .into_iter()
            .find(|step| self.span_us() / step <= most)
            .unwrap_or(self.span_us().max(1));
        let first = self.from_us.div_euclid(step) + i64::from(self.from_us.rem_euclid(step) > 0);
        (first..)
            .map(|n| n * step)
            .take_while(|&at| at <= self.to_us)
            .collect()
    }
}

/// A century: a record that says more is not drawn to scale.
const LONGEST_US: i64 = 100 * 366 * 86_400 * 1_000_000;

/// A moment no further from the start than that, so that whatever a record says can be reckoned with.
fn within_reason(us: i64) -> i64 {
    us.clamp(-LONGEST_US, LONGEST_US)
}

const STEPS_US: [i64; 28] = {
    const S: i64 = 1_000_000;
    [
        1_000,
        2_000,
        5_000,
        10_000,
        20_000,
        50_000,
        100_000,
        200_000,
        500_000,
        S,
        2 * S,
        5 * S,
        10 * S,
        15 * S,
        30 * S,
        60 * S,
        120 * S,
        300 * S,
        600 * S,
        900 * S,
        1_800 * S,
        3_600 * S,
        7_200 * S,
        14_400 * S,
        21_600 * S,
        43_200 * S,
        86_400 * S,
        864_000 * S,
    ]
};

/// The whole of what a record tells of: the run, and what was recorded before it.
#[must_use]
pub fn whole(record: &Record) -> Window {
    let looks = recorded(record);
    let end = i64::try_from(record.duration_us).unwrap_or(i64::MAX);
    let from = looks.map_or(0, |looks| looks.from_us.min(0));
    Window::new(from, looks.map_or(end, |looks| looks.to_us.max(end)))
}

/// The stretch in which there are looks.
#[must_use]
pub fn recorded(record: &Record) -> Option<Window> {
    let flight = record.flight.as_ref()?;
    let (first, last) = flight.looks.first().zip(flight.looks.last())?;
    let (first, last) = (flight.since_start_us(first), flight.since_start_us(last));
    (first < last).then(|| Window::new(first, last))
}

/// The seconds around the first kill, or else the first SIGTERM, if that is recorded and much else is, too.
#[must_use]
pub fn around_kill(record: &Record, marks: &[Mark]) -> Option<Window> {
    let looks = recorded(record)?;
    let first = |is_meant: &dyn Fn(Sort) -> bool| {
        let mut recorded = marks.iter().filter(|mark| looks.holds(mark.at_us));
        recorded.find(|mark| is_meant(mark.sort))
    };
    // Who heeds SIGTERM gets no SIGKILL.
    let kill = first(&|sort| sort.is_kill()).or_else(|| first(&|sort| sort == Sort::Sigterm))?;
    let near = Window::new(
        (kill.at_us - BEFORE_KILL_US).max(looks.from_us),
        (kill.at_us + AFTER_KILL_US).min(looks.to_us),
    );
    (near.span_us() * 3 < looks.span_us()).then_some(near)
}

const BEFORE_KILL_US: i64 = 12_000_000;
const AFTER_KILL_US: i64 = 3_000_000;

/// The stretch to look at closely, if it is much shorter than the whole: that in which there are looks, with what
/// was done meanwhile and shortly after.
#[must_use]
pub fn close(record: &Record) -> Option<Window> {
    let whole = whole(record);
    let looks = recorded(record)?;
    let tail = looks.span_us() / 20;
    let close = Window::new(looks.from_us, (looks.to_us + tail).min(whole.to_us));
    (close.span_us() * 3 / 2 < whole.span_us()).then_some(close)
}
