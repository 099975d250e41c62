//! One target of the daemon's: for whom and how it is guarded, who hears of it, and all that was told of it.
//! Which there are is [`super::targets`]'.

use super::Means;
use super::targets::RefusedError;
use crate::agent::channel::TargetId;
use crate::agent::deciding::Arrival;
use crate::agent::helpers::Lost;
use crate::agent::kernel::{Kernel, Wanted};
use crate::agent::pass::{Charge, Pass};
use crate::agent::starting::{response, terms};
use crate::agent::testing::Board;
use crate::agent::watched::Watched;
use crate::config::OnPressure;
use crate::control::protocol::{FROM_DAEMON_BYTES, Hit};
use crate::control::status::{self, GuardedBy};
use crate::control::{Answer, Event, Events, Peer};
use crate::host::cgroup;
use crate::host::clock;
use crate::incident::{self, FeatureLost, Kind, Record, Verdict};
use crate::watch::{Member, Policy, Rung};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Who wants a target guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The configuration names it.
    Configuration,
    /// This user has handed it over.
    User(u32),
}

impl Owner {
    /// The user for whom, and who alone may be hit; `None` for root.
    fn uid(self) -> Option<u32> {
        match self {
            Self::Configuration | Self::User(0) => None,
            Self::User(uid) => Some(uid),
        }
    }
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) owner: Owner,
    pub(super) on_pressure: OnPressure,
    pub(super) dry_run: bool,
    pub(super) leader: Option<u32>,
}

impl Order {
    /// Whom it is guarded for, if anybody may be hit who is not everybody's.
    pub(super) fn uid(&self) -> Option<u32> {
        self.owner.uid()
    }
}

/// The answer to a detach: what happened to the target, if it was somebody's.
pub(super) type Detached = Answer<Option<serde_json::Value>>;

/// One of them.
pub(super) struct Kept {
    pub(super) watched: Watched,
    pub(super) order: Order,
    /// Which tests run in it, as its user says; of what the configuration names nobody does.
    pub(super) tests: Option<Arc<Board>>,
    pub(super) interventions: u64,
    /// How many of the kernel's OOM kills were told of so far, by the controller's count.
    oom_kills_told: u64,
    /// What the daemon's helpers had lost when this was last asked.
    lost_before: Lost,
    /// Something happened that is to be kept when its end is known, or then.
    pub(super) tell_at: Option<Duration>,
    /// It is to be let go when the deciding thread has, at the latest then; and who waits for that.
    pub(super) leaving: Option<(Duration, Detached)>,
    since: (Duration, SystemTime),
    /// Who hears what is said of it.
    listeners: Vec<Events>,
    /// All that was told of it so far, for whose it is.
    told: Option<Record>,
    /// Since when nobody is left in it, nor at the other end of its connection.
    abandoned_at: Option<Duration>,
}

/// A cgroup that its user has left, connection and all, is let go after so long: the quota is for others.
const ABANDONED: Duration = Duration::from_secs(10);
/// A record may take so much of a frame.
const RECORD_BYTES: usize = FROM_DAEMON_BYTES / 2;

impl Kept {
    pub(super) fn new(watched: Watched, order: Order, lost_before: Lost) -> Self {
        Self {
            since: watched.began,
            watched,
            order,
            tests: (order.owner != Owner::Configuration).then(Arc::default),
            interventions: 0,
            oom_kills_told: 0,
            lost_before,
            tell_at: None,
            leaving: None,
            listeners: Vec::new(),
            told: None,
            abandoned_at: None,
        }
    }

    /// Hands it to the deciding thread and to the programs in the kernel.
    pub(super) fn hand_over(&self, means: &Means) -> Result<(), RefusedError> {
        let watched = &self.watched;
        let Order {
            on_pressure,
            dry_run,
            leader,
            ..
        } = self.order;
        let charge = Charge {
            id: self.id(),
            leader,
            uid: self.order.uid(),
            mode: watched.mode,
            status: Arc::clone(&watched.status),
            recorder: Some(watched.recorder(false)),
            tests: self.tests.clone(),
        };
        let mut policy = Policy::new(watched.settings, response(on_pressure));
        policy.one_of_many();
        let eyes = watched.guarded.eyes()?;
        let target = &watched.guarded.target;
        // Whatever was opened by this name is the cgroup's that still bears it: none ever gets another's.
        let id = target.place.dir().and_then(|dir| cgroup::id(dir).ok());
        if id != Some(target.id) {
            return Err(RefusedError::Replaced);
        }
        let pass = Pass::new(charge, eyes, policy, Arc::clone(&means.way.channel));
        if !means.way.send(Arrival::Target(Box::new(pass))) {
            return Err(RefusedError::Full);
        }
        let terms = terms(&watched.settings, on_pressure, dry_run, self.order.uid());
        means.kernel.take_in(Wanted::new(target, terms));
        Ok(())
    }

    fn id(&self) -> TargetId {
        self.watched.guarded.target.id
    }

