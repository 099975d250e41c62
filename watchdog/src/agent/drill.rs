//! The drill: whole kills, before there is need of one, so that all of the code and the stack that a kill takes
//! is in memory and stays there (locked by [`super::awake`]): what only a kill runs would otherwise be read from
//! the disk when it is needed first, under pressure. The rest of the program is not kept.
//!
//! A decider like any other looks at a target like any other, but for the files of its cgroup and of the machine and
//! the maps of the BPF programs, which are made up, and for its processes, which are children of memwatch's own. Its
//! time is made up, too, so that nothing is waited for but a child's death. Standing in for systemd-oomd is gone
//! through by [`takeover::drill`].

use super::channel::{Channel, Notice, RIVALS, Status, TargetId};
use super::deciding::{Arrival, Decider, Inbox, Way};
use super::eyes::{Eyes, KernelEyes, Listing, MachineEyes, TargetEyes};
use super::members::Members;
use super::pass::{Charge, Pass};
use super::recorder::{Lane, Recorder};
use super::rehearsal::Child;
use super::takeover;
use super::testing::{Board, OnBoard};
use crate::act::{Mode, Outcome};
use crate::bpf::Reader;
use crate::host::clock;
use crate::host::memory::MemoryFiles;
use crate::host::process::parse_stat;
use crate::host::reread::Reread;
use crate::watch::{Policy, Response, Rung, Settings};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Pid, setpgid};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const LIMIT_BYTES: u64 = 1 << 30;
const TARGET: TargetId = 0;
/// More turns than a drill takes.
const MOST_STEPS: u32 = 200;
/// By so much all looks but the first come later than asked for: under pressure they do, and what counts it is to be
/// in memory, too.
const LATE: Duration = Duration::from_secs(2);
/// More than a notice has room for.
const MANY: usize = RIVALS + 3;
/// Until what has happened is forgotten, and a target that rests is overdue.
const AFTERWARDS: Duration = Duration::from_secs(12);

/// What goes wrong in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It fills its limit.
    Leak,
    /// It stalls at its limit, and reads back what was taken away.
    Thrash,
    /// It fills the machine; it has no limit, and is one of many.
    Flood,
    /// It nearly fills its limit, and gets away by itself.
    Escape,
}

impl Trouble {
    const ALL: [Self; 4] = [Self::Leak, Self::Thrash, Self::Flood, Self::Escape];

    /// When a step is, in the drill's own time.
    fn at(self, step: u32) -> Duration {
        match self {
            Self::Leak => Duration::from_millis(5) * step,
            Self::Thrash => Duration::from_millis(50) * step,
            Self::Flood => Duration::from_millis(25) * step,
            // Nothing is near any more, and what was is over after some seconds.
            Self::Escape => {
                Duration::from_millis(10) * step + AWAY * step.saturating_sub(NEAR_STEPS)
            }
        }
    }

    /// What the target and the machine look like at that step.
    fn figures(self, step: u32) -> Figures {
        let us = self.at(step).as_micros() as u64;
        let steps = u64::from(step);
        let calm = Figures {
            current_bytes: LIMIT_BYTES / 8,
            available_bytes: AVAILABLE_BYTES,
            ..Figures::default()
        };
        let filled = |steps: u64| (LIMIT_BYTES / 8 + steps * 10 * MIB).min(LIMIT_BYTES - MIB);
        match self {
            Self::Leak => Figures {
                current_bytes: filled(steps),
                ..calm
            },
            Self::Thrash => Figures {
                current_bytes: LIMIT_BYTES - MIB,
                stall_us: us * 9 / 10,
                refaults: steps * 500,
                ..calm
            },
            Self::Flood => Figures {
                current_bytes: steps * 100 * MIB,
                available_bytes: AVAILABLE_BYTES.saturating_sub(steps * 100 * MIB),
                ..calm
            },
            Self::Escape => Figures {
                current_bytes: filled(steps.min(NEAR_STEPS.into())),
                ..calm
            },
        }
    }
}

