//! The thread that reads what processes of pytest say: which tests run, whether one is over a limit of its own,
//! what their children hold. Reads with bounds, believes a slot only of a process that is in the target and
//! started when the slot says, and may hang without anybody noticing. What follows from pressure is the
//! deciding thread's.

use super::board::{Board, Notice};
use crate::act::{Mode, Outcome, signal};
use crate::host::clock;
use crate::host::place::Place;
use crate::host::process::{self, Stat};
use crate::incident::BlamedTest;
use crate::pytest::Home;
use crate::pytest::slot::{self, Phase, Slot};
use crate::watch::test_rule::{Excess, RunningTest, TestOrder, TestRule};
use crossbeam_queue::ArrayQueue;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often it looks: a tenth of what a limit of memory may be overrun by at 1 GiB/s is 50 MiB.
const PERIOD: Duration = Duration::from_millis(50);
/// While there is no pytest in the run, if there will ever be one.
const UNTIL_PYTEST: Duration = Duration::from_millis(250);
/// A test that is over sooner is not worth telling the daemon of.
const LONG: Duration = Duration::from_millis(200);
/// The most that is told and not yet heard.
const NEWS: usize = 64;

/// Something that the thread saw or did.
#[derive(Clone, Debug)]
pub(in crate::agent) enum News {
    /// A test was over a limit.
    Limit(Box<Told>),
    /// A process of the run has died, and since then nothing goes on any more.
    Stuck {
        /// When.
        at: Duration,
        /// For how long.
        idle: Duration,
        /// The processes that hand out the tests.
        controllers: Vec<Slot>,
    },
}

/// A test that was over a limit, and what was done.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Told {
    /// When.
    pub(in crate::agent) at: Duration,
    /// The process, and its test as it was then.
    pub(in crate::agent) slot: Slot,
    /// The limit that it was over.
    pub(in crate::agent) excess: Excess,
    /// Whether the process was to end, or its test to fail.
    pub(in crate::agent) kills: bool,
    /// Everybody who was signalled.
    pub(in crate::agent) hit: Vec<(u32, Stat, Outcome)>,
}

/// What is seen of a test from outside.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// The most that the processes held that it had started.
    pub(super) children_bytes: u64,
    /// What its process had spent in reclaim when it was seen first and last, in ns.
    pub(super) stall_ns: Option<(u64, u64)>,
}

/// What a test's process holds, as of the last look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    serial: u64,
    /// The process itself.
    pub(super) rss_bytes: u64,
    /// The most of that while the test ran.
    pub(super) peak_bytes: u64,
    /// Those that it has started.
    pub(super) children_bytes: u64,
}

/// What the thread and the others share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) home: Home,
    pub(super) board: Arc<Board>,
    pub(super) news: ArrayQueue<News>,
    /// Tests that have run for a while and can be asked to fail.
    pub(super) long: Mutex<Vec<Notice>>,
    /// What was seen of tests from outside, by pid and serial.
    pub(super) seen: Mutex<BTreeMap<(u32, u64), Seen>>,
    /// What the daemon signalled and has not been told the test of, by process.
    pub(super) blamed: Mutex<Vec<(u32, BlamedTest)>>,
    /// What processes that run a test hold, by pid.
    sizes: Mutex<BTreeMap<u32, Size>>,
    pub(super) stop: AtomicBool,
}

