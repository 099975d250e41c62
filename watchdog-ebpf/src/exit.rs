//! Ends of a target's tasks: counted, and what was kept of a process goes with it.

use aya_ebpf::{EbpfContext, macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    maps::{self, PROCESSES, add},
    target::current_row,
};

/// `(struct task_struct *p)`, which is the current task. No event: a build ends thousands of processes,
/// and each would wake the agent.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub(crate) fn process_exit(ctx: RawTracePointContext) -> i32 {
    let Some(totals) = current_row(&ctx).and_then(maps::totals) else {
        return 0;
    };
    // SAFETY: a live map value.
    unsafe { add(&raw mut (*totals).exits, 1) };
    let tgid = ctx.tgid();
    if ctx.pid() == tgid {
        let _ = PROCESSES.remove(tgid);
    }
    0
}
