//! The thread that keeps the black box: while a target or the machine is under pressure it writes the flight
//! recorder's tail to the disk, and says so when the pressure is over. It may hang on a disk for as long as it will:
//! nobody waits for it but, for a moment, the end of memwatch.
//!
//! What stands in the file, and what is made of it after a crash, is [`crate::blackbox`]'s.

use super::flight::Flights;
use super::identity;
use crate::blackbox::{self, BlackBox, Frame, Top, TopOf};
use crate::host::{clock, meminfo, process, zfs};
use crate::host::{machine::read_if_there, psi};
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
/// How often the biggest processes are looked for.
const PROCESSES_EVERY: Duration = Duration::from_secs(2);
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

fn run(
    state: &Path,
    flights: &Flights,
    keep: Keep,
    rests: &AtomicBool,
    stopped: &Receiver<()>,
) -> anyhow::Result<()> {
    let host = identity::host();
    let boot_id = host.boot_id.as_ref().map_or("", Text::as_str).to_owned();
    for record in blackbox::recover(state, &boot_id, keep)? {
        let id = record.id;
        tracing::warn!(
            "this machine ended without being shut down: `memwatch incidents show {id}` tells of its last minutes"
        );
    }
    let Some(black_box) = BlackBox::open(state, &boot_id)? else {
        anyhow::bail!("others have all that there are in {}", state.display());
    };
    put_first();
    let mut keeper = Writer {
        black_box,
        host,
        pressed_at: None,
        written_us: 0,
        stall: None,
        processes: Vec::new(),
        processes_at: None,
        failed: false,
    };
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
    processes: Vec<Top>,
    processes_at: Option<Duration>,
    failed: bool,
}

impl Writer {
    /// Looks, and writes if there is pressure; how long until the next.
    fn turn(&mut self, now: Duration, flights: &Flights, rests: bool) -> Duration {
        let (machine, some_us) = machine();
        let lately_us = now.saturating_sub(LATELY).as_micros() as u64;
        let is_pressed = self.stalls(now, some_us)
            || is_short(&machine)
            || flights.stalled_since(lately_us, TARGET_PERMILLE);
        if is_pressed && !rests {
            self.pressed_at = Some(now);
        }
        let Some(pressed_at) = self.pressed_at else {
            return CALM;
        };
        let written = if rests || now.saturating_sub(pressed_at) >= OVER {
            self.pressed_at = None;
            self.black_box.settle()
        } else {
            self.write(now, machine, flights)
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

    fn write(&mut self, now: Duration, machine: Machine, flights: &Flights) -> io::Result<()> {
        let is_due = |at| now.saturating_sub(at) >= PROCESSES_EVERY;
        if self.processes_at.is_none_or(is_due) {
            self.processes_at = Some(now);
            self.processes = biggest();
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
            machine,
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

/// The machine now, and its stall.
fn machine() -> (Machine, Option<u64>) {
    let root = Path::new("/");
    let read = |path: &str| read_if_there(root, path).ok().flatten();
    let memory = read("proc/meminfo").and_then(|text| meminfo::parse(&text));
    let pressure = read("proc/pressure/memory");
    let psi = pressure.as_deref().and_then(psi::parse);
    let share = |line: &str| {
        let text = String::from_utf8_lossy(pressure.as_deref()?).into_owned();
        let line = text.lines().find_map(|text| text.strip_prefix(line))?;
        let average = line.split_once("avg10=")?.1.split(' ').next()?;
        let percent: f64 = average.parse().ok()?;
        Some((percent * 10.0) as u32)
    };
    let arc = zfs::read(root).ok().flatten().map(|arc| ArcState {
        size_bytes: arc.size_bytes,
        c_bytes: arc.c_bytes,
        c_min_bytes: arc.c_min_bytes,
        c_max_bytes: arc.c_max_bytes,
        shrank: None,
    });
    let machine = Machine {
        memory_total_bytes: memory.map(|memory| memory.total_bytes),
        memory_available_bytes: memory.map(|memory| memory.available_bytes),
        swap_total_bytes: memory.map(|memory| memory.swap_total_bytes),
        swap_free_bytes: memory.map(|memory| memory.swap_free_bytes),
        some_permille: share("some "),
        full_permille: share("full "),
        arc,
        ..Machine::default()
    };
    (machine, psi.map(|psi| psi.some_us))
}

fn is_short(machine: &Machine) -> bool {
    let (Some(total), Some(available)) =
        (machine.memory_total_bytes, machine.memory_available_bytes)
    else {
        return false;
    };
    let in_arc = machine
        .arc
        .map_or(0, |arc| arc.size_bytes.saturating_sub(arc.c_min_bytes));
    available.saturating_add(in_arc) < total / SHORT_PART
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
        let mut writer = Writer {
            black_box,
            host: Host::default(),
            pressed_at: None,
            written_us: 0,
            stall: None,
            processes: Vec::new(),
            processes_at: None,
            failed: false,
        };
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
        let machine = |available, size| Machine {
            memory_total_bytes: Some(2000),
            memory_available_bytes: Some(available),
            arc: Some(ArcState {
                size_bytes: size,
                c_bytes: 0,
                c_min_bytes: 10,
                c_max_bytes: 0,
                shrank: None,
            }),
            ..Machine::default()
        };
        assert!(is_short(&machine(90, 10)));
        assert!(!is_short(&machine(90, 20)));
        assert!(!is_short(&Machine::default()), "not known");
    }
}