impl Shared {
    pub(super) fn new(home: Home) -> Self {
        Self {
            home,
            board: Arc::default(),
            news: ArrayQueue::new(NEWS),
            long: Mutex::default(),
            seen: Mutex::default(),
            blamed: Mutex::default(),
            sizes: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// What a process runs now.
    pub(super) fn slot(&self, pid: u32) -> Option<Slot> {
        read(&self.home.open_slot(pid).ok()?)
    }

    /// What a process was seen to hold last, while it ran that test.
    pub(super) fn size(&self, pid: u32, serial: u64) -> Option<Size> {
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes
            .get(&pid)
            .filter(|size| size.serial == serial)
            .copied()
    }

    fn put_down_size(&self, pid: u32, now: Size) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let size = sizes.entry(pid).or_default();
        let before = Some(size.peak_bytes).filter(|_| size.serial == now.serial);
        *size = Size {
            peak_bytes: before.unwrap_or(0).max(now.rss_bytes),
            ..now
        };
    }
}

/// The thread's own.
pub(super) struct Eye {
    shared: Arc<Shared>,
    place: Place,
    mode: Mode,
    wake: Box<dyn Fn() + Send>,
    slots: BTreeMap<u32, Known>,
    progress: Progress,
    page_bytes: u64,
}

/// A process of pytest.
struct Known {
    file: File,
    rule: TestRule,
    /// Whether it was in the target.
    was_seen: bool,
}

impl Eye {
    /// `wake` has whoever hears the news look.
    pub(super) fn new(
        shared: Arc<Shared>,
        place: Place,
        mode: Mode,
        wake: Box<dyn Fn() + Send>,
    ) -> Self {
        Self {
            shared,
            place,
            mode,
            wake,
            slots: BTreeMap::new(),
            progress: Progress::default(),
            // SAFETY: sysconf reads no memory of ours.
            page_bytes: unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64,
        }
    }

