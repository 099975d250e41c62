//! The thread that keeps the black box: while a target or the machine is under pressure it writes the flight
//! recorder's tail to the disk, and says so when the pressure is over. It may hang on a disk for as long as it will:
//! nobody waits for it but, for a moment, the end of memwatch.
//!
//! What stands in the file, and what is made of it after a crash, is [`crate::blackbox`]'s.

use super::flight::Flights;
use super::identity;
use super::service_log;
use super::surroundings;
use crate::blackbox::{self, BlackBox, Frame, Top, TopOf};
use crate::host::file_error::FileError;
use crate::host::layout::Layout;
use crate::host::meminfo::{self, MemInfo};
use crate::host::zfs::ArcStats;
use crate::host::{clock, process, psi};
use crate::incident::{ArcState, Host, Machine, Record, Text};
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

/// The thread. Ended without [`Keeper::finish`] it leaves what it wrote as it is.
#[derive(Debug)]
pub struct Keeper {
    stop: Sender<()>,
    ended: Receiver<()>,
    rests: Arc<AtomicBool>,
}

impl Keeper {
    /// Starts it on the black box in `state`. First it has what is found there of a machine that ended kept.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(state: PathBuf, flights: Arc<Flights>, keep: Keep) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let rests = Arc::new(AtomicBool::new(false));
        let is_resting = Arc::clone(&rests);
        std::thread::Builder::new()
            .name("memwatch-blackbox".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                if let Err(error) = run(&state, &flights, keep, &is_resting, &stopped) {
                    tracing::info!("no black box is kept: {error}");
                }
                let _ = end.send(());
            })?;
        Ok(Self { stop, ended, rests })
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
///
/// # Errors
/// They cannot be read, or not be marked.
pub fn recover(
    state: &Path,
    mut keep: impl FnMut(&Record) -> bool,
) -> Result<Vec<Record>, FileError> {
    let boot_id = identity::host().boot_id;
    let boot_id = boot_id.as_ref().map_or("", Text::as_str);
    blackbox::recover(state, boot_id, |record| {
        keep(&service_log::completed(record))
    })
}

fn run(
    state: &Path,
    flights: &Flights,
    keep: Keep,
    rests: &AtomicBool,
    stopped: &Receiver<()>,
) -> anyhow::Result<()> {
    let host = identity::host();
    let boot_id = host.boot_id.as_ref().map_or("", Text::as_str).to_owned();
    for record in recover(state, keep)? {
        let id = record.id;
        tracing::warn!(
            "this machine ended without being shut down: `memwatch incidents show {id}` tells of its last minutes"
        );
    }
    let Some(black_box) = BlackBox::open(state, &boot_id)? else {
        anyhow::bail!("others have all that there are in {}", state.display());
    };
    put_first();
    let mut keeper = Writer::new(black_box, host);
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
    failed: bool,
}

impl Writer {
    fn new(black_box: BlackBox, host: Host) -> Self {
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
            failed: false,
        }
    }

    /// Looks, and writes if there is pressure; how long until the next.
    fn turn(&mut self, now: Duration, flights: &Flights, rests: bool) -> Duration {
        let glance = Glance::now();
        let lately_us = now.saturating_sub(LATELY).as_micros() as u64;
        let is_pressed = self.stalls(now, glance.some_us)
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
            tracing::warn!("the black box {path} cannot be written: {error}");
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
    some_us: Option<u64>,
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
            some_us: psi::parse(&pressure).map(|psi| psi.some_us),
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
mod tests {
    use super::*;
    use crate::agent::recorder::Lane;
    use crate::host::psi::Psi;
    use crate::watch::{Facts, TargetFacts};

    fn stalling(flights: &Flights, now: Duration) {
        let mut recorder = flights.recorder(7, true);
        for n in 0..10u32 {
            let at = now.saturating_sub(Duration::from_millis(100) * (10 - n));
            let facts = Facts {
                target: TargetFacts {
                    psi: Some(Psi {
                        some_us: u64::from(n) * 50_000,
                        full_us: 0,
                    }),
                    ..TargetFacts::default()
                },
                machine: None,
                members: None,
                victim_gone: false,
            };
            recorder.take(at, &facts, true, false);
        }
        flights.look_after(now);
        flights.name(7, "/sys/fs/cgroup/seven".into());
    }

    #[test]
    fn under_pressure_it_writes_and_a_crash_would_be_told() {
        let state = tempfile::tempdir().expect("a directory");
        let flights = Arc::new(Flights::new(Lane::new(64, 8), 1));
        let keep: Keep = Box::new(|_| true);
        let keeper = Keeper::start(state.path().to_owned(), Arc::clone(&flights), keep);
        let keeper = keeper.expect("a thread");
        let file = state.path().join("blackbox");
        let told = || blackbox::found(&std::fs::read(&file).ok()?, "another-boot");
        let found = loop {
            stalling(&flights, clock::now());
            if let Some(found) = told()
                && found.record.flight.is_some()
            {
                break found.record;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let path = found.target.cgroup_path.as_ref().map(Text::as_str);
        assert_eq!(path, Some("/sys/fs/cgroup/seven"));
        let machine = found.machine.as_ref().expect("the machine");
        assert!(machine.memory_total_bytes.is_some_and(|bytes| bytes > 0));
        assert!(
            found
                .notes
                .iter()
                .any(|note| note.as_str().contains("biggest"))
        );
        crate::incident::validate(&found);

        keeper.finish();
        assert!(told().is_none(), "an end as it should be");
    }

    #[test]
    fn the_share_is_over_the_time_between_two_looks() {
        let state = tempfile::tempdir().expect("a directory");
        let black_box = BlackBox::open(state.path(), "now")
            .expect("made")
            .expect("one");
        let mut writer = Writer::new(black_box, Host::default());
        let at = Duration::from_secs;
        assert!(
            !writer.stalls(at(1), Some(1_000_000)),
            "the first tells nothing"
        );
        assert!(writer.stalls(at(2), Some(1_020_000)));
        assert!(!writer.stalls(at(3), Some(1_039_000)));
        assert!(!writer.stalls(at(4), None));
    }

    #[test]
    fn what_the_arc_gives_back_is_not_missing() {
        let glance = |available_bytes, size_bytes| Glance {
            memory: Some(MemInfo {
                total_bytes: 2000,
                available_bytes,
                ..MemInfo::default()
            }),
            arc: Some(ArcStats {
                size_bytes,
                c_bytes: 0,
                c_min_bytes: 10,
                c_max_bytes: 0,
            }),
            ..Glance::default()
        };
        assert!(glance(90, 10).is_short());
        assert!(!glance(90, 20).is_short());
        assert!(!Glance::default().is_short(), "not known");
    }
}
