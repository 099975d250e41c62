//! One run from start to end: the slow side.
//!
//! Makes the target, starts the command in it, starts the deciding thread, and then only reacts: to
//! signals, to notices, to the clock. May hang in a read, a write or a kernel lock without the deciding
//! thread noticing. The steps of the start are [`super::starting`]'s, the end is [`super::ending`]'s.

use super::adopt::Adopted;
use super::awake::{self, Refused};
use super::blackbox::{self, Keeper};
use super::blocked;
use super::channel::Channel;
use super::deciding::{Arrival, Decider, Inbox, Way};
use super::drafting::Drafting;
use super::entrusted::Entrusted;
use super::eyes::{Eyes, TargetEyes};
use super::flight::Flights;
use super::guarded;
use super::helpers::Helpers;
use super::identity;
use super::inheritance::Inheritance;
use super::kernel::{Kernel, Wanted};
use super::launch::Program;
use super::members::{self, Members};
use super::papers::Papers;
use super::pass::{Charge, Pass};
use super::recorder::Lane;
use super::recording::Recording;
use super::signals::{self, Change};
use super::starting::{
    guard_terms, make_ready, open_files, open_recording, response, safe_cpus, start, undo,
};
use super::surroundings::Surroundings;
use super::terminal::Terminal;
use super::testing::{Rest, Testing};
use super::watched::Watched;
use crate::act::Mode;
use crate::config::{Attach, Exporters, Incidents};
use crate::export::{Spool, place};
use crate::host::cgroup::Shelter;
use crate::host::clock;
use crate::host::layout::Layout;
use crate::incident::{FeatureLost, Record};
use crate::pytest::{HomeError, Terms};
use crate::watch::{Policy, Settings};
use anyhow::Context;
use nix::sys::signalfd::SignalFd;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What is to be guarded.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A command to start.
    Program(Program),
    /// A process to adopt, with its descendants.
    Pid(u32),
    /// A cgroup to guard as it is.
    Cgroup(PathBuf),
}

/// Everything a run is told.
#[derive(Clone, Debug)]
pub struct Orders {
    /// What.
    pub subject: Subject,
    /// The line that the user typed for a shell: what the terminal calls the command.
    pub line: Option<OsString>,
    /// How.
    pub attach: Attach,
    /// By which numbers.
    pub settings: Settings,
    /// Whether the record may carry arguments.
    pub with_arguments: bool,
    /// Whether what happens is kept.
    pub incidents: Incidents,
    /// Who is told of it.
    pub exporters: Exporters,
    /// Where to record looks.
    pub record: Option<PathBuf>,
    /// Where to write the tests as CTRF.
    pub ctrf: Option<PathBuf>,
    /// Where the daemon listens that may guard in a user's stead.
    pub daemon: PathBuf,
    /// On what terms pytest is given memwatch's plugin, if it is.
    pub tests: Option<Terms>,
}

