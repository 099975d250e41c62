//! What the agent tells the programs about a target, the terms of the guard among it; what the guard
//! keeps of the target's stall; and what it writes down when it kills. Counters are `totals`'s.
//!
//! Times are `CLOCK_MONOTONIC` nanoseconds; start times are clock ticks since boot, as field 22 of
//! `/proc/PID/stat` has them: with the process id they name one process for good.

use core::mem::size_of;

use crate::Comm;

/// Processes that the agent names as victims, the first choice first.
pub const VICTIMS: usize = 4;

/// Parts of a guard's window. The window slides by one of them.
pub const BUCKETS: usize = 16;

/// The depths of targets below the root, in ascending order; zeros follow the last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// 1 is a child of the root. The root itself is no target.
    pub after_root: [u32; crate::MAX_DEPTHS],
}
const _: () = assert!(size_of::<Depths>() == 16);

/// What the agent tells the programs about one target.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetRow {
    /// The cgroup v2 id; 0 while the row is free.
    pub cgroup_id: u64,
    /// Depth of that cgroup below the root, which is 0; [`ANY_LEVEL`] where it is not known.
    pub level: u32,
    /// Whose heartbeat shows that somebody is watching: a slot in `HEARTBEATS`.
    pub heartbeat_slot: u32,
    /// On what terms the kernel may act when that heartbeat stops.
    pub guard: GuardTerms,
}
const _: () = assert!(size_of::<TargetRow>() == 88);

/// The in-kernel guard's terms for one target. All zero: never act.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardTerms {
    /// Heartbeats older than this are stale; 0: never act.
    pub stale_after_ns: u64,
    /// Stall within the window from which the guard acts.
    pub budget_ns: u64,
    /// The window, in its [`BUCKETS`] parts: the length of one.
    pub bucket_ns: u64,
    /// The least time between two kills in this target.
    pub pause_ns: u64,
    /// Whom to kill if no member comes by itself, the first choice first.
    pub victims: [Name; VICTIMS],
    /// The user on whose behalf, whose processes alone may be signalled; [`ANY_USER`] for any.
    pub uid: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<GuardTerms>() == 72);

/// Not known: in a cgroup namespace nobody can tell how deep the namespace lies. Cgroups inside such a
/// target are not found.
pub const ANY_LEVEL: u32 = u32::MAX;

/// No restriction by user.
pub const ANY_USER: u32 = u32::MAX;

/// A process, for good.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Its process id in the initial pid namespace; 0 for none.
    pub tgid: u32,
    /// When it started, in clock ticks since boot, cut to 32 bits: 497 days.
    pub start_ticks: u32,
}
const _: () = assert!(size_of::<Name>() == 8);

/// A sign of life of one agent.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// When its deciding thread last finished a pass.
    pub beat_ns: u64,
    /// Keeps owners on cache lines of their own.
    pub reserved: [u64; 7],
}
const _: () = assert!(size_of::<Heartbeat>() == 64);

/// The stall of one target as the guard sees it, in a sliding window: the time in which at least one task
/// was in reclaim or, where the kernel lets the guard see it, waited for memory in any way that pressure
/// stall information counts (PSI's `some`).
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallWindow {
    /// When a stall last began or ended: until then the time is counted, once where stalls overlap.
    pub counted_until_ns: u64,
    /// Stalls begun, and of those the ones that have ended: if more have begun, one is under way.
    pub begun: u64,
    /// See `begun`.
    pub ended: u64,
    /// When the guard last killed here, or when who was killed was gone; 0 for never.
    pub last_kill_ns: u64,
    /// The process that was killed and is not gone yet; 0 for none.
    pub dying: u64,
    /// Zero.
    pub reserved: [u64; 3],
    /// The number of the bucket's time that each bucket counts.
    pub epochs: [u64; BUCKETS],
    /// What each bucket has counted.
    pub stall_ns: [u64; BUCKETS],
}
const _: () = assert!(size_of::<StallWindow>() == 320);

/// A process that the guard killed. Kept until an agent has read it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kill {
    /// When.
    pub time_ns: u64,
    /// In which target.
    pub cgroup_id: u64,
    /// The stall in the window then.
    pub stall_ns: u64,
    /// How old the heartbeat was.
    pub heartbeat_age_ns: u64,
    /// Its name.
    pub comm: Comm,
    /// How it was reached: a [`Reach`].
    pub reach: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Kill>() == 56);

/// How the guard reached the process that it killed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It had been in reclaim.
    Reclaim = 1,
    /// It was running when the clock ticked.
    Running = 2,
    /// The agent had named it.
    Named = 3,
    /// It had waited for memory.
    Stall = 4,
}

#[cfg(not(target_arch = "bpf"))]
mod pod {
    use super::*;

    // SAFETY: repr(C), integers only, and the size asserts above leave no room for padding.
    unsafe impl aya::Pod for TargetRow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Depths {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Heartbeat {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Name {}
    // SAFETY: as above.
    unsafe impl aya::Pod for StallWindow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Kill {}
}
