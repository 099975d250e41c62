//! The thread that keeps the black box: while a target or the machine is under pressure it writes the flight
//! recorder's tail to the disk, and says so when the pressure is over. It may hang on a disk for as long as it will:
//! nobody waits for it but, for a moment, the end of memwatch.
//!
//! What stands in the file, and what is made of it after a crash, is [`crate::blackbox`]'s.

use super::flight::Flights;
use super::identity;
use super::service_log;
use super::surroundings;
use crate::blackbox::{self, BlackBox, Found, Frame, Recovered, Told, Top, TopOf};
use crate::causes::with_causes;
use crate::export::Kept;
use crate::host::file_error::FileError;
use crate::host::journal::{self, Ending};
use crate::host::layout::Layout;
use crate::host::meminfo::{self, MemInfo};
use crate::host::psi::Psi;
use crate::host::zfs::ArcStats;
use crate::host::{clock, process, psi};
use crate::incident::{ArcState, FeatureLost, Host, Machine, Record, Text};
use crate::watch::{self, MachineFacts};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often is looked whether there is pressure.
const CALM: Duration = Duration::from_secs(1);
/// How often is written while there is.
const PRESSED: Duration = Duration::from_millis(400);
/// Without pressure for so long it is over.
const OVER: Duration = Duration::from_secs(10);
/// Share of the time in which some task of the machine waited for memory.
const MACHINE_PERMILLE: u64 = 20;
/// The same for a target, over this time.
const TARGET_PERMILLE: u64 = 50;
const LATELY: Duration = Duration::from_secs(2);
/// A machine of whose memory less than this part can be had is short: where the policy calls it so, too.
const SHORT_PART: u64 = 20;
/// How often is looked at what takes longer: the biggest processes, swap, systemd-oomd.
const SLOW_EVERY: Duration = Duration::from_secs(2);
/// What is kept of them before a frame takes the biggest.
const PROCESSES: usize = 10;
/// For the end, which may find a disk that hangs.
const PATIENCE: Duration = Duration::from_secs(1);
const STACK_BYTES: usize = 256 << 10;

/// What is done with the end of a machine that is found: whether it was kept.
pub type Keep = Box<dyn FnMut(&Record) -> bool + Send>;

/// What the thread has to tell the slow side.
#[derive(Debug)]
pub enum News {
    /// The end of a machine was kept.
    Kept(Box<Record>),
    /// There is no black box, or nothing can be written to it.
    Lost(FeatureLost),
}

/// The thread. Ended without [`Keeper::finish`] it leaves what it wrote as it is.
#[derive(Debug)]
pub struct Keeper {
    stop: Sender<()>,
    ended: Receiver<()>,
    news: Receiver<News>,
    rests: Arc<AtomicBool>,
}

