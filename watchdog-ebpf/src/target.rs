//! Who a task is: whether the current one is in a target, and in which; and what another one is
//! called.

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id},
    },
};
use aya_log_ebpf::warn;
use memwatch_ebpf::{Comm, MAX_DEPTHS, NO_ROW};

use crate::maps::{DEPTHS, ROWS, TARGETS, layout};

/// The row of the innermost target that holds the current task.
///
/// The task's own cgroup first, then its ancestors at the few depths that hold targets: for nearly
/// everybody one or two helper calls and look-ups. A loop over all depths would be more than verifiers
/// before 6.6 walk to the end of.
#[inline(always)]
pub(crate) fn current_row(ctx: &impl EbpfContext) -> Option<u32> {
    let mut row = NO_ROW;
    // SAFETY: a helper without arguments.
    let mut cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: copied at once; a removed target's slot can at worst yield another row, which the check
    // below finds out. So for the look-ups further down.
    if let Some(found) = unsafe { TARGETS.get(cgroup_id) } {
        row = *found;
    } else {
        let depths = DEPTHS.get(0)?;
        for place in 0..MAX_DEPTHS {
            let depth = depths.after_root[place];
            if depth == 0 {
                break;
            }
            // SAFETY: any depth is allowed; one deeper than the task's own gives 0, which is no cgroup.
            let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(depth as i32) };
            // SAFETY: as above.
            if let Some(found) = unsafe { TARGETS.get(ancestor) } {
                row = *found;
                cgroup_id = ancestor;
            }
        }
    }
    let expected = ROWS.get(row)?.cgroup_id;
    if expected != cgroup_id {
        warn!(
            ctx,
            "cgroup {} has row {}, which belongs to cgroup {}", cgroup_id, row, expected
        );
        return None;
    }
    Some(row)
}

/// A task that need not be current.
pub(crate) struct Task {
    pub(crate) tid: u32,
    pub(crate) tgid: u32,
    pub(crate) comm: Comm,
}

impl Task {
    /// Reads a `struct task_struct`; what cannot be read is zero.
    #[inline(always)]
    pub(crate) fn read(task: *const u8) -> Self {
        let layout = layout();
        Self {
            tid: field(task, layout.task_pid),
            tgid: field(task, layout.task_tgid),
            comm: field(task, layout.task_comm),
        }
    }
}

#[inline(always)]
fn field<T: Default>(base: *const u8, offset: u32) -> T {
    // SAFETY: the helper checks the address and reports a fault instead of taking it.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }
        .unwrap_or_default()
}