    /// Looks until it is told to stop.
    pub(super) fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.look(clock::now());
            let nobody = self.slots.is_empty();
            std::thread::sleep(if nobody { UNTIL_PYTEST } else { PERIOD });
        }
    }

    fn look(&mut self, now: Duration) {
        for pid in self.shared.home.processes() {
            if let std::collections::btree_map::Entry::Vacant(place) = self.slots.entry(pid)
                && let Ok(file) = self.shared.home.open_slot(pid)
            {
                place.insert(Known {
                    file,
                    rule: TestRule::default(),
                    was_seen: false,
                });
            }
        }
        if self.slots.is_empty() {
            return;
        }
        let tree = Processes::read(&self.place, self.page_bytes);
        let mut running = Vec::new();
        let mut idle = Vec::new();
        for (&pid, known) in &mut self.slots {
            let Some(slot) = read(&known.file) else {
                continue;
            };
            let stat = tree.stats.get(&pid);
            if stat.is_none_or(|stat| stat.start_ticks != slot.start_ticks) || slot.pid != pid {
                // What ends in good order says so.
                self.progress.has_lost |= slot.phase != Phase::Over && known.was_seen;
                continue;
            }
            known.was_seen = true;
            if slot.runs() {
                running.push((pid, slot));
            } else {
                idle.push(slot);
            }
        }
        if let Some(idle_for) = self
            .progress
            .step(now, running.is_empty(), tree.cpu_ticks())
        {
            let controllers = idle.into_iter().filter(|slot| slot.worker.is_empty());
            let stuck = News::Stuck {
                at: now,
                idle: idle_for,
                controllers: controllers.collect(),
            };
            let _ = self.shared.news.push(stuck);
            (self.wake)();
        }
        let listening = running.iter().filter(|(_, slot)| slot.can_abort);
        let on_board = |(pid, slot): &(u32, Slot)| on_board(*pid, slot);
        self.shared.board.put_up(listening.clone().map(on_board));
        let ran = |slot: &Slot| now.saturating_sub(Duration::from_nanos(slot.began_ns));
        let long = listening
            .filter(|(_, slot)| ran(slot) >= LONG)
            .map(on_board);
        *self
            .shared
            .long
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = long.collect();
        for (pid, slot) in running {
            self.judge(now, pid, slot, &tree);
        }
    }

    fn judge(&mut self, now: Duration, pid: u32, slot: Slot, tree: &Processes) {
        let descendants = tree.descendants(pid);
        let children_bytes: u64 = descendants.iter().map(|pid| tree.rss_bytes(*pid)).sum();
        let stall_ns = self.shared.board.stall_ns(&on_board(pid, &slot));
        if slot.phase != Phase::Collect && (children_bytes > 0 || stall_ns.is_some()) {
            let mut seen = self
                .shared
                .seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let seen = seen.entry((pid, slot.serial)).or_default();
            seen.children_bytes = seen.children_bytes.max(children_bytes);
            if let Some(now) = stall_ns {
                seen.stall_ns = Some((seen.stall_ns.map_or(now, |(first, _)| first), now));
            }
        }
        // Who dies while it is looked at holds nothing any more, and is known by what was seen before.
        let rss_bytes = tree.rss_bytes(pid);
        if rss_bytes > 0 {
            let size = Size {
                serial: slot.serial,
                rss_bytes,
                children_bytes,
                ..Size::default()
            };
            self.shared.put_down_size(pid, size);
        }
        if slot.memory_limit_bytes.is_none() && slot.timeout_us.is_none() {
            return;
        }
        let own = rss_bytes.saturating_sub(slot.rss_bytes);
        let since = |ns: u64| now.saturating_sub(Duration::from_nanos(ns));
        let test = RunningTest {
            serial: slot.serial,
            elapsed: since(slot.began_ns),
            teardown: (slot.phase == Phase::Teardown).then(|| since(slot.phase_began_ns)),
            growth_bytes: own + children_bytes,
            memory_limit_bytes: slot.memory_limit_bytes,
            timeout: slot.timeout_us.map(Duration::from_micros),
            can_abort: slot.can_abort,
        };
        let Some(known) = self.slots.get_mut(&pid) else {
            return;
        };
        let (excess, kills, whom) = match known.rule.step(now, &test) {
            None => return,
            Some(TestOrder::Abort(excess)) => (excess, false, vec![pid]),
            Some(TestOrder::Kill(excess)) => {
                (excess, true, [pid].into_iter().chain(descendants).collect())
            }
        };
        if !kills && self.mode == Mode::Real {
            let why = super::words::excess(&excess);
            let _ = self
                .shared
                .home
                .ask_to_fail(pid, slot.serial, &super::words::failed(&why));
        }
        let number = if kills { libc::SIGKILL } else { libc::SIGURG };
        let hit = whom.iter().filter_map(|pid| {
            let stat = tree.stats.get(pid)?;
            Some((*pid, *stat, self.send(*pid, stat, number)))
        });
        let told = Told {
            at: now,
            excess,
            kills,
            hit: hit.collect(),
            slot,
        };
        let _ = self.shared.news.push(News::Limit(Box::new(told)));
        (self.wake)();
    }

    /// By pidfd, and only to the process that was looked at.
    fn send(&self, pid: u32, stat: &Stat, number: i32) -> Outcome {
        let Ok(pidfd) = signal::pidfd_open(pid) else {
            return Outcome::Gone;
        };
        match stat_of(pid) {
            Some(now) if now.start_ticks == stat.start_ticks => {
                signal::send(pidfd.as_fd(), number, self.mode)
            }
            _ => Outcome::Gone,
        }
    }
}

/// Whether the run goes on: pytest-xdist can wait for ever when one of its workers was killed.
#[derive(Debug, Default)]
struct Progress {
    /// A process of pytest died.
    has_lost: bool,
    idle_since: Option<(Duration, u64)>,
    told: bool,
}

/// Nobody runs a test, collects, or computes for so long. A worker is there again in a third of a second.
const NO_PROGRESS: Duration = Duration::from_secs(30);
/// Less CPU time than this in that time, in clock ticks, is waiting: one part in a hundred.
const NO_WORK_TICKS: u64 = 30;

