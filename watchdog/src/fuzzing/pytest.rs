//! What a process of pytest publishes, and what is made of it.

use super::{Check, torn};
use crate::pytest::results::Results;
use crate::pytest::{Slot, slot};

pub(super) const CHECKS: &[Check] = &[
    ("a slot", page),
    ("a slot that is whole", whole_page),
    ("results", results),
    (
        "the suite in the record",
        crate::agent::testing::fuzzing::suite,
    ),
];

fn page(bytes: &[u8]) {
    torn(bytes, Slot::decode);
    let Some(slot) = Slot::decode(bytes) else {
        return;
    };
    assert!(slot.id.len() <= slot::BYTES && slot.worker.len() < 16);
    assert!(!slot.worker.contains(&0));
    assert!(!slot.runs() || slot.serial > 0);
    // While it is written to, its number is odd.
    let mut torn = bytes.to_vec();
    torn[8] |= 1;
    assert_eq!(Slot::decode(&torn), None);
}

/// The bytes behind the head, and the rest of the page empty.
fn whole_page(bytes: &[u8]) {
    let mut whole = b"memwtst1\x02\0\0\0\0\0\0\0".to_vec();
    whole.extend(bytes);
    whole.resize(slot::BYTES, 0);
    page(&whole);
}

fn results(bytes: &[u8]) {
    let read = Results::parse(bytes);
    let lines = bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    let told = read.tests.len() + read.collected.len() + read.leaks.len();
    let lines = lines.count();
    assert!(told as u64 + read.unreadable <= lines as u64);
    // A line that is cut is one that cannot be read, and all before it stay as they were.
    let end = bytes
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |at| at + 1);
    if bytes.len() > end + 1 {
        let mut cut = Results::parse(&bytes[..bytes.len() - 1]);
        let before = Results::parse(&bytes[..end]);
        // Blanks may stand behind a whole line.
        if cut != read {
            assert_eq!(cut.unreadable, before.unreadable + 1);
            cut.unreadable -= 1;
            assert_eq!(cut, before);
        }
    }
}
