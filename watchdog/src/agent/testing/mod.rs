//! The tests of a run: gives the command its plugin, says which test a victim ran and which is to blame, has
//! tests fail, and keeps those from being tried again whose process was killed.
//!
//! This is the slow side's. [`eye`] is the thread that reads what processes of pytest say; [`board`] is what the
//! deciding thread sees of it; [`limits`] tells what that thread did; [`stacks`] is where Python was; [`blame`] lays
//! growth to a test; [`progress`] is whether a session goes on; [`suite`] is the part of the record; [`entrusted`] is for what the daemon guards. Only the
//! command line does any of this, as the user who runs the tests: the daemon reads no file of a user's.

mod blame;
mod board;
mod entrusted;
mod eye;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod limits;
mod progress;
mod stacks;
mod suite;
mod tree;
mod words;

use super::channel::Notice;
use super::story::Story;
use crate::act::{Mode, Outcome, signal};
use crate::host::clock;
use crate::host::place::Place;
use crate::host::process::stat_of;
use crate::incident::{BlamedTest, Culprit, Suite, TestPhase, Text};
use crate::pytest::home::Ended;
use crate::pytest::results::{Results, TestLine};
use crate::pytest::{Home, HomeError, Phase, Slot, Terms};
use crate::watch::{Member, Rung};
use blame::{Killed, What};
pub use board::{Board, Notice as OnBoard};
use eye::{Eye, News, Shared};
use stacks::stack_lines;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
pub(super) use suite::Unwritten;
pub(super) use words::Rest;
use words::{Short, Used};

/// A process that runs tests is at most so many generations above what it started.
const GENERATIONS: usize = 32;
/// Enough for two pages and what parses them; locked memory is counted by the size of stacks.
const STACK_BYTES: usize = 128 << 10;

/// The tests of a run.
pub(super) struct Testing {
    shared: Arc<Shared>,
    /// In a dry run nobody is signalled from here either.
    mode: Mode,
    /// Tests that were asked to fail, by process.
    asked: BTreeMap<u32, Asked>,
    /// From where in the stacks of a process those of an intervention are: by intervention and process.
    stacks: BTreeMap<(u32, u32), usize>,
    /// How much of the stacks of a process is of tests that are over.
    old_stacks: BTreeMap<u32, usize>,
    /// Tests whose process was killed.
    ended: Vec<EndedTest>,
    limits: u32,
    /// Interventions for sessions that were interrupted, by their first process.
    stuck: BTreeMap<u32, u32>,
    by_daemon: Vec<entrusted::ByDaemon>,
}

struct Asked {
    number: u32,
    serial: u64,
}

/// A test whose process was killed, as it was then.
#[derive(Clone, Debug)]
struct EndedTest {
    slot: Slot,
    at: Duration,
    /// The most that it was seen to hold, if it was seen at all.
    peak_bytes: Option<u64>,
    why: String,
}

impl Testing {
    /// Makes the place for the plugin. `rest` is where a failed test has its reader look.
    ///
    /// # Errors
    /// There is none to be had.
    pub(super) fn make(terms: &Terms, mode: Mode, rest: Rest) -> Result<Self, HomeError> {
        Ok(Self {
            shared: Arc::new(Shared::new(Home::make(terms)?, rest)),
            mode,
            asked: BTreeMap::new(),
            stacks: BTreeMap::new(),
            old_stacks: BTreeMap::new(),
            ended: Vec::new(),
            limits: 0,
            stuck: BTreeMap::new(),
            by_daemon: Vec::new(),
        })
    }

    /// What the command's environment must hold for pytest to find the plugin.
    pub(super) fn environment(&self) -> Vec<(&'static str, OsString)> {
        self.shared.home.environment(|name| std::env::var_os(name))
    }