impl Keeper {
    /// Starts it on the black box in `state`. First it has what is found there of a machine that ended kept.
    ///
    /// # Errors
    /// No thread can be started: it is said, and there is no black box.
    pub fn start(state: PathBuf, flights: Arc<Flights>, keep: Keep) -> Result<Self, FeatureLost> {
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let (tell, news) = mpsc::channel();
        let rests = Arc::new(AtomicBool::new(false));
        let is_resting = Arc::clone(&rests);
        let started = std::thread::Builder::new()
            .name("memwatch-blackbox".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                if let Err(error) = run(&state, &flights, keep, &tell, &is_resting, &stopped) {
                    let _ = tell.send(News::Lost(missed(&with_causes(error.as_ref())))); // it may be too late
                }
                let _ = end.send(());
            });
        match started {
            Ok(_) => Ok(Self {
                stop,
                ended,
                news,
                rests,
            }),
            Err(error) => Err(missed(&with_causes(&error))),
        }
    }

    /// What it has told since the last call.
    pub fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }

    /// The same for who wants to know what is missing, and nothing else.
    pub fn lost(&self) -> impl Iterator<Item = FeatureLost> {
        self.news().filter_map(|news| match news {
            News::Lost(lost) => Some(lost),
            News::Kept(_) => None,
        })
    }

    /// Whether somebody else looks at the targets, and keeps theirs.
    pub fn rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
    }

    /// Says that this is an end as it should be, if the disk takes that in time.
    pub fn finish(self) {
        let _ = self.stop.send(());
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

/// Has kept what the black boxes in `state` tell of a machine that ended before this boot, and marks it as told.
/// Waits for the disk.
pub fn recover(state: &Path, mut keep: impl FnMut(&Record) -> bool) -> Recovered {
    let boot_id = identity::host().boot_id;
    let boot_id = boot_id.as_ref().map_or("", Text::as_str);
    blackbox::recover(state, boot_id, |found| {
        tell_of(found, ending_of(found), &mut keep)
    })
}

/// Says what went for a machine's end, or why it is not kept; whether it is.
pub fn was_kept(kept: Result<Kept, FileError>, say: impl Fn(&str)) -> bool {
    match &kept {
        Ok(kept) => kept.lines().iter().for_each(|line| say(line)),
        Err(error) => say(&format!("an incident is not kept yet: {error}")),
    }
    kept.is_ok()
}

/// How the life ended that `found` is of, as the journal has it.
fn ending_of(found: &Found) -> io::Result<Ending> {
    let boot = found.record.host.boot_id.as_ref();
    match boot.map(|id| id.as_str().parse()) {
        Some(Ok(boot)) => journal::ending(boot, found.last_us, None),
        _ => Ok(Ending::Unknown),
    }
}

/// Has it kept, unless the machine was shut down after it: then a memwatch was killed, or the disk was too slow for
/// its end, and nothing is to be told.
fn tell_of(
    found: &Found,
    ending: io::Result<Ending>,
    keep: &mut impl FnMut(&Record) -> bool,
) -> Told {
    let why = match ending {
        Ok(Ending::InOrder) => return Told::NoEnd,
        Ok(Ending::Abrupt) => None,
        Ok(Ending::Unknown) => Some("systemd's journal has nothing of that boot to read".into()),
        Err(error) => Some(format!("systemd's journal could not be read: {error}")),
    };
    let mut record = found.record.clone();
    let note = |why| format!("whether it was shut down after all could not be told: {why}").into();
    record.notes.extend(why.map(note));
    service_log::complete(&mut record);
    if keep(&record) {
        Told::Kept
    } else {
        Told::NotYet
    }
}

/// Says that there is none.
pub(super) fn missed(why: &str) -> FeatureLost {
    tracing::warn!("no black box is kept: {why}");
    identity::no_black_box(why)
}

fn run(
    state: &Path,
    flights: &Flights,
    mut keep: Keep,
    tell: &Sender<News>,
    rests: &AtomicBool,
    stopped: &Receiver<()>,
) -> anyhow::Result<()> {
    let host = identity::host();
    let boot_id = host.boot_id.as_ref().map_or("", Text::as_str).to_owned();
    let recovered = recover(state, |record| {
        let is_kept = keep(record);
        if is_kept {
            let _ = tell.send(News::Kept(Box::new(record.clone()))); // it may be too late
        }
        is_kept
    });
    for error in &recovered.failed {
        tracing::warn!("{error}");
    }
    for record in recovered.ends {
        let id = record.id;
        tracing::warn!(
            "this machine ended without being shut down: `memwatch incidents show {id}` tells of its last minutes"
        );
    }
    let Some(black_box) = BlackBox::open(state, &boot_id)? else {
        anyhow::bail!("others have all that there are in {}", state.display());
    };
    put_first();
    let mut keeper = Writer::new(black_box, host, tell.clone());
    loop {
        let pause = keeper.turn(clock::now(), flights, rests.load(Ordering::Relaxed));
        match stopped.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            // Dropped: the process ends otherwise than it should.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(()) => return Ok(keeper.black_box.settle()?),
        }
    }
}

/// Among all that wants a CPU while the machine thrashes. Where that is not allowed it has its turn as others.
fn put_first() {
    // SAFETY: takes numbers only; 0 is this thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
}

/// What the thread works with.
struct Writer {
    black_box: BlackBox,
    host: Host,
    /// When there was pressure last, while it is not over.
    pressed_at: Option<Duration>,
    /// Up to when looks were written.
    written_us: u64,
    /// The machine's stall at the last turn, and when that was.
    stall: Option<(Duration, u64)>,
    /// What takes longer to find out, and when it was.
    processes: Vec<Top>,
    machine: Machine,
    slow_at: Option<Duration>,
    v2_mount: PathBuf,
    /// What the ZFS ARC held when the pressure began.
    arc_before_bytes: Option<u64>,
    tell: Sender<News>,
    failed: bool,
}

impl Writer {
    fn new(black_box: BlackBox, host: Host, tell: Sender<News>) -> Self {
        let layout = Layout::read(Path::new("/"));
        Self {
            black_box,
            host,
            pressed_at: None,
            written_us: 0,
            stall: None,
            processes: Vec::new(),
            machine: Machine::default(),
            slow_at: None,
            v2_mount: layout.map_or_else(|_| PathBuf::new(), |layout| layout.v2_mount().to_owned()),
            arc_before_bytes: None,
            tell,
            failed: false,
        }
    }

    /// Looks, and writes if there is pressure; how long until the next.
    fn turn(&mut self, now: Duration, flights: &Flights, rests: bool) -> Duration {
        let glance = Glance::now();
        let lately_us = now.saturating_sub(LATELY).as_micros() as u64;
        let is_pressed = self.stalls(now, glance.psi.map(|psi| psi.some_us))
            || glance.is_short()
            || flights.stalled_since(lately_us, TARGET_PERMILLE);
        if is_pressed && !rests && self.pressed_at.replace(now).is_none() {
            self.arc_before_bytes = glance.arc.map(|arc| arc.size_bytes);
        }
        let Some(pressed_at) = self.pressed_at else {
            return CALM;
        };
        let written = if rests || now.saturating_sub(pressed_at) >= OVER {
            self.pressed_at = None;
            self.black_box.settle()
        } else {
            self.write(now, &glance, flights)
        };
        if let Err(error) = written
            && !std::mem::replace(&mut self.failed, true)
        {
            let path = self.black_box.path().display();
            let lost = missed(&format!("cannot write {path}: {error}"));
            let _ = self.tell.send(News::Lost(lost)); // it may be too late
        }
        PRESSED
    }

