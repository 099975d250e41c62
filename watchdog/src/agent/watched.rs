//! A target as the slow side keeps it: what is known of it, what is done about it beside the deciding
//! thread, and its record. Who started it, if anybody here did, and who is told of it is [`super::run`]'s and
//! the daemon's; its record is put together in [`telling`].

mod telling;

use super::channel::{Notice, Status};
use super::deciding::{Arrival, Way};
use super::eyes::NESTED;
use super::flight::Flights;
use super::guarded::Guarded;
use super::helpers::Helpers;
use super::recorder::Recorder;
use super::story::Story;
use crate::act::{self, Mode, Outcome};
use crate::bpf;
use crate::host::cgroup::{self, Held};
use crate::host::clock;
use crate::host::place::Place;
use crate::host::process;
use crate::host::reread::Reread;
use crate::incident::{self, Comm, Flight, Machine, Process, Record};
use crate::watch::victim::Scope;
use crate::watch::{Order, Rung, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long a killed process may take to be gone; one that waits for a dead disk takes for ever.
const DEATH: Duration = Duration::from_secs(2);
/// How long an act may take whose outcome is told.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is told of one that took longer.
const LATE: Outcome = Outcome::Refused {
    errno: libc::ETIMEDOUT,
};

/// As many of those who are signalled all at once are told one by one.
const HIT_TOLD: usize = 256;
/// Who was signalled, and what came of it.
type Hit = (Process, Outcome);

/// One target.
pub(super) struct Watched {
    pub(super) guarded: Guarded,
    pub(super) settings: Settings,
    pub(super) mode: Mode,
    /// The user for whom it is guarded, and who alone may be hit; `None` for root.
    uid: Option<u32>,
    pub(super) status: Arc<Status>,
    pub(super) story: Story,
    pub(super) began: (Duration, SystemTime),
    pub(super) notes: Vec<String>,
    /// Whether memwatch has frozen it.
    pub(super) froze: bool,
    condemned: Option<Condemned>,
    nested: BTreeSet<u64>,
    /// The most cgroups inside the target that found no place among those looked into.
    nested_left_out: usize,
    /// What the daemon has told of it, whose it was to guard.
    told_by_daemon: Option<Record>,
    /// The machine when memwatch stepped in first since the record began.
    pub(super) machine: Option<Box<Machine>>,
    /// Where the looks at it are kept.
    flights: Arc<Flights>,
    /// The looks that the daemon took.
    flight_of_daemon: Option<Flight>,
    /// How many interventions the daemon has kept, so that nobody else need; `None` if it kept nothing.
    pub(super) kept_by_daemon: Option<usize>,
}

/// The whole target was told to end: who outlives its leader does not go free.
#[derive(Clone, Copy, Debug)]
struct Condemned {
    /// Until then it may end by itself.
    grace_until: Duration,
    /// From then on a target that was only asked, and lives, is judged afresh.
    pardoned_at: Option<Duration>,
}

/// What a notice of the deciding thread comes to, for whoever is to be told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    /// Something for the record alone.
    Noted,
    /// An order was given.
    Ordered(Order),
    /// The same, and the target was frozen or could not be.
    Frozen(Order, Outcome),
    /// The cgroup is gone.
    Gone,
}

impl Watched {
    /// Begins with a target.
    pub(super) fn new(
        guarded: Guarded,
        settings: Settings,
        mode: Mode,
        uid: Option<u32>,
        began: (Duration, SystemTime),
        flights: Arc<Flights>,
    ) -> Self {
        Self {
            notes: guarded.shortcomings.clone(),
            guarded,
            settings,
            mode,
            uid,
            status: Arc::default(),
            story: Story::begin(began.0),
            began,
            froze: false,
            condemned: None,
            nested: BTreeSet::new(),
            nested_left_out: 0,
            told_by_daemon: None,
            machine: None,
            flights,
            flight_of_daemon: None,
            kept_by_daemon: None,
        }
    }

    fn place(&self) -> &Place {
        &self.guarded.target.place
    }

