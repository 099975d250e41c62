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

/// Reads a pressure file's text. `None` if either line is missing: a kernel that prints no `full` line
/// for memory does not exist, so half a text is a torn one.
pub fn parse(bytes: &[u8]) -> Option<Psi> {
    let mut some = None;
    let mut full = None;
    for line in bytes.split(|&b| b == b'\n') {
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
    let mut lines = bytes.split(|&b| b == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(key))?;
    // Always two digits behind the point.
    let (whole, rest) = line.split_at_checked(line.iter().position(|&b| b == b'.')?)?;
    let hundredths = text::number(rest.get(1..3)?)?;
    u32::try_from(text::number(whole)? * 100 + hundredths).ok()
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
    }

    #[test]
    fn the_average_is_of_full_and_exact_to_the_hundredth() {
        let text = b"some avg10=99.00 avg60=0.02 total=1\nfull avg10=12.05 avg60=0.00 total=6\n";
        assert_eq!(full_avg10_permyriad(text), Some(1205));
        assert_eq!(some_avg10_permyriad(text), Some(9900));
        assert_eq!(full_avg10_permyriad(b"some avg10=99.00 total=1\n"), None);
        assert_eq!(full_avg10_permyriad(b"full avg10=1"), None);
    }

    #[test]
    fn the_machines_own_file_parses() {
        let text = std::fs::read("/proc/pressure/memory").expect("this kernel has PSI");
        assert!(parse(&text).is_some());
        assert!(full_avg10_permyriad(&text).is_some_and(|share| share <= 10_000));
    }
}
