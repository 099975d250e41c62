//! What one look at the machine saw. Facts only; what they mean is [`super::policy`]'s.
//!
//! `Option` marks what this look did not read or this machine cannot tell; a missing fact is never a
//! zero. Everything serialises, so that a recording can be replayed through the real policy.

use crate::host::meminfo::MemInfo;
use crate::host::memory::MemoryStat;
use crate::host::process::Comm;
use crate::host::psi::Psi;
use serde::{Deserialize, Serialize};

/// One look.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The guarded cgroup.
    pub target: TargetFacts,
    /// The whole machine, when this look went that far.
    pub machine: Option<MachineFacts>,
    /// The target's processes, when this look went that far.
    pub members: Option<&'a [Member]>,
    /// Whether the process that was signalled last has exited.
    pub victim_gone: bool,
}

/// The guarded cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFacts {
    /// Bytes charged, page cache included.
    pub current_bytes: u64,
    /// The limit that applies: the controller's, or the one the agent enforces.
    pub limit_bytes: Option<u64>,
    /// The breakdown.
    pub stat: Option<MemoryStat>,
    /// The target's own memory pressure.
    pub psi: Option<Psi>,
    /// The target's own I/O pressure: reading back what reclaim took away counts there, unless the
    /// kernel knew the page for a part of the working set.
    #[serde(default)]
    pub io_psi: Option<Psi>,
    /// What its processes spent in reclaim, from the BPF programs.
    pub reclaim: Option<Reclaim>,
}

/// Reclaim done by the target's own processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaim {
    /// Time inside direct and memcg reclaim, summed over tasks, in ns.
    pub stall_ns: u64,
    /// How often reclaim was entered.
    pub begins: u64,
    /// Pages looked at.
    pub scanned_pages: u64,
    /// Pages freed.
    pub reclaimed_pages: u64,
}

/// The whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// `/proc/meminfo`.
    pub meminfo: MemInfo,
    /// The ZFS ARC, where there is one.
    pub arc: Option<Arc>,
    /// The machine's pressure.
    pub psi: Option<Psi>,
}

/// The ZFS ARC's size and the floor it does not shrink below (`arcstats`: `size`, `c_min`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arc {
    /// Bytes held.
    pub size_bytes: u64,
    /// The floor.
    pub c_min_bytes: u64,
}

/// One process of the target, with what it did over [`super::Settings::growth_window`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Process id.
    pub pid: u32,
    /// Parent.
    pub ppid: u32,
    /// Process group.
    pub pgid: u32,
    /// Start time in clock ticks since boot: with the pid, the process's identity.
    pub start_ticks: u64,
    /// Name, raw kernel bytes; written as text.
    #[serde(with = "crate::host::process::comm_text")]
    pub comm: Comm,
    /// Whether this is the process that memwatch started, or was given.
    pub leader: bool,
    /// Anonymous memory.
    pub anon_bytes: u64,
    /// Mapped files and shared memory.
    pub shared_bytes: u64,
    /// By how much its resident memory grew over the window.
    pub growth_bytes: u64,
    /// Time it spent in reclaim over the window, in ns; 0 where no BPF program can tell.
    pub stall_ns: u64,
    /// Major faults over the window.
    pub major_faults: u64,
    /// Minor faults over the window.
    #[serde(default)]
    pub minor_faults: u64,
    /// Time in the kernel over the window, in clock ticks.
    pub system_ticks: u64,
    /// The test of pytest that it runs, as its process counts them, if that can be asked to fail; 0 for none.
    #[serde(default)]
    pub test: u32,
    /// Whether it is of a session of pytest: its controller, its worker, or all of it.
    #[serde(default)]
    pub of_pytest: bool,
}
