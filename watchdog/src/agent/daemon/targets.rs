//! The daemon's targets: whose they are, how they come and go, and what is told of them.

use super::Means;
use super::scan::Found;
use super::spool::Spool;
use crate::act::{Mode, Outcome};
use crate::agent::channel::{Notice, TargetId};
use crate::agent::deciding::Arrival;
use crate::agent::guarded::{GuardError, Guarded};
use crate::agent::helpers::Helpers;
use crate::agent::kernel::Wanted;
use crate::agent::pass::{Charge, Pass};
use crate::agent::starting::{response, terms};
use crate::agent::watched::{Heard, Watched};
use crate::bpf;
use crate::config::OnPressure;
use crate::host::cgroup::{CgroupError, Limits, Target};
use crate::host::clock;
use crate::incident::{self, Kind, Record, Verdict};
use crate::watch::{Policy, Settings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// Who wants a target guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The configuration names it.
    Configuration,
    /// This user has handed it over.
    #[expect(dead_code, reason = "users come by the control socket")]
    User(u32),
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) owner: Owner,
    pub(super) on_pressure: OnPressure,
    pub(super) dry_run: bool,
    pub(super) leader: Option<u32>,
}

/// One of them.
struct Kept {
    watched: Watched,
    order: Order,
    /// Something happened that is to be kept when its end is known, or then.
    tell_at: Option<Duration>,
}

/// All of them.
pub(super) struct Targets {
    settings: Settings,
    spool: Spool,
    kept: BTreeMap<TargetId, Kept>,
    /// What the configuration names and cannot be guarded: said once.
    failed: BTreeMap<TargetId, PathBuf>,
}

/// After an intervention, until it is told: memory has come back, or will not.
const SETTLED: Duration = Duration::from_secs(2);
/// From this share of stall on, page faults are sampled: somebody will want to know whose they were.
const HOT_PERMILLE: u64 = 100;

/// Why a cgroup cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefusedError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error("there are {} targets already, and no room for more", super::TARGETS)]
    Full,
    #[error("it was removed, and another made in its place")]
    Replaced,
}

