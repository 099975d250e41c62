//! What sizes, spans and words share: reading a decimal without floating point, quoting a bad value
//! so that it can be printed, and values that may also be `none`.

use std::fmt;
use std::str::FromStr;

/// A user's text as an error shows it: in quotes, control characters escaped, cut when long. A bad
/// value must not be able to drive the terminal that it is reported on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    /// Characters shown before a text is cut.
    const SHOWN: usize = 40;

    /// Quotes `text`.
    pub fn new(text: &str) -> Self {
        match text.char_indices().nth(Self::SHOWN) {
            None => Self(format!("{text:?}")),
            Some((cut, _)) => Self(format!("{:?}...", &text[..cut])),
        }
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bound that can be lifted: `none` (or `max`, as cgroup files say) or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrNone<T>(pub Option<T>);

impl<T: FromStr> FromStr for OrNone<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        match text {
            "none" | "max" => Ok(Self(None)),
            _ => text.parse().map(|value| Self(Some(value))),
        }
    }
}

impl<T: fmt::Display> fmt::Display for OrNone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("none"),
            Some(value) => value.fmt(f),
        }
    }
}

/// `number` (digits, perhaps a point and more digits) times `scale`, rounded down. `None` if it is
/// not such a number; a number too large to hold comes back as `u128::MAX`.
pub(super) fn decimal(number: &str, scale: u64) -> Option<u128> {
    /// Fraction digits that count: with more, fraction times the largest scale would overflow, and
    /// no unit here has a part that small.
    const FRACTION_DIGITS: usize = 18;

    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = match number.split_once('.') {
        None => (number, "0"),
        Some((whole, fraction)) => (if whole.is_empty() { "0" } else { whole }, fraction),
    };
    if whole.is_empty() || fraction.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let fraction_scale = 10u128.pow(fraction.len() as u32);
    // Only overflow is left to fail here.
    let whole = whole.parse::<u128>().unwrap_or(u128::MAX);
    let part = fraction.parse::<u128>().ok()? * u128::from(scale) / fraction_scale;
    Some(whole.saturating_mul(u128::from(scale)).saturating_add(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_value_is_shown_harmlessly() {
        assert_eq!(
            Quoted::new("a\u{1b}[31m\n").to_string(),
            r#""a\u{1b}[31m\n""#
        );
        let long = Quoted::new(&"ä".repeat(100)).to_string();
        assert_eq!(long, format!("\"{}\"...", "ä".repeat(40)));
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(decimal("0.1", 1_000), Some(100));
        assert_eq!(
            decimal("1.999999999999999999999999", 1 << 40),
            Some((2 << 40) - 1)
        );
        assert_eq!(decimal(&"9".repeat(50), 2), Some(u128::MAX));
        assert_eq!(decimal("5.", 1), None);
        assert_eq!(decimal(".", 1), None);
    }
}
