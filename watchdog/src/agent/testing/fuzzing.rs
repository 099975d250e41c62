//! What must hold of the part of the record that is made of what processes of pytest told. See [`crate::fuzzing`].

use super::suite::{gather, unwritten};
use crate::pytest::Slot;
use crate::pytest::results::Results;
use std::collections::BTreeMap;
use std::time::Duration;

/// Two processes, with a zero byte between what they told. What the first one told is in the slot of the other, too.
pub(crate) fn suite(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |&b| b == 0);
    let mut results = || Results::parse(parts.next().unwrap_or_default());
    let (first, second) = (results(), results());
    let slot = Slot::decode(&[b"memwtst1\x02\0\0\0\0\0\0\0", bytes].concat());
    for unwritten in unwritten(&[(1, first.clone()), (2, second.clone())]) {
        assert!(unwritten.pids.iter().all(|pid| [1, 2].contains(pid)));
    }
    let told = first.tests.len() + second.tests.len();
    let lost = first.unreadable + second.unreadable;
    let processes = vec![(1, first, slot.clone()), (2, second, slot)];
    let seen = BTreeMap::new();
    if let Some(suite) = gather(processes, &[], &seen, Duration::from_secs(1)) {
        assert!(suite.tests.len() <= told + 2);
        assert!(suite.tests.len() as u64 + suite.lost >= told as u64 + lost);
        crate::fuzzing::of_suite(suite);
    }
}
