//! The thread that reads what processes of pytest say: which tests run, whether one is over a limit of its own,
//! what their children hold, whether a session that has lost a process goes on. Reads with bounds, believes a slot only of a process that is in the target and
//! started when the slot says, and may hang without anybody noticing. What follows from pressure is the
//! deciding thread's.

use super::board::{Board, Notice};
use super::progress::{Order, Progress, Spent};
use super::tree::Processes;
use super::words::{self, Rest, Short, Used};
use crate::act::{Mode, Outcome, signal};
use crate::control::protocol::TESTS;
use crate::host::cgroup;
use crate::host::clock;
use crate::host::place::Place;
use crate::host::process::{Stat, stat_of};
use crate::incident::BlamedTest;
use crate::pytest::Home;
use crate::pytest::slot::{self, Phase, Slot};
use crate::watch::test_rule::{Excess, RunningTest, TestOrder, TestRule};
use crossbeam_queue::ArrayQueue;
use std::collections::{BTreeMap, BTreeSet};
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
    /// A process of a session has died, and since then nothing goes on in it any more.
    Stuck {
        /// When.
        at: Duration,
        /// For how long.
        idle: Duration,
        /// The process that hands out its tests.
        controller: Box<Slot>,
    },
    /// It has not ended when it was interrupted, and was ended.
    Ended {
        /// When.
        at: Duration,
        /// The process that handed out its tests.
        controller: u32,
        /// Everybody who was signalled.
        hit: Vec<(u32, Stat, Outcome)>,
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
    /// Where a failed test has its reader look.
    pub(super) rest: Rest,
    pub(super) board: Arc<Board>,
    pub(super) news: ArrayQueue<News>,
    /// Tests that have run for a while and can be asked to fail, and who hands tests out.
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
    pub(super) fn new(home: Home, rest: Rest) -> Self {
        Self {
            home,
            rest,
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
    /// Sessions that have lost a process, by their first.
    lost: BTreeMap<u32, Progress>,
    page_bytes: u64,
}

/// A process of pytest.
struct Known {
    file: File,
    rule: TestRule,
    /// The first process of its session, once it was seen in the target.
    controller: Option<u32>,
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
            lost: BTreeMap::new(),
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
                    controller: None,
                });
            }
        }
        if self.slots.is_empty() {
            return;
        }
        let tree = Processes::read(&self.place, self.page_bytes);
        let pids: BTreeSet<u32> = self.slots.keys().copied().collect();
        let mut running = Vec::new();
        let mut controllers = Vec::new();
        let mut at_work = BTreeSet::new();
        let mut present = Vec::new();
        for (&pid, known) in &mut self.slots {
            let Some(slot) = read(&known.file) else {
                continue;
            };
            let stat = tree.stats.get(&pid);
            if stat.is_none_or(|stat| stat.start_ticks != slot.start_ticks) || slot.pid != pid {
                // What ends in good order says so.
                if let Some(controller) = known.controller.filter(|_| slot.phase != Phase::Over) {
                    self.lost.entry(controller).or_default();
                }
                continue;
            }
            let is_first = slot.worker.is_empty();
            let above = || tree.nearest_above(pid, |pid| pids.contains(&pid));
            let controller = known
                .controller
                .or_else(|| if is_first { Some(pid) } else { above() });
            known.controller = controller;
            present.push((!is_first, on_board(pid, &slot)));
            if is_first && slot.phase != Phase::Over {
                controllers.push(slot.clone());
            }
            if slot.runs() {
                at_work.extend(controller);
                running.push((pid, slot));
            }
        }
        for controller in controllers {
            self.see_progress(now, controller, &at_work, &tree);
        }
        // Where there is no room for all: one of each session, then those who run something.
        present.sort_by_key(|(is_worker, notice)| (*is_worker, notice.serial == 0));
        let notices = present.iter().map(|(_, notice)| *notice);
        self.shared.board.put_up(notices);
        let ran = |slot: &Slot| now.saturating_sub(Duration::from_nanos(slot.began_ns));
        let is_long = |notice: &Notice| {
            let of_it = running.iter().find(|(pid, _)| *pid == notice.pid);
            of_it.is_some_and(|(_, slot)| ran(slot) >= LONG)
        };
        let worth = present.iter().filter_map(|(is_worker, notice)| {
            let serial = if is_long(notice) { notice.serial } else { 0 };
            (!is_worker || serial > 0).then_some(Notice { serial, ..*notice })
        });
        *self
            .shared
            .long
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = worth.take(TESTS).collect();
        for (pid, slot) in running {
            self.judge(now, pid, slot, &tree);
        }
    }

    /// Whether a session goes on that has lost one of its processes. One whose first process is no more is over,
    /// and what else is in the target is none of its own.
    fn see_progress(
        &mut self,
        now: Duration,
        controller: Slot,
        at_work: &BTreeSet<u32>,
        tree: &Processes,
    ) {
        let pid = controller.pid;
        let Some(progress) = self.lost.get_mut(&pid) else {
            return;
        };
        let spent = Spent {
            session: tree.cpu_time(pid),
            target: self.place.dir().and_then(cgroup::cpu_time),
        };
        let news = match progress.step(now, at_work.contains(&pid), spent) {
            None => return,
            Some(Order::Interrupt { idle }) => News::Stuck {
                at: now,
                idle,
                controller: Box::new(controller),
            },
            Some(Order::End) => {
                let all = std::iter::once(pid).chain(tree.descendants(pid));
                let hit = all.filter_map(|pid| {
                    let stat = tree.stats.get(&pid)?;
                    Some((pid, *stat, self.send(pid, stat, libc::SIGKILL)))
                });
                News::Ended {
                    at: now,
                    controller: pid,
                    hit: hit.collect(),
                }
            }
        };
        let _ = self.shared.news.push(news);
        (self.wake)();
    }

    fn judge(&mut self, now: Duration, pid: u32, slot: Slot, tree: &Processes) {
        let descendants = tree.descendants(pid);
        // What an earlier test has started, or what a fixture of several started in it, is none of this one's.
        let began = Duration::from_nanos(slot.began_ns);
        let own_children = descendants
            .iter()
            .filter(|pid| tree.started_since(**pid, began));
        let children_bytes: u64 = own_children.map(|pid| tree.rss_bytes(*pid)).sum();
        let notice = Some(on_board(pid, &slot)).filter(|notice| notice.serial > 0);
        let stall_ns = notice.and_then(|notice| self.shared.board.stall_ns(&notice));
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
            let why = words::excess(&excess);
            // Of what took too long memory is beside the point.
            let used = match excess {
                Excess::Memory { .. } => Some(Used {
                    growth_bytes: None,
                    rss_bytes,
                }),
                Excess::Time { .. } => None,
            };
            let why = words::failed(&why, used, Short::Nothing, &self.shared.rest);
            let _ = self.shared.home.ask_to_fail(pid, slot.serial, &why);
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

fn on_board(pid: u32, slot: &Slot) -> Notice {
    Notice {
        pid,
        start_ticks: slot.start_ticks,
        // A serial that wrapped to nothing would read as no test.
        serial: if slot.runs() && slot.can_abort {
            (slot.serial as u32).max(1)
        } else {
            0
        },
    }
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
