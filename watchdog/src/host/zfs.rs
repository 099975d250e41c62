//! The ZFS ARC: memory that the kernel does not count as cache, given back slower than cache is.
//! What of it counts as available is `watch::availability`'s decision.

use std::path::Path;

use serde::Serialize;

use crate::host::machine::{ReadError, read_if_there};
use crate::host::text;

/// Below the file system's root.
pub const ARCSTATS: &str = "proc/spl/kstat/zfs/arcstats";

/// The ARC's size and bounds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ArcStats {
    /// What it holds.
    pub size_bytes: u64,
    /// What it aims at now.
    pub c_bytes: u64,
    /// What it never shrinks below.
    pub c_min_bytes: u64,
    /// What it may grow to (`zfs_arc_max`).
    pub c_max_bytes: u64,
}

/// The ARC; None without ZFS.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(root: &Path) -> Result<Option<ArcStats>, ReadError> {
    Ok(read_if_there(root, ARCSTATS)?.and_then(|bytes| parse(&bytes)))
}

/// Reads the text of `arcstats`: two lines of heading, then name, type and value.
pub fn parse(bytes: &[u8]) -> Option<ArcStats> {
    let value = |wanted: &[u8]| {
        text::whole_lines(bytes)
            .split(|&b| b == b'\n')
            .find_map(|line| {
                let mut words = line
                    .split(u8::is_ascii_whitespace)
                    .filter(|word| !word.is_empty());
                (words.next()? == wanted).then(|| words.nth(1).and_then(text::number))?
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
    fn similar_names_are_not_mixed_up() {
        let text = b"9 1 0x01 147 39984 4155226157 172541337153\n\
            name                            type data\n\
            hits                            4    113\n\
            c                               4    1402630144\n\
            c_min                           4    1042968576\n\
            c_max                           4    16687497216\n\
            size                            4    1323119696\n\
            compressed_size                 4    7\n";
        let expected = ArcStats {
            size_bytes: 1_323_119_696,
            c_bytes: 1_402_630_144,
            c_min_bytes: 1_042_968_576,
            c_max_bytes: 16_687_497_216,
        };
        assert_eq!(parse(text), Some(expected));
    }

    #[test]
    fn half_a_text_is_no_reading() {
        assert_eq!(parse(b"c 4 1\nsize 4 2\n"), None);
        assert_eq!(parse(b"c 4 1\nc_min 4 1\nc_max 4 9\nsize 4 2"), None);
    }
}
