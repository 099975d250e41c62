//! Ends of a target's tasks, with what their process had added up to.

use aya_ebpf::{EbpfContext, macros::raw_tracepoint, programs::RawTracePointContext};
use memwatch_ebpf::{EventKind, Exit};

use crate::{
    maps::{self, PROCESSES, add, header},
    target::current_row,
};

/// `(struct task_struct *p)`, which is the current task.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub(crate) fn process_exit(ctx: RawTracePointContext) -> i32 {
    let Some(row) = current_row(&ctx) else {
        return 0;
    };
    if let Some(totals) = maps::totals(row) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*totals).exits, 1) };
    }
    let tgid = ctx.tgid();
    if ctx.pid() != tgid {
        return 0;
    }
    // SAFETY: copied at once; a torn counter of a process that is ending would be evidence only.
    let totals = unsafe { PROCESSES.get(tgid) }.copied().unwrap_or_default();
    let _ = PROCESSES.remove(tgid);
    let exit = Exit {
        header: header(EventKind::Exit, row),
        tgid,
        reserved: 0,
        comm: ctx.command().unwrap_or_default(),
        totals,
    };
    maps::send(row, &exit);
    0
}