/// After so many steps a leak is near enough to its limit to be told of, and too far from it to be ended.
const NEAR_STEPS: u32 = 82;
/// How much longer than before a step takes from then on.
const AWAY: Duration = Duration::from_millis(240);
const AVAILABLE_BYTES: u64 = 8 << 30;

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    current_bytes: u64,
    available_bytes: u64,
    stall_us: u64,
    refaults: u64,
}

/// Goes through all that can go wrong; whether each came to its end: the child signalled and seen to be gone, or what
/// it got away from told.
///
/// # Errors
/// No child, or no file in memory, could be made.
pub fn run_all() -> io::Result<bool> {
    let mut all = true;
    for trouble in Trouble::ALL {
        all &= run(trouble)?;
    }
    Ok(all && takeover::drill::run()?)
}

fn run(trouble: Trouble) -> io::Result<bool> {
    let children = children(trouble)?;
    let files = MadeUp::new(&children)?;
    let channel = Arc::new(Channel::new()?);
    let way = Way {
        inbox: Arc::new(Inbox::new(1)),
        channel: Arc::clone(&channel),
    };
    let status = Arc::new(Status::default());
    // The leak is a test's, which is asked to fail first.
    let first = children.first().map_or(0, Child::pid);
    let tests = (trouble == Trouble::Leak).then(|| test_of(first));
    let charge = Charge {
        id: TARGET,
        leader: None,
        uid: None,
        mode: Mode::Real,
        status: Arc::clone(&status),
        recorder: Some(Recorder::new(Arc::new(Lane::new(8, 2)), TARGET, false)),
        tests: tests.transpose()?.map(Arc::new),
    };
    let mut policy = Policy::new(Settings::default(), Response::Kill);
    if trouble == Trouble::Flood {
        policy.one_of_many();
    }
    let pass = Pass::new(
        charge,
        files.target_eyes(trouble)?,
        policy,
        Arc::clone(&channel),
    );
    let tables = vec![Members::new(2 * MANY)];
    let mut decider = Decider::new(
        Eyes::new(files.machine_eyes()?),
        tables,
        1,
        way.clone(),
        None,
    );
    way.send(Arrival::Target(Box::new(pass)));
    let began = clock::now();
    let mut killed = false;
    for step in 0..MOST_STEPS {
        let figures = match killed {
            true => Figures {
                available_bytes: AVAILABLE_BYTES,
                ..Figures::default()
            },
            false => trouble.figures(step),
        };
        files.write(&figures)?;
        let late = if step > 0 { LATE } else { Duration::ZERO };
        let now = began + late + trouble.at(step);
        decider.turn_at(now);
        if step == 0 {
            decider.rest(Duration::ZERO);
            // They come later than the target, as the real ones do.
            let (reader, row) = Reader::made_up(first)?;
            way.send(Arrival::Kernel(KernelEyes {
                reader,
                slot: 0,
                names: true,
            }));
            way.send(Arrival::Row(TARGET, row));
        }
        while let Some((_, notice)) = channel.next() {
            let is_over = match notice {
                // Too late.
                Notice::Ordered { order, .. } if order.cause.headroom_bytes == 0 => {
                    return Ok(false);
                }
                Notice::Hit {
                    rung: Rung::Sigkill,
                    member,
                    outcome,
                    ..
                } => {
                    // It may be dying still.
                    decider.turn_at(now);
                    // Time that is made up does not pass for the child.
                    let child = children.iter().find(|child| child.pid() == member.pid);
                    killed = outcome == Outcome::Delivered && child.is_some_and(Child::is_dead);
                    if !killed {
                        return Ok(false);
                    }
                    false
                }
                Notice::Recovered { .. } => killed,
                Notice::NearMiss(_) => trouble == Trouble::Escape,
                _ => false,
            };
            if is_over {
                decider.turn_at(now + AFTERWARDS);
                way.send(Arrival::Departure(TARGET));
                decider.turn_at(now + AFTERWARDS);
                return Ok(status.late_looks.load(Ordering::Relaxed) > 0);
            }
        }
    }
    Ok(false)
}

