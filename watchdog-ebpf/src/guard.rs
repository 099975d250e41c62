//! The last line: when the agent's heartbeat is stale and its target stalls beyond its budget, a member
//! of the target is killed from here.
//!
//! Two ways to a member. Whoever ends a stall, or runs when the clock ticks, is at hand: that works
//! everywhere. A sleeping one is reached by the name that the agent left, where the kernel has the
//! functions for it (6.13). Either way it is a member at the moment of the check, or it is left alone.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_get_current_task, bpf_send_signal},
    },
    macros::perf_event,
    programs::PerfEventContext,
};
use memwatch_ebpf::{
    ANY_USER, BUCKETS, GuardTerms, Kill, MAX_ARMED, Name, Reach, StallWindow, VICTIMS,
};

use crate::{
    kfuncs::{self, Task},
    maps::{ARMED, HEARTBEATS, KILLS, ROWS, STALLS, TURNS, add, layout, now_ns, replace},
    target::current_row,
};

const SIGKILL: u32 = 9;

/// Nanoseconds in a clock tick of `/proc` (USER_HZ).
const TICK_NS: u64 = 10_000_000;

/// So many pauses a killed process is given to be gone; one that waits for a dead disk takes for ever, and then
/// the next has its turn.
const DEATH_PAUSES: u64 = 8;

/// The clock of every CPU, several times a second: the current task, whatever it does.
#[perf_event]
pub(crate) fn guard_tick(ctx: PerfEventContext) -> i32 {
    strike_running(&ctx);
    0
}

/// First the processes that agents have named, then the same.
#[perf_event]
pub(crate) fn guard_tick_named(ctx: PerfEventContext) -> i32 {
    for place in 0..MAX_ARMED {
        match ARMED.get(place) {
            Some(&armed) if armed != 0 => strike_named(armed - 1),
            _ => {}
        }
    }
    strike_running(&ctx);
    0
}

/// A member of the target in `row` has begun to stall.
#[inline(always)]
pub(crate) fn stall_begun(row: u32, now: u64) {
    let (Some(window), Some(target)) = (STALLS.get_ptr_mut(row), ROWS.get(row)) else {
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        if is_under_way(&*window) {
            count_until(window, &target.guard, now);
        } else {
            (*window).counted_until_ns = now;
        }
        add(&raw mut (*window).begun, 1);
    }
}

/// Nobody saw its end, and the task that began it is no more.
#[inline(always)]
pub(crate) fn stall_end_missed(row: u32, now: u64) {
    if let (Some(window), Some(target)) = (STALLS.get_ptr_mut(row), ROWS.get(row)) {
        // SAFETY: a live map value.
        unsafe {
            if is_under_way(&*window) {
                count_until(window, &target.guard, now);
                add(&raw mut (*window).ended, 1);
            }
        }
    }
}

/// A member has ended. If the guard has killed it, what the target stalled until now was its doing, and
/// nobody else is to die for it.
#[inline(always)]
pub(crate) fn ended(row: u32, tgid: u32) {
    let Some(window) = STALLS.get_ptr_mut(row) else {
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        if (*window).dying != u64::from(tgid) {
            return;
        }
        let now = now_ns();
        (*window).dying = 0;
        (*window).last_kill_ns = now;
        (*window).counted_until_ns = now;
        (*window).stall_ns = [0; BUCKETS];
    }
}

/// It has ended; the task that did is current, and what it did is how it is reached.
#[inline(always)]
pub(crate) fn stall_ended(ctx: &impl EbpfContext, row: u32, now: u64, reach: Reach) {
    let (Some(window), Some(target)) = (STALLS.get_ptr_mut(row), ROWS.get(row)) else {
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        // The row may have been given to another target since.
        if !is_under_way(&*window) {
            return;
        }
        count_until(window, &target.guard, now);
        add(&raw mut (*window).ended, 1);
    }
    // The row is that of the begin; the task may have been moved since.
    if let Some(overdue) = overdue(row)
        && current_row(ctx) == Some(row)
    {
        strike_current(ctx, row, &overdue, reach);
    }
}

