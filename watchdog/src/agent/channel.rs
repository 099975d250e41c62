//! What lies between the deciding thread and the slow side: bounded queues in memory that is allocated
//! once, and a few atomics. A full queue drops and counts; nobody ever waits for the other.
//!
//! One for all targets of a memwatch. What the slow side hands to the deciding thread as a whole goes
//! through [`super::deciding::Inbox`].

use super::rehearsal::RehearsalError;
use crate::act::Outcome;
use crate::bpf;
use crate::watch::{Member, NearMiss, Order, Rung};
use crossbeam_queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How many rivals a notice carries: more would not be read.
pub const RIVALS: usize = 5;

/// The most processes at a time that are handed over to have their memory released.
pub const DYING: usize = 64;

/// Which target: the id of its cgroup.
pub type TargetId = u64;

/// Something the deciding thread did or saw that is worth telling.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation on the deciding thread; the queue is made once"
)]
pub enum Notice {
    /// A rule held and an order was given.
    Ordered {
        /// Counts interventions; a SIGKILL after a SIGTERM has the number of the SIGTERM.
        number: u32,
        /// When, on the monotonic clock.
        at: Duration,
        /// What was ordered.
        order: Order,
        /// The target's memory then.
        current_bytes: u64,
        /// The processes that were not chosen, the most likely first.
        rivals: [Option<Member>; RIVALS],
    },
    /// One process was signalled.
    Hit {
        /// Which intervention.
        number: u32,
        /// When.
        at: Duration,
        /// With what.
        rung: Rung,
        /// Who.
        member: Member,
        /// What became of it.
        outcome: Outcome,
    },
    /// Everybody who goes with the victim was signalled.
    Struck {
        /// How many of the target's processes were not.
        survivors: usize,
    },
    /// The victim has ended and its memory came back, as far as it will.
    Recovered {
        /// Which intervention.
        number: u32,
        /// When.
        at: Duration,
        /// The target's memory now.
        current_bytes: u64,
    },
    /// It came near to where an order would have been given, and got away by itself.
    NearMiss(NearMiss),
    /// The cgroup is gone.
    TargetGone,
    /// It was let go, as the slow side wanted: nothing more is told of it.
    Departed,
}

/// What the rehearsal came to.
pub type Rehearsal = Result<Duration, RehearsalError>;

/// What the live line shows. Each value is whole; together they may be from two looks.
#[derive(Debug, Default)]
pub struct Status {
    /// Bytes charged to the target.
    pub current_bytes: AtomicU64,
    /// The most that was seen charged.
    pub peak_bytes: AtomicU64,
    /// `full` stall of the window, in permille.
    pub full_permille: AtomicU64,
    /// `some` stall of the window, in permille.
    pub some_permille: AtomicU64,
    /// Looks taken.
    pub looks: AtomicU64,
    /// Looks that came more than 50 ms late.
    pub late_looks: AtomicU64,
    /// Processes at the last look at them.
    pub processes: AtomicU64,
    /// Whether its processes are looked at.
    pub is_close: AtomicBool,
    /// Looks at processes for which no table was free.
    pub without_table: AtomicU64,
    /// Processes beyond what the table holds.
    pub untracked: AtomicU64,
    /// Files that could not be read.
    pub unreadable: AtomicU64,
    /// Looks that failed as a whole: the target's own files were there and could not be read.
    pub failed_looks: AtomicU64,
    /// The longest that a look came after it was due, in µs.
    pub longest_delay_us: AtomicU64,
}

/// The meeting place.
#[derive(Debug)]
pub struct Channel {
    notices: ArrayQueue<(TargetId, Notice)>,
    dropped: AtomicU64,
    events: ArrayQueue<(Option<TargetId>, bpf::Event)>,
    dying: ArrayQueue<OwnedFd>,
    rehearsal: ArrayQueue<Rehearsal>,
    stop: AtomicBool,
    slow_side: EventFd,
    deciding_side: EventFd,
}

impl Channel {
    /// An empty channel.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            notices: ArrayQueue::new(512),
            dropped: AtomicU64::new(0),
            events: ArrayQueue::new(256),
            dying: ArrayQueue::new(DYING),
            rehearsal: ArrayQueue::new(1),
            stop: AtomicBool::new(false),
            slow_side: EventFd::from_flags(flags)?,
            deciding_side: EventFd::from_flags(flags)?,
        })
    }

    /// Tells the slow side about a target.
    pub fn tell(&self, target: TargetId, notice: Notice) {
        if self.notices.push((target, notice)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        // EAGAIN: the counter is full, so the other side is awake already.
        let _ = self.slow_side.write(1);
    }

    /// The next notice.
    pub fn next(&self) -> Option<(TargetId, Notice)> {
        self.notices.pop()
    }

    /// Hands on what the BPF programs told, with the target that it is about. Of more than the slow side
    /// can take the oldest go.
    pub fn hand_on(&self, target: Option<TargetId>, event: bpf::Event) {
        let _ = self.events.force_push((target, event));
    }

    /// The next event of the BPF programs.
    pub fn next_event(&self) -> Option<(Option<TargetId>, bpf::Event)> {
        self.events.pop()
    }

    /// How many notices were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Says whether the kill can be relied on.
    pub fn tell_rehearsal(&self, rehearsal: Rehearsal) {
        let _ = self.rehearsal.push(rehearsal);
        let _ = self.slow_side.write(1);
    }

    /// What the rehearsal came to, once it is over; told once.
    pub fn rehearsal(&self) -> Option<Rehearsal> {
        self.rehearsal.pop()
    }

    /// Has the slow side look for what others than the deciding thread have for it.
    pub fn wake_slow_side(&self) {
        let _ = self.slow_side.write(1);
    }

    /// Hands over a process that was killed, for its memory to be released.
    pub fn hand_over_dying(&self, pidfd: OwnedFd) {
        // Full: it will have to exit by itself.
        let _ = self.dying.push(pidfd);
        let _ = self.slow_side.write(1);
    }

    /// The next process whose memory is to be released.
    pub fn next_dying(&self) -> Option<OwnedFd> {
        self.dying.pop()
    }

    /// Has the deciding thread look at once what was put into its inbox.
    pub fn wake_decider(&self) {
        let _ = self.deciding_side.write(1);
    }

    /// Ends the deciding thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake_decider();
    }

    /// Whether the deciding thread is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Readable when there are notices; [`Channel::heard`] takes that back.
    pub fn slow_side(&self) -> BorrowedFd<'_> {
        self.slow_side.as_fd()
    }

    /// Takes back the readiness of [`Channel::slow_side`].
    pub fn heard(&self) {
        let _ = self.slow_side.read();
    }

    /// Readable when the deciding thread is wanted.
    pub fn deciding_side(&self) -> BorrowedFd<'_> {
        self.deciding_side.as_fd()
    }
}
