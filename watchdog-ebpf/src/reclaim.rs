//! Reclaim by the tasks of a target: how long it held them, what it looked at and what it got.
//!
//! Sources: `include/trace/events/vmscan.h`. Arguments used are the same from 5.15 to 7.3; later
//! kernels only add some behind them.

use aya_ebpf::{EbpfContext, macros::raw_tracepoint, programs::RawTracePointContext};
use memwatch_ebpf::{EventKind, QUIET_NS, Reach, ReclaimStart, ReclaimStarted, TargetTotals};

use crate::{
    guard,
    maps::{self, RECLAIMS, add, header, now_ns, replace},
    target::current_row,
};

/// `(int order, gfp_t gfp_flags)`: a zone is short, for everybody.
#[raw_tracepoint(tracepoint = "mm_vmscan_direct_reclaim_begin")]
pub(crate) fn direct_begin(ctx: RawTracePointContext) -> i32 {
    begin(&ctx, |totals| unsafe { &raw mut (*totals).direct_reclaims });
    0
}

/// `(int order, gfp_t gfp_flags)`: a memory cgroup is at its limit.
#[raw_tracepoint(tracepoint = "mm_vmscan_memcg_reclaim_begin")]
pub(crate) fn memcg_begin(ctx: RawTracePointContext) -> i32 {
    begin(&ctx, |totals| unsafe { &raw mut (*totals).memcg_reclaims });
    0
}

/// `(unsigned long nr_reclaimed)`
#[raw_tracepoint(tracepoint = "mm_vmscan_direct_reclaim_end")]
pub(crate) fn direct_end(ctx: RawTracePointContext) -> i32 {
    end(&ctx);
    0
}

/// `(unsigned long nr_reclaimed)`
#[raw_tracepoint(tracepoint = "mm_vmscan_memcg_reclaim_end")]
pub(crate) fn memcg_end(ctx: RawTracePointContext) -> i32 {
    end(&ctx);
    0
}

/// `(int nid, unsigned long nr_scanned, unsigned long nr_reclaimed, ...)`
#[raw_tracepoint(tracepoint = "mm_vmscan_lru_shrink_inactive")]
pub(crate) fn shrink_inactive(ctx: RawTracePointContext) -> i32 {
    let Some(row) = current_row(&ctx) else {
        return 0;
    };
    let scanned: u64 = ctx.arg(1);
    if let Some(totals) = maps::totals(row) {
        // SAFETY: a live map value.
        unsafe {
            add(&raw mut (*totals).scanned_pages, scanned);
            add(&raw mut (*totals).stolen_pages, ctx.arg(2));
        }
    }
    if let Some(process) = maps::process(ctx.tgid(), row, now_ns()) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*process).scanned_pages, scanned) };
    }
    0
}

/// `(int nid, int zid, int order, gfp_t gfp_flags)`: the current task asked for it.
#[raw_tracepoint(tracepoint = "mm_vmscan_wakeup_kswapd")]
pub(crate) fn wakeup_kswapd(ctx: RawTracePointContext) -> i32 {
    if let Some(totals) = current_row(&ctx).and_then(maps::totals) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*totals).kswapd_wakeups, 1) };
    }
    0
}

/// `(int nid, int zid, int order)`: current is kswapd.
#[raw_tracepoint(tracepoint = "mm_vmscan_kswapd_wake")]
pub(crate) fn kswapd_wake(_: RawTracePointContext) -> i32 {
    maps::count(|machine| unsafe { &raw mut (*machine).kswapd_wakes });
    0
}

#[inline(always)]
fn begin(ctx: &RawTracePointContext, counter: impl FnOnce(*mut TargetTotals) -> *mut u64) {
    let Some(row) = current_row(ctx) else { return };
    let Some(totals) = maps::totals(row) else {
        return;
    };
    let begin_ns = now_ns();
    // A reclaim never begins inside another (PF_MEMALLOC).
    let start = ReclaimStart {
        begin_ns,
        row,
        reserved: 0,
    };
    // Unless the end of the one before was missed, which then goes on as this one.
    // SAFETY: only whether it is there.
    let goes_on = unsafe { RECLAIMS.get(ctx.pid()) }.is_some();
    if RECLAIMS.insert(ctx.pid(), start, 0).is_ok() && !goes_on {
        guard::stall_begun(row, begin_ns);
    }
    add(counter(totals), 1);
    // SAFETY: a live map value.
    let previous_ns = unsafe { replace(&raw mut (*totals).last_reclaim_ns, begin_ns) };
    if begin_ns.saturating_sub(previous_ns) >= QUIET_NS {
        let started = ReclaimStarted {
            header: header(EventKind::ReclaimStarted, row),
            tid: ctx.pid(),
            tgid: ctx.tgid(),
        };
        maps::send(row, &started);
    }
}

#[inline(always)]
fn end(ctx: &RawTracePointContext) {
    let tid = ctx.pid();
    // SAFETY: copied at once; only this thread writes its own entry.
    let Some(ReclaimStart { begin_ns, row, .. }) = (unsafe { RECLAIMS.get(tid) }).copied() else {
        return missed(ctx);
    };
    let _ = RECLAIMS.remove(tid);
    let now = now_ns();
    let stall_ns = now.saturating_sub(begin_ns);
    let reclaimed: u64 = ctx.arg(0);
    if let Some(totals) = maps::totals(row) {
        // SAFETY: a live map value.
        unsafe {
            add(&raw mut (*totals).stall_ns, stall_ns);
            add(&raw mut (*totals).reclaimed_pages, reclaimed);
        }
    }
    if let Some(process) = maps::process(ctx.tgid(), row, now) {
        // SAFETY: a live map value.
        unsafe {
            add(&raw mut (*process).stall_ns, stall_ns);
            add(&raw mut (*process).reclaims, 1);
            add(&raw mut (*process).reclaimed_pages, reclaimed);
        }
    }
    guard::stall_ended(ctx, row, now, Reach::Reclaim);
}

/// A member ends a reclaim that it began before it was one, before the programs were attached, or
/// whose entry was crowded out.
#[inline(always)]
fn missed(ctx: &RawTracePointContext) {
    if let Some(totals) = current_row(ctx).and_then(maps::totals) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*totals).unmatched_ends, 1) };
    }
}
