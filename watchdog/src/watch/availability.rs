//! What the machine could still hand out: `MemAvailable`, plus what the ZFS ARC can give back.
//!
//! The kernel does not count the ARC as available although most of it is cache, so a machine with a
//! ZFS root looks fuller than it is. Counting all of it is as wrong: an ARC that does not shrink while
//! memory is short is memory in use.

use super::facts::MachineFacts;

/// Bytes that could be had without swapping.
///
/// `arc_shrinks` is whether the ARC got smaller while memory was short; before it was tested, half of
/// what lies above its floor is believed.
pub fn available_bytes(machine: &MachineFacts, arc_shrinks: Option<bool>) -> u64 {
    let above_floor = machine
        .arc
        .map_or(0, |arc| arc.size_bytes.saturating_sub(arc.c_min_bytes));
    let believed = match arc_shrinks {
        Some(true) => above_floor,
        Some(false) => 0,
        None => above_floor / 2,
    };
    machine
        .meminfo
        .available_bytes
        .saturating_add(believed)
        .min(machine.meminfo.total_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::facts::Arc;
    use super::*;
    use crate::host::meminfo::MemInfo;

    fn machine(available: u64, arc: Option<Arc>) -> MachineFacts {
        MachineFacts {
            meminfo: MemInfo {
                total_bytes: 1000,
                available_bytes: available,
                ..Default::default()
            },
            arc,
            psi: None,
        }
    }

    #[test]
    fn the_arc_counts_above_its_floor_and_only_if_it_shrinks() {
        let arc = Some(Arc {
            size_bytes: 300,
            c_min_bytes: 100,
        });
        assert_eq!(available_bytes(&machine(50, arc), Some(true)), 250);
        assert_eq!(available_bytes(&machine(50, arc), None), 150);
        assert_eq!(available_bytes(&machine(50, arc), Some(false)), 50);
        assert_eq!(available_bytes(&machine(50, None), Some(true)), 50);
    }

    #[test]
    fn an_arc_below_its_floor_gives_nothing() {
        let arc = Some(Arc {
            size_bytes: 50,
            c_min_bytes: 100,
        });
        assert_eq!(available_bytes(&machine(50, arc), Some(true)), 50);
    }

    #[test]
    fn never_more_than_there_is() {
        let arc = Some(Arc {
            size_bytes: u64::MAX,
            c_min_bytes: 0,
        });
        assert_eq!(available_bytes(&machine(50, arc), Some(true)), 1000);
    }
}
