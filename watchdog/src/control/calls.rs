//! What the daemon gets to hear of its clients, and how it speaks to them: a [`Call`] for each request, with a
//! way to answer it, and [`Events`] for what happens later. How these come and go on the wire is
//! `connection`'s, what is done about them the daemon's.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::protocol::{Attach, Blame, Event, Refusal, RunningTest};
use super::rights::Peer;
use super::status::Status;
use crate::incident::{Headline, Text};

/// Events that wait for a client to read them.
const EVENTS: usize = 256;
/// Places that lines leave to the news that a target is gone.
const KEPT_FOR_ENDS: usize = 32;

/// How the daemon answers; a call that is dropped unanswered is refused.
pub type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// What a client wants of the daemon. That it may is not checked yet: see [`super::rights`].
#[derive(Debug)]
pub enum Call {
    /// Guard this cgroup.
    Attach {
        /// Who asks.
        peer: Peer,
        /// How.
        attach: Attach,
        /// The descriptor that came with it.
        cgroup: OwnedFd,
        /// Where the target's events go.
        events: Events,
        /// What it is called, and what the user should know.
        answer: Answer<(u64, Vec<Text>)>,
    },
    /// Guard it no more.
    Detach {
        /// Who asks.
        peer: Peer,
        /// What [`Call::Attach`] was answered with.
        id: u64,
        /// The incident record of all that happened, if there is one.
        answer: Answer<Option<serde_json::Value>>,
    },
    /// These tests run in it.
    Tests {
        /// Who says so.
        peer: Peer,
        /// What [`Call::Attach`] was answered with.
        id: u64,
        /// All that can be asked to fail, and who hands tests out.
        running: Vec<RunningTest>,
        /// What the process of each has spent in reclaim so far, in ns.
        answer: Answer<Vec<Option<u64>>>,
    },
    /// A process that was signalled ran this test.
    Blame {
        /// Who says so.
        peer: Peer,
        /// What.
        blame: Box<Blame>,
        /// That it is noted.
        answer: Answer<()>,
    },
    /// Tell how things are.
    Status {
        /// Who asks.
        peer: Peer,
        /// How they are.
        answer: Answer<Box<Status>>,
    },
    /// List incidents that the peer may read.
    Incidents {
        /// Who asks.
        peer: Peer,
        /// Only older ones than this.
        before: Option<Uuid>,
        /// Some of them, and from where on there may be more.
        answer: Answer<(Vec<Headline>, Option<Uuid>)>,
    },
    /// Send a part of one.
    Incident {
        /// Who asks.
        peer: Peer,
        /// Which.
        id: Uuid,
        /// From which byte on.
        from: u64,
        /// The part, and how long the whole is.
        answer: Answer<(String, u64)>,
    },
    /// Send the events of all targets that the peer may watch.
    Watch {
        /// Who asks.
        peer: Peer,
        /// Where they go.
        events: Events,
        /// That they will.
        answer: Answer<()>,
    },
}

/// Where a connection's events go. Never waits; what the client does not read in time is dropped, counted,
/// and told to it.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    lost: Arc<AtomicU64>,
    lost_in_all: Arc<AtomicU64>,
}

impl Events {
    /// Of one connection, and what waits to be told there; what is lost is added to `lost_in_all`, too.
    pub(super) fn new(lost_in_all: Arc<AtomicU64>) -> (Self, mpsc::Receiver<Event>) {
        let (queue, waiting) = mpsc::channel(EVENTS);
        let lost = Arc::default();
        (
            Self {
                queue,
                lost,
                lost_in_all,
            },
            waiting,
        )
    }

    /// Sends it if there is room. Lines go first, the news that a target is gone last.
    pub fn send(&self, event: Event) {
        let is_line = matches!(event, Event::Said { .. });
        let room = !is_line || self.queue.capacity() > KEPT_FOR_ENDS;
        if !room
            || matches!(
                self.queue.try_send(event),
                Err(mpsc::error::TrySendError::Full(_))
            )
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.lost_in_all.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were lost since this was asked last.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Whether the client has hung up.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}