/// How long a run whose time is up is given to end by itself.
pub(super) const TIMEOUT_GRACE: Duration = Duration::from_secs(5);
/// How often the slow side looks after what no event tells.
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// Runs it; the exit code.
///
/// # Errors
/// It could not be started. What was made is removed.
pub fn run(orders: Orders) -> anyhow::Result<u8> {
    let papers = Papers::open(&orders)?;
    let inheritance = Inheritance::take(&signals::taken(), safe_cpus(&orders.attach))
        .context("cannot block signals")?;
    let layout = Layout::read(Path::new("/"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let signals = signals::open().context("cannot take signals")?;
    let mut run = Run::begin(orders, &layout, &inheritance)?;
    let ended = runtime.block_on(async {
        let ended = run.watch(signals).await;
        run.take_back(ended.as_ref().ok()).await;
        ended
    });
    // The loader of the BPF programs may still be at it; nothing waits for it.
    runtime.shutdown_background();
    run.end(&layout, ended, papers)
}

/// A run under way. How it ends is [`super::ending`]'s.
pub(super) struct Run {
    pub(super) orders: Orders,
    pub(super) watched: Watched,
    pub(super) subject: Running,
    pub(super) entrusted: Entrusted,
    pub(super) way: Way,
    pub(super) kernel: Kernel,
    pub(super) recording: Option<Recording>,
    pub(super) decider: Option<std::thread::JoinHandle<Option<i32>>>,
    pub(super) refused: Refused,
    pub(super) features_lost: Vec<FeatureLost>,
    pub(super) shelter: Option<Shelter>,
    pub(super) helpers: Helpers,
    /// Where no thread can be had, nobody looks for blocked tasks.
    pub(super) blocked: Option<blocked::Watch>,
    pub(super) surroundings: Surroundings,
    /// Where there is no place or no thread for it, no black box is kept.
    pub(super) black_box: Option<Keeper>,
    pub(super) drafting: Drafting,
    /// How long it took.
    pub(super) rehearsal: Option<Duration>,
    pub(super) terminal: Terminal,
    /// Where pytest may be what runs.
    pub(super) testing: Option<Testing>,
}

/// What runs in the target.
pub(super) enum Running {
    Child { pid: u32 },
    Adopted(Adopted),
    Cgroup,
}

/// Why the watching ended.
pub(super) enum Ended {
    Leader(Change),
    Target,
    Detached,
}

impl Run {
    fn begin(
        mut orders: Orders,
        layout: &Layout,
        inheritance: &Inheritance,
    ) -> anyhow::Result<Self> {
        let began = (clock::now(), SystemTime::now());
        // A quarter of a second at the fastest, between two times that they are taken.
        let flights = Arc::new(Flights::new(Lane::new(256, 64), 1));
        let recording = orders.record.as_deref();
        let recording = recording
            .map(|path| open_recording(path, &flights))
            .transpose()?;
        let guarded = make_ready(&orders, layout)?;
        let way = Way {
            inbox: Arc::new(Inbox::new(1)),
            channel: Arc::new(Channel::new().context("cannot make the channel between threads")?),
        };
        // Before the command: it must not find its guard short of anything.
        let target_eyes = guarded.eyes()?;
        let machine_eyes = guarded::machine_eyes()?;
        let refused = awake::protect_process();
        let surroundings = Surroundings::begin(layout);
        let mode = if orders.attach.dry_run {
            Mode::DryRun
        } else {
            Mode::Real
        };
        let plugin = give_plugin(&mut orders, mode);
        let subject = start(&orders, &guarded, layout, inheritance)?;
        // After the command, which must not wait for it, nor find itself in it.
        let shelter = Shelter::enter(layout);
        let features_lost = shelter.as_ref().err().map(identity::no_shelter);
        let mut features_lost: Vec<FeatureLost> = features_lost
            .into_iter()
            .chain(surroundings.missing())
            .collect();
        let mut watched = Watched::new(guarded, orders.settings, mode, user(), began, flights);
        if let Running::Adopted(adopted) = &subject {
            watched.notes.extend(adopted.notes());
        }
        let testing = plugin.unwrap_or_else(|error| {
            watched
                .notes
                .push(format!("tests are not told apart: {error}"));
            None
        });
        let capacity = members::capacity(open_files());
        let decider = Decider::new(
            Eyes::new(machine_eyes),
            vec![Members::new(capacity)],
            1,
            way.clone(),
            None,
        );
        let decider = decider
            .start()
            .inspect_err(|_| undo(&subject, &watched.guarded.target))
            .context("cannot start the deciding thread")?;
        let target = &watched.guarded.target;
        // What the programs know is cgroups.
        let wanted = target
            .dir()
            .map(|_| Wanted::new(target, guard_terms(&orders)));
        let wanted = wanted.into_iter().collect();
        let kernel = Kernel::load_beside(wanted, layout, way.clone());
        let terminal = Terminal::new(orders.attach.live, orders.attach.verbosity);
        for note in &watched.notes {
            terminal.warn(note);
        }
        let black_box = start_black_box(&watched, &orders.incidents)
            .map_err(|lost| features_lost.push(lost))
            .unwrap_or_default();
        let drafting = Drafting::start(&orders.incidents, &orders.exporters);
        let mut run = Self {
            orders,
            watched,
            subject,
            entrusted: Entrusted::No,
            way,
            kernel,
            recording,
            decider: Some(decider),
            refused,
            features_lost,
            shelter: shelter.ok(),
            helpers: Helpers::default(),
            blocked: blocked::Watch::start(blocked::LONG).ok(),
            surroundings,
            black_box,
            drafting,
            rehearsal: None,
            terminal,
            testing,
        };
        run.look_at_tests();
        run.decide_with(target_eyes);
        run.entrust();
        Ok(run)
    }

    /// Has the deciding thread look at the target, until it is told not to.
    fn decide_with(&self, eyes: TargetEyes) {
        let charge = Charge {
            id: self.watched.guarded.target.id,
            leader: self.leader(),
            uid: None,
            mode: self.watched.mode,
            status: Arc::clone(&self.watched.status),
            recorder: Some(self.watched.recorder(self.recording.is_some())),
            tests: self.testing.as_ref().map(Testing::board),
        };
        let response = response(self.orders.attach.on_pressure);
        let policy = Policy::new(self.orders.settings, response);
        let pass = Pass::new(charge, eyes, policy, Arc::clone(&self.way.channel));
        self.way.send(Arrival::Target(Box::new(pass)));
    }

    /// Has the tests looked at that run in the target. Without a thread for it they run as any command does.
    fn look_at_tests(&mut self) {
        let Some(testing) = &self.testing else {
            return;
        };
        let channel = Arc::clone(&self.way.channel);
        let place = self.watched.guarded.target.place.clone();
        if testing
            .start(place, move || channel.wake_slow_side())
            .is_err()
        {
            self.watched
                .notes
                .push("single tests are not looked at: no thread can be started".into());
        }
    }

    /// The same again, after a while in which somebody else did.
    pub(super) fn start_deciding(&self) -> anyhow::Result<()> {
        self.decide_with(self.watched.guarded.eyes()?);
        self.black_box.iter().for_each(|keeper| keeper.rest(false));
        Ok(())
    }

    /// Somebody else looks from now on.
    pub(super) fn stop_deciding(&self) {
        let id = self.watched.guarded.target.id;
        self.way.send(Arrival::Departure(id));
        // Who looks keeps the black box.
        self.black_box.iter().for_each(|keeper| keeper.rest(true));
    }

    /// Reacts until the command, or the target, has ended.
    async fn watch(&mut self, signals: SignalFd) -> anyhow::Result<Ended> {
        let channel = Arc::clone(&self.way.channel);
        let notices = channel.slow_side().try_clone_to_owned()?;
        // SAFETY: both are owned here, registered once, and closed when the registration is dropped.
        let (signals, notices) = unsafe {
            (
                AsyncFd::register_with_interest(signals, Interest::READABLE)?,
                AsyncFd::register_with_interest(notices, Interest::READABLE)?,
            )
        };
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut deadline = self.orders.attach.timeout;
        // The command may have ended before its SIGCHLD could be seen.
        if let Some(ended) = self.reap() {
            return Ok(ended);
        }
        loop {
            let ended = tokio::select! {
                ready = signals.readable() => {
                    let mut ready = ready?;
                    let ended = self.take_signals(signals.get_ref());
                    ready.clear_ready();
                    ended
                }
                ready = notices.readable() => {
                    let mut ready = ready?;
                    channel.heard();
                    let ended = self.hear();
                    ready.clear_ready();
                    ended
                }
                word = self.entrusted.word() => self.heed(word),
                _ = sleep_for(deadline.map(|d| (self.watched.began.0 + d).saturating_sub(clock::now()))) => {
                    deadline = self.time_is_up(deadline);
                    None
                }
                _ = housekeeping.tick() => self.keep_house(),
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }
}

/// Makes the place for pytest's plugin, and puts it into the command's environment. Where there is no such place,
/// the command runs without, and that is said.
fn give_plugin(orders: &mut Orders, mode: Mode) -> Result<Option<Testing>, HomeError> {
    let Subject::Program(program) = &mut orders.subject else {
        return Ok(None);
    };
    let own = std::process::id().to_string();
    program.environment.push(("MEMWATCH_ATTACHED", own.into()));
    // A test may have gone elsewhere.
    let report = orders.attach.report.as_ref();
    let rest = match report.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())) {
        Some(path) => Rest::Report(path),
        None if orders.incidents.of_runs => Rest::Kept,
        None => Rest::Summary,
    };
    let testing = orders
        .tests
        .as_ref()
        .map(|terms| Testing::make(terms, mode, rest))
        .transpose()?;
    let variables = testing.iter().flat_map(Testing::environment);
    program.environment.extend(variables);
    Ok(testing)
}

/// The black box of whoever runs memwatch, unless nothing is to be kept of runs.
fn start_black_box(
    watched: &Watched,
    incidents: &Incidents,
) -> Result<Option<Keeper>, FeatureLost> {
    if !incidents.of_runs {
        return Ok(None);
    }
    let state = place::of_a_run().map_err(|error| blackbox::missed(&error.to_string()))?;
    let (place, incidents) = (state.clone(), incidents.clone());
    let keep = Box::new(move |record: &Record| {
        let kept = Spool::open(&place, &incidents).and_then(|spool| spool.keep(record));
        blackbox::was_kept(kept, |line| tracing::warn!("{line}"))
    });
    Keeper::start(state, watched.flights(), keep).map(Some)
}

/// The user who runs memwatch, if it is not root: `cgroup.kill` would end those of others, too, whom this user
/// may not signal.
fn user() -> Option<u32> {
    let uid = nix::unistd::geteuid();
    (!uid.is_root()).then(|| uid.as_raw())
}

async fn sleep_for(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}
