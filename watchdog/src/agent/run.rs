//! One run from start to end: the slow side.
//!
//! Makes the target, starts the command in it, starts the deciding thread, and then only reacts: to
//! signals, to notices, to the clock. May hang in a read, a write or a kernel lock without the deciding
//! thread noticing. The steps of the start are [`super::starting`]'s, the end is [`super::ending`]'s.

use super::adopt::Adopted;
use super::channel::{Channel, NESTED, Notice};
use super::deciding::{self, Events, KernelEyesSlot, Refused};
use super::guarded::{self, Guarded};
use super::inheritance::Inheritance;
use super::kernel::Kernel;
use super::launch::Program;
use super::members::{self, Members};
use super::pass::Pass;
use super::recorder::Recording;
use super::signals::{self, Change, Reaction, Sender};
use super::starting::{
    guard_terms, make_ready, open_files, open_recording, response, safe_cpus, start, undo,
};
use super::story::Story;
use super::terminal::Terminal;
use crate::act::{self, Mode, Outcome};
use crate::bpf;
use crate::config::Attach;
use crate::host::cgroup;
use crate::host::clock;
use crate::host::layout::Layout;
use crate::host::reread::Reread;
use crate::incident::ReportFile;
use crate::watch::victim::Scope;
use crate::watch::{Policy, Rung, Settings};
use anyhow::Context;
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SignalFd, siginfo};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Where to record looks.
    pub record: Option<PathBuf>,
}

/// How long a run whose time is up is given to end by itself.
pub(super) const TIMEOUT_GRACE: Duration = Duration::from_secs(5);
/// How often the slow side looks after what no event tells.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// From this share of stall on, page faults are sampled: somebody will want to know whose they were.
const HOT_PERMILLE: u64 = 100;

