//! Waits for memory by the tasks of a target, as the kernel's pressure stall information counts them: pages
//! that come back from the disk or from swap, the brake of `memory.high`, and reclaim, which is inside of one.
//! For the guard's window; what reclaim did is `reclaim`'s.
//!
//! Source: `kernel/sched/psi.c`, the same from 5.15 to 7.3. The kernel lets programs see a pointer to a number
//! since 5.17.

use aya_ebpf::{
    EbpfContext, bindings::BPF_NOEXIST, helpers::bpf_probe_read_kernel, macros::fentry,
    programs::FEntryContext,
};
use memwatch_ebpf::Reach;

use crate::{
    guard,
    maps::{MEMSTALLS, now_ns},
    target::current_row,
};

/// `(unsigned long *flags)`: the current task is about to wait, or has waited for something before.
#[fentry(function = "psi_memstall_enter")]
pub(crate) fn memstall_enter(ctx: FEntryContext) -> i32 {
    let Some(row) = current_row(&ctx) else {
        return 0;
    };
    // A wait inside another finds the entry of the outer one.
    if MEMSTALLS
        .insert(ctx.pid(), row, u64::from(BPF_NOEXIST))
        .is_ok()
    {
        guard::stall_begun(row, now_ns());
    }
    0
}

/// `(unsigned long *flags)`: what the begin left there is not 0 if the wait is inside another.
#[fentry(function = "psi_memstall_leave")]
pub(crate) fn memstall_leave(ctx: FEntryContext) -> i32 {
    let tid = ctx.pid();
    // SAFETY: copied at once; only this thread writes its own entry.
    let Some(row) = (unsafe { MEMSTALLS.get(tid) }).copied() else {
        return 0;
    };
    // SAFETY: the helper checks the address and reports a fault instead of taking it.
    if unsafe { bpf_probe_read_kernel(ctx.arg::<*const u64>(0)) } != Ok(0) {
        return 0;
    }
    let _ = MEMSTALLS.remove(tid);
    guard::stall_ended(&ctx, row, now_ns(), Reach::Stall);
    0
}
