//! Values of the maps: what is counted, per target, process and machine. What the agent tells the
//! programs about a target is `terms`'s, the records of the ring are `event`'s.
//!
//! Counters only grow; the agent works with differences. Times are `CLOCK_MONOTONIC` nanoseconds.

use core::mem::size_of;

/// What a target's reclaim, faults and exits have added up to since it was added.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetTotals {
    /// Time its tasks spent in direct or memcg reclaim, summed over tasks.
    pub stall_ns: u64,
    /// Reclaims begun in the page allocator because the machine (a zone) was short.
    pub direct_reclaims: u64,
    /// Reclaims begun because a memory cgroup reached its limit.
    pub memcg_reclaims: u64,
    /// Pages that those reclaims freed, as `*_reclaim_end` reports.
    pub reclaimed_pages: u64,
    /// Pages looked at on the inactive lists, `mm_vmscan_lru_shrink_inactive`.
    pub scanned_pages: u64,
    /// Of those, pages taken.
    pub stolen_pages: u64,
    /// Times its tasks woke kswapd.
    pub kswapd_wakeups: u64,
    /// Minor faults, weighted samples, while hot.
    pub minor_faults: u64,
    /// Major faults, weighted samples, while hot.
    pub major_faults: u64,
    /// Tasks (threads too) that exited.
    pub exits: u64,
    /// When the last reclaim began; 0 if none has.
    pub last_reclaim_ns: u64,
    /// Reclaims whose begin was not seen, or was crowded out: their time is missing.
    pub unmatched_ends: u64,
    /// Keeps rows of different targets on different pairs of cache lines.
    pub reserved: [u64; 4],
}
const _: () = assert!(size_of::<TargetTotals>() == 128);

/// What happened on the machine, whoever it happened to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineTotals {
    /// Events that found no room in the ring.
    pub dropped_events: u64,
    /// Times a kswapd woke.
    pub kswapd_wakes: u64,
    /// Tasks that the kernel reported as hung.
    pub hangs: u64,
    /// Victims that the kernel's OOM killer marked.
    pub oom_victims: u64,
    /// Process totals that found no room.
    pub dropped_processes: u64,
}
const _: () = assert!(size_of::<MachineTotals>() == 40);

/// What one process of a target has added to its target's totals.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessTotals {
    /// Time its threads spent in direct or memcg reclaim.
    pub stall_ns: u64,
    /// Reclaims that they ended.
    pub reclaims: u64,
    /// Pages that those freed.
    pub reclaimed_pages: u64,
    /// Pages looked at on the inactive lists.
    pub scanned_pages: u64,
    /// Minor faults, weighted samples, while hot.
    pub minor_faults: u64,
    /// Major faults, weighted samples, while hot.
    pub major_faults: u64,
    /// When any of these last grew.
    pub last_seen_ns: u64,
    /// The target that it was in then.
    pub row: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<ProcessTotals>() == 64);

/// A reclaim under way.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ReclaimStart {
    /// When it began.
    pub begin_ns: u64,
    /// The target that the task was in then.
    pub row: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<ReclaimStart>() == 16);

#[cfg(not(target_arch = "bpf"))]
mod pod {
    use super::*;

    // SAFETY: repr(C), integers only, and the size asserts above leave no room for padding.
    unsafe impl aya::Pod for TargetTotals {}
    // SAFETY: as above.
    unsafe impl aya::Pod for MachineTotals {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ProcessTotals {}
}
