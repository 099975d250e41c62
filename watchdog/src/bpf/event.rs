//! Bytes of the ring into events. Pure: a record that is short, or of a kind from another ABI, is no
//! event.

use super::reader::Row;
use crate::host::process::Comm;
use bytes::Buf;
use memwatch_ebpf::{EventKind, NO_ROW};

/// Something rare that happened in the kernel. Times are on the monotonic clock, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first reclaim of a target after a quiet spell.
    ReclaimStarted {
        /// When.
        time_ns: u64,
        /// Which target.
        row: Row,
        /// The process that had to reclaim.
        pid: u32,
    },
    /// The kernel's OOM killer has chosen a process.
    OomVictim {
        /// When.
        time_ns: u64,
        /// The target of the task that ran out of memory, if it was in one.
        row: Option<Row>,
        /// The process; before 6.8 the kernel names a thread of it.
        pid: u32,
        /// Its name; empty before 6.8.
        comm: Comm,
    },
    /// The kernel has found a task hung.
    Hang {
        /// When.
        time_ns: u64,
        /// The thread.
        tid: u32,
        /// Its name.
        comm: Comm,
    },
}

impl Event {
    /// One record of each kind, of process `pid`.
    pub(super) fn records(pid: u32) -> Vec<Vec<u8>> {
        let comm = Comm::default();
        vec![
            record(EventKind::ReclaimStarted, 0, [pid, pid], &[]),
            record(EventKind::OomVictim, 0, [pid, 0], &comm),
            record(EventKind::Hang, NO_ROW, [pid, pid], &comm),
        ]
    }

    /// Reads one record of the ring (`memwatch_ebpf::EventHeader` and the body its kind names).
    // In one place, so that whoever goes through it has gone through what the deciding thread runs.
    #[inline(never)]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let time_ns = bytes.try_get_u64_ne().ok()?;
        let kind = bytes.try_get_u32_ne().ok()?;
        let row = bytes.try_get_u32_ne().ok()?;
        let row = (row != NO_ROW).then_some(Row(row));
        let first = bytes.try_get_u32_ne().ok()?;
        let second = bytes.try_get_u32_ne().ok()?;
        let mut comm = Comm::default();
        let mut named = |mut bytes: &[u8]| bytes.try_copy_to_slice(&mut comm).ok().map(|()| comm);
        Some(if kind == EventKind::ReclaimStarted as u32 {
            Self::ReclaimStarted {
                time_ns,
                row: row?,
                pid: second,
            }
        } else if kind == EventKind::OomVictim as u32 {
            let pid = if second == 0 { first } else { second };
            Self::OomVictim {
                time_ns,
                row,
                pid,
                comm: named(bytes)?,
            }
        } else if kind == EventKind::Hang as u32 {
            Self::Hang {
                time_ns,
                tid: first,
                comm: named(bytes)?,
            }
        } else {
            return None;
        })
    }
}

/// A record of a kind, as the programs write it.
fn record(kind: EventKind, row: u32, ids: [u32; 2], rest: &[u8]) -> Vec<u8> {
    let mut bytes = 77u64.to_ne_bytes().to_vec();
    for word in [kind as u32, row, ids[0], ids[1]] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(rest);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_reads_back() {
        let started = record(EventKind::ReclaimStarted, 3, [11, 10], &[]);
        assert_eq!(
            Event::decode(&started),
            Some(Event::ReclaimStarted {
                time_ns: 77,
                row: Row(3),
                pid: 10
            })
        );

        let body = b"hog\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        let comm: Comm = body[..16].try_into().expect("16");
        let hang = record(EventKind::Hang, NO_ROW, [11, 10], &body);
        assert_eq!(
            Event::decode(&hang),
            Some(Event::Hang {
                time_ns: 77,
                tid: 11,
                comm
            })
        );
        let oom = record(EventKind::OomVictim, NO_ROW, [11, 0], &body);
        assert_eq!(
            Event::decode(&oom),
            Some(Event::OomVictim {
                time_ns: 77,
                row: None,
                pid: 11,
                comm
            })
        );
    }

    #[test]
    fn a_target_that_must_be_named_is() {
        assert_eq!(
            Event::decode(&record(EventKind::ReclaimStarted, NO_ROW, [1, 1], &[])),
            None
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            let _ = Event::decode(&bytes);
        }

        #[test]
        fn a_cut_record_is_none(cut in 0usize..40) {
            let whole = record(EventKind::Hang, 1, [2, 0], &[0; 16]);
            prop_assert_eq!(Event::decode(&whole[..cut]), None);
        }
    }
}
