//! Page faults of a target's tasks, by sampling, while a target is hot.
//!
//! The agent attaches these to the software events `PERF_COUNT_SW_PAGE_FAULTS_MIN` and `_MAJ` of
//! every CPU, with the periods of the ABI, and takes them off when the pressure is over.

use aya_ebpf::{EbpfContext, macros::perf_event, programs::PerfEventContext};
use memwatch_ebpf::{MAJOR_FAULT_PERIOD, MINOR_FAULT_PERIOD};

use crate::{
    maps::{self, add, now_ns},
    target::current_row,
};

#[perf_event]
pub(crate) fn fault_minor(ctx: PerfEventContext) -> i32 {
    let Some(row) = current_row(&ctx) else {
        return 0;
    };
    if let Some(totals) = maps::totals(row) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*totals).minor_faults, MINOR_FAULT_PERIOD) };
    }
    if let Some(process) = maps::process(ctx.tgid(), row, now_ns()) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*process).minor_faults, MINOR_FAULT_PERIOD) };
    }
    0
}

#[perf_event]
pub(crate) fn fault_major(ctx: PerfEventContext) -> i32 {
    let Some(row) = current_row(&ctx) else {
        return 0;
    };
    if let Some(totals) = maps::totals(row) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*totals).major_faults, MAJOR_FAULT_PERIOD) };
    }
    if let Some(process) = maps::process(ctx.tgid(), row, now_ns()) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*process).major_faults, MAJOR_FAULT_PERIOD) };
    }
    0
}
