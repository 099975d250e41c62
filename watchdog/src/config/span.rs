//! Durations as people write them: `300s`, `5m`, `1h30m`, `250ms`, `1.5s`. A number without a unit
//! is seconds, as sleep(1) and timeout(1) read it. Units go from long to short, each at most once.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::value::{Quoted, decimal};

/// A duration above zero and at most [`Span::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// Why a text is not a duration. The message shows what one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Not numbers with units that are known, from long to short.
    #[error("{0} is not a duration; write for example 300s, 5m, 1h30m or 250ms")]
    Malformed(Quoted),
    /// Less than a nanosecond.
    #[error("{0} is no time at all; write for example 300s, 5m, 1h30m or 250ms")]
    Zero(Quoted),
    /// More than [`Span::MAX`].
    #[error("{0} is more than a year; write for example 300s, 5m, 1h30m or 250ms")]
    TooLong(Quoted),
}

/// Units with their nanoseconds, longest first.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Nanoseconds in the unit of a bare number.
const SECOND_NS: u64 = 1_000_000_000;

impl Span {
    /// A year. The cap keeps `Instant + Span`, which panics on overflow, far from its end.
    pub const MAX: Duration = Duration::from_secs(366 * 86_400);

    /// `None` for zero and for more than [`Span::MAX`].
    pub fn new(duration: Duration) -> Option<Self> {
        (!duration.is_zero() && duration <= Self::MAX).then_some(Self(duration))
    }

    /// The duration.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let total = total_ns(text).ok_or_else(|| SpanError::Malformed(Quoted::new(text)))?;
        if total == 0 {
            return Err(SpanError::Zero(Quoted::new(text)));
        }
        u64::try_from(total)
            .ok()
            .and_then(|ns| Self::new(Duration::from_nanos(ns)))
            .ok_or_else(|| SpanError::TooLong(Quoted::new(text)))
    }
}

/// The sum of all parts in nanoseconds; saturates.
fn total_ns(text: &str) -> Option<u128> {
    if text.ends_with(|c: char| c.is_ascii_digit() || c == '.')
        && !text.contains(char::is_alphabetic)
    {
        return decimal(text, SECOND_NS);
    }
    let mut allowed = &UNITS[..];
    let mut rest = text;
    let mut total = 0u128;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !(c.is_ascii_digit() || c == '.'));
        let (unit, after) = split_where(after, |c| !c.is_ascii_lowercase());
        let index = allowed.iter().position(|(name, _)| *name == unit)?;
        total = total.saturating_add(decimal(number, allowed[index].1)?);
        allowed = &allowed[index + 1..];
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// `text` cut before the first character that `stop` names.
fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

/// The exact duration in whole units, so that it parses back to itself: `1h30m`, `1s500ms`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest_ns = self.0.as_nanos();
        for (unit, scale) in UNITS {
            let count = rest_ns / u128::from(scale);
            rest_ns %= u128::from(scale);
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(text: &str) -> u128 {
        text.parse::<Span>().expect(text).duration().as_millis()
    }

    #[test]
    fn units_mean_what_the_documentation_says() {
        assert_eq!(millis("300s"), 300_000);
        assert_eq!(millis("300"), 300_000);
        assert_eq!(millis("0.5"), 500);
        assert_eq!(millis("5m"), 300_000);
        assert_eq!(millis("1h30m"), 5_400_000);
        assert_eq!(millis("250ms"), 250);
        assert_eq!(millis("1.5s"), 1_500);
        assert_eq!(millis("1.5h"), 5_400_000);
        assert_eq!(millis("2d"), 172_800_000);
        assert_eq!(millis("1500us"), 1);
    }

    #[test]
    fn the_message_shows_a_right_duration() {
        let error = "five minutes".parse::<Span>().unwrap_err().to_string();
        assert_eq!(
            error,
            r#""five minutes" is not a duration; write for example 300s, 5m, 1h30m or 250ms"#
        );
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "", " ", ".", "-5s", "+5s", "nan", "inf", "1e3", "5 m", "5M", "30m1h", "1s1s", "1h30",
            "s", "5x", "1.s", "５s", "5\0", "5µs", "5m\n", "none",
        ] {
            assert!(
                matches!(text.parse::<Span>(), Err(SpanError::Malformed(_))),
                "{text:?}"
            );
        }
        for text in ["0", "0s", "0h0m", "0.0000000001s"] {
            assert!(
                matches!(text.parse::<Span>(), Err(SpanError::Zero(_))),
                "{text:?}"
            );
        }
        for text in ["367d", "18446744073709551616", &"9".repeat(100_000)] {
            let error = text.parse::<Span>().unwrap_err();
            assert!(matches!(error, SpanError::TooLong(_)), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_rendered_parses_back(ns in 1..=Span::MAX.as_nanos() as u64, scale in 0usize..7) {
            let whole = ns / UNITS[scale].1 * UNITS[scale].1;
            let span = Span::new(Duration::from_nanos(whole.max(1))).expect("in range");
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<Span>();
        }

        #[test]
        fn no_near_miss_panics(text in "([0-9.]{0,30}[dhmsun]{0,2}){0,4}") {
            if let Ok(span) = text.parse::<Span>() {
                prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
            }
        }
    }
}
