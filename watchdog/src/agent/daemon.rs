//! `memwatch daemon`: many targets under one deciding thread, from the start to the end of the service. The
//! slow side, as [`super::run`] is for one command.
//!
//! Which targets there are is [`targets`]'s, what is known of one [`kept`]'s, where the configuration's are
//! found [`scan`]'s, what users ask [`calls`]'. Incidents go to the disk by [`archive`].

mod archive;
mod calls;
mod hangs;
mod incidents;
mod kept;
mod scan;
mod targets;
mod told;

use super::awake::{self, Refused};
use super::blackbox::{Keeper, News};
use super::channel::{Channel, Rehearsal};
use super::deciding::{Decider, Feed, Inbox, Way};
use super::eyes::Eyes;
use super::helpers::Helpers;
use super::identity;
use super::kernel::Kernel;
use super::members::{self, Members};
use super::starting::open_files;
use super::surroundings::Surroundings;
use super::takeover::{self, Policies, Takeover};
use super::{blocked, guarded};
use crate::act::{self, Mode};
use crate::bpf;
use crate::causes::with_causes;
use crate::config;
use crate::control::Server;
use crate::export::{Spool, place};
use crate::host::clock;
use crate::host::layout::{Hierarchy, Layout};
use crate::host::notify::{Notifier, watchdog_interval};
use crate::incident::{FeatureLost, Store};
use anyhow::{Context, ensure};
use archive::Archive;
use calls::MachineStall;
use hangs::Hangs;
use incidents::Incidents;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use scan::Scan;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use targets::Targets;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use told::Told;

