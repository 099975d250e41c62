//! The daemon's targets: how they come and go, and what happens to them. What is known of one, and told to
//! whose it is, is [`super::kept`]'s.

use super::Means;
use super::archive::Archive;
use super::kept::{Detached, Kept, Order, Owner};
use super::scan::Found;
use crate::act::{Mode, Outcome};
use crate::agent::blackbox::{self, Keeper};
use crate::agent::channel::{Notice, TargetId};
use crate::agent::deciding::Arrival;
use crate::agent::flight::Flights;
use crate::agent::guarded::{GuardError, Guarded};
use crate::agent::kernel::Kernel;
use crate::agent::recorder::Lane;
use crate::agent::terminal;
use crate::agent::testing::OnBoard;
use crate::agent::watched::{Heard, Watched};
use crate::bpf;
use crate::control::protocol::{Blame, RunningTest};
use crate::control::{Events, Peer, Refusal, status};
use crate::host::cgroup::{CgroupError, Limits, Target};
use crate::host::clock;
use crate::incident::{self, FeatureLost, Kind, Record};
use crate::watch::{Rung, Settings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// All of them.
pub(super) struct Targets {
    settings: Settings,
    /// What this daemon has to do without, for all of them.
    lacks: Vec<FeatureLost>,
    archive: Archive,
    /// Boxed, since the nodes of a map are half empty.
    kept: BTreeMap<TargetId, Box<Kept>>,
    /// Of those that stir.
    flights: Arc<Flights>,
    counts: status::Counts,
    /// Of those that are gone.
    lost_before: status::Losses,
    /// What the configuration names and cannot be guarded: said once.
    failed: BTreeMap<TargetId, PathBuf>,
    /// Who hears what is said of all that they may hear of.
    listeners: Vec<(Peer, Events)>,
}

/// After an intervention, until it is told: memory has come back, or will not.
const SETTLED: Duration = Duration::from_secs(2);
/// For the deciding thread to let a target go. It takes a moment, unless its word about it was lost.
const LETTING_GO: Duration = Duration::from_secs(1);
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
    pub(super) fn new(settings: Settings, archive: Archive) -> Self {
        Self {
            settings,
            lacks: Vec::new(),
            archive,
            kept: BTreeMap::new(),
            flights: Arc::new(Flights::new(Lane::new(512, 32), super::TABLES)),
            counts: status::Counts::default(),
            lost_before: status::Losses::default(),
            failed: BTreeMap::new(),
            listeners: Vec::new(),
        }
    }

    /// Starts the black box, and keeps what is found there of a machine that ended.
    pub(super) fn keep_black_box(&self, state: &Path) -> Result<Keeper, FeatureLost> {
        let spool = self.archive.spool().clone();
        let keep = Box::new(move |record: &Record| {
            blackbox::was_kept(spool.keep(record), |line| tracing::warn!("{line}"))
        });
        Keeper::start(state.to_owned(), Arc::clone(&self.flights), keep)
    }

    /// An incident was kept without passing here.
    pub(super) fn count(&mut self, record: &Record) {
        self.counts.add(record);
    }

    /// From now on every record says that the daemon has to do without this.
    pub(super) fn lack(&mut self, lost: impl IntoIterator<Item = FeatureLost>) {
        self.lacks.extend(lost);
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
        let watched = Watched::new(
            guarded,
            self.settings,
            mode,
            order.uid(),
            began,
            Arc::clone(&self.flights),
        );
        let kept = Kept::new(watched, order, means.helpers.lost());
        kept.hand_over(means)?;
        self.kept.insert(id, Box::new(kept));
        Ok(())
    }

    /// Where incidents go.
    pub(super) fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Whether it is guarded.
    pub(super) fn has(&self, id: TargetId) -> bool {
        self.kept.contains_key(&id)
    }

    /// Who wants it guarded, if it is.
    pub(super) fn owner(&self, id: TargetId) -> Option<Owner> {
        self.kept.get(&id).map(|kept| kept.order.owner)
    }

    /// How many a user has.
    pub(super) fn of_user(&self, uid: u32) -> usize {
        let owners = self.kept.values().map(|kept| kept.order.owner);
        owners.filter(|&owner| owner == Owner::User(uid)).count()
    }

    /// Where those are that users have handed over.
    pub(super) fn dirs_of_users(&self) -> Vec<&Path> {
        let of_users = self.kept.values();
        let of_users = of_users.filter(|kept| kept.order.owner != Owner::Configuration);
        of_users
            .filter_map(|kept| kept.watched.guarded.target.dir())
            .collect()
    }

    /// What its owner should know.
    pub(super) fn notes(&self, id: TargetId) -> &[String] {
        self.kept.get(&id).map_or(&[], |kept| &kept.watched.notes)
    }

    /// From now on `events` hears of it.
    pub(super) fn send_events_to(&mut self, id: TargetId, events: Events) {
        if let Some(kept) = self.kept.get_mut(&id) {
            kept.send_events_to(events);
        }
    }

    /// From now on `events` hears of everything that the peer may hear of.
    pub(super) fn send_all_events_to(&mut self, peer: Peer, events: Events) {
        self.listeners.push((peer, events));
    }

    /// These tests run in it, says its user; what the process of each has spent in reclaim by the last look, in ns.
    pub(super) fn tests_run(
        &self,
        peer: Peer,
        id: TargetId,
        running: &[RunningTest],
    ) -> Result<Vec<Option<u64>>, Refusal> {
        match self.kept.get(&id).map(|kept| (kept, kept.order.owner)) {
            Some((kept, Owner::User(uid))) if peer.may_touch(Some(uid)) => {
                let notices = running.iter().map(|test| OnBoard {
                    pid: test.pid,
                    start_ticks: test.start_ticks,
                    serial: test.serial,
                });
                let Some(board) = &kept.tests else {
                    return Ok(Vec::new());
                };
                board.put_up(notices.clone());
                Ok(notices.map(|notice| board.stall_ns(&notice)).collect())
            }
            _ => Err(peer.no_such_target(id)),
        }
    }

    /// One of its processes that was signalled ran this test, says its user.
    pub(super) fn blame(&mut self, peer: Peer, blame: Blame) -> Result<(), Refusal> {
        let kept = self.kept.get_mut(&blame.id);
        match kept.map(|kept| (kept.order.owner, kept)) {
            Some((Owner::User(uid), kept)) if peer.may_touch(Some(uid)) => {
                let story = &mut kept.watched.story;
                if let Some(number) = story.unblamed(blame.pid) {
                    story.blame(number, blame.test);
                    story.python_stack(number, blame.python_stack);
                }
                Ok(())
            }
            _ => Err(peer.no_such_target(blame.id)),
        }
    }

    /// Takes on what the configuration names now, and lets go what it named before.
    pub(super) fn of_configuration(&mut self, found: &[Found], means: &Means) {
        let orders: BTreeMap<TargetId, Order> = found
            .iter()
            .map(|found| (found.id, order_of(found)))
            .collect();
        let unwanted: Vec<TargetId> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.order.owner == Owner::Configuration)
            .filter(|(id, kept)| orders.get(id) != Some(&kept.order))
            .map(|(id, _)| *id)
            .collect();
        for id in unwanted {
            means.way.send(Arrival::Departure(id));
            self.let_go(id, means);
        }
        self.failed.retain(|id, _| orders.contains_key(id));
        for found in found {
            if self.kept.contains_key(&found.id) || self.failed.contains_key(&found.id) {
                continue;
            }
            let order = order_of(found);
            match self.take_on(&found.dir, found.id, Limits::default(), order, means) {
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
            kept.watched.judge_by(settings);
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
        let dry_run = kept.order.dry_run;
        match kept.watched.hear(notice, &means.helpers) {
            Heard::Noted => match notice {
                Notice::Hit {
                    number,
                    rung,
                    member,
                    outcome: Outcome::Delivered,
                    ..
                } => kept.say_hit(*number, *rung, member),
                Notice::Recovered { .. } | Notice::NearMiss(_) => kept.tell_at = Some(at),
                Notice::Departed if kept.leaving.is_some() => self.let_go(target, means),
                _ => {}
            },
            Heard::Ordered(order) => {
                let is_kill = !dry_run && order.rung != Rung::Warn;
                let text = incident::order(&order, dry_run);
                means.surroundings.see_machine(&mut kept.watched);
                kept.say(&text, is_kill, &self.listeners);
                kept.tell_at = Some(at + SETTLED);
            }
            Heard::Frozen(order, outcome) => {
                let text = incident::order(&order, dry_run);
                means.surroundings.see_machine(&mut kept.watched);
                kept.say(&text, false, &self.listeners);
                let place = &kept.watched.guarded.target.place;
                if let Some(text) = terminal::frozen(place, outcome) {
                    kept.say(&text, false, &self.listeners);
                }
                kept.tell_at = Some(at + SETTLED);
            }
            Heard::Gone => self.let_go(target, means),
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
            let text = format!(
                "the guard in the kernel has killed {} (pid {})",
                incident::Comm::new(&kill.comm),
                name.tgid
            );
            kept.say(&text, true, &self.listeners);
            kept.tell_at = Some(clock::now());
        }
    }

    /// Whether one of them stalls.
    pub(super) fn any_hot(&self) -> bool {
        let stall = |kept: &Kept| kept.watched.status.some_permille.load(Ordering::Relaxed);
        self.kept.values().any(|kept| stall(kept) >= HOT_PERMILLE)
    }

    /// How they are, and what was not seen of them.
    pub(super) fn status(&self, kernel: &Kernel) -> (status::Losses, Vec<status::Target>) {
        let mut losses = self.lost_before.clone();
        for kept in self.kept.values() {
            count_late(&mut losses, kept);
            losses.untracked_processes += kept.watched.status.untracked.load(Ordering::Relaxed);
        }
        let targets = self.kept.values().map(|kept| kept.status(kernel));
        (losses, targets.collect())
    }

    /// What has happened since the daemon began.
    pub(super) fn counts(&self) -> &status::Counts {
        &self.counts
    }

    /// What no event tells.
    pub(super) fn keep_house(&mut self, now: Duration, means: &Means) {
        self.listeners.retain(|(_, events)| !events.is_closed());
        self.flights.look_after(now);
        for id in self.flights.unnamed() {
            let kept = self.kept.get(&id);
            let name = kept.map(|kept| kept.watched.guarded.target.place.to_string());
            let uid = kept.and_then(|kept| kept.user());
            self.flights.name(id, name.unwrap_or_default(), uid);
        }
        let (mut due, mut over) = (Vec::new(), Vec::new());
        for (id, kept) in &mut self.kept {
            // Only whose processes are looked at needs to know where they are.
            if kept.watched.status.is_close.load(Ordering::Relaxed) {
                kept.watched.find_nested(&means.way);
            }
            if kept.is_abandoned(now) || kept.leaving.as_ref().is_some_and(|(by, _)| now >= *by) {
                over.push(*id);
            } else if kept.tell_at.is_some_and(|at| now >= at) {
                due.push(*id);
            }
        }
        for id in due {
            self.tell(id, means);
        }
        for id in over {
            means.way.send(Arrival::Departure(id));
            self.let_go(id, means);
        }
    }

    /// Keeps what has happened to a target since it was last told.
    fn tell(&mut self, id: TargetId, means: &Means) {
        let Some(kept) = self.kept.get_mut(&id) else {
            return;
        };
        let record = kept.tell(means, &self.lacks);
        if record.kind != Kind::Run {
            self.keep(record);
        }
    }

    /// Guards it no more, as its owner wants. Answered with all that happened to it, when the deciding thread has
    /// said its last about it.
    pub(super) fn detach(&mut self, id: TargetId, answer: Detached, means: &Means) {
        if let Some(kept) = self.kept.get_mut(&id) {
            kept.leaving = Some((clock::now() + LETTING_GO, answer));
            means.way.send(Arrival::Departure(id));
        }
    }

    /// Counts an incident, and puts it on the disk.
    pub(super) fn keep(&mut self, record: Record) {
        self.counts.add(&record);
        self.archive.keep(record);
    }

    /// Guards it no more. The deciding thread has let it go, or is told to.
    fn let_go(&mut self, id: TargetId, means: &Means) {
        self.tell(id, means);
        if let Some(mut kept) = self.kept.remove(&id) {
            count_late(&mut self.lost_before, &kept);
            kept.watched.thaw_if_frozen();
            kept.say_gone(&self.listeners);
            if let Some((_, answer)) = kept.leaving.take() {
                let _ = answer.send(Ok(kept.whole())); // who asked may have hung up
            }
            means.kernel.stand_down(id);
            means.kernel.forget(id);
            self.flights.forget(id);
        }
    }

    /// Guards nobody any more: the deciding thread has ended. What happened is on the disk then, if that takes it.
    pub(super) fn let_all_go(mut self, means: &Means, patience: Duration) {
        let all: Vec<TargetId> = self.kept.keys().copied().collect();
        for id in all {
            self.let_go(id, means);
        }
        self.archive.finish(patience);
    }
}

/// Adds the looks at it that came late.
fn count_late(losses: &mut status::Losses, kept: &Kept) {
    let seen = &kept.watched.status;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    losses.late_looks += read(&seen.late_looks);
    losses.longest_delay_us = losses.longest_delay_us.max(read(&seen.longest_delay_us));
}

fn order_of(found: &Found) -> Order {
    Order {
        owner: Owner::Configuration,
        on_pressure: found.on_pressure,
        dry_run: found.dry_run,
        leader: None,
    }
}