#[inline(always)]
fn is_under_way(window: &StallWindow) -> bool {
    window.begun > window.ended
}

/// Counts the time since a stall last began or ended. Two CPUs at once may both count it, or lose what the
/// other adds to a bucket that begins anew.
///
/// # Safety
/// `window` is a live map value.
#[inline(always)]
unsafe fn count_until(window: *mut StallWindow, terms: &GuardTerms, now: u64) {
    // SAFETY: by the caller.
    let since = unsafe { replace(&raw mut (*window).counted_until_ns, now) };
    if terms.bucket_ns == 0 {
        return;
    }
    let stall_ns = now.saturating_sub(since);
    let epoch = now / terms.bucket_ns;
    let bucket = (epoch % BUCKETS as u64) as usize;
    // SAFETY: by the caller; the index is in bounds.
    unsafe {
        if (*window).epochs[bucket] != epoch {
            (*window).epochs[bucket] = epoch;
            (*window).stall_ns[bucket] = 0;
        }
        add(&raw mut (*window).stall_ns[bucket], stall_ns);
    }
}

/// What the guard saw when it found that it must act.
struct Overdue {
    cgroup_id: u64,
    terms: GuardTerms,
    stall_ns: u64,
    heartbeat_age_ns: u64,
    now_ns: u64,
}

/// Whether the target has lost its agent and stalls beyond its budget.
#[inline(always)]
fn overdue(row: u32) -> Option<Overdue> {
    let target = ROWS.get(row)?;
    let terms = target.guard;
    if terms.stale_after_ns == 0 || terms.bucket_ns == 0 {
        return None;
    }
    let now = now_ns();
    let beat = HEARTBEATS.get(target.heartbeat_slot)?.beat_ns;
    let age = now.saturating_sub(beat);
    if age < terms.stale_after_ns {
        return None;
    }
    let window = STALLS.get(row)?;
    // 1 while somebody is dying, else 0.
    let dying = unbranched(window.dying | window.dying.wrapping_neg()) >> 63;
    let pause_ns = terms.pause_ns * (1 + dying * (DEATH_PAUSES - 1));
    if now.saturating_sub(window.last_kill_ns) < pause_ns {
        return None;
    }
    let stall = stall_in(window, terms.bucket_ns, now);
    (stall >= terms.budget_ns).then_some(Overdue {
        cgroup_id: target.cgroup_id,
        terms,
        stall_ns: stall,
        heartbeat_age_ns: age,
        now_ns: now,
    })
}

/// The stall in the window that ends now, one under way included.
#[inline(always)]
fn stall_in(window: &StallWindow, bucket_ns: u64, now: u64) -> u64 {
    let epoch = now / bucket_ns;
    let mut stall = 0;
    for bucket in 0..BUCKETS {
        let age = epoch.wrapping_sub(window.epochs[bucket]);
        // 1 if the age is below BUCKETS, else 0.
        let fresh = unbranched(age / BUCKETS as u64).wrapping_sub(1) >> 63;
        stall += window.stall_ns[bucket] * fresh;
    }
    if is_under_way(window) {
        stall += now.saturating_sub(window.counted_until_ns);
    }
    // A stall that began before the window is counted whole.
    stall.min(bucket_ns * BUCKETS as u64)
}

/// Keeps the compiler from turning arithmetic on a number into a branch: each would double what verifiers
/// before 6.6 walk.
#[inline(always)]
fn unbranched(mut number: u64) -> u64 {
    // SAFETY: no instruction at all.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) number, options(pure, nomem, nostack)) };
    number
}

#[inline(always)]
fn strike_running(ctx: &impl EbpfContext) {
    if let Some(row) = current_row(ctx)
        && let Some(overdue) = overdue(row)
    {
        strike_current(ctx, row, &overdue, Reach::Running);
    }
}