/// The most targets at a time: as many as the BPF programs have rows.
const TARGETS: usize = memwatch_ebpf::MAX_TARGETS as usize;
/// Targets whose processes can be looked at at once. Those that are in trouble together are few.
const TABLES: usize = 16;
/// How often the slow side looks after what no event tells.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// For the files of the configuration: they may lie on a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs until it is told to end, and listens at `socket`; the exit code. `named` is the only file to read, if
/// there is one.
///
/// # Errors
/// It could not start: no root, no cgroup v2, no valid configuration.
pub fn run(socket: &Path, named: Option<PathBuf>) -> anyhow::Result<u8> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the daemon guards for all users and must be root: systemctl start memwatch, or sudo memwatch daemon; \
         memwatch attach needs neither"
    );
    let config = config::Daemon::load(named.as_deref())?;
    let wanted: SigSet = SIGNALS.into_iter().collect();
    wanted.thread_block().context("cannot block signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&wanted, flags).context("cannot take signals")?;
    let layout = Layout::read(Path::new("/"))?;
    ensure!(
        layout.v2.is_some(),
        "no cgroup v2 hierarchy is mounted; mount one with: mount -t cgroup2 none /sys/fs/cgroup"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let notifier = Notifier::of_this_process()?.map(Arc::new);
    let mut daemon =
        runtime.block_on(async { Daemon::begin(socket, named, config, layout, notifier) })?;
    let served = runtime.block_on(daemon.serve(signals));
    runtime.shutdown_background();
    daemon.end();
    served.map(|()| 0)
}

/// What it hears: to end, and to read its configuration again.
const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// What everything is done with.
struct Means {
    surroundings: Surroundings,
    layout: Layout,
    way: Way,
    kernel: Kernel,
    helpers: Helpers,
}

struct Daemon {
    named: Option<PathBuf>,
    /// Where incidents are kept.
    state: PathBuf,
    config: config::Daemon,
    notifier: Option<Arc<Notifier>>,
    means: Means,
    server: Server,
    targets: Targets,
    incidents: Incidents,
    scan: Scan,
    told: Told,
    stall: MachineStall,
    hangs: Hangs,
    /// `None` where the configuration leaves systemd-oomd alone.
    oomd: Option<Policies>,
    began: SystemTime,
    decider: Option<JoinHandle<Option<i32>>>,
    blocked: Option<blocked::Watch>,
    /// Where no thread can be had, there is no black box.
    black_box: Option<Keeper>,
    refused: Refused,
    features_lost: Vec<FeatureLost>,
}

impl Daemon {
    fn begin(
        socket: &Path,
        named: Option<PathBuf>,
        config: config::Daemon,
        layout: Layout,
        notifier: Option<Arc<Notifier>>,
    ) -> anyhow::Result<Self> {
        let server = Server::bind(socket)?;
        // Before there are threads: one that came first would have memory that is never given back.
        let refused = awake::protect_process();
        let state = place::of_a_service()?;
        let mut spool = Spool::at(&state, &config.incidents);
        spool.tell(config.exporters.keys());
        let archive = Archive::start(spool, config.incidents.clone(), config.exporters.clone())
            .context("cannot start the thread that keeps incidents")?;
        let way = Way {
            inbox: Arc::new(Inbox::new(TARGETS)),
            channel: Arc::new(Channel::new().context("cannot make the channel between threads")?),
        };
        // Half of the files for processes; the other half are the targets'.
        let capacity = members::capacity(open_files() / 2 / TABLES as u64);
        let tables = (0..TABLES).map(|_| Members::new(capacity));
        let mut decider = Decider::new(
            Eyes::new(guarded::machine_eyes()?),
            tables.collect(),
            TARGETS,
            way.clone(),
            notifier.clone().and_then(feed),
        );
        let mut oomd = None;
        if config.oomd.takeover {
            let channel = Arc::new(takeover::Channel::new().context("cannot make a channel")?);
            let stand_in = Takeover::new(config.policy, Mode::Real, Arc::clone(&channel));
            decider = decider.beside(stand_in);
            let own = layout.v2.as_ref().map(Hierarchy::own_dir);
            let own = own.unwrap_or_default();
            let policies = Policies::start(layout.v2_mount(), &own, channel, Mode::Real);
            oomd = Some(policies.context("cannot look after systemd-oomd")?);
        }
        let decider = decider
            .start()
            .context("cannot start the deciding thread")?;
        let kernel = Kernel::load_beside(Vec::new(), &layout, way.clone());
        let surroundings = Surroundings::begin(&layout);
        let incidents = Incidents::new(Store::at(archive.spool().dir()));
        let mut targets = Targets::new(config.policy, archive);
        targets.lack(identity::refused(&refused));
        targets.lack(surroundings.missing());
        let (black_box, lost) = match targets.keep_black_box(&state) {
            Ok(keeper) => (Some(keeper), None),
            Err(lost) => (None, Some(lost)),
        };
        targets.lack(lost.clone());
        Ok(Self {
            named,
            targets,
            state,
            config,
            notifier,
            means: Means {
                surroundings,
                layout,
                way,
                kernel,
                helpers: Helpers::default(),
            },
            server,
            incidents,
            scan: Scan::default(),
            told: Told::default(),
            stall: MachineStall::default(),
            hangs: Hangs::default(),
            oomd,
            began: SystemTime::now(),
            decider: Some(decider),
            blocked: blocked::Watch::start(blocked::LONG).ok(),
            black_box,
            refused,
            features_lost: lost.into_iter().collect(),
        })
    }

    async fn serve(&mut self, signals: SignalFd) -> anyhow::Result<()> {
        let channel = Arc::clone(&self.means.way.channel);
        let notices = channel.slow_side().try_clone_to_owned()?;
        let stand_in = self.oomd.as_ref();
        let stand_in = stand_in.map(|oomd| oomd.wanted().try_clone_to_owned());
        let stand_in = stand_in.transpose()?;
        // SAFETY: all are owned here, registered once, and closed when the registration is dropped.
        let (signals, notices, stand_in) = unsafe {
            let register = |fd| AsyncFd::register_with_interest(fd, Interest::READABLE);
            (
                AsyncFd::register_with_interest(signals, Interest::READABLE)?,
                register(notices)?,
                stand_in.map(register).transpose()?,
            )
        };
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.look_for_targets();
        self.tell_manager(Notifier::ready);
        loop {
            tokio::select! {
                ready = signals.readable() => {
                    let mut ready = ready?;
                    while let Ok(Some(info)) = signals.get_ref().read_signal() {
                        if info.ssi_signo as i32 != libc::SIGHUP {
                            return Ok(());
                        }
                        self.reload();
                    }
                    ready.clear_ready();
                }
                ready = notices.readable() => {
                    let mut ready = ready?;
                    channel.heard();
                    self.hear();
                    ready.clear_ready();
                }
                ready = told(stand_in.as_ref()) => {
                    self.look_after_oomd();
                    ready?.clear_ready();
                }
                call = self.server.call() => self.answer(call),
                _ = housekeeping.tick() => {
                    self.keep_house();
                    let failed = self.decider.as_ref().is_none_or(JoinHandle::is_finished);
                    // systemd starts another; the guard in the kernel acts until then.
                    ensure!(!failed, "the deciding thread has failed");
                }
            }
        }
    }

    fn hear(&mut self) {
        let channel = Arc::clone(&self.means.way.channel);
        if let Some(rehearsal) = channel.rehearsal() {
            self.learn(&rehearsal);
        }
        while let Some(pidfd) = channel.next_dying() {
            self.means
                .helpers
                .start(move || _ = act::signal::release_memory(pidfd.as_fd()));
        }
        self.witness();
        self.means.surroundings.read_log();
        while let Some((target, notice)) = channel.next() {
            self.targets.hear(target, &notice, &self.means);
        }
    }

    /// Takes in what the BPF programs tell.
    fn witness(&mut self) {
        while let Some((target, event)) = self.means.way.channel.next_event() {
            self.targets.witness(target, &event);
            if let bpf::Event::Hang { tid, comm, .. } = &event {
                self.hangs
                    .see((clock::now(), SystemTime::now()), *tid, comm);
            }
        }
        for (name, kill) in self.means.kernel.guard_kills() {
            self.targets.guard_kill(name, &kill);
        }
    }

    fn learn(&mut self, rehearsal: &Rehearsal) {
        if let Err(error) = rehearsal {
            let lost = identity::not_rehearsed(error);
            tracing::error!("not guarding: {error}; what is left is {}", lost.fallback);
            self.targets.lack([lost.clone()]);
            self.features_lost.push(lost);
        }
    }

    fn keep_house(&mut self) {
        let now = clock::now();
        self.means.helpers.look_after(now);
        self.means.way.inbox.sweep();
        self.means.kernel.flush_logs();
        self.witness();
        for note in self.means.kernel.left_behind() {
            tracing::warn!("{note}");
        }
        for found in self.blocked.iter().flat_map(blocked::Watch::news) {
            tracing::warn!("{found}");
            self.means.surroundings.see_blocked(&found);
        }
        let is_hot = self.targets.any_hot();
        self.means.kernel.heat(is_hot);
        self.means.surroundings.keep_up(is_hot);
        self.targets.keep_house(now, &self.means);
        // Where no program in the kernel tells of them.
        for hung in self.means.surroundings.take_hung() {
            let at = (now, SystemTime::now());
            self.hangs.see(at, hung.tid, &hung.comm);
        }
        self.hear_black_box();
        if let Some(mut record) = self.hangs.due((now, SystemTime::now())) {
            record.host = identity::host();
            self.means.surroundings.tell_of_machine(&mut record);
            self.targets.keep(record);
        }
        self.stall.look(now);
        self.told.look(&self.state, now, &self.means.helpers);
        self.look_after_oomd();
        if self.scan.is_due(now) {
            self.look_for_targets();
        }
    }

    fn hear_black_box(&mut self) {
        for news in self.black_box.iter().flat_map(Keeper::news) {
            match news {
                News::Kept(record) => self.targets.count(&record),
                News::Lost(lost) => {
                    self.targets.lack([lost.clone()]);
                    self.features_lost.push(lost);
                }
            }
        }
    }

    fn look_after_oomd(&mut self) {
        let Some(oomd) = &mut self.oomd else { return };
        let ours = self.targets.dirs_of_users();
        for told in oomd.poll(&self.means.helpers, &ours) {
            tracing::warn!("{}", told.line);
            if let Some(mut record) = told.record {
                record.host = identity::host();
                self.means.surroundings.tell_of_machine(&mut record);
                self.targets.keep(*record);
            }
        }
    }

    /// Finds what the configuration names, and lets go what it does not name any more.
    fn look_for_targets(&mut self) {
        let found = self.scan.look(&self.config, self.means.layout.v2_mount());
        self.targets.of_configuration(&found, &self.means);
    }

    /// Reads the configuration again. One that is wrong, or cannot be read in time, changes nothing.
    fn reload(&mut self) {
        self.tell_manager(Notifier::reloading);
        let named = self.named.clone();
        let read = self
            .means
            .helpers
            .ask(PATIENCE, move || config::Daemon::load(named.as_deref()));
        match read {
            Some(Ok(config)) => {
                let archive = self.targets.archive();
                archive.bound(config.incidents.clone(), config.exporters.clone());
                let is_other = config.policy != self.config.policy;
                if is_other {
                    self.targets.begin_anew(config.policy, &self.means);
                }
                if config.oomd != self.config.oomd || (is_other && self.oomd.is_some()) {
                    tracing::warn!(
                        "beside systemd-oomd the configuration before stays in force until memwatch starts anew"
                    );
                }
                self.config = config;
                self.look_for_targets();
                tracing::warn!("the configuration was read again");
            }
            Some(Err(error)) => tracing::error!(
                "{}; the configuration before stays in force",
                with_causes(&error)
            ),
            None => tracing::error!(
                "the configuration could not be read within {PATIENCE:?}; the one before stays in force"
            ),
        }
        self.tell_manager(Notifier::ready);
    }

    fn tell_manager(&self, what: fn(&Notifier) -> std::io::Result<()>) {
        if let Some(notifier) = &self.notifier
            && let Err(error) = what(notifier)
        {
            tracing::warn!("the service manager could not be told: {error}");
        }
    }

    /// Stops deciding, lets every target go, and leaves the programs of the machine.
    fn end(mut self) {
        self.tell_manager(Notifier::stopping);
        self.hear();
        self.means.way.channel.stop();
        if let Some(decider) = self.decider.take() {
            self.refused.realtime = decider.join().unwrap_or(None);
        }
        self.means.kernel.settle();
        self.hear();
        self.look_after_oomd();
        self.targets.let_all_go(&self.means, PATIENCE);
        for note in self.means.kernel.leave(self.means.layout.v2_mount(), &[]) {
            tracing::warn!("{note}");
        }
        if let Some(black_box) = self.black_box.take() {
            black_box.finish();
        }
    }
}

/// The part beside systemd-oomd has something to tell; never, where there is none.
async fn told(
    stand_in: Option<&AsyncFd<OwnedFd>>,
) -> std::io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
    match stand_in {
        Some(stand_in) => stand_in.readable().await,
        None => std::future::pending().await,
    }
}

/// Signs of life for the service manager, from the loop that decides. `None` if it wants none.
fn feed(notifier: Arc<Notifier>) -> Option<Feed> {
    let every = watchdog_interval()? / 4;
    let mut fed = None;
    Some(Box::new(move |now: Duration| {
        let is_due = fed.is_none_or(|fed| now.saturating_sub(fed) >= every);
        // One that did not go out is tried again at the next turn.
        if is_due && notifier.feed().is_ok() {
            fed = Some(now);
        }
    }))
}
