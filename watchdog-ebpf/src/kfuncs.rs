//! Kernel functions that reach a task other than the current one (since 6.13 all of them).
//!
//! A call of a kernel function names it by its number in the running kernel's BTF. The compiler cannot
//! know that number, so each is called as a helper whose number no kernel has ([`memwatch_ebpf::KFUNCS`]);
//! the agent puts the right number there before it loads the object.

use core::mem::transmute;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use memwatch_ebpf::{
    KFUNC_CGROUP_FROM_ID, KFUNC_CGROUP_RELEASE, KFUNC_SEND_SIGNAL_TASK, KFUNC_TASK_FROM_PID,
    KFUNC_TASK_RELEASE, KFUNC_TASK_UNDER_CGROUP,
};

const SIGKILL: u32 = 9;
/// `enum pid_type`: to the process, not to one thread.
const PIDTYPE_TGID: u32 = 1;

/// A task, held.
pub(crate) struct Task(*mut u8);

impl Task {
    /// The main thread of a process, by its id in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn of(tgid: u32) -> Option<Self> {
        // SAFETY: `struct task_struct *bpf_task_from_pid(s32 pid)`, acquires, may be null.
        let task = unsafe {
            transmute::<usize, extern "C" fn(i32) -> *mut u8>(KFUNC_TASK_FROM_PID as usize)(
                tgid as i32,
            )
        };
        (!task.is_null()).then_some(Self(task))
    }

    /// Reads one of its fields.
    #[inline(always)]
    pub(crate) fn read<T: Default>(&self, offset: u32) -> T {
        // SAFETY: the helper checks the address and reports a fault instead of taking it.
        unsafe { bpf_probe_read_kernel(self.0.wrapping_add(offset as usize).cast::<T>()) }
            .unwrap_or_default()
    }

    /// Kills its process. `false`: not from this interrupt (the CPU was idle); the next tick may.
    #[inline(always)]
    pub(crate) fn kill(&self) -> bool {
        // SAFETY: `int bpf_send_signal_task(struct task_struct *, int sig, enum pid_type, u64 value)`.
        let result = unsafe {
            transmute::<usize, extern "C" fn(*mut u8, u32, u32, u64) -> i32>(
                KFUNC_SEND_SIGNAL_TASK as usize,
            )(self.0, SIGKILL, PIDTYPE_TGID, 0)
        };
        result == 0
    }

    #[inline(always)]
    pub(crate) fn release(self) {
        // SAFETY: `void bpf_task_release(struct task_struct *)`, of what was acquired.
        unsafe { transmute::<usize, extern "C" fn(*mut u8)>(KFUNC_TASK_RELEASE as usize)(self.0) }
    }
}

/// Whether the task is in the cgroup of that id, or below, now.
#[inline(always)]
pub(crate) fn is_under(task: &Task, cgroup_id: u64) -> bool {
    // SAFETY: `struct cgroup *bpf_cgroup_from_id(u64)`, acquires, may be null.
    let cgroup = unsafe {
        transmute::<usize, extern "C" fn(u64) -> *mut u8>(KFUNC_CGROUP_FROM_ID as usize)(cgroup_id)
    };
    if cgroup.is_null() {
        return false;
    }
    // SAFETY: `long bpf_task_under_cgroup(struct task_struct *, struct cgroup *)`.
    let under = unsafe {
        transmute::<usize, extern "C" fn(*mut u8, *mut u8) -> i64>(KFUNC_TASK_UNDER_CGROUP as usize)(
            task.0, cgroup,
        )
    };
    // SAFETY: `void bpf_cgroup_release(struct cgroup *)`, of what was acquired.
    unsafe { transmute::<usize, extern "C" fn(*mut u8)>(KFUNC_CGROUP_RELEASE as usize)(cgroup) };
    under == 1
}
