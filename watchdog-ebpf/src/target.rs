//! Who a task is: whether the current one is in a target, and in which; and what another one is
//! called.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_probe_read_kernel, generated::bpf_get_current_ancestor_cgroup_id},
};
use aya_log_ebpf::warn;
use memwatch_ebpf::{Comm, MAX_LEVELS, NO_ROW};

use crate::maps::{LEVELS, ROWS, TARGETS, layout};

/// The row of the innermost target that holds the current task.
///
/// Only the depths that hold a target are looked at. With one target that is one helper call and
/// one hash lookup, for its members and for everybody else.
#[inline(always)]
pub(crate) fn current_row(ctx: &impl EbpfContext) -> Option<u32> {
    let mut levels = *LEVELS.get(0)?;
    let mut row = NO_ROW;
    let mut cgroup_id = 0;
    for _ in 0..MAX_LEVELS {
        if levels == 0 {
            break;
        }
        let level = levels.trailing_zeros();
        levels &= levels - 1;
        // SAFETY: any level is allowed; one deeper than the task's own gives 0.
        let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        if ancestor == 0 {
            break;
        }
        // SAFETY: copied at once; a removed target's slot can at worst yield another row, which
        // the check below finds out.
        if let Some(found) = unsafe { TARGETS.get(ancestor) } {
            row = *found;
            cgroup_id = ancestor;
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