impl Progress {
    /// For how long nothing goes on, told once.
    fn step(&mut self, now: Duration, nobody_runs: bool, cpu_ticks: u64) -> Option<Duration> {
        if !self.has_lost || !nobody_runs || self.told {
            self.idle_since = None;
            return None;
        }
        let (since, ticks) = *self.idle_since.get_or_insert((now, cpu_ticks));
        let idle = now.saturating_sub(since);
        if idle < NO_PROGRESS {
            return None;
        }
        if cpu_ticks.saturating_sub(ticks) > NO_WORK_TICKS {
            self.idle_since = Some((now, cpu_ticks));
            return None;
        }
        self.told = true;
        Some(idle)
    }
}

fn on_board(pid: u32, slot: &Slot) -> Notice {
    Notice {
        pid,
        start_ticks: slot.start_ticks,
        // A serial that wrapped to nothing would read as no test.
        serial: (slot.serial as u32).max(1),
    }
}

/// The processes of the target at one look.
struct Processes {
    stats: HashMap<u32, Stat>,
    page_bytes: u64,
}

impl Processes {
    fn read(place: &Place, page_bytes: u64) -> Self {
        let stats = place
            .pids()
            .into_iter()
            .filter_map(|pid| Some((pid, stat_of(pid)?)));
        Self {
            stats: stats.collect(),
            page_bytes,
        }
    }

    fn descendants(&self, of: u32) -> Vec<u32> {
        let mut found = vec![of];
        let mut at = 0;
        while let Some(&parent) = found.get(at) {
            let children = self
                .stats
                .iter()
                .filter(|(pid, stat)| stat.ppid == parent && **pid != of);
            let new: Vec<u32> = children
                .map(|(pid, _)| *pid)
                .filter(|pid| !found.contains(pid))
                .collect();
            found.extend(new);
            at += 1;
        }
        found.remove(0);
        found
    }

    fn cpu_ticks(&self) -> u64 {
        self.stats
            .values()
            .map(|stat| stat.user_ticks + stat.system_ticks)
            .sum()
    }

    fn rss_bytes(&self, pid: u32) -> u64 {
        let statm = std::fs::read(format!("/proc/{pid}/statm")).ok();
        let resident = statm.and_then(|text| process::parse_statm(&text, self.page_bytes));
        resident.map_or(0, |resident| resident.anon_bytes + resident.shared_bytes)
    }
}

pub(super) fn stat_of(pid: u32) -> Option<Stat> {
    process::parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Twice the same is whole: the writer marks a page under way, and writes a new one in between otherwise.
fn read(file: &File) -> Option<Slot> {
    let mut pages = [[0u8; slot::BYTES]; 2];
    for _ in 0..3 {
        let [first, second] = &mut pages;
        file.read_exact_at(first, 0).ok()?;
        file.read_exact_at(second, 0).ok()?;
        if first == second
            && let Some(slot) = Slot::decode(first)
        {
            return Some(slot);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn waiting_counts_only_after_a_loss_and_is_told_once() {
        let mut progress = Progress::default();
        assert_eq!(progress.step(s(0), true, 0), None);
        assert_eq!(
            progress.step(s(100), true, 0),
            None,
            "a slow start is no hang"
        );
        progress.has_lost = true;
        assert_eq!(progress.step(s(100), true, 0), None);
        assert_eq!(progress.step(s(131), true, 10), Some(s(31)));
        assert_eq!(progress.step(s(200), true, 10), None);
    }

    #[test]
    fn a_test_that_runs_and_work_between_tests_are_progress() {
        let mut progress = Progress {
            has_lost: true,
            ..Progress::default()
        };
        progress.step(s(0), true, 0);
        assert_eq!(progress.step(s(20), false, 0), None);
        assert_eq!(progress.step(s(40), true, 0), None);
        assert_eq!(progress.step(s(70), true, 500), None, "it computes");
        assert_eq!(progress.step(s(99), true, 510), None);
        assert_eq!(progress.step(s(100), true, 510), Some(s(30)));
    }
}
