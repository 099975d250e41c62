//! Hogs that leak anonymous memory, in the started process or in a session of their own.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::mman::MmapAdvise;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, setsid};

use crate::memory::{PAGE, Region};
use crate::safety::{Deadline, memory_limit};
use crate::size::parse_size;
use crate::{Common, Failure};

/// How fast a leak is.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Pace {
    /// Bytes per second; without it, as fast as the machine can.
    #[arg(long, value_parser = parse_size)]
    rate: Option<u64>,
    /// Ask for huge pages: 2 MiB with each fault.
    #[arg(long)]
    huge: bool,
}

/// One leaking process.
pub(crate) fn run(common: &Common, deadline: Deadline, pace: Pace) -> Result<(), Failure> {
    memory_limit()?;
    common.announce_culprit()?;
    leak(deadline, pace)
}

/// The child leaves its parent's session and process group, as a daemon or a job does, and leaks.
pub(crate) fn run_in_own_session(
    common: &Common,
    deadline: Deadline,
    pace: Pace,
) -> Result<(), Failure> {
    memory_limit()?;
    // SAFETY: this program has one thread, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            // However the child ends, waiting was all that the parent had to do.
            waitpid(child, None)?;
            Ok(())
        }
        ForkResult::Child => {
            deadline.arm_backstop();
            setsid()?;
            common.announce_culprit()?;
            leak(deadline, pace)
        }
    }
}

/// Takes memory and keeps it until the deadline.
pub(crate) fn leak(deadline: Deadline, pace: Pace) -> Result<(), Failure> {
    const REGION: usize = 64 << 20;
    let start = Instant::now();
    let mut leaked = 0_u64;
    loop {
        let region = Region::anonymous(REGION)?;
        if pace.huge {
            region.advise(MmapAdvise::MADV_HUGEPAGE)?;
        }
        for page in 0..region.pages() {
            region.write_page(page);
            leaked += PAGE as u64;
            // Every 256 KiB is often enough for the clock and fine enough for a slow leak.
            if leaked.is_multiple_of(256 << 10) {
                if deadline.passed() {
                    return Ok(());
                }
                if let Some(rate) = pace.rate {
                    let due = Duration::from_secs_f64(leaked as f64 / rate as f64);
                    sleep(due.saturating_sub(start.elapsed()));
                }
            }
        }
    }
}
