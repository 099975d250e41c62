//! Delivering: `memwatch export run`, a process of its own beside the daemon, so that neither a network nor a
//! certificate can be in the way of deciding; and the moment after a command, in which what it left is delivered if
//! that is quick. What is delivered where is `export`'s; one exporter at work is [`worker`]'s.

mod measures;
mod measuring;
mod scraping;
mod waking;
mod worker;

use crate::causes::with_causes;
use crate::config::{self, ConfigError, Environment, Exporters, Flags, Incidents};
use crate::export::{Exporter, Queue, Spool, place, queue};
use crate::host::file_error::FileError;
use anyhow::{Context, ensure};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;
use waking::Waking;
use worker::{Round, Worker};

/// For somebody else who delivers from the same place: a command does for two seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a command, for all of it.
const BRIEFLY: Duration = Duration::from_secs(2);

/// What `memwatch export run` is told.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The only file to read.
    pub named: Option<PathBuf>,
    /// Where the incidents are.
    pub state: PathBuf,
    /// Where the daemon listens, whose figures are sent.
    pub daemon: PathBuf,
    /// End when everything has been tried.
    pub once: bool,
    /// Deliver also what was kept before an exporter was configured.
    pub all: bool,
}

/// What the configuration says about who is told.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of what happened.
    pub exporters: Exporters,
    /// Which of that is kept.
    pub incidents: Incidents,
    /// Of how things are.
    pub prometheus: config::Prometheus,
}

/// Reads the configuration. Root believes the machine's files alone, as the daemon does.
///
/// # Errors
/// Something in it is wrong.
pub fn read(named: Option<&Path>) -> Result<Wanted, ConfigError> {
    if nix::unistd::geteuid().is_root() {
        let daemon = config::Daemon::load(named)?;
        return Ok(Wanted {
            exporters: daemon.exporters,
            incidents: daemon.incidents,
            prometheus: daemon.prometheus,
        });
    }
    let flags = Flags {
        config: named.map(Path::to_owned),
        ..Flags::default()
    };
    let config = config::Config::load(&flags, &Environment::of_this_process())?;
    Ok(Wanted {
        exporters: config.exporters,
        incidents: config.incidents,
        prometheus: config::Prometheus::default(),
    })
}

/// Delivers, until it is told to end or, `once`, until everything has been tried; whether nothing waits.
///
/// # Errors
/// It could not start.
pub fn run(orders: &Orders) -> anyhow::Result<bool> {
    let wanted: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect();
    wanted.thread_block().context("cannot block signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&wanted, flags).context("cannot take signals")?;
    let wanted = read(orders.named.as_deref())?;
    Spool::open(&orders.state, &wanted.incidents).context("cannot reach the incidents")?;
    let lock = Lock::wait(&orders.state)?;
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let delivering = Delivering::new(orders);
        if orders.once {
            return Ok(delivering.once(&wanted.exporters).await);
        }
        delivering.until_told(signals, wanted).await?;
        Ok(true)
    });
    runtime.shutdown_background();
    drop(lock);
    done
}

/// Makes the queues of these exporters, so that what is kept from now on comes into them; what is to be said about
/// those that cannot be made.
#[must_use]
pub fn prepare(state: &Path, exporters: &Exporters) -> Vec<String> {
    let unmade = exporters.keys().filter_map(|name| {
        let made = Queue::of(state, name).make();
        made.err().map(|error| cannot(name, &error))
    });
    unmade.collect()
}

/// Delivers what waits, as far as that is quick and nobody else is at it; what is to be said about what is left.
#[must_use]
pub fn briefly(state: &Path, exporters: &Exporters) -> Vec<String> {
    let Ok(Some(_lock)) = Lock::try_take(state) else {
        return Vec::new();
    };
    let Ok(runtime) = runtime() else {
        return Vec::new();
    };
    let lines = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let mut lines = Vec::new();
        for (name, worker) in workers(state, exporters, |line| lines.push(line)) {
            tasks.spawn(one_round(name, worker, BRIEFLY));
        }
        while let Some(ended) = tasks.join_next().await {
            lines.extend(ended.ok().and_then(Left::line));
        }
        lines
    });
    runtime.shutdown_background();
    lines
}

/// What a round has left.
struct Left {
    name: String,
    waiting: usize,
    why: String,
}

impl Left {
    fn line(self) -> Option<String> {
        let Self { name, waiting, why } = self;
        (waiting > 0).then(|| {
            format!("{waiting} incidents wait for the exporter {name} ({why}); try again: memwatch export run --once")
        })
    }
}

async fn one_round(name: String, mut worker: Worker, patience: Duration) -> Left {
    let round = tokio::time::timeout(patience, worker.round()).await;
    let (waiting, why) = worker.left();
    let why = match round {
        Err(_) => "no answer in time",
        Ok(_) => why.unwrap_or("not told yet"),
    };
    Left {
        why: why.to_owned(),
        name,
        waiting,
    }
}

/// A worker for each; what is wrong with one is said, and keeps nobody else.
fn workers(
    state: &Path,
    exporters: &Exporters,
    mut say: impl FnMut(String),
) -> Vec<(String, Worker)> {
    let mut workers = Vec::new();
    for (name, config) in exporters {
        match Exporter::new(name, config) {
            Ok(exporter) => {
                let worker = Worker::new(name, state, Arc::new(exporter), config.retry());
                workers.push((name.clone(), worker));
            }
            Err(error) => say(cannot(name, &error)),
        }
    }
    workers
}

fn cannot(name: &str, error: &dyn std::error::Error) -> String {
    format!("the exporter {name} cannot deliver: {}", with_causes(error))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}

