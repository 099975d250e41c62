//! Ends of a target's tasks: counted, and what was kept of a process goes with it.

use aya_ebpf::{EbpfContext, macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    guard,
    maps::{self, MEMSTALLS, PROCESSES, RECLAIMS, add, now_ns},
    target::current_row,
};

/// `(struct task_struct *p)`, which is the current task. No event: a build ends thousands of processes,
/// and each would wake the agent.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub(crate) fn process_exit(ctx: RawTracePointContext) -> i32 {
    let Some(row) = current_row(&ctx) else {
        return 0;
    };
    if let Some(totals) = maps::totals(row) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*totals).exits, 1) };
    }
    forget_stalls(ctx.pid());
    let tgid = ctx.tgid();
    if ctx.pid() == tgid {
        let _ = PROCESSES.remove(tgid);
        guard::ended(row, tgid);
    }
    0
}

/// On a preemptible kernel a program is skipped while the same one is at work on that CPU
/// (kernel/trace/bpf_trace.c, `prog->active`). A stall whose end was skipped must not go on for ever.
#[inline(always)]
fn forget_stalls(tid: u32) {
    // SAFETY: copied at once; only this thread writes its own entries.
    if let Some(start) = unsafe { RECLAIMS.get(tid) }.copied() {
        let _ = RECLAIMS.remove(tid);
        guard::stall_end_missed(start.row, now_ns());
    }
    // SAFETY: as above.
    if let Some(row) = unsafe { MEMSTALLS.get(tid) }.copied() {
        let _ = MEMSTALLS.remove(tid);
        guard::stall_end_missed(row, now_ns());
    }
}
