//! What differs between kernels and is settled once, at load: the global `LAYOUT` of the object.

use core::mem::size_of;

/// `mark_victim` passes `struct task_struct *`: since Linux 6.8.
pub const VICTIM_IS_TASK: u32 = 1;
/// `mark_victim` passes `int pid`: up to Linux 6.7.
pub const VICTIM_IS_PID: u32 = 2;

/// Where the running kernel keeps what the programs read from it, from its BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// Byte offset of `task_struct.pid`, the thread.
    pub task_pid: u32,
    /// Byte offset of `task_struct.tgid`, the process.
    pub task_tgid: u32,
    /// Byte offset of `task_struct.comm`.
    pub task_comm: u32,
    /// Byte offset of `task_struct.group_leader`.
    pub task_group_leader: u32,
    /// Byte offset of `task_struct.start_boottime`.
    pub task_start_boottime: u32,
    /// [`VICTIM_IS_TASK`] or [`VICTIM_IS_PID`].
    pub mark_victim: u32,
}
const _: () = assert!(size_of::<KernelLayout>() == 24);

// SAFETY: repr(C), integers only, no padding by the assert above.
#[cfg(not(target_arch = "bpf"))]
unsafe impl aya::Pod for KernelLayout {}