    fn stalls(&mut self, now: Duration, some_us: Option<u64>) -> bool {
        let before = std::mem::replace(&mut self.stall, some_us.map(|us| (now, us)));
        before.zip(some_us).is_some_and(|((at, before_us), us)| {
            let over_us = now.saturating_sub(at).as_micros() as u64;
            us.saturating_sub(before_us) * 1000 >= over_us.max(1) * MACHINE_PERMILLE
        })
    }

    fn write(&mut self, now: Duration, glance: &Glance, flights: &Flights) -> io::Result<()> {
        let is_due = |at| now.saturating_sub(at) >= SLOW_EVERY;
        if self.slow_at.is_none_or(is_due) {
            self.slow_at = Some(now);
            self.processes = biggest();
            self.machine = surroundings::machine(&self.v2_mount, self.arc_before_bytes);
        }
        let targets = flights.tails(0).into_iter().map(|tail| TopOf {
            id: tail.id,
            name: tail.name.map(Text::from),
            uid: tail.uid,
            looks: tail.looks,
        });
        let at_us = now.as_micros() as u64;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let frame = Frame {
            host: self.host.clone(),
            memwatch_version: env!("CARGO_PKG_VERSION").to_owned(),
            wall_us: wall.unwrap_or_default().as_micros() as u64,
            at_us,
            machine: glance.machine(&self.machine),
            facts: glance.facts(),
            targets: targets.collect(),
            processes: self.processes.clone(),
            lost: flights.lost(),
        };
        let text = frame.fitted(self.written_us, blackbox::TEXT_BYTES);
        self.black_box.write(&text)?;
        self.written_us = at_us;
        Ok(())
    }
}

/// What tells whether the machine is under pressure, now.
#[derive(Clone, Copy, Debug, Default)]
struct Glance {
    memory: Option<MemInfo>,
    arc: Option<ArcStats>,
    psi: Option<Psi>,
    some_permille: Option<u32>,
    full_permille: Option<u32>,
}

impl Glance {
    fn now() -> Self {
        let read = |path: &str| std::fs::read(path).unwrap_or_default();
        let pressure = read("/proc/pressure/memory");
        let permille = |permyriad: Option<u32>| permyriad.map(|share| share / 10);
        Self {
            memory: meminfo::parse(&read("/proc/meminfo")),
            arc: surroundings::arc(),
            psi: psi::parse(&pressure),
            some_permille: permille(psi::some_avg10_permyriad(&pressure)),
            full_permille: permille(psi::full_avg10_permyriad(&pressure)),
        }
    }

    fn is_short(&self) -> bool {
        let in_arc = self
            .arc
            .map_or(0, |arc| arc.size_bytes.saturating_sub(arc.c_min_bytes));
        self.memory.is_some_and(|memory| {
            memory.available_bytes.saturating_add(in_arc) < memory.total_bytes / SHORT_PART
        })
    }

    /// The same as a look of the policy's would have it.
    fn facts(&self) -> Option<MachineFacts> {
        Some(MachineFacts {
            meminfo: self.memory?,
            arc: self.arc.map(|arc| watch::facts::Arc {
                size_bytes: arc.size_bytes,
                c_min_bytes: arc.c_min_bytes,
            }),
            psi: self.psi,
        })
    }

    /// What takes longer to find out is as it was `before`.
    fn machine(&self, before: &Machine) -> Machine {
        let memory = self.memory;
        let shrank = before.arc.and_then(|arc| arc.shrank);
        Machine {
            memory_total_bytes: memory.map(|memory| memory.total_bytes),
            memory_available_bytes: memory.map(|memory| memory.available_bytes),
            swap_total_bytes: memory.map(|memory| memory.swap_total_bytes),
            swap_free_bytes: memory.map(|memory| memory.swap_free_bytes),
            some_permille: self.some_permille,
            full_permille: self.full_permille,
            arc: self.arc.map(|arc| ArcState {
                size_bytes: arc.size_bytes,
                c_bytes: arc.c_bytes,
                c_min_bytes: arc.c_min_bytes,
                c_max_bytes: arc.c_max_bytes,
                shrank,
            }),
            ..before.clone()
        }
    }
}

/// The biggest processes of the machine, by files that no process can hold up.
fn biggest() -> Vec<Top> {
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as u64;
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut biggest: Vec<(u64, u32)> = entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let statm = std::fs::read(format!("/proc/{pid}/statm")).ok()?;
            let resident = process::parse_statm(&statm, page)?;
            Some((resident.anon_bytes + resident.shared_bytes, pid))
        })
        .collect();
    biggest.sort_unstable_by_key(|&size| std::cmp::Reverse(size));
    let named = biggest
        .into_iter()
        .take(PROCESSES)
        .filter_map(|(rss_bytes, pid)| {
            let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some(Top {
                pid,
                comm: process::parse_stat(&stat)?.comm,
                rss_bytes,
            })
        });
    named.collect()
}

#[cfg(test)]
#[path = "blackbox_tests.rs"]
mod tests;
