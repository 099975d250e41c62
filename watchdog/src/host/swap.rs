//! Where the machine swaps to: `/proc/swaps`. How much is free is `meminfo`'s.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::host::machine::{ReadError, read_if_there};
use crate::host::text;

/// One active swap area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SwapArea {
    /// Its device or file, as the kernel prints it (blanks as `\040`).
    pub path: String,
    /// Its size.
    pub size_bytes: u64,
    /// What it is kept on.
    pub medium: Medium,
}

/// What a swap area is kept on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// Compressed memory.
    Zram,
    /// A ZFS volume: writing to it needs memory.
    Zvol,
    /// Any other block device, or a file.
    Disk,
}

/// The active swap areas; empty without swap, or without swap in the kernel.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(root: &Path) -> Result<Vec<SwapArea>, ReadError> {
    Ok(parse(
        &read_if_there(root, "proc/swaps")?.unwrap_or_default(),
    ))
}

/// Reads the text of `/proc/swaps` (mm/swapfile.c, `swap_show`): a heading, then path, type, size and
/// use in KiB, priority.
pub fn parse(bytes: &[u8]) -> Vec<SwapArea> {
    text::whole_lines(bytes)
        .split(|&b| b == b'\n')
        .skip(1)
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<SwapArea> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let path = String::from_utf8_lossy(words.next()?).into_owned();
    let size_bytes = text::number(words.nth(1)?)?.saturating_mul(1024);
    let medium = match path.strip_prefix("/dev/") {
        Some(device) if numbered(device, "zram") => Medium::Zram,
        Some(device) if numbered(device, "zd") || device.starts_with("zvol/") => Medium::Zvol,
        _ => Medium::Disk,
    };
    Some(SwapArea {
        path,
        size_bytes,
        medium,
    })
}

/// Whether `device` is a driver's name and a number. Partitions (`zd0p1`) count.
fn numbered(device: &str, driver: &str) -> bool {
    device
        .strip_prefix(driver)
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_by_medium() {
        let text = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
            /dev/zram0                              partition\t8388604\t\t0\t\t100\n\
            /swap\\040file                           file\t\t2097148\t\t512\t\t-2\n\
            /dev/zd16                               partition\t1048572\t\t0\t\t-3\n";
        let areas: Vec<_> = parse(text)
            .into_iter()
            .map(|a| (a.path, a.size_bytes, a.medium))
            .collect();
        assert_eq!(
            areas,
            [
                ("/dev/zram0".to_owned(), 8_388_604 * 1024, Medium::Zram),
                ("/swap\\040file".to_owned(), 2_097_148 * 1024, Medium::Disk),
                ("/dev/zd16".to_owned(), 1_048_572 * 1024, Medium::Zvol),
            ]
        );
    }

    #[test]
    fn a_heading_alone_is_no_swap() {
        assert_eq!(parse(b"Filename\tType\tSize\tUsed\tPriority\n"), []);
        assert_eq!(parse(b""), []);
    }
}