    /// Takes in what the deciding thread told, and does what was left to this side.
    pub(super) fn hear(&mut self, notice: &Notice, helpers: &Helpers) -> Heard {
        self.story.hear(notice);
        if let Notice::Ordered { number, .. } = notice {
            self.story.see_swap(*number, swapped_bytes);
        }
        let (order, at) = match notice {
            Notice::Ordered { order, at, .. } => (*order, *at),
            Notice::TargetGone => return Heard::Gone,
            Notice::Hit { .. }
            | Notice::Struck { .. }
            | Notice::Recovered { .. }
            | Notice::NearMiss(_)
            | Notice::Departed => return Heard::Noted,
        };
        let whole = order
            .victim
            .is_some_and(|victim| victim.scope == Scope::Target);
        if whole && self.mode == Mode::Real {
            self.condemn(order.rung, at);
        }
        match order.rung {
            Rung::Freeze => {
                if self.mode == Mode::Real {
                    self.guarded.target.say_frozen();
                }
                let outcome = self.freeze(helpers);
                // Late is not never.
                self.froze |= matches!(outcome, Outcome::Delivered | LATE);
                self.story.froze(outcome);
                Heard::Frozen(order, outcome)
            }
            Rung::Sigkill if whole => {
                self.beside(helpers, self.kill(), self.mode);
                Heard::Ordered(order)
            }
            _ => Heard::Ordered(order),
        }
    }

    /// Takes in what the BPF programs told of it.
    pub(super) fn witness(&mut self, event: &bpf::Event) {
        match event {
            bpf::Event::OomVictim { pid, comm, .. } => self.story.kernel_oom(*pid, comm),
            bpf::Event::Hang { tid, comm, .. } => self.story.hung(*tid, comm),
            bpf::Event::ReclaimStarted { .. } => {}
        }
    }

    fn condemn(&mut self, rung: Rung, at: Duration) {
        let asked_until = at + self.settings.term_grace;
        self.condemned = match rung {
            Rung::Sigkill => Some(Condemned {
                grace_until: at,
                pardoned_at: None,
            }),
            Rung::Sigterm => Some(Condemned {
                grace_until: asked_until,
                pardoned_at: Some(asked_until + self.settings.cooldown),
            }),
            Rung::Warn | Rung::Abort | Rung::Sigint | Rung::Freeze => self.condemned,
        };
    }

    /// Acts on the whole target by a file of its cgroup. Waits for the kernel's cgroup lock, which whoever
    /// makes a cgroup under pressure holds for long: beside.
    pub(super) fn beside(
        &self,
        helpers: &Helpers,
        act: impl FnOnce(&Place, Mode) -> Outcome + Send + 'static,
        mode: Mode,
    ) {
        let held = self.held();
        helpers.start(move || _ = held().map(|(place, _held)| act(&place, mode)));
    }