/// Whoever has it delivers: two at a time would tell of everything twice.
struct Lock {
    _file: File,
}

impl Lock {
    fn try_take(state: &Path) -> Result<Option<Self>, FileError> {
        let path = state.join("delivering");
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        let file = options.open(&path).map_err(FileError::at("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(FileError::at("lock", &path)(error)),
        }
    }

    fn wait(state: &Path) -> anyhow::Result<Self> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(lock) = Self::try_take(state)? {
                return Ok(lock);
            }
            ensure!(
                Instant::now() < until,
                "another memwatch delivers the incidents of {} already; systemctl status memwatch-export tells of the machine's",
                state.display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The process at work.
struct Delivering<'a> {
    orders: &'a Orders,
}

impl<'a> Delivering<'a> {
    fn new(orders: &'a Orders) -> Self {
        Self { orders }
    }

    /// Makes the queues; what cannot be made is said.
    fn make_queues(&self, exporters: &Exporters) {
        for name in exporters.keys() {
            let queue = Queue::of(&self.orders.state, name);
            let made = if self.orders.all {
                queue.fill().map(drop)
            } else {
                queue.make()
            };
            if let Err(error) = made {
                tracing::error!("{}", cannot(name, &error));
            }
        }
        for name in queue::names(&self.orders.state) {
            if !exporters.contains_key(&name) {
                let waiting = Queue::of(&self.orders.state, &name).waiting().len();
                tracing::warn!(
                    "{waiting} incidents wait for the exporter {name}, which is not configured any more; \
                     to drop them: memwatch export forget {name}"
                );
            }
        }
    }

    async fn once(&self, exporters: &Exporters) -> bool {
        self.make_queues(exporters);
        let mut is_all_well = true;
        let mut tasks = JoinSet::new();
        let workers = workers(&self.orders.state, exporters, |line| {
            tracing::error!("{line}");
            is_all_well = false;
        });
        for (name, worker) in workers {
            tasks.spawn(rounds(name, worker));
        }
        while let Some(ended) = tasks.join_next().await {
            let line = ended.ok().and_then(Left::line);
            is_all_well &= line.is_none();
            line.iter().for_each(|line| tracing::warn!("{line}"));
        }
        is_all_well
    }

    async fn until_told(&self, signals: SignalFd, first: Wanted) -> anyhow::Result<()> {
        // SAFETY: it is owned here, registered once, and closed when the registration is dropped.
        let signals = unsafe { AsyncFd::register_with_interest(signals, Interest::READABLE)? };
        let mut wanted = first;
        loop {
            // Dropped, and with it all tasks, when the configuration is read again.
            let mut tasks = JoinSet::new();
            let waking = self.start(&wanted, &mut tasks);
            let again = loop {
                tokio::select! {
                    ready = signals.readable() => {
                        let mut ready = ready?;
                        let mut heard = None;
                        while let Ok(Some(info)) = signals.get_ref().read_signal() {
                            heard = Some(info.ssi_signo as i32);
                        }
                        ready.clear_ready();
                        match heard {
                            Some(libc::SIGHUP) => break true,
                            Some(_) => break false,
                            None => {}
                        }
                    }
                    () = waking.hear() => {}
                }
            };
            if !again {
                return Ok(());
            }
            match read(self.orders.named.as_deref()) {
                Ok(read) => {
                    wanted = read;
                    tracing::warn!("the configuration was read again");
                }
                Err(error) => tracing::error!(
                    "{}; the configuration before stays in force",
                    with_causes(&error)
                ),
            }
        }
    }

    /// A task for each exporter, one for the figures of those that send any, and those for Prometheus.
    fn start(&self, wanted: &Wanted, tasks: &mut JoinSet<()>) -> Waking {
        let state = &self.orders.state;
        let exporters = &wanted.exporters;
        scraping::start(&wanted.prometheus, self.orders, tasks);
        self.make_queues(exporters);
        let mut waking = Waking::new();
        let mut ready: BTreeMap<&String, Arc<Exporter>> = BTreeMap::new();
        for (name, config) in exporters {
            match Exporter::new(name, config) {
                Ok(exporter) => _ = ready.insert(name, Arc::new(exporter)),
                Err(error) => tracing::error!("{}", cannot(name, &error)),
            }
        }
        for (name, exporter) in ready {
            let config = &exporters[name];
            let wake = waking.watch(&Queue::of(state, name).dir());
            let worker = Worker::new(name, state, Arc::clone(&exporter), config.retry());
            tasks.spawn(worker.work(wake));
            if let (Exporter::Otlp(_), Some(every)) = (&*exporter, config.metrics_every()) {
                let daemon = self.orders.daemon.clone();
                let of = (name.clone(), state.clone());
                tasks.spawn(measuring::measure(of, exporter, daemon, every));
            }
        }
        waking
    }
}

/// Rounds until nothing waits, or nothing that waits was taken in a whole round.
async fn rounds(name: String, mut worker: Worker) -> Left {
    // Something else is tried first in each, so that one incident holds up none of the others.
    let mut tries = worker.left().0;
    while tries > 0 {
        let before = worker.left().0;
        match worker.round().await {
            Round::Done => break,
            Round::Later(_) if worker.left().0 == before => break,
            Round::Later(_) => tries -= 1,
        }
    }
    let (waiting, why) = worker.left();
    let why = why.unwrap_or("not told yet").to_owned();
    Left { name, waiting, why }
}

/// Where the incidents of a service or of a person at a terminal are.
///
/// # Errors
/// No variable says where.
pub fn state() -> Result<PathBuf, place::PlaceError> {
    place::of_a_service()
}
