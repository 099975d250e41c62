//! What is too much: the words behind `--fail-on`, such as `+20% memory` or `+1 failed`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::config::{Quoted, Size, Span};

/// From where on a change is a regression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `+20% memory`: of each single test, beyond what is noise.
    Test(Figure, Excess),
    /// `+20% total memory`: of the whole run.
    Total(Figure, Excess),
    /// `+1 failed`: so many more tests fail than before.
    Failed(u64),
}

/// What is measured of a test, or of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// How far its process grew; of a run: the most that it held at once.
    Memory,
    /// How long it took; of a run: all its tests together.
    Time,
}

/// By how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// A share of what it was, in thousandths.
    Permille(u32),
    /// Bytes of memory, or microseconds of time.
    Amount(u64),
}

/// Why a text is no limit. The message shows what one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not one of the forms.
    #[error(
        "{0} is no limit; write for example '+20% memory', '+100MiB memory', '+2s time', '+20% total time' or '+1 failed'"
    )]
    Malformed(Quoted),
    /// It does not begin with a plus.
    #[error(
        "{0} has no plus in front; a limit is by how much something may grow, such as '+20% memory'"
    )]
    NoPlus(Quoted),
    /// The amount is none, or none of that figure.
    #[error("{amount} is no amount of {figure}; {hint}")]
    Amount {
        /// As it was written.
        amount: Quoted,
        /// Of what it should be one.
        figure: &'static str,
        /// What one looks like.
        hint: &'static str,
    },
}

impl Limit {
    /// What fails where nothing was said: half as much memory again is far from a doubling, which must never
    /// pass, and from what caches and allocators move. Time is the noisier of the two, and nearer to both.
    pub const DEFAULT: [Self; 2] = [
        Self::Test(Figure::Memory, Excess::Permille(500)),
        Self::Test(Figure::Time, Excess::Permille(600)),
    ];
}

impl Excess {
    /// Whether `new` is at least so much above `base`.
    #[must_use]
    pub fn is_met(self, base: f64, new: f64) -> bool {
        let grown = new - base;
        match self {
            Self::Permille(permille) => grown > 0.0 && grown * 1000.0 >= base * f64::from(permille),
            Self::Amount(amount) => grown > 0.0 && grown >= amount as f64,
        }
    }
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let malformed = || LimitError::Malformed(Quoted::new(text));
        let mut words = text.split_whitespace();
        let (amount, first, second) = (words.next(), words.next(), words.next());
        let (Some(amount), Some(first), None) = (amount, first, words.next()) else {
            return Err(malformed());
        };
        let (is_total, figure) = match (first, second) {
            ("total", Some(figure)) => (true, figure),
            (figure, None) => (false, figure),
            _ => return Err(malformed()),
        };
        let figure = match (figure, is_total) {
            ("memory", _) => Some(Figure::Memory),
            ("time", _) => Some(Figure::Time),
            ("failed", false) => None,
            _ => return Err(malformed()),
        };
        let Some(amount) = amount.strip_prefix('+') else {
            return Err(LimitError::NoPlus(Quoted::new(text)));
        };
        Ok(match figure {
            None => Self::Failed(count(amount)?),
            Some(figure) if is_total => Self::Total(figure, excess(amount, figure)?),
            Some(figure) => Self::Test(figure, excess(amount, figure)?),
        })
    }
}

fn count(amount: &str) -> Result<u64, LimitError> {
    let is_digits = amount.bytes().all(|byte| byte.is_ascii_digit());
    let count = amount.parse().ok().filter(|count| is_digits && *count > 0);
    count.ok_or_else(|| LimitError::Amount {
        amount: Quoted::new(amount),
        figure: "tests",
        hint: "write for example '+1 failed'",
    })
}

fn excess(amount: &str, figure: Figure) -> Result<Excess, LimitError> {
    let (parsed, name, hint) = match (amount.strip_suffix('%'), figure) {
        (Some(percent), _) => (
            permille(percent),
            "per cent",
            "write for example '+20% memory', up to 1000000, with at most one decimal",
        ),
        // A bare number is a forgotten unit more often than it is bytes or seconds.
        (None, Figure::Memory) => (
            has_unit(amount)
                .then(|| amount.parse::<Size>().ok())
                .flatten()
                .map(|size| Excess::Amount(size.bytes())),
            "memory",
            "write for example '+20% memory' or '+100MiB memory'",
        ),
        (None, Figure::Time) => (
            has_unit(amount)
                .then(|| amount.parse::<Span>().ok())
                .flatten()
                .map(|span| Excess::Amount(span.duration().as_micros() as u64)),
            "time",
            "write for example '+50% time' or '+2s time'",
        ),
    };
    parsed.ok_or(LimitError::Amount {
        amount: Quoted::new(amount),
        figure: name,
        hint,
    })
}

