//! The wire ABI between memwatch's BPF programs (`main.rs` beside this file) and its agent
//! (`watchdog/src/bpf`), and the compiled object that holds those programs.
//!
//! Every type here lies in memory that both sides read: `repr(C)`, no padding that is not named,
//! its size asserted. A change to any of them, or to the meaning of a field, is a new
//! [`ABI_VERSION`].
//!
//! | map | key → value | written by | read by |
//! |---|---|---|---|
//! | `DEPTHS` | 0 → [`Depths`] | agent | programs |
//! | `TARGETS` | cgroup id → row | agent | programs |
//! | `ROWS` | row → [`TargetRow`] | agent | programs |
//! | `HEARTBEATS` | slot → [`Heartbeat`], mapped | agent | guard |
//! | `TOTALS` | row → [`TargetTotals`], mapped | programs | agent |
//! | `MACHINE` | 0 → [`MachineTotals`], mapped | programs | agent |
//! | `PROCESSES` | tgid → [`ProcessTotals`] | programs | agent |
//! | `STALLS` | row → [`StallWindow`] | programs | guard |
//! | `ARMED` | place → row + 1, 0 for none | agent | guard |
//! | `KILLS` | [`Name`] → [`Kill`] | guard | agent |
//! | `TURNS` | row and time → 1 | guard | guard |
//! | `RECLAIMS` | tid → [`ReclaimStart`] | programs | programs |
//! | `MEMSTALLS` | tid → row | programs | programs |
//! | `RINGS` | slot → ring of [`EventHeader`] + body | programs | agent |
#![no_std]

mod event;
mod layout;
mod terms;
mod totals;

pub use event::{Comm, EventHeader, EventKind, Hang, OomVictim, ReclaimStarted};
pub use layout::{KernelLayout, VICTIM_IS_PID, VICTIM_IS_TASK};
pub use terms::{
    ANY_LEVEL, ANY_USER, BUCKETS, Depths, GuardTerms, Heartbeat, Kill, Name, Reach, StallWindow,
    TargetRow, VICTIMS,
};
pub use totals::{MachineTotals, ProcessTotals, ReclaimStart, TargetTotals};

/// Version of everything in this crate; names the directory of the pins.
pub const ABI_VERSION: u32 = 2;

/// Rows in `ROWS` and `TOTALS`: targets on one machine.
pub const MAX_TARGETS: u32 = 1024;

/// Slots in `HEARTBEATS`: agents on one machine.
pub const MAX_OWNERS: u32 = 64;

/// Different depths below the root of the cgroups that hold targets at one time.
pub const MAX_DEPTHS: usize = 4;

/// Targets that the guard may reach by name; more are guarded, but only by who is at hand. The verifier
/// walks the loop over them place by place: its own loop (`bpf_loop`) asks for BTF in the object.
pub const MAX_ARMED: u32 = 16;

/// Kills that are kept until an agent has read them.
pub const MAX_KILLS: u32 = 1024;

/// How often a second the guard's clock ticks on each CPU.
pub const GUARD_TICKS_PER_S: u64 = 10;

/// Stands where `bpf_task_from_pid` is called; see [`KFUNCS`].
pub const KFUNC_TASK_FROM_PID: u32 = 0x6d77_0001;
/// Stands where `bpf_task_release` is called.
pub const KFUNC_TASK_RELEASE: u32 = 0x6d77_0002;
/// Stands where `bpf_task_under_cgroup` is called.
pub const KFUNC_TASK_UNDER_CGROUP: u32 = 0x6d77_0003;
/// Stands where `bpf_cgroup_from_id` is called.
pub const KFUNC_CGROUP_FROM_ID: u32 = 0x6d77_0004;
/// Stands where `bpf_cgroup_release` is called.
pub const KFUNC_CGROUP_RELEASE: u32 = 0x6d77_0005;
/// Stands where `bpf_send_signal_task` is called.
pub const KFUNC_SEND_SIGNAL_TASK: u32 = 0x6d77_0006;

/// Kernel functions that programs call, with the helper number that stands in the object for each: the
/// agent replaces it by the function's number in the running kernel's BTF.
pub const KFUNCS: [(&str, u32); 6] = [
    ("bpf_task_from_pid", KFUNC_TASK_FROM_PID),
    ("bpf_task_release", KFUNC_TASK_RELEASE),
    ("bpf_task_under_cgroup", KFUNC_TASK_UNDER_CGROUP),
    ("bpf_cgroup_from_id", KFUNC_CGROUP_FROM_ID),
    ("bpf_cgroup_release", KFUNC_CGROUP_RELEASE),
    ("bpf_send_signal_task", KFUNC_SEND_SIGNAL_TASK),
];

/// Processes whose totals are kept; the least recently seen makes room.
pub const MAX_PROCESSES: u32 = 8192;

/// Size of an owner's ring in bytes: a power of two and a multiple of every page size that Linux uses.
/// Holds a thousand events, each of which is rare.
pub const EVENT_RING_BYTES: u32 = 64 * 1024;

/// Stands where a row is expected and the task is in no target.
pub const NO_ROW: u32 = u32::MAX;

/// A target that has begun no reclaim for this long is quiet: its next one is told at once.
pub const QUIET_NS: u64 = 100_000_000;

/// One minor fault in so many is sampled. Also its weight in the totals: the period in the perf
/// context lies behind the registers, whose size differs by architecture, and the object is one
/// for all.
pub const MINOR_FAULT_PERIOD: u64 = 256;

/// One major fault in so many is sampled. Major faults are rarer and each costs a read from disk.
pub const MAJOR_FAULT_PERIOD: u64 = 16;

/// The compiled BPF programs: ELF for `bpfel`, made by `cargo xtask bpf build`.
#[cfg(not(target_arch = "bpf"))]
pub static OBJECT: &[u8] = {
    // ELF is read in place, so it has to lie as its headers expect.
    #[repr(C, align(8))]
    struct Aligned<Bytes: ?Sized>(Bytes);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!("../bpf/memwatch.bpf.o"));
    &ALIGNED.0
};