impl Targets {
    pub(super) fn new(settings: Settings, spool: Spool) -> Self {
        Self {
            settings,
            spool,
            kept: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Guards the cgroup at `dir`, which must be the one of that id.
    pub(super) fn take_on(
        &mut self,
        dir: &Path,
        id: TargetId,
        limits: Limits,
        order: Order,
        means: &Means,
    ) -> Result<(), RefusedError> {
        if self.kept.len() >= super::TARGETS {
            return Err(RefusedError::Full);
        }
        let target = Target::existing(&means.layout, dir)?;
        if target.id != id {
            return Err(RefusedError::Replaced);
        }
        let guarded = Guarded::new(target, limits)?;
        let mode = if order.dry_run {
            Mode::DryRun
        } else {
            Mode::Real
        };
        let began = (clock::now(), SystemTime::now());
        let watched = Watched::new(guarded, self.settings, mode, began);
        let kept = Kept {
            watched,
            order,
            tell_at: None,
        };
        kept.hand_over(means)?;
        self.kept.insert(id, kept);
        Ok(())
    }

    /// Takes on what the configuration names now, and lets go what it named before.
    pub(super) fn of_configuration(&mut self, found: &[Found], means: &Means) {
        let wanted = |id: TargetId, order: &Order| {
            found
                .iter()
                .any(|found| found.id == id && order_of(found) == *order)
        };
        let unwanted: Vec<TargetId> = self
            .kept
            .iter()
            .filter(|(id, kept)| {
                kept.order.owner == Owner::Configuration && !wanted(**id, &kept.order)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in unwanted {
            means.way.send(Arrival::Departure(id));
            self.let_go(id, means);
        }
        self.failed
            .retain(|id, _| found.iter().any(|found| found.id == *id));
        for found in found {
            if self.kept.contains_key(&found.id) || self.failed.contains_key(&found.id) {
                continue;
            }
            let order = order_of(found);
            let taken_on = self.take_on(&found.dir, found.id, Limits::default(), order, means);
            match taken_on {
                Ok(()) => tracing::warn!("guarding {}", found.dir.display()),
                Err(error) => {
                    tracing::warn!("cannot guard {}: {error}", found.dir.display());
                    self.failed.insert(found.id, found.dir.clone());
                }
            }
        }
    }

    /// Guards all of them by other numbers.
    pub(super) fn begin_anew(&mut self, settings: Settings, means: &Means) {
        self.settings = settings;
        for (id, kept) in &mut self.kept {
            kept.watched.settings = settings;
            means.way.send(Arrival::Departure(*id));
            means.kernel.stand_down(*id);
            if let Err(error) = kept.hand_over(means) {
                tracing::warn!("cannot guard it by the new numbers: {error}");
            }
        }
    }

    /// Takes in what the deciding thread told.
    pub(super) fn hear(&mut self, target: TargetId, notice: &Notice, means: &Means) {
        let Some(kept) = self.kept.get_mut(&target) else {
            return;
        };
        let at = clock::now();
        match kept.watched.hear(notice, &means.helpers) {
            Heard::Noted => {
                if matches!(notice, Notice::Recovered { .. }) {
                    kept.tell_at = Some(at);
                }
            }
            Heard::Ordered(order) => {
                kept.say(&incident::order(&order, kept.order.dry_run));
                kept.tell_at = Some(at + SETTLED);
            }
            Heard::Frozen(order, outcome) => {
                kept.say(&incident::order(&order, kept.order.dry_run));
                if outcome != Outcome::Delivered {
                    kept.say(&format!("it is not frozen: {outcome:?}"));
                }
                kept.tell_at = Some(at + SETTLED);
            }
            Heard::Gone => {
                self.tell(target, means);
                self.let_go(target, means);
            }
        }
    }

    /// Takes in what the BPF programs told; what is about the machine is told to the journal.
    pub(super) fn witness(&mut self, target: Option<TargetId>, event: &bpf::Event) {
        if let bpf::Event::Hang { tid, comm, .. } = event {
            tracing::warn!(
                "the kernel has found {} (tid {tid}) hung",
                incident::Comm::new(comm)
            );
        }
        if let Some(kept) = target.and_then(|target| self.kept.get_mut(&target)) {
            kept.watched.witness(event);
            kept.tell_at = Some(clock::now() + SETTLED);
        }
    }

    /// The guard in the kernel has killed.
    pub(super) fn guard_kill(&mut self, name: bpf::Name, kill: &bpf::Kill) {
        if let Some(kept) = self.kept.get_mut(&kill.cgroup_id) {
            let settings = kept.watched.settings;
            kept.watched.story.guard_kill(name, kill, &settings);
            kept.say(&format!(
                "the guard in the kernel has killed {} (pid {})",
                incident::Comm::new(&kill.comm),
                name.tgid
            ));
            kept.tell_at = Some(clock::now());
        }
    }

    /// Whether one of them stalls.
    pub(super) fn any_hot(&self) -> bool {
        let stall = |kept: &Kept| kept.watched.status.some_permille.load(Ordering::Relaxed);
        self.kept.values().any(|kept| stall(kept) >= HOT_PERMILLE)
    }

    /// What no event tells.
    pub(super) fn keep_house(&mut self, now: Duration, means: &Means) {
        let mut due = Vec::new();
        for (id, kept) in &mut self.kept {
            // Only whose processes are looked at needs to know where they are.
            if kept.watched.status.is_close.load(Ordering::Relaxed) {
                kept.watched.find_nested(&means.way);
            }
            if kept.tell_at.is_some_and(|at| now >= at) {
                due.push(*id);
            }
        }
        for id in due {
            self.tell(id, means);
        }
    }

    /// Keeps what has happened to a target since it was last told.
    fn tell(&mut self, id: TargetId, means: &Means) {
        let Some(kept) = self.kept.get_mut(&id) else {
            return;
        };
        if kept.tell_at.take().is_none() {
            return;
        }
        if let Some(bytes) = kept.watched.guarded.current_bytes() {
            kept.watched.story.settle(bytes);
        }
        let over = (clock::now(), SystemTime::now());
        let record = kept.watched.record(over, Verdict::Ongoing, &means.kernel);
        kept.watched.begin_again(over);
        if record.kind != Kind::Run {
            self.keep(record, &means.helpers);
        }
    }

    fn keep(&self, record: Record, helpers: &Helpers) {
        let spool = self.spool.clone();
        helpers.start(move || match spool.keep(&record) {
            Ok(0) => {}
            Ok(evicted) => tracing::warn!("{evicted} old incidents were removed for a new one"),
            Err(error) => tracing::error!("an incident is lost: {error}"),
        });
    }

    /// Guards it no more. The deciding thread has let it go, or is told to.
    fn let_go(&mut self, id: TargetId, means: &Means) {
        if let Some(mut kept) = self.kept.remove(&id) {
            kept.watched.thaw_if_frozen();
            means.kernel.stand_down(id);
            means.kernel.forget(id);
        }
    }

    /// Guards nobody any more: the deciding thread has ended.
    pub(super) fn let_all_go(&mut self, means: &Means) {
        let all: Vec<TargetId> = self.kept.keys().copied().collect();
        for id in all {
            self.tell(id, means);
            self.let_go(id, means);
        }
    }
}

fn order_of(found: &Found) -> Order {
    Order {
        owner: Owner::Configuration,
        on_pressure: found.on_pressure,
        dry_run: found.dry_run,
        leader: None,
    }
}

impl Kept {
    /// Hands it to the deciding thread and to the programs in the kernel.
    fn hand_over(&self, means: &Means) -> Result<(), RefusedError> {
        let watched = &self.watched;
        let charge = Charge {
            id: watched.guarded.target.id,
            leader: self.order.leader,
            mode: watched.mode,
            status: Arc::clone(&watched.status),
            recorder: None,
        };
        let mut policy = Policy::new(watched.settings, response(self.order.on_pressure));
        policy.one_of_many();
        let eyes = watched.guarded.eyes()?;
        let pass = Pass::new(charge, eyes, policy, Arc::clone(&means.way.channel));
        if !means.way.send(Arrival::Target(Box::new(pass))) {
            return Err(RefusedError::Full);
        }
        let uid = match self.order.owner {
            Owner::Configuration | Owner::User(0) => None,
            Owner::User(uid) => Some(uid),
        };
        let terms = terms(
            &watched.settings,
            self.order.on_pressure,
            self.order.dry_run,
            uid,
        );
        means
            .kernel
            .take_in(Wanted::new(&watched.guarded.target, terms));
        Ok(())
    }

    /// For the journal.
    fn say(&self, text: &str) {
        let dir = self.watched.guarded.target.dir.display();
        let line = incident::Text::from(format!("{dir}: {text}"));
        tracing::warn!("{}", line.as_str());
    }
}