    /// What the deciding thread looks at.
    pub(super) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.shared.board)
    }

    /// Starts to look. `wake` is called when there is news.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn start(&self, place: Place, wake: impl Fn() + Send + 'static) -> io::Result<()> {
        let eye = Eye::new(Arc::clone(&self.shared), place, self.mode, Box::new(wake));
        std::thread::Builder::new()
            .name("memwatch-tests".into())
            .stack_size(STACK_BYTES)
            .spawn(move || eye.run())
            .map(drop)
    }

    /// Does what an order of the deciding thread leaves to this side. `limit_bytes` is the target's.
    pub(super) fn hear(&mut self, notice: &Notice, story: &mut Story, limit_bytes: Option<u64>) {
        let Notice::Hit {
            number,
            at,
            rung,
            member,
            outcome: Outcome::Delivered,
        } = notice
        else {
            return;
        };
        let rss_bytes = member.anon_bytes + member.shared_bytes;
        let why = story.reason(*number).unwrap_or_default();
        let Some((slot, own)) = self.owner(member.pid, member.ppid) else {
            if matches!(rung, Rung::Sigterm | Rung::Sigkill) {
                self.end_between_tests(member.pid, &why);
            }
            return;
        };
        if *rung == Rung::Abort {
            // Before anything else: it goes on filling meanwhile.
            let short = if story.is_of_machine(*number) {
                Short::Machine
            } else {
                Short::Target(limit_bytes)
            };
            let used = used(&slot, rss_bytes);
            let why = words::failed(&why, Some(used), short, &self.shared.rest);
            self.fail(&slot, *number, &why);
            self.expect_stack(*number, slot.pid);
        }
        let rss_bytes = own.then_some(rss_bytes);
        if let Some(test) = self.blamed(&slot, rss_bytes, member, *at) {
            story.blame(*number, test);
        }
        if let (Rung::Sigterm | Rung::Sigkill, Some(rss_bytes)) = (rung, rss_bytes) {
            let why = format!("memwatch killed its process: {why}");
            self.end(slot, *at, Killed::ForMemory { rss_bytes }, &why);
        }
    }

    /// The process was ended by somebody else, for memory: the kernel, or the guard in it. `limit_bytes` is the
    /// target's.
    pub(super) fn was_killed(
        &mut self,
        pid: u32,
        at: Duration,
        why: &str,
        limit_bytes: Option<u64>,
    ) {
        if let Some(slot) = self.shared.slot(pid) {
            self.end(slot, at, Killed::Unseen { limit_bytes }, why);
        }
    }

    /// What the kernel said that a process held when its OOM killer took it.
    pub(super) fn held(&mut self, pid: u32, rss_bytes: u64) {
        let of_it = self.ended.iter_mut().filter(|it| it.slot.pid == pid);
        for ended in of_it {
            ended.peak_bytes = ended.peak_bytes.max(Some(rss_bytes));
        }
    }

    /// What the looking thread did by itself, and which of the tests that were asked to fail are over.
    pub(super) fn keep_up(&mut self, story: &mut Story, at: Duration, current_bytes: Option<u64>) {
        while let Some(news) = self.shared.news.pop() {
            match news {
                News::Limit(told) => self.take_in(&told, story),
                News::Stuck {
                    at,
                    idle,
                    controller,
                } => self.interrupt(at, idle, &controller, story),
                News::Ended {
                    at,
                    controller,
                    hit,
                } => self.end_stuck(at, controller, &hit, story),
            }
        }
        let over: Vec<u32> = self
            .asked
            .iter()
            .filter(|(pid, asked)| {
                self.shared
                    .slot(**pid)
                    .is_none_or(|slot| slot.serial != asked.serial)
            })
            .map(|(pid, _)| *pid)
            .collect();
        for pid in over {
            let written = self
                .shared
                .home
                .stacks(pid)
                .map_or(0, |stacks| stacks.len());
            self.old_stacks.insert(pid, written);
            if let Some(asked) = self.asked.remove(&pid)
                && let Some(bytes) = current_bytes
            {
                story.recovered(asked.number, at, bytes);
            }
        }
    }

    /// The run is over: what was written to the end is read.
    pub(super) fn settle(&mut self, story: &mut Story) {
        self.shared.stop.store(true, Ordering::Release);
        for ((number, pid), from) in std::mem::take(&mut self.stacks) {
            let stacks = self.shared.home.stacks(pid).unwrap_or_default();
            story.python_stack(number, stack_lines(stacks.get(from..).unwrap_or_default()));
        }
    }

    /// The tests of the run; `None` if there were none.
    pub(super) fn suite(&self, began: Duration) -> Option<Suite> {
        let home = &self.shared.home;
        let mut pids = home.processes();
        pids.sort_unstable();
        let read = |pid| {
            Some((
                pid,
                Results::parse(&home.results(pid).ok()?),
                self.shared.slot(pid),
            ))
        };
        let seen = self
            .shared
            .seen
            .lock()
            .map(|seen| seen.clone())
            .unwrap_or_default();
        let processes = pids.into_iter().filter_map(read).collect();
        suite::gather(processes, &self.ended, &seen, began)
    }

    /// Sessions that had a file of JUnit's to write, and ended before they could.
    pub(super) fn unwritten(&self) -> Vec<Unwritten> {
        let home = &self.shared.home;
        let read = |pid| Some((pid, Results::parse(&home.results(pid).ok()?)));
        let processes: Vec<_> = home.processes().into_iter().filter_map(read).collect();
        suite::unwritten(&processes)
    }

    /// The process that runs tests and is, or has started, this one; and whether it is it.
    fn owner(&self, pid: u32, ppid: u32) -> Option<(Slot, bool)> {
        let (mut at, mut above) = (pid, ppid);
        for _ in 0..GENERATIONS {
            if let Some(slot) = self.shared.slot(at).filter(Slot::runs) {
                return Some((slot, at == pid));
            }
            if above <= 1 {
                return None;
            }
            at = above;
            above = stat_of(at)?.ppid;
        }
        None
    }

    /// The test to which a process of the target belongs: what `slot` runs, or of a child the test that started it.
    /// `None` if that was nobody's, as a plugin's of pytest. `rss_bytes` are those of the process itself that runs it.
    fn blamed(
        &self,
        slot: &Slot,
        rss_bytes: Option<u64>,
        member: &Member,
        at: Duration,
    ) -> Option<BlamedTest> {
        // A child's memory is the test's that started it.
        let growth_bytes = match rss_bytes {
            Some(rss) => rss.saturating_sub(slot.rss_bytes),
            None => match self.starter(slot, member) {
                Starter::Running => member.anon_bytes + member.shared_bytes,
                Starter::Over(test) => return Some(test),
                Starter::Nobody => return None,
            },
        };
        let culprit = self.culprit(slot, growth_bytes);
        Some(BlamedTest {
            growth_bytes: Some(growth_bytes),
            culprit: culprit.map(|blame| Culprit {
                id: Text::of_name(blame.id.as_bytes()),
                growth_bytes: blame.growth_bytes,
                sure_permille: blame.sure_permille,
            }),
            ..running(slot, at)
        })
    }

    /// Which test has started a process below one of pytest.
    fn starter(&self, slot: &Slot, child: &Member) -> Starter {
        // Who is gone already has told no start.
        if child.start_ticks == 0 {
            return Starter::Running;
        }
        let started = clock::of_start(child.start_ticks);
        let told = Results::parse(&self.shared.home.results(slot.pid).unwrap_or_default());
        let ran_then = |test: &&TestLine| {
            let began = Duration::from_nanos(test.began_ns);
            let ended = began + Duration::from_micros(test.wall_us);
            clock::may_have_started_since(child.start_ticks, began) && started <= ended
        };
        let of_then = || told.tests.iter().filter(ran_then).rev();
        let left_it = of_then().find(|test| test.left.contains(&child.pid));
        let began = Duration::from_nanos(slot.began_ns);
        let is_earlier = !clock::may_have_started_since(child.start_ticks, began);
        match left_it.or_else(|| of_then().next().filter(|_| is_earlier)) {
            Some(test) => Starter::Over(BlamedTest {
                id: Text::of_name(test.test.as_bytes()),
                phase: TestPhase::Call,
                elapsed_us: None,
                growth_bytes: Some(child.anon_bytes + child.shared_bytes),
                ..running(slot, started)
            }),
            None if is_earlier => Starter::Nobody,
            None => Starter::Running,
        }
    }

    fn culprit(&self, slot: &Slot, growth_bytes: u64) -> Option<blame::Blame> {
        let over = self.shared.home.results(slot.pid).unwrap_or_default();
        let id = String::from_utf8_lossy(&slot.id);
        blame::blame(Some((&id, growth_bytes)), &Results::parse(&over))
    }

    fn fail(&mut self, slot: &Slot, number: u32, why: &str) {
        let home = &self.shared.home;
        if home.ask_to_fail(slot.pid, slot.serial, why).is_err() {
            return;
        }
        // The deciding thread's signal may have come before there was anything to read.
        poke(slot, self.mode);
        let serial = slot.serial;
        self.asked.insert(slot.pid, Asked { number, serial });
    }

    /// The process was killed when no test ran in it, and pytest-xdist is to take that for nobody's failure.
    fn end_between_tests(&self, pid: u32, why: &str) {
        let Some(slot) = self.shared.slot(pid).filter(|slot| !slot.worker.is_empty()) else {
            return;
        };
        let _ = self.shared.home.tell_ended(&Ended {
            id: "",
            pid,
            worker: &String::from_utf8_lossy(&slot.worker),
            why: &format!("memwatch killed its process: {why}"),
            bystander: true,
        });
    }

    /// Puts down what the process ran, so that nobody tries it again, unless it was another test's memory that
    /// the process was killed for.
    fn end(&mut self, slot: Slot, at: Duration, killed: Killed, why: &str) {
        let known = self
            .ended
            .iter()
            .any(|ended| (ended.slot.pid, ended.slot.serial) == (slot.pid, slot.serial));
        if known || !slot.runs() {
            return;
        }
        let size = self.shared.size(slot.pid, slot.serial);
        let told = match killed {
            Killed::ForMemory { rss_bytes } => Some(rss_bytes),
            Killed::OverItsLimit | Killed::Unseen { .. } => None,
        };
        let held = told.or(size.map(|size| size.rss_bytes));
        // A child's memory is the test's that started it.
        let growth_bytes = held.map_or(0, |held| held.saturating_sub(slot.rss_bytes))
            + size.map_or(0, |size| size.children_bytes);
        let culprit = self.culprit(&slot, growth_bytes);
        let bystander = culprit.filter(|blame| blame::is_bystander(blame, growth_bytes, killed));
        let id = String::from_utf8_lossy(&slot.id).into_owned();
        let worker = String::from_utf8_lossy(&slot.worker).into_owned();
        let why = match &bystander {
            Some(blame) => format!("{why}; the memory is that of {}", blame.id),
            None => why.to_owned(),
        };
        let _ = self.shared.home.tell_ended(&Ended {
            id: &id,
            pid: slot.pid,
            worker: &worker,
            why: &why,
            bystander: bystander.is_some(),
        });
        // A module that keeps the memory though it has failed would take it again where it is collected next.
        if let Some(blame) = bystander.filter(|blame| blame.what == What::Collected) {
            let _ = self.shared.home.tell_ended(&Ended {
                id: &blame.id,
                pid: slot.pid,
                worker: &worker,
                why: &why,
                bystander: false,
            });
        }
        // What nobody saw grow, and was killed for it, grew between two looks.
        let is_seen =
            |peak: &u64| !matches!(killed, Killed::Unseen { .. }) || *peak > slot.rss_bytes;
        let peak_bytes = told.max(size.map(|size| size.peak_bytes)).filter(is_seen);
        self.ended.push(EndedTest {
            slot,
            at,
            peak_bytes,
            why,
        });
    }
}

