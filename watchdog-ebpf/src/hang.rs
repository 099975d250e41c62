//! Tasks that the kernel's hung-task check reports, of any cgroup: evidence of a machine in
//! trouble.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use memwatch_ebpf::{EventKind, Hang, NO_ROW};

use crate::{
    maps::{self, header},
    target::Task,
};

/// `(struct task_struct *tsk)`; current is khungtaskd.
#[raw_tracepoint(tracepoint = "sched_process_hang")]
pub(crate) fn process_hang(ctx: RawTracePointContext) -> i32 {
    maps::count(|machine| unsafe { &raw mut (*machine).hangs });
    let task = Task::read(ctx.arg(0));
    let hang = Hang {
        header: header(EventKind::Hang, NO_ROW),
        tid: task.tid,
        tgid: task.tgid,
        comm: task.comm,
    };
    maps::send_to_all(&hang);
    0
}