/// The current task is a member of the target in `row`: the caller has just looked.
#[inline(always)]
fn strike_current(ctx: &impl EbpfContext, row: u32, overdue: &Overdue, reach: Reach) {
    if overdue.terms.uid != ANY_USER && overdue.terms.uid != ctx.uid() {
        return;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    let leader: u64 = read(task, layout().task_group_leader);
    let start_ns: u64 = read(leader as *const u8, layout().task_start_boottime);
    let name = Name {
        tgid: ctx.tgid(),
        start_ticks: ticks(start_ns),
    };
    // SAFETY: only whether it is there.
    let killed = unsafe { KILLS.get(name) }.is_some();
    if killed || !take_turn(row, overdue, name.tgid) {
        return;
    }
    // SAFETY: a helper that takes a number.
    if unsafe { bpf_send_signal(SIGKILL) } != 0 {
        return;
    }
    write_down(name, ctx.command().unwrap_or_default(), overdue, reach);
}

/// Kills the first of the named that still is a member and has not been killed.
#[inline(always)]
fn strike_named(row: u32) {
    let Some(overdue) = overdue(row) else { return };
    // By user only the agent can tell who may be signalled: it names nobody else's processes, but a
    // process may change its user, so the names are for targets without that restriction.
    if overdue.terms.uid != ANY_USER {
        return;
    }
    for place in 0..VICTIMS {
        let name = overdue.terms.victims[place];
        // SAFETY: only whether it is there.
        let killed = unsafe { KILLS.get(name) }.is_some();
        if name.tgid == 0 || killed {
            continue;
        }
        let Some(task) = Task::of(name.tgid) else {
            continue;
        };
        let start_ns: u64 = task.read(layout().task_start_boottime);
        let comm = task.read(layout().task_comm);
        let ours =
            ticks(start_ns) == name.start_ticks && kfuncs::is_under(&task, overdue.cgroup_id);
        // No turn is taken before it is known to work: from an idle CPU it never does, and the next tick
        // may find one that is not. Two CPUs at once kill the same process.
        let sent = ours && task.kill();
        task.release();
        if sent {
            take_turn(row, &overdue, name.tgid);
            write_down(name, comm, &overdue, Reach::Named);
        }
        if ours {
            return;
        }
    }
}

/// One kill a pause in a target, whatever number of CPUs find it overdue at once.
#[inline(always)]
fn take_turn(row: u32, overdue: &Overdue, victim: u32) -> bool {
    let pause = overdue.terms.pause_ns.max(1);
    let turn = u64::from(row) << 32 | (overdue.now_ns / pause) & 0xffff_ffff;
    if TURNS.insert(turn, 1, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    if let Some(window) = STALLS.get_ptr_mut(row) {
        // SAFETY: a live map value.
        unsafe {
            (*window).last_kill_ns = overdue.now_ns;
            (*window).dying = u64::from(victim);
        }
    }
    true
}

#[inline(always)]
fn write_down(name: Name, comm: [u8; 16], overdue: &Overdue, reach: Reach) {
    let kill = Kill {
        time_ns: overdue.now_ns,
        cgroup_id: overdue.cgroup_id,
        stall_ns: overdue.stall_ns,
        heartbeat_age_ns: overdue.heartbeat_age_ns,
        comm,
        reach: reach as u32,
        reserved: 0,
    };
    let _ = KILLS.insert(name, kill, u64::from(BPF_NOEXIST));
}

#[inline(always)]
fn ticks(start_ns: u64) -> u32 {
    (start_ns / TICK_NS) as u32
}

#[inline(always)]
fn read<T: Default>(base: *const u8, offset: u32) -> T {
    // SAFETY: the helper checks the address and reports a fault instead of taking it.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }
        .unwrap_or_default()
}
