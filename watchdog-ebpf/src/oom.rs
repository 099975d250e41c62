//! The kernel's own OOM killer: it got there first.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use memwatch_ebpf::{EventKind, NO_ROW, OomVictim, VICTIM_IS_TASK};

use crate::{
    maps::{self, header, layout},
    target::{Task, current_row},
};

/// `(struct task_struct *task, uid_t uid)` since 6.8, `(int pid)` before. The victim need not be
/// current, and its cgroup cannot be read here: the agent finds out where it belongs.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub(crate) fn mark_victim(ctx: RawTracePointContext) -> i32 {
    maps::count(|machine| unsafe { &raw mut (*machine).oom_victims });
    let victim = if layout().mark_victim == VICTIM_IS_TASK {
        Task::read(ctx.arg(0))
    } else {
        Task {
            tid: ctx.arg(0),
            tgid: 0,
            comm: [0; 16],
        }
    };
    let victim = OomVictim {
        header: header(EventKind::OomVictim, current_row(&ctx).unwrap_or(NO_ROW)),
        tid: victim.tid,
        tgid: victim.tgid,
        comm: victim.comm,
    };
    maps::send_to_all(&victim);
    0
}
