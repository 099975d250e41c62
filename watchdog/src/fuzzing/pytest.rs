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
    // Of a line that can be read, a part cannot, and all before it stays as it was.
    let end = bytes
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |at| at + 1);
    let before = Results::parse(&bytes[..end]);
    let line = bytes[end..].trim_ascii_end();
    if !line.is_empty() && read.unreadable == before.unreadable {
        let mut cut = Results::parse(&bytes[..end + line.len() - 1]);
        // Nothing at all is no line.
        cut.unreadable -= u64::from(line.len() > 1);
        assert_eq!(cut, before);
    }
}
