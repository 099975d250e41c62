//! What lies between the deciding thread's part of a takeover and the slow one's: bounded queues in memory that
//! is allocated once, as in `agent::channel`. A full queue drops and counts; nobody waits for the other.

use crate::act::Outcome;
use crate::host::oomd::files::{CandidateFiles, PeerFiles, UnitFiles};
use crate::host::process::Comm;
use crate::watch::oomd_rule::{Candidate, Unit};
use crate::watch::peer::Health;
use crate::watch::takeover::{Transition, Why};
use crossbeam_queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most units that are looked after. systemd-oomd's packages come with three at most.
pub(super) const UNITS: usize = 32;
/// The most cgroups below them that are looked at: a user's session has about a hundred.
pub(super) const CANDIDATES: usize = 256;
/// The processes of one cgroup that are handed over to have their memory released.
const DYING: usize = 64;

/// Something that the slow side found out, with its files opened.
#[derive(Debug)]
pub(super) enum Change {
    /// The process of systemd-oomd; `None` if there is none, or it is not wanted.
    Peer(Option<PeerFiles>),
    /// `SwapUsedLimit=`, in hundredths of a percent.
    SwapUsedLimit(u32),
    /// A unit that is managed, or is by other limits than before.
    Unit(Unit, UnitFiles),
    /// A unit is not managed any more.
    UnitGone(u64),
    /// A cgroup below one. `is_new`: it came into being just now.
    Candidate {
        /// What is known of it.
        candidate: Candidate,
        /// Its files.
        files: CandidateFiles,
        /// Whether all that it holds is growth.
        is_new: bool,
    },
    /// Its place or its marks have changed.
    Moved(Candidate),
    /// A cgroup is gone, or lies below no managed unit any more.
    CandidateGone(u64),
}

/// Files that are not needed any more: to be closed where that may take its time.
#[derive(Debug)]
#[expect(dead_code, reason = "they are only dropped")]
pub(super) enum Retired {
    /// Of systemd-oomd.
    Peer(PeerFiles),
    /// Of a unit.
    Unit(UnitFiles),
    /// Of a cgroup below one.
    Candidate(CandidateFiles),
}

/// Something that the deciding thread did or saw that is worth telling.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice {
    /// systemd-oomd is another than before: well, or not.
    Health {
        /// When that was seen.
        at: Duration,
        /// What was seen.
        health: Health,
    },
    /// Its units have come to somebody else.
    Turned {
        /// When.
        at: Duration,
        /// To whom.
        transition: Transition,
    },
    /// A cgroup is to be ended.
    Ordered {
        /// When.
        at: Duration,
        /// Its id.
        id: u64,
        /// Why.
        why: Why,
        /// What it held.
        held_bytes: u64,
        /// By how much it had grown over the last seconds.
        growth_bytes: u64,
    },
    /// One of its processes was signalled.
    Hit {
        /// Who.
        pid: u32,
        /// When it had started, in clock ticks since boot; with its name, of the first few only.
        named: Option<(u64, Comm)>,
        /// What became of it.
        outcome: Outcome,
    },
    /// A cgroup that could have been ended, and is not.
    Rival {
        /// Its id.
        id: u64,
        /// What it holds.
        held_bytes: u64,
        /// By how much it had grown over the last seconds.
        growth_bytes: u64,
    },
    /// All of them were.
    Struck,
    /// Its memory has come back, as far as it will.
    Recovered {
        /// When.
        at: Duration,
        /// How long that took.
        took: Duration,
        /// What it holds now.
        held_bytes: u64,
    },
}

/// The meeting place.
#[derive(Debug)]
pub struct Channel {
    changes: ArrayQueue<Change>,
    retired: ArrayQueue<Retired>,
    notices: ArrayQueue<Notice>,
    dropped: AtomicU64,
    dying: ArrayQueue<OwnedFd>,
    slow_side: EventFd,
}

impl Channel {
    /// An empty channel.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            changes: ArrayQueue::new(64),
            // All that there can be, so that nothing must be closed on the deciding thread.
            retired: ArrayQueue::new(2 * (UNITS + CANDIDATES)),
            notices: ArrayQueue::new(512),
            dropped: AtomicU64::new(0),
            dying: ArrayQueue::new(DYING),
            slow_side: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    /// Hands a change to the deciding thread; it comes back if there are too many under way.
    ///
    /// # Errors
    /// Not now: the change itself.
    #[expect(clippy::result_large_err, reason = "it is tried again")]
    pub(super) fn hand_over(&self, change: Change) -> Result<(), Change> {
        self.changes.push(change)
    }

    /// The next change.
    pub(super) fn change(&self) -> Option<Change> {
        self.changes.pop()
    }

    /// Hands files back to be closed.
    pub(super) fn retire(&self, files: Retired) {
        drop(self.retired.push(files));
    }

    /// The next files to close.
    pub(super) fn retired(&self) -> Option<Retired> {
        self.retired.pop()
    }

    /// Tells the slow side.
    pub(super) fn tell(&self, notice: Notice) {
        if self.notices.push(notice).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        // EAGAIN: the counter is full, so the other side is awake already.
        let _ = self.slow_side.write(1);
    }

    /// The next notice.
    pub(super) fn next(&self) -> Option<Notice> {
        self.notices.pop()
    }

    /// How many notices were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Hands over a process that was killed, for its memory to be released.
    pub(super) fn hand_over_dying(&self, pidfd: OwnedFd) {
        // Full: it will have to exit by itself.
        let _ = self.dying.push(pidfd);
    }

    /// The next process whose memory is to be released.
    pub(super) fn next_dying(&self) -> Option<OwnedFd> {
        self.dying.pop()
    }

    /// Readable when there are notices; [`Channel::heard`] takes that back.
    pub(super) fn slow_side(&self) -> BorrowedFd<'_> {
        self.slow_side.as_fd()
    }

    /// Takes back the readiness of [`Channel::slow_side`].
    pub(super) fn heard(&self) {
        let _ = self.slow_side.read();
    }
}
