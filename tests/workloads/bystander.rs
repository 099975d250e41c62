//! An innocent that sleeps ten milliseconds at a time and writes down the longest that one of these sleeps has
//! kept it from running: what somebody at the machine would have felt. Its control comes first on every CPU, with
//! its memory locked: nothing but the machine itself, which may be an emulated one, keeps that from running.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::unistd::Pid;

use crate::Failure;
use crate::safety::Deadline;

const NAP: Duration = Duration::from_millis(10);
/// A gap of this much is told at once, so that a journal shows beside what it was.
const NOTED: Duration = Duration::from_millis(50);

/// `gap` is the file that holds the longest gap so far, in milliseconds, from the first nap on.
pub(crate) fn run(deadline: Deadline, gap: &Path, first: bool) -> Result<(), Failure> {
    let longest = Mutex::new(Duration::ZERO);
    if !first {
        return watch(deadline, gap, &longest);
    }
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)?;
    let on_each = |cpu| {
        come_first(cpu)?;
        watch(deadline, gap, &longest)
    };
    thread::scope(|scope| {
        let cpus = 0..thread::available_parallelism()?.get();
        let threads: Vec<_> = cpus.map(|cpu| scope.spawn(move || on_each(cpu))).collect();
        let mut ends = threads.into_iter().map(thread::ScopedJoinHandle::join);
        ends.try_for_each(|end| end.expect("it does not panic"))
    })
}

fn watch(deadline: Deadline, gap: &Path, longest: &Mutex<Duration>) -> Result<(), Failure> {
    while !deadline.passed() {
        let lay_down = Instant::now();
        sleep(NAP);
        let gone = lay_down.elapsed();
        if gone >= NOTED {
            eprintln!("kept from running for {} ms", gone.as_millis());
        }
        let mut longest = longest.lock().expect("nobody panics");
        if gone > *longest {
            *longest = gone;
            std::fs::write(gap, format!("{}\n", gone.as_millis()))?;
        }
    }
    Ok(())
}

/// This thread from now on stays on one CPU, where nobody goes before it.
fn come_first(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    let priority = libc::sched_param { sched_priority: 99 };
    // SAFETY: the parameter is read during the call alone.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().into()),
    }
}
