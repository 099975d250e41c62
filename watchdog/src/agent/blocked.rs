//! The slow thread that looks for tasks which have been in one uninterruptible sleep for long: what the kernel
//! itself reports after two minutes, if at all.
//!
//! Owns how often is looked, how long is long, and that each sleep is told once, with its end. Reading tasks is
//! [`host::blocked`]'s; into whose record it goes is the listener's.

use super::helpers::Helpers;
use crate::host::blocked::{self as host, Sleeper, Survey, Task, Wait};
use crate::host::clock;
use crate::incident::{self, BlockedTask, Comm, Text};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::Duration;

/// From here on a sleep is told. A healthy disk, and one that spins up, answer within it.
pub const LONG: Duration = Duration::from_secs(10);
/// Looks in the time that makes a sleep a long one: it is told when it has lasted that and half as much at most.
const LOOKS: u32 = 2;
/// Tasks in one look, at 10 to 30 µs each. Where there are more, each has its turn after a few looks.
const TASKS: usize = 4096;
/// Sleeps that are watched at once. A dead disk or server blocks many for one reason.
const SLEEPS: usize = 256;
/// What waits to be heard.
const QUEUE: usize = 64;
/// In the record of one run.
const RECORDED: usize = 64;
/// For what one of them waits in, which may hang.
const PATIENCE: Duration = Duration::from_secs(1);
const STACK_BYTES: usize = 128 << 10;

/// A task in a long uninterruptible sleep, or one that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Who.
    pub task: Task,
    /// When it was first seen in it.
    pub since: Duration,
    /// What it waits, or waited, in.
    pub wait: Wait,
    /// How long it was in it; `None` while it is.
    pub lasted: Option<Duration>,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Task { pid, tid, comm, .. } = &self.task;
        write!(f, "{} (tid {tid}, pid {pid}) ", Comm::new(comm))?;
        match self.lasted {
            None => write!(f, "is in uninterruptible sleep for long")?,
            Some(lasted) => {
                let lasted = incident::duration(lasted.as_micros() as u64);
                write!(f, "was in uninterruptible sleep for {lasted}")?;
            }
        }
        if let Some(function) = &self.wait.function {
            write!(f, ", in {}", Text::of_name(function.as_bytes()).as_str())?;
        }
        Ok(())
    }
}

/// The thread that looks. It ends with this.
#[derive(Debug)]
pub struct Watch {
    heard: Receiver<Blocked>,
    missed: Arc<AtomicU64>,
    _until_dropped: Sender<()>,
}

impl Watch {
    /// Starts looking for sleeps of at least `long`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(long: Duration) -> io::Result<Self> {
        let (tell, heard) = mpsc::sync_channel(QUEUE);
        let (until_dropped, over) = mpsc::channel();
        let missed = Arc::new(AtomicU64::new(0));
        let watcher = Watcher {
            sleeps: Sleeps::new(long),
            survey: Survey::default(),
            helpers: Helpers::default(),
            tell,
            missed: Arc::clone(&missed),
        };
        std::thread::Builder::new()
            .name("memwatch-sleeps".into())
            .stack_size(STACK_BYTES)
            .spawn(move || watcher.run(long / LOOKS, &over))?;
        Ok(Self {
            heard,
            missed,
            _until_dropped: until_dropped,
        })
    }

    /// What has been found since the last call: each sleep once when it has become a long one, and once more at
    /// its end.
    pub fn news(&self) -> impl Iterator<Item = Blocked> {
        self.heard.try_iter()
    }

    /// What was found and found no room to be told.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// Writes what was found into the list of a run that began at `began`: the end of a sleep to its beginning.
/// Whether there was room.
pub fn record(list: &mut Vec<BlockedTask>, began: Duration, found: &Blocked) -> bool {
    let Blocked { task, wait, .. } = found;
    let lasted_us = found.lasted.map(|lasted| lasted.as_micros() as u64);
    let at_us = found.since.saturating_sub(began).as_micros() as u64;
    let is_it = |known: &&mut BlockedTask| (known.tid, known.at_us) == (task.tid, Some(at_us));
    if let Some(known) = list.iter_mut().find(is_it) {
        known.lasted_us = lasted_us;
        return true;
    }
    let has_room = list.len() < RECORDED;
    if has_room {
        let text = |line: &String| Text::of_name(line.as_bytes());
        list.push(BlockedTask {
            pid: task.pid,
            tid: task.tid,
            comm: Comm::new(&task.comm),
            at_us: Some(at_us),
            lasted_us,
            function: wait.function.as_ref().map(text),
            stack: wait.stack.iter().map(text).collect(),
        });
    }
    has_room
}

