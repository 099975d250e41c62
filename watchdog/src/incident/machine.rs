//! The part of a record that tells of the machine: its memory, swap and ZFS, and the lines of the kernel's log.
//! Reading them is `host`'s.

use serde::{Deserialize, Serialize};

use super::Text;
use crate::host::swap::Medium;

/// The machine's memory, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// All memory.
    pub memory_total_bytes: Option<u64>,
    /// What can be had without swapping, by the kernel's estimate.
    pub memory_available_bytes: Option<u64>,
    /// All swap; 0 without swap.
    pub swap_total_bytes: Option<u64>,
    /// Swap that is free.
    pub swap_free_bytes: Option<u64>,
    /// Where it swaps to.
    pub swaps: Vec<SwapState>,
    /// Whether the kernel ages pages by generations (MGLRU).
    pub mglru: Option<bool>,
    /// Share of the last ten seconds in which some task waited for memory.
    pub some_permille: Option<u32>,
    /// The same, all tasks at once.
    pub full_permille: Option<u32>,
    /// The ZFS ARC; `None` without ZFS.
    pub arc: Option<ArcState>,
    /// systemd-oomd: `not installed`, `well`, or what ails it.
    pub oomd: Option<Text>,
}

/// One swap area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapState {
    /// Its device or file.
    pub path: Text,
    /// Its size.
    pub size_bytes: u64,
    /// What it is kept on.
    pub medium: Medium,
}

/// The ZFS ARC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArcState {
    /// What it holds.
    pub size_bytes: u64,
    /// What it aims at.
    pub c_bytes: u64,
    /// What it never shrinks below.
    pub c_min_bytes: u64,
    /// What it may grow to.
    pub c_max_bytes: u64,
    /// Whether it gave memory back while the target was under pressure; `None` if that was not to be seen.
    pub shrank: Option<bool>,
}

/// A line of the service manager's log about a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLine {
    /// When, from the start of the run; negative before it.
    pub at_us: i64,
    /// The service's unit.
    pub unit: Text,
    /// What it says.
    pub text: Text,
}

/// A line of the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLine {
    /// When, from the start of the run; negative before it.
    pub at_us: i64,
    /// Its severity, 0 (emergency) to 7 (debug), as syslog(2) counts.
    pub severity: u8,
    /// What it says.
    pub text: Text,
}