/// Who is in the target: in a flood many, each a job of its own. Whom of them it hits is all one, for their memory is
/// the same: memwatch's.
fn children(trouble: Trouble) -> io::Result<Vec<Child>> {
    let many = trouble == Trouble::Flood;
    let children = (0..if many { MANY } else { 1 }).map(|_| Child::start());
    let children = children.collect::<io::Result<Vec<Child>>>()?;
    for child in children.iter().filter(|_| many) {
        let pid = Pid::from_raw(child.pid().cast_signed());
        setpgid(pid, pid)?;
    }
    Ok(children)
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

/// The files of a machine and of a cgroup, in memory.
struct MadeUp {
    meminfo: File,
    current: File,
    stat: File,
    pressure: File,
    procs: File,
}

impl MadeUp {
    fn new(children: &[Child]) -> io::Result<Self> {
        // And one that is gone since: a number that the kernel never hands out (PID_MAX_LIMIT).
        let procs: String = children
            .iter()
            .map(|child| format!("{}\n", child.pid()))
            .collect();
        let procs = procs + "4194305\n";
        Ok(Self {
            meminfo: file("")?,
            current: file("")?,
            stat: file("")?,
            pressure: file("")?,
            procs: file(&procs)?,
        })
    }

    fn machine_eyes(&self) -> io::Result<MachineEyes> {
        Ok(MachineEyes {
            meminfo: reread(&self.meminfo)?,
            pressure: Some(reread(&self.pressure)?),
            arcstats: None,
        })
    }

    fn target_eyes(&self, trouble: Trouble) -> io::Result<TargetEyes> {
        // Which of the two this machine has is not known here.
        let is_v2 = trouble != Trouble::Escape;
        let memory = MemoryFiles::of(is_v2, reread(&self.current)?, reread(&self.stat)?);
        Ok(TargetEyes {
            memory: Some(memory),
            pressure: Some(reread(&self.pressure)?),
            io_pressure: Some(reread(&self.pressure)?),
            listing: Listing::Cgroup(vec![reread(&self.procs)?]),
            limit_bytes: (trouble != Trouble::Flood).then_some(LIMIT_BYTES),
            row: None,
        })
    }

    /// Writes what the kernel would say.
    fn write(&self, figures: &Figures) -> io::Result<()> {
        let Figures {
            current_bytes,
            available_bytes,
            stall_us,
            refaults,
        } = *figures;
        let available = available_bytes / 1024;
        write(
            &self.meminfo,
            &format!(
                "MemTotal: 16777216 kB\nMemAvailable: {available:<20} kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
            ),
        )?;
        write(&self.current, &format!("{current_bytes:<20}\n"))?;
        let stat = format!(
            "anon {current_bytes:<20}\nfile 0\nworkingset_refault_anon {refaults:<20}\nworkingset_refault_file 0\ntotal_rss {current_bytes:<20}\n"
        );
        write(&self.stat, &stat)?;
        let line =
            |what| format!("{what} avg10=0.00 avg60=0.00 avg300=0.00 total={stall_us:<20}\n");
        write(&self.pressure, &(line("some") + &line("full")))
    }
}

pub(super) fn reread(file: &File) -> io::Result<Reread> {
    file.try_clone().map(Reread::of)
}

pub(super) fn file(text: &str) -> io::Result<File> {
    let file = File::from(memfd_create(c"memwatch-drill", MFdFlags::MFD_CLOEXEC)?);
    write(&file, text)?;
    Ok(file)
}

/// Texts of one file are always of one length.
pub(super) fn write(file: &File, text: &str) -> io::Result<()> {
    file.write_all_at(text.as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_goes_through_to_the_return_of_the_memory() {
        for trouble in Trouble::ALL {
            assert!(run(trouble).expect("memory and a child"), "{trouble:?}");
        }
    }
}
