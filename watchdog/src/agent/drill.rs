//! The drill: a whole kill, before there is need of one, so that all of the code and the stack that a kill takes
//! is in memory and stays there (locked by [`super::awake`]): what only a kill runs would otherwise be read from
//! the disk when it is needed first, under pressure. The rest of the program is not kept.
//!
//! A pass like any other looks at a target like any other, but for the files of its cgroup and the maps of the BPF
//! programs, which are made up, and for its only process, which is a child of memwatch's own. Its time is made up,
//! too, so that nothing is waited for but the child's death.

use super::channel::{Channel, Notice, Status};
use super::eyes::{Eyes, KernelEyes, Listing, MachineEyes, TargetEyes};
use super::members::Members;
use super::pass::{Charge, Pass};
use super::rehearsal::Child;
use super::testing::{Board, OnBoard};
use crate::act::{Mode, Outcome};
use crate::bpf::{Reader, Row};
use crate::host::clock;
use crate::host::memory::MemoryFiles;
use crate::host::process::parse_stat;
use crate::host::reread::Reread;
use crate::watch::{Policy, Response, Rung, Settings};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const LIMIT_BYTES: u64 = 1 << 30;
/// More looks than a drill takes.
const MOST_STEPS: u32 = 1_000;
/// By so much all looks but the first come later than asked for: under pressure they do, and what counts it is to be
/// in memory, too.
const LATE: Duration = Duration::from_secs(2);

/// What goes wrong in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It fills its limit.
    Leak,
    /// It stalls at its limit, and reads back what was taken away.
    Thrash,
}

impl Trouble {
    /// From one look to the next, in the drill's own time.
    fn step(self) -> Duration {
        match self {
            Self::Leak => Duration::from_millis(5),
            Self::Thrash => Duration::from_millis(50),
        }
    }
}

/// What [`run`] comes to, for both.
///
/// # Errors
/// As for that.
pub fn run_all() -> io::Result<bool> {
    Ok(run(Trouble::Leak)? && run(Trouble::Thrash)?)
}

/// Goes through a kill for that trouble, with all the rungs before it; whether the child was signalled and seen to be
/// gone.
///
/// # Errors
/// No child, or no file in memory, could be made.
fn run(trouble: Trouble) -> io::Result<bool> {
    let child = Child::start()?;
    let target = MadeUp::new(child.pid())?;
    let channel = Arc::new(Channel::new()?);
    let machine = MachineEyes {
        meminfo: Reread::of(file(MEMINFO)?),
        pressure: None,
        arcstats: None,
    };
    let mut eyes = Eyes::new(machine);
    let (reader, row) = Reader::made_up()?;
    eyes.open_kernel(KernelEyes {
        reader,
        slot: 0,
        names: true,
    });
    let mut spare = vec![Members::new(8)];
    // The leak is a test's, which is asked to fail first.
    let tests = (trouble == Trouble::Leak).then(|| test_of(child.pid()));
    let tests = tests.transpose()?;
    let status = Arc::new(Status::default());
    let charge = Charge {
        id: 0,
        leader: None,
        uid: None,
        mode: Mode::Real,
        status: Arc::clone(&status),
        recorder: None,
        tests: tests.map(Arc::new),
    };
    let policy = Policy::new(Settings::default(), Response::Kill);
    let mut pass = Pass::new(charge, target.eyes(row)?, policy, Arc::clone(&channel));
    let began = clock::now();
    let mut killed = false;
    for step in 0..MOST_STEPS {
        target.stage(trouble, step, killed)?;
        let late = if step > 0 { LATE } else { Duration::ZERO };
        let now = began + late + trouble.step() * step;
        let woken = step == 0 || eyes.next_event().is_some();
        pass.once(now, woken, &mut eyes, &mut spare)?;
        while let Some((_, notice)) = channel.next() {
            match notice {
                Notice::Hit {
                    rung: Rung::Sigkill,
                    outcome,
                    ..
                } => {
                    killed = outcome == Outcome::Delivered;
                    // Time that is made up does not pass for the child.
                    if !killed || !child.is_dead() {
                        return Ok(false);
                    }
                }
                Notice::Recovered { .. } if killed => {
                    return Ok(status.late_looks.load(Ordering::Relaxed) > 0);
                }
                _ => {}
            }
        }
    }
    Ok(false)
}

/// Says of the child that it runs a test.
fn test_of(pid: u32) -> io::Result<Board> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    let stat = parse_stat(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let board = Board::default();
    board.put_up(std::iter::once(OnBoard {
        pid,
        start_ticks: stat.start_ticks,
        serial: 1,
    }));
    Ok(board)
}

const MEMINFO: &str =
    "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n";

/// The files of a cgroup, in memory.
struct MadeUp {
    current: File,
    stat: File,
    pressure: File,
    io_pressure: File,
    procs: File,
}

impl MadeUp {
    fn new(pid: u32) -> io::Result<Self> {
        Ok(Self {
            current: file("")?,
            stat: file("")?,
            pressure: file("")?,
            io_pressure: file("")?,
            procs: file(&format!("{pid}\n"))?,
        })
    }

    fn eyes(&self, row: Row) -> io::Result<TargetEyes> {
        let reread = |file: &File| file.try_clone().map(Reread::of);
        let memory = MemoryFiles::of(reread(&self.current)?, reread(&self.stat)?);
        Ok(TargetEyes {
            memory: Some(memory),
            pressure: Some(reread(&self.pressure)?),
            io_pressure: Some(reread(&self.io_pressure)?),
            listing: Listing::Cgroup(vec![reread(&self.procs)?]),
            limit_bytes: Some(LIMIT_BYTES),
            row: Some(row),
        })
    }

    /// Writes what the kernel would say at that step.
    fn stage(&self, trouble: Trouble, step: u32, killed: bool) -> io::Result<()> {
        const MIB: u64 = 1 << 20;
        let us = (trouble.step() * step).as_micros() as u64;
        let step = u64::from(step);
        let (current, stall_us, refaults) = match trouble {
            _ if killed => (LIMIT_BYTES / 8, 0, 0),
            Trouble::Leak => (LIMIT_BYTES / 8 + step * 10 * MIB, 0, 0),
            Trouble::Thrash => (LIMIT_BYTES - MIB, us * 9 / 10, step * 500),
        };
        let current = current.min(LIMIT_BYTES - MIB);
        write(&self.current, &format!("{current:<20}\n"))?;
        let stat = format!(
            "anon {current:<20}\nfile 0\nworkingset_refault_anon {refaults:<20}\nworkingset_refault_file 0\n"
        );
        write(&self.stat, &stat)?;
        let line =
            |what| format!("{what} avg10=0.00 avg60=0.00 avg300=0.00 total={stall_us:<20}\n");
        let pressure = line("some") + &line("full");
        write(&self.pressure, &pressure)?;
        write(&self.io_pressure, &pressure)
    }
}

fn file(text: &str) -> io::Result<File> {
    let file = File::from(memfd_create(c"memwatch-drill", MFdFlags::MFD_CLOEXEC)?);
    write(&file, text)?;
    Ok(file)
}

/// Texts of one file are always of one length.
fn write(file: &File, text: &str) -> io::Result<()> {
    file.write_all_at(text.as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_goes_through_to_the_return_of_the_memory() {
        for trouble in [Trouble::Leak, Trouble::Thrash] {
            assert!(run(trouble).expect("memory and a child"), "{trouble:?}");
        }
    }
}
