//! Pressure stall information: the `total=` counters, never the averages.
//!
//! `avg10` lags by seconds and decays slowly; `total` is exact to the microsecond and costs the same
//! read. Rates over a window are `watch::window`'s.

use crate::host::text;
use serde::{Deserialize, Serialize};

/// Stall time so far, as `memory.pressure` and `/proc/pressure/memory` print it (kernel/sched/psi.c).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Psi {
    /// Time in which at least one task was stalled on memory, in µs.
    pub some_us: u64,
    /// Time in which every non-idle task was stalled on memory, in µs.
    pub full_us: u64,
}

/// Reads a pressure file's text. `None` if either line is missing or cut: a kernel that prints no `full` line
/// for memory does not exist, so half a text is a torn one.
pub fn parse(bytes: &[u8]) -> Option<Psi> {
    let mut some = None;
    let mut full = None;
    for line in text::whole_lines(bytes).split(|&b| b == b'\n') {
        let total = text::after(line, b"total=");
        match line.get(..5) {
            Some(b"some ") => some = total,
            Some(b"full ") => full = total,
            _ => {}
        }
    }
    Some(Psi {
        some_us: some?,
        full_us: full?,
    })
}

/// `full avg10` of a pressure file's text, in hundredths of a percent: what systemd-oomd's limits mean. Nothing
/// else is judged by it.
pub fn full_avg10_permyriad(bytes: &[u8]) -> Option<u32> {
    avg10_permyriad(bytes, b"full avg10=")
}

/// `some avg10`, the same: told in records, and nothing is judged by it.
pub fn some_avg10_permyriad(bytes: &[u8]) -> Option<u32> {
    avg10_permyriad(bytes, b"some avg10=")
}

fn avg10_permyriad(bytes: &[u8], key: &[u8]) -> Option<u32> {
    let mut lines = text::whole_lines(bytes).split(|&b| b == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(key))?;
    let (whole, rest) = line.split_at_checked(line.iter().position(|&b| b == b'.')?)?;
    // Always two digits behind the point.
    let [_, tenths @ b'0'..=b'9', hundredths @ b'0'..=b'9', ..] = rest else {
        return None;
    };
    let behind = u32::from(tenths - b'0') * 10 + u32::from(hundredths - b'0');
    let whole = u32::try_from(text::number(whole)?).ok()?;
    whole
        .checked_mul(100)?
        .checked_add(behind)
        .filter(|share| *share <= 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_totals() {
        let text = b"some avg10=0.00 avg60=0.02 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=678\n";
        assert_eq!(
            parse(text),
            Some(Psi {
                some_us: 12345,
                full_us: 678
            })
        );
    }

    #[test]
    fn half_a_text_is_no_reading() {
        assert_eq!(parse(b""), None);
        assert_eq!(
            parse(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"),
            None
        );
        assert_eq!(
            parse(b"some avg10=0.00 total=\nfull avg10=0.00 total=1\n"),
            None
        );
        // The rest of the last number may be missing.
        assert_eq!(
            parse(b"some avg10=0.00 total=12\nfull avg10=0.00 total=1"),
            None
        );
    }

    #[test]
    fn the_average_is_of_full_and_exact_to_the_hundredth() {
        let text = b"some avg10=99.00 avg60=0.02 total=1\nfull avg10=12.05 avg60=0.00 total=6\n";
        assert_eq!(full_avg10_permyriad(text), Some(1205));
        assert_eq!(some_avg10_permyriad(text), Some(9900));
        assert_eq!(full_avg10_permyriad(b"some avg10=99.00 total=1\n"), None);
        assert_eq!(full_avg10_permyriad(b"full avg10=1"), None);
        assert_eq!(full_avg10_permyriad(b"full avg10=1.5 x\n"), None);
        assert_eq!(full_avg10_permyriad(b"full avg10=100.00\n"), Some(10_000));
    }

    #[test]
    fn a_share_beyond_the_whole_is_no_reading() {
        for text in [
            &b"full avg10=100.01\n"[..],
            b"full avg10=42949673.00\n",
            b"full avg10=18446744073709551615.00\n",
        ] {
            assert_eq!(full_avg10_permyriad(text), None);
        }
    }

    #[test]
    fn the_machines_own_file_parses() {
        let text = std::fs::read("/proc/pressure/memory").expect("this kernel has PSI");
        assert!(parse(&text).is_some());
        assert!(full_avg10_permyriad(&text).is_some_and(|share| share <= 10_000));
    }
}