fn has_unit(amount: &str) -> bool {
    amount.ends_with(|c: char| c.is_ascii_alphabetic())
}

fn permille(percent: &str) -> Option<Excess> {
    let (whole, tenth) = percent.split_once('.').unwrap_or((percent, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(tenth) || tenth.len() > 1 {
        return None;
    }
    let permille = whole.parse::<u32>().ok()?.checked_mul(10)? + tenth.parse::<u32>().ok()?;
    (1..=10_000_000)
        .contains(&permille)
        .then_some(Excess::Permille(permille))
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Time => "time",
        })
    }
}

/// As it is written, so that it parses back to itself.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (figure, excess, total) = match self {
            Self::Failed(count) => return write!(f, "+{count} failed"),
            Self::Test(figure, excess) => (figure, excess, ""),
            Self::Total(figure, excess) => (figure, excess, "total "),
        };
        match (excess, figure) {
            (Excess::Permille(permille), _) if permille.is_multiple_of(10) => {
                write!(f, "+{}%", permille / 10)
            }
            (Excess::Permille(permille), _) => write!(f, "+{}.{}%", permille / 10, permille % 10),
            (Excess::Amount(bytes), Figure::Memory) => match Size::new(*bytes) {
                Some(size) if size.to_string().ends_with(|c: char| c.is_alphabetic()) => {
                    write!(f, "+{size}")
                }
                _ => write!(f, "+{bytes}B"),
            },
            (Excess::Amount(us), Figure::Time) => match Span::new(Duration::from_micros(*us)) {
                Some(span) => write!(f, "+{span}"),
                None => write!(f, "+{us}us"),
            },
        }?;
        write!(f, " {total}{figure}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        use Figure::{Memory, Time};
        for (text, limit) in [
            ("+20% memory", Limit::Test(Memory, Excess::Permille(200))),
            ("+12.5% time", Limit::Test(Time, Excess::Permille(125))),
            (
                "+100M memory",
                Limit::Test(Memory, Excess::Amount(100 << 20)),
            ),
            ("+5B memory", Limit::Test(Memory, Excess::Amount(5))),
            ("+1m30s time", Limit::Test(Time, Excess::Amount(90_000_000))),
            ("+20% total time", Limit::Total(Time, Excess::Permille(200))),
            (
                "+1G total memory",
                Limit::Total(Memory, Excess::Amount(1 << 30)),
            ),
            ("+1 failed", Limit::Failed(1)),
        ] {
            assert_eq!(text.parse(), Ok(limit), "{text}");
            assert_eq!(limit.to_string(), text);
        }
        assert_eq!(
            "+100MiB  memory".parse::<Limit>().map(|it| it.to_string()),
            Ok("+100M memory".into())
        );
    }

    #[test]
    fn what_is_no_limit_is_refused_with_what_one_looks_like() {
        for (text, words) in [
            ("", "is no limit; write for example '+20% memory'"),
            ("+20%", "is no limit"),
            ("+20% ram", "is no limit"),
            ("+20% memory please", "is no limit"),
            ("+1 total failed", "is no limit"),
            ("20% memory", "has no plus in front"),
            ("-20% memory", "has no plus in front"),
            ("+x% memory", "\"x%\" is no amount of per cent"),
            ("+0% memory", "is no amount of per cent"),
            ("+1.25% memory", "at most one decimal"),
            ("+20 memory", "\"20\" is no amount of memory"),
            ("+2s memory", "is no amount of memory"),
            ("+2 time", "is no amount of time"),
            ("+2MiB time", "is no amount of time"),
            ("+0 failed", "is no amount of tests"),
            ("+1.5 failed", "is no amount of tests"),
            ("+++1 failed", "is no amount of tests"),
        ] {
            let error = text.parse::<Limit>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn an_excess_is_met_from_its_own_amount_on() {
        assert!(Excess::Permille(500).is_met(100.0, 150.0));
        assert!(!Excess::Permille(500).is_met(100.0, 149.0));
        assert!(Excess::Amount(50).is_met(100.0, 150.0));
        assert!(
            !Excess::Permille(1).is_met(0.0, 0.0),
            "nothing is no more than nothing"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Limit>();
        }

        #[test]
        fn no_near_miss_panics(text in "\\+[0-9.]{0,12}[%a-zA-Z]{0,3} (total )?(memory|time|failed)") {
            if let Ok(limit) = text.parse::<Limit>() {
                prop_assert_eq!(limit.to_string().parse::<Limit>(), Ok(limit));
            }
        }
    }
}
