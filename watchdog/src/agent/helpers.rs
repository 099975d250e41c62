//! Threads for what may hang: a read of a stuck process, a lock of the kernel's, a dead disk.
//!
//! Owns how many there are and how long each has been at its job. A job is short or it is stuck: one that
//! takes longer than [`STUCK_AFTER`] is counted, and another thread takes its place, up to [`AT_MOST`].
//! What is worth a job is decided by whoever gives it.

use super::channel::DYING;
use crate::host::clock;
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most threads. What gets stuck is a victim, the kernel's cgroup lock, a disk: each is one thing, so
/// that eight stuck threads mean that no ninth would get through; and all stacks together stay at half of
/// the smallest memory lock that memwatch is tested with.
const AT_MOST: usize = 8;
/// Enough for what these jobs do; locked memory is counted by the size of stacks.
const STACK_BYTES: usize = 128 << 10;
/// Longer than taking 16 GiB from a dying process takes on a machine that thrashes.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// The dying of one order, all at once.
const WAITING_AT_MOST: usize = DYING;

type Job = Box<dyn FnOnce() + Send>;

/// What became of the jobs that did not end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Threads that were stuck in a job at some time.
    pub stuck: u64,
    /// Jobs that found no thread.
    pub dropped: u64,
}

/// The threads. Nobody waits for them: they go with the process.
#[derive(Debug, Default)]
pub struct Helpers {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    waiting: VecDeque<Job>,
    at_work: Vec<Work>,
    begun: u64,
    lost: Lost,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("waiting", &self.waiting.len())
            .field("at_work", &self.at_work)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

/// A thread at a job.
#[derive(Debug)]
struct Work {
    number: u64,
    since: Duration,
    is_stuck: bool,
}

impl Helpers {
    /// Has `job` done by a thread of its own, or by the next that is free.
    pub fn start(&self, job: impl FnOnce() + Send + 'static) {
        let mut shared = self.shared();
        shared.waiting.push_back(Box::new(job));
        self.see_to(&mut shared, clock::now());
    }

    /// What `job` comes to; `None` if it has not within `patience`. It goes on all the same.
    pub fn ask<T: Send + 'static>(
        &self,
        patience: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.start(move || _ = answer.send(job()));
        answered.recv_timeout(patience).ok()
    }

    /// Finds out who is stuck and puts others in their place. Call now and then.
    pub fn look_after(&self, now: Duration) {
        self.see_to(&mut self.shared(), now);
    }

    /// Waits until all that was begun is done, at most so long.
    pub fn finish(&self, patience: Duration) {
        let until = clock::now() + patience;
        let is_idle = || {
            let shared = self.shared();
            shared.waiting.is_empty() && shared.at_work.is_empty()
        };
        while !is_idle() && clock::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What was lost so far.
    pub fn lost(&self) -> Lost {
        self.shared().lost
    }

    fn see_to(&self, shared: &mut Shared, now: Duration) {
        for work in &mut shared.at_work {
            let newly = !work.is_stuck && now.saturating_sub(work.since) >= STUCK_AFTER;
            work.is_stuck |= newly;
            shared.lost.stuck += u64::from(newly);
        }
        while shared.at_work.len() < AT_MOST
            && let Some(job) = shared.waiting.pop_front()
        {
            if self.begin(shared, job, now).is_err() {
                shared.lost.dropped += 1;
            }
        }
        // With nobody left who could come to them, or too many before them.
        let all_stuck = shared.at_work.iter().all(|work| work.is_stuck);
        let room = if all_stuck { 0 } else { WAITING_AT_MOST };
        while shared.waiting.len() > room {
            drop(shared.waiting.pop_back());
            shared.lost.dropped += 1;
        }
    }

    fn begin(&self, shared: &mut Shared, job: Job, now: Duration) -> io::Result<()> {
        let number = shared.begun;
        let ours = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name("memwatch-help".into())
            .stack_size(STACK_BYTES)
            .spawn(move || work(&ours, number, job))?;
        shared.begun += 1;
        shared.at_work.push(Work {
            number,
            since: now,
            is_stuck: false,
        });
        Ok(())
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

/// Nobody panics while holding it, but what is in it is whole even then.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One job after another, until there is none.
fn work(shared: &Mutex<Shared>, number: u64, first: Job) {
    let mut next = Some(first);
    while let Some(job) = next {
        job();
        let mut shared = lock(shared);
        next = shared.waiting.pop_front();
        let at = shared.at_work.iter().position(|work| work.number == number);
        match at {
            Some(at) if next.is_none() => drop(shared.at_work.swap_remove(at)),
            Some(at) => {
                let work = &mut shared.at_work[at];
                (work.since, work.is_stuck) = (clock::now(), false);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Jobs that are stuck in a read until the pipe is let go of: a stand-in for a process whose files
    /// do not answer. To the threads a read that hangs is a read that hangs.
    fn stuck(helpers: &Helpers, count: usize) -> Vec<io::PipeWriter> {
        (0..count)
            .map(|_| {
                let (mut reader, writer) = io::pipe().expect("descriptors");
                helpers.start(move || drop(reader.read(&mut [0])));
                writer
            })
            .collect()
    }

    fn answers(helpers: &Helpers) -> bool {
        helpers.ask(Duration::from_secs(20), || ()).is_some()
    }

    fn wait_until_at_work(helpers: &Helpers, count: usize) {
        let until = clock::now() + Duration::from_secs(20);
        while helpers.shared().at_work.len() != count {
            assert!(clock::now() < until, "{helpers:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn later() -> Duration {
        clock::now() + STUCK_AFTER
    }

    #[test]
    fn one_that_hangs_keeps_nobody_else_from_working_and_is_counted_once() {
        let helpers = Helpers::default();
        let hung = stuck(&helpers, AT_MOST - 1);
        assert!(answers(&helpers));
        assert_eq!(helpers.lost(), Lost::default(), "not yet");
        wait_until_at_work(&helpers, hung.len());
        helpers.look_after(later());
        helpers.look_after(later());
        let lost = Lost {
            stuck: AT_MOST as u64 - 1,
            dropped: 0,
        };
        assert_eq!(helpers.lost(), lost);
        assert!(answers(&helpers));
        drop(hung);
    }

    #[test]
    fn when_all_hang_jobs_are_dropped_and_counted_and_threads_are_not_heaped_up() {
        let helpers = Helpers::default();
        let hung = stuck(&helpers, AT_MOST);
        assert_eq!(
            helpers.ask(Duration::from_millis(50), || ()),
            None,
            "it waits"
        );
        assert_eq!(helpers.lost(), Lost::default());
        helpers.look_after(later());
        let lost = |dropped| Lost {
            stuck: AT_MOST as u64,
            dropped,
        };
        assert_eq!(helpers.lost(), lost(1));
        // Found stuck already, so it is dropped at once.
        assert_eq!(helpers.ask(Duration::from_secs(600), || ()), None);
        assert_eq!(helpers.lost(), lost(2));
        assert_eq!(helpers.shared().at_work.len(), AT_MOST);
        drop(hung);
        wait_until_at_work(&helpers, 0);
        assert!(answers(&helpers), "and there is help again");
    }

    #[test]
    fn a_crowd_of_jobs_is_done_by_few_threads() {
        let helpers = Helpers::default();
        let (done, count) = mpsc::channel();
        for _ in 0..WAITING_AT_MOST {
            let done = done.clone();
            helpers.start(move || _ = done.send(()));
        }
        drop(done);
        assert_eq!(count.iter().count(), WAITING_AT_MOST);
        assert_eq!(helpers.lost(), Lost::default());
    }
}
