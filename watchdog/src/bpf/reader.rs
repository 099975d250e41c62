//! What the deciding thread, and whoever writes the record, read of the programs' maps.
//!
//! Never allocates, locks or logs: totals are mapped, processes are looked up by one system call into a
//! value on the stack, events come out of the mapped ring.

use super::event::Event;
use super::sys;
use aya::maps::{MapData, RingBuf};
use memwatch_ebpf::{
    GuardTerms, Heartbeat, MAX_OWNERS, MAX_TARGETS, MachineTotals, Name, ProcessTotals, TargetRow,
    TargetTotals, VICTIMS,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A target's place in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(pub(super) u32);

/// A whole array map, mapped.
#[derive(Debug)]
struct Mapped {
    address: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: plain memory that the kernel shares; it is only accessed by atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(map: BorrowedFd<'_>, length: usize, writable: bool) -> io::Result<Self> {
        let access = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        Self::of(map.as_raw_fd(), length, access, libc::MAP_SHARED)
    }

    /// Memory of our own that is like a map.
    fn made_up(length: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        Self::of(-1, length, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
    }

    fn of(fd: RawFd, length: usize, access: i32, flags: i32) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, fd, 0) };
        match NonNull::new(address) {
            Some(address) if address.as_ptr() != libc::MAP_FAILED => Ok(Self { address, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The counter at `offset` bytes.
    fn counter(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + size_of::<AtomicU64>() <= self.length && offset.is_multiple_of(8));
        // SAFETY: inside the mapping by the assertion, aligned, and alive as long as `self`.
        unsafe { AtomicU64::from_ptr(self.address.as_ptr().byte_add(offset).cast()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, of that length.
        unsafe { libc::munmap(self.address.as_ptr(), self.length) };
    }
}

/// The counters of all targets and of the machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Totals {
    targets: Arc<Mapped>,
    machine: Arc<Mapped>,
}

impl Totals {
    pub(super) fn new(targets: BorrowedFd<'_>, machine: BorrowedFd<'_>) -> io::Result<Self> {
        let length = size_of::<TargetTotals>() * MAX_TARGETS as usize;
        Ok(Self {
            targets: Arc::new(Mapped::new(targets, length, false)?),
            machine: Arc::new(Mapped::new(machine, size_of::<MachineTotals>(), false)?),
        })
    }

    /// The totals of a target. Each number is whole; together they may be from different moments.
    pub fn of(&self, row: Row) -> TargetTotals {
        let base = row.0 as usize * size_of::<TargetTotals>();
        let read = |offset: usize| self.targets.counter(base + offset).load(Ordering::Relaxed);
        TargetTotals {
            stall_ns: read(std::mem::offset_of!(TargetTotals, stall_ns)),
            direct_reclaims: read(std::mem::offset_of!(TargetTotals, direct_reclaims)),
            memcg_reclaims: read(std::mem::offset_of!(TargetTotals, memcg_reclaims)),
            reclaimed_pages: read(std::mem::offset_of!(TargetTotals, reclaimed_pages)),
            scanned_pages: read(std::mem::offset_of!(TargetTotals, scanned_pages)),
            stolen_pages: read(std::mem::offset_of!(TargetTotals, stolen_pages)),
            kswapd_wakeups: read(std::mem::offset_of!(TargetTotals, kswapd_wakeups)),
            minor_faults: read(std::mem::offset_of!(TargetTotals, minor_faults)),
            major_faults: read(std::mem::offset_of!(TargetTotals, major_faults)),
            exits: read(std::mem::offset_of!(TargetTotals, exits)),
            last_reclaim_ns: read(std::mem::offset_of!(TargetTotals, last_reclaim_ns)),
            unmatched_ends: read(std::mem::offset_of!(TargetTotals, unmatched_ends)),
            reserved: [0; 4],
        }
    }

    /// Events that found no room in the ring.
    pub fn dropped_events(&self) -> u64 {
        self.machine
            .counter(std::mem::offset_of!(MachineTotals, dropped_events))
            .load(Ordering::Relaxed)
    }
}

/// The deciding thread's end of the maps.
#[derive(Debug)]
pub struct Reader {
    totals: Totals,
    heartbeats: Mapped,
    rows: Mapped,
    processes: OwnedFd,
    events: Events,
}

enum Events {
    Ring(RingBuf<MapData>),
    /// Records that are still to come.
    MadeUp(Vec<Vec<u8>>),
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Reader {
    pub(super) fn new(
        totals: Totals,
        heartbeats: BorrowedFd<'_>,
        rows: BorrowedFd<'_>,
        processes: OwnedFd,
        events: RingBuf<MapData>,
    ) -> io::Result<Self> {
        let length = size_of::<Heartbeat>() * MAX_OWNERS as usize;
        Ok(Self {
            totals,
            heartbeats: Mapped::new(heartbeats, length, true)?,
            rows: Mapped::new(rows, size_of::<TargetRow>() * MAX_TARGETS as usize, true)?,
            processes,
            events: Events::Ring(events),
        })
    }

    /// One without a kernel, for the drill: its maps are memory of our own, and there is an event of each kind, of
    /// process `pid`. With a row to read in.
    ///
    /// # Errors
    /// There is no memory.
    pub fn made_up(pid: u32) -> io::Result<(Self, Row)> {
        let targets = Mapped::made_up(size_of::<TargetTotals>() * MAX_TARGETS as usize)?;
        let machine = Mapped::made_up(size_of::<MachineTotals>())?;
        let reader = Self {
            totals: Totals {
                targets: Arc::new(targets),
                machine: Arc::new(machine),
            },
            heartbeats: Mapped::made_up(size_of::<Heartbeat>() * MAX_OWNERS as usize)?,
            rows: Mapped::made_up(size_of::<TargetRow>() * MAX_TARGETS as usize)?,
            // No map: it knows no process.
            processes: std::fs::File::open("/dev/null")?.into(),
            events: Events::MadeUp(Event::records(pid)),
        };
        Ok((reader, Row(0)))
    }

    /// The totals of a target.
    pub fn totals(&self, row: Row) -> TargetTotals {
        self.totals.of(row)
    }

    /// What a process has added up to; `None` if it never reclaimed, or others crowded it out.
    pub fn process(&self, pid: u32) -> Option<ProcessTotals> {
        // SAFETY: the map's keys are process ids and its values `ProcessTotals`, integers all through.
        unsafe { sys::look_up(self.processes.as_fd(), &pid) }
    }

    /// Readable when there are events.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.events {
            Events::Ring(ring) => Some(ring.as_fd()),
            Events::MadeUp(_) => None,
        }
    }

    /// The next event; records that are none of ours are passed over.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let event = match &mut self.events {
                Events::Ring(ring) => Event::decode(&ring.next()?),
                Events::MadeUp(records) => Event::decode(&records.pop()?),
            };
            if event.is_some() {
                return event;
            }
        }
    }

    /// Names whom the guard is to reach for if no member of the target comes by itself, the first
    /// choice first: process ids of the initial namespace, with their start in clock ticks since boot.
    pub fn name_victims(&self, row: Row, victims: [Option<(u32, u64)>; VICTIMS]) {
        let first = row.0 as usize * size_of::<TargetRow>()
            + std::mem::offset_of!(TargetRow, guard)
            + std::mem::offset_of!(GuardTerms, victims);
        for (place, victim) in victims.into_iter().enumerate() {
            let (pid, start_ticks) = victim.unwrap_or_default();
            // Whole, so that no process is named with another's start; cut as `Name` says.
            let word = start_ticks << 32 | u64::from(pid);
            let name = self.rows.counter(first + place * size_of::<Name>());
            name.store(word, Ordering::Relaxed);
        }
    }

    /// Says that the owner of `slot` is alive, for the guard in the kernel.
    pub fn beat(&self, slot: u32, now: Duration) {
        let offset = slot.min(MAX_OWNERS - 1) as usize * size_of::<Heartbeat>();
        self.heartbeats
            .counter(offset)
            .store(now.as_nanos() as u64, Ordering::Release);
    }
}