impl Drop for Testing {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.home.close();
    }
}

/// Who has started a child of a process of pytest.
enum Starter {
    /// The test that runs.
    Running,
    /// One that is over.
    Over(BlamedTest),
    /// No test: a plugin, or a module when it was imported.
    Nobody,
}

/// What the test used whose process holds so much.
fn used(slot: &Slot, rss_bytes: u64) -> Used {
    Used {
        growth_bytes: Some(rss_bytes.saturating_sub(slot.rss_bytes)),
        rss_bytes,
    }
}

/// Has a process look for a request, and write its stacks down. Who does not listen takes no harm.
fn poke(slot: &Slot, mode: Mode) -> Outcome {
    send(slot, libc::SIGURG, mode)
}

/// Signals the process that the slot is of, or nobody.
fn send(slot: &Slot, number: i32, mode: Mode) -> Outcome {
    match signal::pidfd_open(slot.pid) {
        Ok(pidfd) if stat_of(slot.pid).is_some_and(|stat| stat.start_ticks == slot.start_ticks) => {
            signal::send(pidfd.as_fd(), number, mode)
        }
        _ => Outcome::Gone,
    }
}

/// The test that a process runs at a time, before anybody is blamed.
fn running(slot: &Slot, at: Duration) -> BlamedTest {
    let elapsed = at.saturating_sub(Duration::from_nanos(slot.began_ns));
    BlamedTest {
        id: Text::of_name(&slot.id),
        worker: (!slot.worker.is_empty()).then(|| Text::of_name(&slot.worker)),
        phase: match slot.phase {
            Phase::Collect => TestPhase::Collect,
            Phase::Setup => TestPhase::Setup,
            Phase::Teardown => TestPhase::Teardown,
            Phase::Idle | Phase::Call | Phase::Over => TestPhase::Call,
        },
        elapsed_us: Some(elapsed.as_micros() as u64),
        growth_bytes: None,
        culprit: None,
    }
}