/// Runs it; the exit code.
///
/// # Errors
/// It could not be started. What was made is removed.
pub fn run(orders: Orders) -> anyhow::Result<u8> {
    let report = orders
        .attach
        .report
        .as_deref()
        .map(ReportFile::open)
        .transpose()?;
    let inheritance = Inheritance::take(&signals::taken(), safe_cpus(&orders.attach))
        .context("cannot block signals")?;
    let layout = Layout::read(Path::new("/"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let signals = signals::open().context("cannot take signals")?;
    let mut run = Run::begin(orders, &layout, &inheritance)?;
    let ended = runtime.block_on(run.watch(signals));
    // The loader of the BPF programs may still be at it; nothing waits for it.
    runtime.shutdown_background();
    run.end(&layout, ended, report)
}

/// A run under way. How it ends is [`super::ending`]'s.
pub(super) struct Run {
    pub(super) orders: Orders,
    pub(super) guarded: Guarded,
    pub(super) subject: Running,
    pub(super) channel: Arc<Channel>,
    pub(super) events: Arc<Events>,
    pub(super) kernel: Kernel,
    pub(super) recording: Option<Recording>,
    pub(super) decider: Option<std::thread::JoinHandle<Option<i32>>>,
    pub(super) refused: Refused,
    pub(super) story: Story,
    pub(super) terminal: Terminal,
    pub(super) began: (Duration, SystemTime),
    pub(super) notes: Vec<String>,
    pub(super) nested: BTreeSet<u64>,
    pub(super) condemned: Option<Condemned>,
    pub(super) froze: bool,
    /// The most cgroups inside the target that found no place among those looked into.
    pub(super) nested_left_out: usize,
}

/// The whole target was told to end: who outlives its leader does not go free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condemned {
    /// Until then it may end by itself.
    pub(super) grace_until: Duration,
    /// From then on a target that was only asked, and lives, is judged afresh.
    pub(super) pardoned_at: Option<Duration>,
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
    fn begin(orders: Orders, layout: &Layout, inheritance: &Inheritance) -> anyhow::Result<Self> {
        let began = (clock::now(), SystemTime::now());
        let recording = orders.record.as_deref().map(open_recording).transpose()?;
        let (recorder, recording) = recording.unzip();
        let guarded = make_ready(&orders, layout)?;
        let channel = Arc::new(Channel::new().context("cannot make the channel between threads")?);
        let events = Arc::new(Events::new(256));
        let eyes = Arc::new(KernelEyesSlot::new(1));
        // Before the command: it must not find its guard short of anything.
        let target_eyes = guarded.eyes()?;
        let machine_eyes = guarded::machine_eyes()?;
        let refused = deciding::protect_process();
        let subject = start(&orders, &guarded, layout, inheritance)?;
        let leader = match &subject {
            Running::Child { pid } => Some(*pid),
            Running::Adopted(adopted) => Some(adopted.leader),
            Running::Cgroup => None,
        };
        let members = Members::new(
            leader,
            orders.settings.growth_window,
            members::capacity(open_files()),
        );
        let mode = if orders.attach.dry_run {
            Mode::DryRun
        } else {
            Mode::Real
        };
        let policy = Policy::new(orders.settings, response(orders.attach.on_pressure));
        let pass = Pass::new(
            target_eyes,
            machine_eyes,
            members,
            policy,
            mode,
            Arc::clone(&channel),
            recorder,
        );
        let decider = deciding::start(
            pass,
            Arc::clone(&channel),
            Arc::clone(&eyes),
            Arc::clone(&events),
        )
        .inspect_err(|_| undo(&subject, &guarded.target))
        .context("cannot start the deciding thread")?;
        let kernel = Kernel::load_beside(
            &guarded.target,
            layout.v2_mount(),
            guard_terms(&orders),
            eyes,
        );
        let mut notes = guarded.shortcomings.clone();
        if let Running::Adopted(adopted) = &subject {
            notes.extend(adopted.notes());
        }
        let terminal = Terminal::new(orders.attach.live, orders.attach.verbosity);
        for note in &notes {
            terminal.warn(note);
        }
        Ok(Self {
            orders,
            guarded,
            subject,
            channel,
            events,
            kernel,
            recording,
            decider: Some(decider),
            refused,
            story: Story::begin(began.0),
            terminal,
            began,
            notes,
            nested: BTreeSet::new(),
            condemned: None,
            froze: false,
            nested_left_out: 0,
        })
    }

    /// Reacts until the command, or the target, has ended.
    async fn watch(&mut self, signals: SignalFd) -> anyhow::Result<Ended> {
        let channel = Arc::clone(&self.channel);
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
                _ = sleep_for(deadline.map(|d| (self.began.0 + d).saturating_sub(clock::now()))) => {
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

    fn take_signals(&mut self, signals: &SignalFd) -> Option<Ended> {
        while let Ok(Some(info)) = signals.read_signal() {
            let reaction = signals::react(info.ssi_signo as i32, self.sender_of(&info));
            let ended = match reaction {
                Reaction::Reap => self.reap(),
                Reaction::Ignore => None,
                Reaction::Forward(signal) | Reaction::Shared(signal) => match &self.subject {
                    Running::Child { pid } => {
                        // A frozen command could not take it.
                        act::target::thaw(&self.guarded.target.dir, Mode::Real);
                        if matches!(reaction, Reaction::Forward(_)) {
                            let _ = nix::sys::signal::kill(Pid::from_raw(*pid as i32), signal);
                        }
                        None
                    }
                    Running::Adopted(_) | Running::Cgroup => obey(signal),
                },
            };
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    fn sender_of(&self, info: &siginfo) -> Sender {
        let pid = info.ssi_pid;
        // 0 is a sender outside of our pid namespace.
        let in_our_group = pid != 0
            && nix::unistd::getpgid(Some(Pid::from_raw(pid as i32))) == Ok(nix::unistd::getpgrp());
        let of_the_command = in_our_group && cgroup::pids(&self.guarded.target.dir).contains(&pid);
        if info.ssi_code == libc::SI_KERNEL || of_the_command {
            Sender::Group
        } else {
            Sender::Other
        }
    }

    fn reap(&mut self) -> Option<Ended> {
        let Running::Child { pid } = &self.subject else {
            return None;
        };
        let leader = Pid::from_raw(*pid as i32);
        match signals::change_of(leader)? {
            Change::StoppedByTerminal => {
                signals::stop_self();
                // The shell continues both; kill(1) may have continued memwatch alone.
                let _ = nix::sys::signal::kill(leader, Signal::SIGCONT);
                None
            }
            change => Some(Ended::Leader(change)),
        }
    }

    pub(super) fn hear(&mut self) -> Option<Ended> {
        while let Some(pidfd) = self.channel.next_dying() {
            // Waits for the victim's mmap lock, perhaps for long: a thread of its own.
            let _ = std::thread::Builder::new()
                .name("memwatch-release".into())
                .stack_size(64 << 10)
                .spawn(move || act::signal::release_memory(pidfd.as_fd()));
        }
        let mut ended = None;
        while let Some(notice) = self.channel.next() {
            self.story.hear(&notice);
            match &notice {
                Notice::Ordered { order, at, .. } => {
                    self.terminal.ordered(order, self.orders.attach.dry_run);
                    let whole = order
                        .victim
                        .is_some_and(|victim| victim.scope == Scope::Target);
                    if whole && self.mode() == Mode::Real {
                        self.condemn(order.rung, *at);
                    }
                    if order.rung == Rung::Freeze {
                        let outcome = act::target::freeze(&self.guarded.target.dir, self.mode());
                        self.froze |= outcome == Outcome::Delivered;
                        self.story.froze(outcome);
                        self.terminal.frozen(&self.guarded.target.dir, outcome);
                    } else if order.rung == Rung::Sigkill && whole {
                        self.kill_all();
                    }
                }
                Notice::TargetGone => ended = Some(Ended::Target),
                Notice::Hit { .. } | Notice::Struck { .. } | Notice::Recovered { .. } => {}
            }
        }
        // A command that was started here ends when it has been reaped, and not before.
        ended.filter(|_| !matches!(self.subject, Running::Child { .. }))
    }

    fn condemn(&mut self, rung: Rung, at: Duration) {
        let settings = &self.orders.settings;
        let asked_until = at + settings.term_grace;
        self.condemned = match rung {
            Rung::Sigkill => Some(Condemned {
                grace_until: at,
                pardoned_at: None,
            }),
            Rung::Sigterm => Some(Condemned {
                grace_until: asked_until,
                pardoned_at: Some(asked_until + settings.cooldown),
            }),
            Rung::Warn | Rung::Freeze => self.condemned,
        };
    }

    /// The whole target, forks under way included. Waits for the kernel's cgroup lock: beside.
    fn kill_all(&self) {
        let (dir, mode) = (self.guarded.target.dir.clone(), self.mode());
        let _ = std::thread::Builder::new()
            .name("memwatch-kill".into())
            .spawn(move || act::target::kill(&dir, mode));
    }

    fn time_is_up(&mut self, deadline: Option<Duration>) -> Option<Duration> {
        let limit = self.orders.attach.timeout?;
        if deadline == Some(limit) {
            self.ask_all(limit);
            return Some(limit + TIMEOUT_GRACE);
        }
        let outcome = act::target::kill(&self.guarded.target.dir, self.mode());
        self.story.timeout(limit, Rung::Sigkill, outcome);
        None
    }

    /// Asks everybody, as timeout(1) does: a shell alone would end and leave its children running.
    fn ask_all(&mut self, limit: Duration) {
        let (dir, mode) = (&self.guarded.target.dir, self.mode());
        if mode == Mode::Real {
            self.condemned = Some(Condemned {
                grace_until: clock::now() + TIMEOUT_GRACE,
                pardoned_at: None,
            });
        }
        act::target::thaw(dir, mode);
        let ask = |pid| {
            act::signal::pidfd_open(pid).map_or(Outcome::Gone, |pidfd| {
                act::signal::send(pidfd.as_fd(), libc::SIGTERM, mode)
            })
        };
        let outcome =
            cgroup::pids(dir)
                .into_iter()
                .map(ask)
                .fold(Outcome::Gone, |so_far, outcome| match so_far {
                    Outcome::Delivered => so_far,
                    _ => outcome,
                });
        self.story.timeout(limit, Rung::Sigterm, outcome);
    }

    /// The deciding thread ends when it is told to, or with the target. Earlier it is missed: whoever
    /// runs on has no guard, and must know it.
    pub(super) fn miss_decider(&mut self) {
        let Some(decider) = self.decider.take_if(|decider| decider.is_finished()) else {
            return;
        };
        let how = match decider.join() {
            Ok(realtime) => {
                self.refused.realtime = realtime;
                // A target that nobody is left in may go; a command's is memwatch's own to remove.
                if !matches!(self.subject, Running::Child { .. }) {
                    return;
                }
                "the command's cgroup was removed by somebody else"
            }
            Err(_) => "the deciding thread has failed",
        };
        let note = format!("{how}: what still runs has no guard");
        self.terminal.warn(&note);
        self.notes.push(note);
    }

    fn keep_house(&mut self) -> Option<Ended> {
        self.miss_decider();
        self.take_events();
        self.take_guard_kills();
        self.find_nested();
        let status = &self.channel.status;
        self.kernel
            .heat(status.some_permille.load(Ordering::Relaxed) >= HOT_PERMILLE);
        let seen = |count: &AtomicU64| count.load(Ordering::Relaxed);
        tracing::trace!(
            looks = seen(&status.looks),
            current_bytes = seen(&status.current_bytes),
            some_permille = seen(&status.some_permille),
            full_permille = seen(&status.full_permille),
            "looked"
        );
        let limit = self.guarded.limit_bytes;
        self.terminal
            .live(status, limit, clock::now().saturating_sub(self.began.0));
        let empty = || cgroup::pids(&self.guarded.target.dir).is_empty();
        match &self.subject {
            Running::Child { .. } => None,
            Running::Adopted(_) | Running::Cgroup => empty().then_some(Ended::Target),
        }
    }

    /// Cgroups that the command makes inside its own, as a nested test runner or a container does.
    fn find_nested(&mut self) {
        let found: BTreeMap<u64, PathBuf> = cgroup::descendants(&self.guarded.target.dir)
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
                && self.channel.hand_over_nested(procs)
            {
                self.nested.insert(id);
            }
        }
    }

    pub(super) fn take_guard_kills(&mut self) {
        for note in self.kernel.left_behind() {
            self.terminal.warn(&note);
            self.notes.push(note);
        }
        for (name, kill) in self.kernel.guard_kills() {
            self.story.guard_kill(name, &kill, &self.orders.settings);
        }
    }

    pub(super) fn take_events(&mut self) {
        self.kernel.flush_logs();
        while let Some(event) = self.events.pop() {
            match event {
                bpf::Event::OomVictim { pid, comm, .. } => self.story.kernel_oom(pid, &comm),
                bpf::Event::Hang { tid, comm, .. } => self.story.hung(tid, &comm),
                _ => {}
            }
        }
    }

    fn mode(&self) -> Mode {
        if self.orders.attach.dry_run {
            Mode::DryRun
        } else {
            Mode::Real
        }
    }
}

/// What was not started here gets no signals from here. Told to end, memwatch lets it go; told to stop,
/// it stops. A signal that it was started to ignore tells it nothing.
fn obey(signal: Signal) -> Option<Ended> {
    match signal {
        _ if signals::is_ignored(signal) => None,
        Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT => {
            Some(Ended::Detached)
        }
        Signal::SIGTSTP => {
            signals::stop_self();
            None
        }
        _ => None,
    }
}

async fn sleep_for(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}