/// What the thread works with.
struct Watcher {
    sleeps: Sleeps,
    survey: Survey,
    helpers: Helpers,
    tell: SyncSender<Blocked>,
    missed: Arc<AtomicU64>,
}

impl Watcher {
    fn run(mut self, pause: Duration, over: &Receiver<()>) {
        while over.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            self.look();
        }
    }

    fn look(&mut self) {
        let root = Path::new("/");
        self.helpers.look_after(clock::now());
        let known = self.sleeps.known();
        let mut asleep: Vec<Sleeper> = known
            .filter_map(|task| host::look(root, task.pid, task.tid))
            .collect();
        // Without a list those that are known are all there is to see.
        asleep.extend(self.survey.go_on(root, TASKS).unwrap_or_default());
        for ended in self.sleeps.see(clock::now(), &asleep) {
            self.say(ended);
        }
        for mut long in self.sleeps.long(clock::now()) {
            let task = long.task;
            let wait = self.helpers.ask(PATIENCE, move || host::wait(root, &task));
            long.wait = wait.unwrap_or_default();
            self.sleeps.told(&long);
            self.say(long);
        }
    }

    fn say(&self, found: Blocked) {
        if self.tell.try_send(found).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The sleeps that are going on. Pure.
#[derive(Debug)]
struct Sleeps {
    long: Duration,
    known: Vec<Sleep>,
}

#[derive(Debug)]
struct Sleep {
    sleeper: Sleeper,
    since: Duration,
    /// What it waits in, once it has been told.
    told: Option<Wait>,
}

impl Sleeps {
    fn new(long: Duration) -> Self {
        Self {
            long,
            known: Vec::new(),
        }
    }

    fn known(&self) -> impl Iterator<Item = Task> {
        self.known.iter().map(|sleep| sleep.sleeper.task)
    }

    /// Takes in who is asleep: all who are known and still are, and others. The ends of those that were told.
    fn see(&mut self, now: Duration, asleep: &[Sleeper]) -> Vec<Blocked> {
        let goes_on = |sleep: &mut Sleep| asleep.contains(&sleep.sleeper);
        let over = self.known.extract_if(.., |sleep| !goes_on(sleep));
        let ended = over
            .filter_map(|sleep| {
                Some(Blocked {
                    task: sleep.sleeper.task,
                    since: sleep.since,
                    wait: sleep.told?,
                    lasted: Some(now.saturating_sub(sleep.since)),
                })
            })
            .collect();
        for &sleeper in asleep {
            let is_known = self.known.iter().any(|sleep| sleep.sleeper == sleeper);
            if !is_known && self.known.len() < SLEEPS {
                self.known.push(Sleep {
                    sleeper,
                    since: now,
                    told: None,
                });
            }
        }
        ended
    }

    /// Those that have become long and were not told.
    fn long(&self, now: Duration) -> Vec<Blocked> {
        let is_due =
            |sleep: &&Sleep| sleep.told.is_none() && now.saturating_sub(sleep.since) >= self.long;
        let due = self.known.iter().filter(is_due);
        due.map(|sleep| Blocked {
            task: sleep.sleeper.task,
            since: sleep.since,
            wait: Wait::default(),
            lasted: None,
        })
        .collect()
    }

    fn told(&mut self, long: &Blocked) {
        let told = self
            .known
            .iter_mut()
            .find(|sleep| sleep.sleeper.task == long.task);
        if let Some(sleep) = told {
            sleep.told = Some(long.wait.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    /// Waits in uninterruptible sleep, as after vfork(2), for a child that ends when `pipe` does.
    fn sleep_until_closed(pipe: &io::PipeReader, writer: i32) {
        let pipe = pipe.as_raw_fd();
        // SAFETY: no CLONE_VM, so the child has a memory of its own, as after fork(2), and makes nothing but
        // system calls until it is gone; the caller waits for it.
        unsafe {
            let flags = (libc::CLONE_VFORK | libc::SIGCHLD) as libc::c_ulong;
            match libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) {
                0 => {
                    libc::close(writer);
                    let mut byte = 0u8;
                    libc::read(pipe, (&raw mut byte).cast(), 1);
                    libc::_exit(0);
                }
                child => {
                    assert!(child > 0, "{}", io::Error::last_os_error());
                    libc::waitpid(child as i32, std::ptr::null_mut(), 0);
                }
            }
        }
    }

    #[test]
    fn a_thread_in_a_long_uninterruptible_sleep_is_found_with_what_it_waits_in_and_its_end() {
        let long = Duration::from_millis(400);
        let watch = Watch::start(long).expect("a thread");
        let (reader, writer) = io::pipe().expect("descriptors");
        let number = writer.as_raw_fd();
        let (told, tid) = mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            told.send(nix::unistd::gettid().as_raw() as u32)
                .expect("it is heard");
            sleep_until_closed(&reader, number);
        });
        let tid = tid.recv().expect("it says");
        let next = || {
            let until = clock::now() + Duration::from_secs(60);
            while clock::now() < until {
                if let Some(found) = watch.news().find(|found| found.task.tid == tid) {
                    return found;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("thread {tid} was not found");
        };
        let first = next();
        assert_eq!(first.task.pid, std::process::id());
        assert_eq!(first.lasted, None);
        if std::fs::read("/proc/self/stack").is_ok() {
            let waits = |frame: &String| frame.contains("clone");
            assert!(first.wait.stack.iter().any(waits), "{first:?}");
        }
        drop(writer);
        sleeper.join().expect("it wakes");
        let second = next();
        assert!(
            second.lasted.is_some_and(|lasted| lasted >= long),
            "{second:?}"
        );
        assert_eq!((second.since, second.wait), (first.since, first.wait));
        assert_eq!(watch.missed(), 0);
    }

    fn sleeper(tid: u32, switches: u64) -> Sleeper {
        let task = Task {
            pid: tid,
            tid,
            comm: *b"txg_sync\0\0\0\0\0\0\0\0",
            start_ticks: 7,
        };
        Sleeper { task, switches }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What a look at these comes to, everything that is due told.
    fn look(sleeps: &mut Sleeps, seconds: u64, asleep: &[Sleeper]) -> Vec<(u32, Option<u64>)> {
        let mut news = sleeps.see(at(seconds), asleep);
        for long in sleeps.long(at(seconds)) {
            sleeps.told(&long);
            news.push(long);
        }
        let seconds = |lasted: Duration| lasted.as_secs();
        news.iter()
            .map(|found| (found.task.tid, found.lasted.map(seconds)))
            .collect()
    }

    #[test]
    fn a_long_sleep_is_told_once_and_at_its_end() {
        let mut sleeps = Sleeps::new(at(10));
        let one = [sleeper(1, 5)];
        assert_eq!(look(&mut sleeps, 0, &one), []);
        assert_eq!(look(&mut sleeps, 9, &one), []);
        assert_eq!(look(&mut sleeps, 12, &one), [(1, None)]);
        assert_eq!(look(&mut sleeps, 40, &one), []);
        assert_eq!(look(&mut sleeps, 45, &[]), [(1, Some(45))]);
        assert_eq!(look(&mut sleeps, 50, &[]), []);
    }

    #[test]
    fn many_short_sleeps_are_no_long_one() {
        let mut sleeps = Sleeps::new(at(10));
        for second in 0..60 {
            // It has run in between.
            assert_eq!(look(&mut sleeps, second, &[sleeper(1, second)]), []);
        }
        // Short sleeps that were never told have no end to tell.
        assert_eq!(look(&mut sleeps, 60, &[]), []);
    }

    #[test]
    fn a_crowd_is_watched_as_far_as_there_is_room() {
        let mut sleeps = Sleeps::new(at(10));
        let crowd: Vec<_> = (1..1000).map(|tid| sleeper(tid, 1)).collect();
        look(&mut sleeps, 0, &crowd);
        assert_eq!(look(&mut sleeps, 10, &crowd).len(), SLEEPS);
    }

    #[test]
    fn the_record_has_each_sleep_once_with_its_end() {
        let mut found = Blocked {
            task: sleeper(611, 1).task,
            since: at(12),
            wait: Wait {
                function: Some("cv_wait_common".into()),
                stack: vec!["cv_wait_common+0xa9/0x140 [spl]".into()],
            },
            lasted: None,
        };
        let mut list = Vec::new();
        assert!(record(&mut list, at(10), &found));
        assert_eq!(list[0].lasted_us, None);
        found.lasted = Some(at(14));
        assert!(record(&mut list, at(10), &found));
        assert_eq!(
            (list[0].at_us, list[0].lasted_us),
            (Some(2_000_000), Some(14_000_000))
        );
        assert_eq!(
            found.to_string(),
            "txg_sync (tid 611, pid 611) was in uninterruptible sleep for 14.0s, in cv_wait_common"
        );
        for second in 20..20 + RECORDED as u64 - 1 {
            found.since = at(second);
            assert!(record(&mut list, at(10), &found));
        }
        found.since = at(10);
        assert!(!record(&mut list, at(10), &found), "there is no room left");
    }
}