    /// Puts together what has happened to it since this was last asked, and keeps a copy for its user.
    pub(super) fn tell(&mut self, means: &Means, lacks: &[FeatureLost]) -> Record {
        self.tell_at = None;
        if let Some(bytes) = self.watched.guarded.current_bytes() {
            self.watched.story.settle(bytes);
        }
        // Where no program in the kernel names the killed, the controller's count tells of them.
        if let Some(kills) = self.watched.guarded.totals().oom_kills {
            let new = kills.saturating_sub(self.oom_kills_told);
            self.watched.story.kernel_oom_count(Some(new), None);
            self.oom_kills_told = kills;
        }
        let over = (clock::now(), SystemTime::now());
        let after = self.watched.began.0.saturating_sub(self.since.0);
        let verdict = if self.watched.story.spared_nobody() {
            Verdict::KilledByMemwatch
        } else {
            Verdict::Ongoing
        };
        let surroundings = &means.surroundings;
        let mut record = self.watched.record(over, Verdict::Ongoing, &means.kernel);
        record.features_lost.extend_from_slice(lacks);
        record.target.uid = self.user();
        let lost = means.helpers.lost();
        record.losses.hung_helpers += lost.stuck - self.lost_before.stuck;
        record.losses.dropped_jobs += lost.dropped - self.lost_before.dropped;
        self.lost_before = lost;
        surroundings.tell(&mut self.watched, &mut record, true);
        if record.kind != Kind::Run {
            surroundings.tell_blocked(self.watched.began.0, &mut record);
            record.kind = record.gravest();
        }
        self.interventions += record.interventions.len() as u64;
        if let Owner::User(_) = self.order.owner {
            let mut copy = record.clone();
            copy.verdict = verdict;
            // What is root's to know stays in root's record; the user's own memwatch looks for what is blocked.
            copy.blocked_tasks.clear();
            copy.kind = copy.gravest();
            surroundings.tell_log(&self.watched, &mut copy, self.order.uid().is_none());
            match &mut self.told {
                Some(told) => told.absorb(copy, after),
                None => self.told = Some(copy),
            }
            self.keep_it_short();
        }
        self.watched.begin_again(over);
        record
    }

    fn keep_it_short(&mut self) {
        while let Some(told) = &mut self.told
            && told.to_json().len() > RECORD_BYTES
            && !(told.interventions.is_empty() && told.victims.is_empty())
        {
            told.shorten();
        }
    }

    /// Everything that was told of it, for its user.
    pub(super) fn whole(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self.told.as_ref()?).ok()
    }

    /// From now on `events` hears of it.
    pub(super) fn send_events_to(&mut self, events: Events) {
        self.listeners.push(events);
    }

    /// Who has hung up hears nothing more. Whether its user is gone and nobody is left in it for a while.
    pub(super) fn is_abandoned(&mut self, now: Duration) -> bool {
        self.listeners.retain(|events| !events.is_closed());
        let may_be = self.order.owner != Owner::Configuration && self.listeners.is_empty();
        if !may_be || !self.watched.is_empty() {
            self.abandoned_at = None;
            return false;
        }
        now.saturating_sub(*self.abandoned_at.get_or_insert(now)) >= ABANDONED
    }

    /// For the journal, and for who listens; of a kill the record tells more, at the end.
    pub(super) fn say(&self, text: &str, told_at_end: bool, all: &[(Peer, Events)]) {
        let place = &self.watched.guarded.target.place;
        let line = incident::Text::from(format!("{place}: {text}"));
        tracing::warn!("{}", line.as_str());
        for events in self.heard_by(all) {
            events.send(Event::Said {
                id: self.id(),
                line: text.into(),
                told_at_end,
            });
        }
    }

    /// One of its processes was signalled. Whose it is can have its test fail, and knows which that was.
    pub(super) fn say_hit(&self, number: u32, rung: Rung, member: &Member) {
        for events in &self.listeners {
            events.send(Event::Hit(Hit {
                id: self.id(),
                pid: member.pid,
                ppid: member.ppid,
                rung,
                rss_bytes: member.anon_bytes + member.shared_bytes,
                why: self.watched.story.reason(number).unwrap_or_default().into(),
                of_machine: self.watched.story.is_of_machine(number),
            }));
        }
    }

    /// It is guarded no more.
    pub(super) fn say_gone(&self, all: &[(Peer, Events)]) {
        for events in self.heard_by(all) {
            events.send(Event::Gone {
                id: self.id(),
                record: self.whole(),
            });
        }
    }

    fn heard_by<'a>(&'a self, all: &'a [(Peer, Events)]) -> impl Iterator<Item = &'a Events> {
        let uid = self.user();
        let may = all.iter().filter(move |(peer, _)| peer.may_touch(uid));
        self.listeners.iter().chain(may.map(|(_, events)| events))
    }

    /// The user who handed it over, if one did.
    pub(super) fn user(&self) -> Option<u32> {
        match self.order.owner {
            Owner::Configuration => None,
            Owner::User(uid) => Some(uid),
        }
    }

    pub(super) fn status(&self, kernel: &Kernel) -> status::Target {
        let Watched {
            guarded, status, ..
        } = &self.watched;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let permille = |count| u32::try_from(read(count)).ok();
        status::Target {
            id: self.id(),
            cgroup: guarded.target.place.to_string().into(),
            uid: self.user(),
            since: self.since.1.into(),
            current_bytes: guarded.current_bytes(),
            limit_bytes: guarded.limit_bytes,
            some_permille: permille(&status.some_permille),
            full_permille: permille(&status.full_permille),
            processes: guarded.target.place.pids().len() as u64,
            interventions: self.interventions,
            guarded_by: if kernel.guards(self.id()) {
                GuardedBy::DaemonAndKernelGuard
            } else {
                GuardedBy::Daemon
            },
        }
    }
}
