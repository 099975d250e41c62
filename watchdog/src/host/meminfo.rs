//! `/proc/meminfo`: what the machine could still hand out.
//!
//! The share of the ZFS ARC that counts as available is `watch::availability`'s decision; this only
//! reads.

use crate::host::text;
use serde::{Deserialize, Serialize};

/// The lines of `/proc/meminfo` that the decision uses, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemInfo {
    /// `MemTotal`.
    pub total_bytes: u64,
    /// `MemAvailable`: the kernel's estimate of what can be had without swapping
    /// (mm/show_mem.c, `si_mem_available`).
    pub available_bytes: u64,
    /// `SwapTotal`; 0 without swap.
    pub swap_total_bytes: u64,
    /// `SwapFree`.
    pub swap_free_bytes: u64,
}

/// Reads the text of `/proc/meminfo`. `None` without `MemTotal` or `MemAvailable` (3.14 and later have
/// both).
pub fn parse(bytes: &[u8]) -> Option<MemInfo> {
    let (mut total, mut available, mut swap_total, mut swap_free) = (None, None, 0, 0);
    for (key, kib) in text::keyed_lines(bytes) {
        let value = kib.saturating_mul(1024);
        match key {
            b"MemTotal" => total = Some(value),
            b"MemAvailable" => available = Some(value),
            b"SwapTotal" => swap_total = value,
            b"SwapFree" => swap_free = value,
            _ => {}
        }
    }
    Some(MemInfo {
        total_bytes: total?,
        available_bytes: available?,
        swap_total_bytes: swap_total,
        swap_free_bytes: swap_free,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_machine_without_swap_prints() {
        let text = b"MemTotal:       24576000 kB\nMemFree:  1 kB\nMemAvailable:   12288000 kB\n";
        let info = parse(text).expect("complete");
        assert_eq!(info.total_bytes, 24_576_000 * 1024);
        assert_eq!(info.available_bytes, 12_288_000 * 1024);
        assert_eq!(info.swap_total_bytes, 0);
    }

    #[test]
    fn nothing_is_made_up() {
        assert_eq!(parse(b"MemTotal: 5 kB\n"), None);
    }
}