    /// The end of everybody in it who may be hit.
    fn kill(&self) -> impl FnOnce(&Place, Mode) -> Outcome + Send + 'static {
        let uid = self.uid;
        move |place, mode| match uid {
            Some(uid) => act::target::kill_for(uid, place, mode),
            None => act::target::kill(place, mode),
        }
    }

    /// Takes hold of this very cgroup, whatever bears its name by then.
    fn held(&self) -> impl FnOnce() -> std::io::Result<(Place, Option<Held>)> + Send + 'static {
        let (place, id) = (self.place().clone(), self.guarded.target.id);
        move || match place.dir() {
            Some(dir) => {
                let held = Held::open(dir, id)?;
                Ok((Place::Cgroup(held.path()), Some(held)))
            }
            None => Ok((place, None)),
        }
    }

    /// The same for the one act whose outcome must be told.
    fn freeze(&self, helpers: &Helpers) -> Outcome {
        let (held, mode, uid) = (self.held(), self.mode, self.uid);
        let freeze = move || match (held(), uid) {
            (Ok((place, _held)), Some(uid)) => act::target::freeze_for(uid, &place, mode),
            (Ok((place, _held)), None) => act::target::freeze(&place, mode),
            (Err(_), _) => Outcome::Gone,
        };
        helpers.ask(PATIENCE, freeze).unwrap_or(LATE)
    }

    /// Asks everybody, as timeout(1) does: a shell alone would end and leave its children running.
    pub(super) fn ask_all(&mut self, limit: Duration, grace: Duration, helpers: &Helpers) {
        if self.mode == Mode::Real {
            self.condemned = Some(Condemned {
                grace_until: clock::now() + grace,
                pardoned_at: None,
            });
        }
        let hit = self.signal_all(libc::SIGTERM);
        self.beside(helpers, act::target::thaw, self.mode);
        self.time_is_up(limit, Rung::Sigterm, hit);
    }

    /// Ends everybody, and forks under way.
    pub(super) fn end_all(&mut self, limit: Duration, helpers: &Helpers) {
        let hit = self.signal_all(libc::SIGKILL);
        self.beside(helpers, self.kill(), self.mode);
        self.time_is_up(limit, Rung::Sigkill, hit);
    }

    fn time_is_up(&mut self, limit: Duration, rung: Rung, mut hit: Vec<Hit>) {
        let more = hit.len().saturating_sub(HIT_TOLD);
        if more > 0 {
            let note = format!("{more} more processes were signalled when the time was up");
            self.notes.push(note);
        }
        hit.truncate(HIT_TOLD);
        self.story.timeout(limit, rung, hit);
    }

    /// Everybody who is there now; waits for nothing.
    fn signal_all(&self, signal: i32) -> Vec<Hit> {
        let send = |pid| {
            let pidfd = act::signal::pidfd_open(pid).ok()?;
            let stat = process::stat_of(pid);
            let outcome = act::signal::send(pidfd.as_fd(), signal, self.mode);
            let process = Process {
                pid,
                ppid: stat.map(|stat| stat.ppid),
                start_time_ticks: stat.map(|stat| stat.start_ticks),
                comm: stat.map_or_else(Comm::default, |stat| Comm::new(&stat.comm)),
                ..Process::default()
            };
            Some((process, outcome))
        };
        self.place().pids().into_iter().filter_map(send).collect()
    }

    /// Cgroups that are made inside of it, as a nested test runner or a container does.
    pub(super) fn find_nested(&mut self, way: &Way) {
        let Ok((place, _held)) = self.held()() else {
            return;
        };
        let found: BTreeMap<u64, PathBuf> = place
            .dir()
            .map_or_else(Vec::new, cgroup::descendants)
            .into_iter()
            .filter_map(|dir| Some((cgroup::id(&dir).ok()?, dir)))
            .collect();
        // By id: a cgroup that is removed and made again under its old name is another.
        self.nested.retain(|id| found.contains_key(id));
        self.nested_left_out = self.nested_left_out.max(found.len().saturating_sub(NESTED));
        for (id, dir) in found {
            if self.nested.len() < NESTED
                && !self.nested.contains(&id)
                && let Ok(procs) = Reread::open(&dir.join("cgroup.procs"))
                && way.send(Arrival::Nested(self.guarded.target.id, procs))
            {
                self.nested.insert(id);
            }
        }
    }

    /// What memwatch froze runs again.
    pub(super) fn thaw_if_frozen(&mut self) {
        if self.froze {
            act::target::thaw(self.place(), Mode::Real);
            self.guarded.target.say_thawed();
        }
    }

    /// The deciding thread's end of the flight recorder; for `--record` it takes every look.
    pub(super) fn recorder(&self, every_look: bool) -> Recorder {
        self.flights.recorder(self.guarded.target.id, every_look)
    }

    /// Takes in the looks that have come.
    pub(super) fn look_after_flight(&self) {
        self.flights.look_after(clock::now());
        for id in self.flights.unnamed() {
            self.flights.name(id, self.place().to_string(), None);
        }
    }

    /// Where the looks at it are kept.
    pub(super) fn flights(&self) -> Arc<Flights> {
        Arc::clone(&self.flights)
    }

    /// From now on by other numbers, and by a pass that knows of no cgroup inside yet.
    pub(super) fn judge_by(&mut self, settings: Settings) {
        self.settings = settings;
        self.nested.clear();
    }

    /// The record so far was told: another begins.
    pub(super) fn begin_again(&mut self, at: (Duration, SystemTime)) {
        self.began = at;
        self.notes = self.guarded.shortcomings.clone();
    }

    /// Whether nobody is left in it.
    pub(super) fn is_empty(&self) -> bool {
        self.place().pids().is_empty()
    }

    /// Ends what is left of a target that was told to end: the leader may be the first to go and not
    /// the hog, and forks under way got no signal. What was asked has the rest of its grace for it.
    pub(super) fn see_off(&mut self, let_go: bool) {
        let now = clock::now();
        let Some(condemned) = self.condemned else {
            return;
        };
        let pardoned = |at| let_go || now >= at;
        if condemned.pardoned_at.is_some_and(pardoned) {
            return;
        }
        if !self.is_empty_within(condemned.grace_until.saturating_sub(now)) {
            self.kill()(self.place(), Mode::Real);
            self.is_empty_within(DEATH);
            self.notes
                .push("what outlived the end of the command was killed with it".into());
        }
    }

    fn is_empty_within(&self, patience: Duration) -> bool {
        let until = clock::now() + patience;
        loop {
            let empty = self.is_empty();
            if empty || clock::now() > until {
                return empty;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What a process has in swap, if it is still the one that was started then. For the slow side: of no use to who
/// decides, and one more file for each process.
fn swapped_bytes(process: &incident::Process) -> Option<u64> {
    let file = |name| std::fs::read(format!("/proc/{}/{name}", process.pid)).ok();
    let status = file("status")?;
    let stat = process::parse_stat(&file("stat")?)?;
    let is_it = Some(stat.start_ticks) == process.start_time_ticks;
    is_it.then(|| process::parse_swap(&status))?
}
