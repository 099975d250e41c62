//! ZFS's adaptive replacement cache, from `/proc/spl/kstat/zfs/arcstats`.
//!
//! The kernel counts the ARC as used memory although most of it is cache; how much of it is believed to
//! be available is `watch::availability`'s.

use crate::host::text;
use serde::{Deserialize, Serialize};

/// Where the figures are.
pub const ARCSTATS: &str = "/proc/spl/kstat/zfs/arcstats";

/// The figures that memwatch uses, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArcStats {
    /// What it holds.
    pub size_bytes: u64,
    /// What it aims for at the moment.
    pub c_bytes: u64,
    /// What it never shrinks below.
    pub c_min_bytes: u64,
    /// What it may grow to.
    pub c_max_bytes: u64,
}

/// Reads the text: two lines of heading, then `name type data`. `None` if one of the four is missing.
pub fn parse(bytes: &[u8]) -> Option<ArcStats> {
    let value = |wanted: &[u8]| {
        bytes.split(|&b| b == b'\n').find_map(|line| {
            let mut words = line.split(|&b| b == b' ').filter(|word| !word.is_empty());
            (words.next()? == wanted).then(|| text::number(words.nth(1)?))?
        })
    };
    Some(ArcStats {
        size_bytes: value(b"size")?,
        c_bytes: value(b"c")?,
        c_min_bytes: value(b"c_min")?,
        c_max_bytes: value(b"c_max")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_four_figures() {
        let text = b"13 1 0x01 147 39984 5044133370 1213462471234\nname                            type data\nhits                            4    1\nc                               4    1402630144\nc_min                           4    1042956032\nc_max                           4    16687497216\nsize                            4    1323119696\n";
        assert_eq!(
            parse(text),
            Some(ArcStats {
                size_bytes: 1_323_119_696,
                c_bytes: 1_402_630_144,
                c_min_bytes: 1_042_956_032,
                c_max_bytes: 16_687_497_216,
            })
        );
    }

    #[test]
    fn half_a_text_is_no_reading() {
        assert_eq!(parse(b"name type data\nsize 4 1\n"), None);
    }
}
