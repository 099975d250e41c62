//! The maps, and the few ways in which every program touches them.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::mem::size_of;

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST, BPF_RB_FORCE_WAKEUP},
    helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output},
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use memwatch_ebpf::{
    Depths, EventHeader, EventKind, Heartbeat, KernelLayout, Kill, MAX_ARMED, MAX_KILLS,
    MAX_OWNERS, MAX_PROCESSES, MAX_TARGETS, MachineTotals, Name, ProcessTotals, ReclaimStart,
    StallWindow, TargetRow, TargetTotals,
};

#[map]
pub(crate) static DEPTHS: Array<Depths> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static TARGETS: HashMap<u64, u32> = HashMap::with_max_entries(MAX_TARGETS, 0);

#[map]
pub(crate) static ROWS: Array<TargetRow> = Array::with_max_entries(MAX_TARGETS, BPF_F_MMAPABLE);

#[map]
pub(crate) static HEARTBEATS: Array<Heartbeat> =
    Array::with_max_entries(MAX_OWNERS, BPF_F_MMAPABLE);

#[map]
static TOTALS: Array<TargetTotals> = Array::with_max_entries(MAX_TARGETS, BPF_F_MMAPABLE);

#[map]
static MACHINE: Array<MachineTotals> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub(crate) static PROCESSES: LruHashMap<u32, ProcessTotals> =
    LruHashMap::with_max_entries(MAX_PROCESSES, 0);

/// Not least-recently-used: each entry that is taken in is taken out again, so that what has begun and
/// not ended can be counted.
#[map]
pub(crate) static RECLAIMS: HashMap<u32, ReclaimStart> =
    HashMap::with_max_entries(MAX_PROCESSES, 0);

/// Who waits for memory, and for which target that counts.
#[map]
pub(crate) static MEMSTALLS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_PROCESSES, 0);

#[map]
pub(crate) static STALLS: Array<StallWindow> = Array::with_max_entries(MAX_TARGETS, BPF_F_MMAPABLE);

#[map]
pub(crate) static ARMED: Array<u32> = Array::with_max_entries(MAX_ARMED, 0);

#[map]
pub(crate) static KILLS: HashMap<Name, Kill> = HashMap::with_max_entries(MAX_KILLS, 0);

#[map]
pub(crate) static TURNS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(MAX_TARGETS, 0);

/// A ring for each owner. An array of maps in truth: that cannot be said here, so the agent makes it and
/// puts it in this one's place.
#[map]
static RINGS: Array<u32> = Array::with_max_entries(MAX_OWNERS, 0);

/// Overridden at load with what the running kernel's BTF says.
#[unsafe(no_mangle)]
static LAYOUT: Global<KernelLayout> = Global::new(KernelLayout {
    task_pid: 0,
    task_tgid: 0,
    task_comm: 0,
    task_group_leader: 0,
    task_start_boottime: 0,
    mark_victim: 0,
});

#[inline(always)]
pub(crate) fn layout() -> KernelLayout {
    LAYOUT.load()
}

#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Adds to a counter that other CPUs add to as well.
#[inline(always)]
pub(crate) fn add(counter: *mut u64, amount: u64) {
    // The intrinsic, because core has no read-modify-write atomics for a target without
    // compare-and-swap; BPF has an atomic add since 3.18.
    // SAFETY: callers pass a u64 field of a map value that a lookup returned: aligned, and alive
    // until the program ends.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount) };
}

/// Stores a value and returns what was there. Two CPUs at once may both see the old one.
#[inline(always)]
pub(crate) fn replace(cell: *mut u64, value: u64) -> u64 {
    // SAFETY: as in `add`.
    unsafe {
        let old = cell.read_volatile();
        cell.write_volatile(value);
        old
    }
}

/// The totals of a row.
#[inline(always)]
pub(crate) fn totals(row: u32) -> Option<*mut TargetTotals> {
    TOTALS.get_ptr_mut(row)
}

/// Adds one to a counter of the machine.
#[inline(always)]
pub(crate) fn count(field: impl FnOnce(*mut MachineTotals) -> *mut u64) {
    if let Some(machine) = MACHINE.get_ptr_mut(0) {
        add(field(machine), 1);
    }
}

/// The totals of a process of the target in `row`, begun at zero if it is new.
#[inline(always)]
pub(crate) fn process(tgid: u32, row: u32, now_ns: u64) -> Option<*mut ProcessTotals> {
    let known = PROCESSES.get_ptr_mut(tgid).or_else(|| {
        // Another thread may insert between the two; its entry is as good as ours.
        let _ = PROCESSES.insert(tgid, ProcessTotals::default(), u64::from(BPF_NOEXIST));
        PROCESSES.get_ptr_mut(tgid)
    });
    let Some(process) = known else {
        count(|machine| unsafe { &raw mut (*machine).dropped_processes });
        return None;
    };
    // SAFETY: a live map value. Plain stores: the last writer is right.
    unsafe {
        (*process).last_seen_ns = now_ns;
        (*process).row = row;
    }
    Some(process)
}

/// Tells the owner of the target in `row`.
#[inline(always)]
pub(crate) fn send<Event>(row: u32, event: &Event) {
    if let Some(target) = ROWS.get(row) {
        deliver(target.heartbeat_slot, event);
    }
}

/// Tells every owner.
#[inline(always)]
pub(crate) fn send_to_all<Event>(event: &Event) {
    for slot in 0..MAX_OWNERS {
        deliver(slot, event);
    }
}

/// Puts an event into an owner's ring and wakes its reader, or counts that there was no room. Nobody is
/// there to miss what is sent to a place that has no owner.
#[inline(always)]
fn deliver<Event>(slot: u32, event: &Event) {
    let Some(ring) = RINGS.get_ptr_mut(slot) else {
        return;
    };
    let size = size_of::<Event>() as u64;
    // Events are rare by design, so the reader is never left to find one later.
    let wake = u64::from(BPF_RB_FORCE_WAKEUP);
    // SAFETY: what an array of maps gives is a map; the event lies on this stack.
    let full = unsafe {
        bpf_ringbuf_output(
            ring.cast(),
            core::ptr::from_ref(event).cast_mut().cast(),
            size,
            wake,
        )
    } != 0;
    if full {
        count(|machine| unsafe { &raw mut (*machine).dropped_events });
    }
}

#[inline(always)]
pub(crate) fn header(kind: EventKind, row: u32) -> EventHeader {
    EventHeader {
        time_ns: now_ns(),
        kind: kind as u32,
        row,
    }
}
