//! Operations of which a thousand cost what one cannot show: first-touch page faults, processes, and
//! switches between cgroups. Each line on stdin names one, and a line on stdout tells its nanoseconds;
//! it ends with its input. So whoever asks decides when, and where this runs meanwhile.
//!
//! The memory is small and fixed; the cgroups are made below this process's own and removed.

use std::fs;
use std::io::{self, BufRead, PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::mman::MmapAdvise;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use crate::Failure;
use crate::memory::Region;
use crate::safety::own_v2_cgroup;

/// Passes over each operation; the median is told, so that what interrupts one of them does no harm.
const PASSES: usize = 9;
const FAULT_BYTES: usize = 32 << 20;
const SPAWNS: usize = 40;
const ROUND_TRIPS: usize = 2_000;

pub(crate) fn run() -> Result<(), Failure> {
    for operation in io::stdin().lock().lines() {
        let ns = match operation?.as_str() {
            "fault" => fault()?,
            "spawn" => spawn()?,
            "switch" => switch()?,
            other => return Err(io::Error::other(format!("no operation `{other}`")).into()),
        };
        println!("{ns:.1}");
    }
    Ok(())
}

/// The first write to a page of anonymous memory.
fn fault() -> Result<f64, Failure> {
    let region = Region::anonymous(FAULT_BYTES)?;
    region.advise(MmapAdvise::MADV_NOHUGEPAGE)?;
    let ns = median_ns(region.pages(), || {
        region.advise(MmapAdvise::MADV_DONTNEED)?;
        let started = Instant::now();
        (0..region.pages()).for_each(|page| region.write_page(page));
        Ok(started)
    })?;
    // Nothing is kept, however often this is asked for.
    region.advise(MmapAdvise::MADV_DONTNEED)?;
    Ok(ns)
}

/// A process from its start to its end.
fn spawn() -> Result<f64, Failure> {
    median_ns(SPAWNS, || {
        let started = Instant::now();
        for _ in 0..SPAWNS {
            Command::new("/bin/true").status()?;
        }
        Ok(started)
    })
}

/// A switch from a process in one cgroup to a process in another, by a byte through a pipe.
fn switch() -> Result<f64, Failure> {
    let home = own_v2_cgroup().ok_or_else(|| io::Error::other("there is no cgroup v2"))?;
    let (here, there) = (Nest::make(&home, "here")?, Nest::make(&home, "there")?);
    on_one_cpu(|| {
        let (mut from_child, to_parent) = io::pipe()?;
        let (from_parent, mut to_child) = io::pipe()?;
        // SAFETY: this program has one thread, so the child may do anything.
        let child = match unsafe { fork() }? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop((from_child, to_child));
                let answered = enter(&there.dir).and_then(|()| answer(from_parent, to_parent));
                // Without the destructors: the cgroups are the parent's to remove.
                std::process::exit(i32::from(answered.is_err()));
            }
        };
        drop((from_parent, to_parent));
        enter(&here.dir)?;
        let ns = median_ns(2 * ROUND_TRIPS, || {
            let started = Instant::now();
            for _ in 0..ROUND_TRIPS {
                to_child.write_all(&[0])?;
                from_child.read_exact(&mut [0])?;
            }
            Ok(started)
        });
        drop(to_child);
        waitpid(child, None)?;
        ns
    })
}

fn answer(mut questions: PipeReader, mut answers: PipeWriter) -> io::Result<()> {
    let mut byte = [0];
    while questions.read(&mut byte)? > 0 {
        answers.write_all(&byte)?;
    }
    Ok(())
}

/// The median time of one of `operations` in passes that tell when they began to count; the first pass
/// only warms up.
fn median_ns(
    operations: usize,
    mut pass: impl FnMut() -> Result<Instant, Failure>,
) -> Result<f64, Failure> {
    pass()?;
    let mut ns = Vec::with_capacity(PASSES);
    for _ in 0..PASSES {
        ns.push(pass()?.elapsed().as_nanos() as f64 / operations as f64);
    }
    ns.sort_by(f64::total_cmp);
    Ok(ns[PASSES / 2])
}

/// Both processes on one CPU: otherwise a byte through a pipe wakes another CPU and switches nothing.
fn on_one_cpu<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this)?;
    let allowed = |&cpu: &usize| before.is_set(cpu).unwrap_or(false);
    let last = (0..CpuSet::count()).rev().find(allowed);
    let mut one = CpuSet::new();
    one.set(last.unwrap_or(0))?;
    sched_setaffinity(this, &one)?;
    let outcome = work();
    sched_setaffinity(this, &before)?;
    outcome
}

/// A cgroup of ours, which goes with whoever of us is in it moved back.
struct Nest {
    home: PathBuf,
    dir: PathBuf,
}

impl Nest {
    fn make(home: &Path, name: &str) -> io::Result<Self> {
        let dir = home.join(format!("workload-{}-{name}", std::process::id()));
        fs::create_dir(&dir)?;
        Ok(Self {
            home: home.to_owned(),
            dir,
        })
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        // What is left over goes with the cgroup around it.
        let _ = enter(&self.home);
        let _ = fs::remove_dir(&self.dir);
    }
}

fn enter(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}
