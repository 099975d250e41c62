//! Records of the rings: a header, then the body that its kind names.

use core::mem::size_of;

/// A task's name as the kernel keeps it: bytes, ended by a NUL, chosen by the task itself.
pub type Comm = [u8; 16];

/// What an event is about.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// [`ReclaimStarted`]: a target's first reclaim after a quiet spell.
    ReclaimStarted = 1,
    /// [`OomVictim`]: the kernel's OOM killer chose somebody, anywhere.
    OomVictim = 2,
    /// [`Hang`]: the kernel found a task in D state for too long, anywhere.
    Hang = 3,
}

/// Begins every record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EventHeader {
    /// `CLOCK_MONOTONIC` when it happened.
    pub time_ns: u64,
    /// An [`EventKind`].
    pub kind: u32,
    /// The target that the *current* task was in, or [`NO_ROW`](crate::NO_ROW).
    pub row: u32,
}
const _: () = assert!(size_of::<EventHeader>() == 16);

/// A target's first reclaim after [`QUIET_NS`](crate::QUIET_NS) without.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ReclaimStarted {
    /// Row and time.
    pub header: EventHeader,
    /// The thread in reclaim.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
}
const _: () = assert!(size_of::<ReclaimStarted>() == 24);

/// The kernel's OOM killer has marked a victim. The header's row is the allocating task's; where
/// the victim belongs is for the reader to find out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OomVictim {
    /// Row of the task that ran out, and time.
    pub header: EventHeader,
    /// The victim's thread.
    pub tid: u32,
    /// Its process; 0 where the kernel passes a pid alone.
    pub tgid: u32,
    /// Its name; zero where the kernel passes a pid alone.
    pub comm: Comm,
}
const _: () = assert!(size_of::<OomVictim>() == 40);

/// The kernel's hung-task check has reported a task, of any cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Hang {
    /// Time; the row is never known, the check runs in a kernel thread.
    pub header: EventHeader,
    /// The thread that hangs.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// Its name.
    pub comm: Comm,
}
const _: () = assert!(size_of::<Hang>() == 40);
