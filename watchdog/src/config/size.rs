//! Sizes in bytes, as people write them: `2G`, `1.5GiB`, `1048576`. Words such as `auto` and `none`
//! are not sizes; the option that allows them reads them (`value`).
//!
//! `K`, `M`, `G`, `T` alone are powers of 1024, as systemd and the kernel's cgroup files read them,
//! and so are `KiB`, `MiB`, `GiB`, `TiB`. `KB`, `MB`, `GB`, `TB` are powers of 1000, as SI has it.
//! Case does not matter. A number without a unit is bytes.

use std::fmt;
use std::str::FromStr;

use super::value::{Quoted, decimal};

/// A number of bytes, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Why a text is not a size. The message shows what one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number with a unit that is known.
    #[error("{0} is not a size; write for example 2G, 1.5GiB or 512M")]
    Malformed(Quoted),
    /// A fraction of a byte: nearly always a forgotten unit.
    #[error("{0} has no unit; write for example 1.5G, 1.5GiB or 512M")]
    NoUnit(Quoted),
    /// Less than one byte.
    #[error("{0} is less than one byte; write for example 2G, 1.5GiB or 512M")]
    Zero(Quoted),
    /// 16 EiB or more.
    #[error("{0} is more than any machine has; write for example 2G, 1.5GiB or 512M")]
    TooLarge(Quoted),
}

/// Binary units with the letter that renders them, largest first.
const BINARY: [(&str, u64); 4] = [
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
];

impl Size {
    /// `None` for zero, which no option takes: a limit of nothing is a mistake.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes > 0).then_some(Self(bytes))
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let malformed = || SizeError::Malformed(Quoted::new(text));
        let number_ends = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(number_ends);
        let unit = unit.trim_start_matches(' ');
        let scale = scale_of(unit).ok_or_else(malformed)?;
        let bytes = decimal(number, scale).ok_or_else(malformed)?;
        if scale == 1 && number.contains('.') {
            return Err(SizeError::NoUnit(Quoted::new(text)));
        }
        let bytes = u64::try_from(bytes).map_err(|_| SizeError::TooLarge(Quoted::new(text)))?;
        Self::new(bytes).ok_or_else(|| SizeError::Zero(Quoted::new(text)))
    }
}

/// Bytes in one `unit`.
fn scale_of(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    })
}

/// The exact size in the largest binary unit that divides it, so that it parses back to itself.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BINARY
            .iter()
            .find(|(_, scale)| self.0.is_multiple_of(*scale))
        {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> u64 {
        text.parse::<Size>().expect(text).bytes()
    }

    #[test]
    fn units_mean_what_the_documentation_says() {
        assert_eq!(bytes("1048576"), 1 << 20);
        assert_eq!(bytes("1048576B"), 1 << 20);
        assert_eq!(bytes("2G"), 2 << 30);
        assert_eq!(bytes("2g"), 2 << 30);
        assert_eq!(bytes("1.5GiB"), 3 << 29);
        assert_eq!(bytes("1.5 GiB"), 3 << 29);
        assert_eq!(bytes("512M"), 512 << 20);
        assert_eq!(bytes("100MiB"), 100 << 20);
        assert_eq!(bytes("1GB"), 1_000_000_000);
        assert_eq!(bytes("7kb"), 7_000);
        assert_eq!(bytes(".5K"), 512);
        assert_eq!(bytes("16777215T"), 16_777_215 << 40);
        assert_eq!(bytes("18446744073709551615"), u64::MAX);
    }

    #[test]
    fn the_message_shows_a_right_size() {
        let error = "2 gigs".parse::<Size>().unwrap_err().to_string();
        assert_eq!(
            error,
            r#""2 gigs" is not a size; write for example 2G, 1.5GiB or 512M"#
        );
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            " ",
            ".",
            "1.",
            "..5G",
            "1.2.3G",
            "-1",
            "-2G",
            "+1",
            "nan",
            "inf",
            "1e9",
            "0x10",
            "2 gigs",
            " 2G",
            "2G ",
            "2GG",
            "1_000",
            "G",
            "２G",
            "2Ｇ",
            "2\0",
            "2\u{1b}[31mG",
            "max",
        ] {
            assert!(
                matches!(text.parse::<Size>(), Err(SizeError::Malformed(_))),
                "{text:?}"
            );
        }
        for text in ["0", "0G", "0.0M", "0.0001K"] {
            assert!(
                matches!(text.parse::<Size>(), Err(SizeError::Zero(_))),
                "{text:?}"
            );
        }
        for text in ["1.5", "0.5B"] {
            assert!(
                matches!(text.parse::<Size>(), Err(SizeError::NoUnit(_))),
                "{text:?}"
            );
        }
        for text in ["18446744073709551616", "16777216T", &"9".repeat(100_000)] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(matches!(error, SizeError::TooLarge(_)), "{error}");
            assert!(
                error.to_string().len() < 200,
                "a huge value must not flood the terminal"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_rendered_parses_back(bytes in 1..=u64::MAX, zeros in 0u32..60) {
            let size = Size::new((bytes >> zeros << zeros).max(1)).expect("not zero");
            prop_assert_eq!(size.to_string().parse::<Size>(), Ok(size));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<Size>();
        }

        #[test]
        fn no_near_miss_panics(text in "[0-9.]{0,40} ?[kKmMgGtTiIbB]{0,4}") {
            if let Ok(size) = text.parse::<Size>() {
                prop_assert_eq!(size.to_string().parse::<Size>(), Ok(size));
            }
        }
    }
}
