//! An innocent that is never still: its threads sleep, compute and read a file that no limit can hold, turn
//! by turn, so that it can be met in every state. It may execute itself anew in the middle of that.

use std::fs::File;
use std::hint::spin_loop;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::Failure;
use crate::random::XorShift;
use crate::safety::Deadline;

const TURN: Duration = Duration::from_millis(5);
const BLOCK: usize = 64 << 10;

/// How it spends its time.
#[derive(clap::Args)]
pub(crate) struct Habits {
    /// Threads beside the first.
    #[arg(long, default_value_t = 0)]
    others: u32,
    /// What they read, if they do. The pages of a hole come from nowhere: no disk is waited for.
    #[arg(long)]
    file: Option<PathBuf>,
    /// After so many milliseconds the last of the threads executes this program anew, with one thread.
    #[arg(long)]
    execute_after_ms: Option<u64>,
}

pub(crate) fn run(deadline: Deadline, habits: &Habits) -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGKILL)?;
    let file = habits.file.as_deref().map(File::open).transpose()?;
    let blocks = match &file {
        Some(file) => file.metadata()?.len() / BLOCK as u64,
        None => 0,
    };
    let live = |thread| {
        let execute_at = habits
            .execute_after_ms
            .filter(|_| thread == habits.others)
            .map(|ms| Instant::now() + Duration::from_millis(ms));
        let mut random = XorShift::new(thread ^ std::process::id());
        let mut block = vec![0; BLOCK];
        while !deadline.passed() {
            if execute_at.is_some_and(|at| Instant::now() > at) {
                return Err(execute_anew(habits));
            }
            let end = Instant::now() + TURN;
            match (random.next() % 3, &file) {
                (0, _) => sleep(TURN),
                (1, Some(file)) => {
                    while Instant::now() < end {
                        file.read_at(&mut block, random.next() % blocks * BLOCK as u64)?;
                    }
                }
                _ => {
                    while Instant::now() < end {
                        spin_loop();
                    }
                }
            }
        }
        Ok(())
    };
    scope(|scope| {
        let live = &live;
        let others: Vec<_> = (1..=habits.others)
            .map(|thread| scope.spawn(move || live(thread)))
            .collect();
        live(0)?;
        others
            .into_iter()
            .try_for_each(|other| other.join().expect("no panic"))
    })?;
    Ok(())
}

/// Comes back only with the reason why it failed.
fn execute_anew(habits: &Habits) -> io::Error {
    let mut command = Command::new("/proc/self/exe");
    command.arg("restless");
    if let Some(file) = &habits.file {
        command.arg("--file").arg(file);
    }
    if let Some(ms) = habits.execute_after_ms {
        command.arg("--execute-after-ms").arg(ms.to_string());
    }
    command.exec()
}
