//! The program that tests run under memwatch: hogs, which memwatch must end, and innocents, which it
//! must leave alone. This file owns the command line; each workload has a file of its own, and what
//! keeps them from harming the machine is in `safety`. Python workloads are the `.py` files beside it.
//!
//! Every workload ends by itself after `--seconds`, takes the files it makes with it (they are
//! unlinked at birth), and every hog refuses to run outside a limited memory cgroup.
//!
//! Exit codes: 0 done, or the deadline came; 1 an error; 2 usage; 3 refused, no memory limit;
//! 4 a process died that should have lived.

mod brink;
mod burst;
mod bystander;
mod fork_tree;
mod io_stall;
mod leak;
mod measure;
mod memory;
mod random;
mod restless;
mod safety;
mod scratch;
mod shm_leak;
mod size;
mod steady;
mod stream;
mod thrash;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, io};

use clap::{Parser, Subcommand};

use safety::Deadline;
use size::parse_size;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    workload: Workload,
    #[command(flatten)]
    common: Common,
}

/// What every workload is given.
#[derive(clap::Args)]
struct Common {
    /// Ends after this many seconds even if nobody ends it.
    #[arg(long, global = true, default_value_t = 60)]
    seconds: u32,
    /// A hog writes here the pid of the process that ought to be ended.
    /// Without this, the file that $MEMWATCH_CULPRIT_FILE names, if it names one.
    #[arg(long, global = true)]
    culprit: Option<PathBuf>,
    /// Directory for files; they have no name there while they exist.
    #[arg(long, global = true, default_value_os_t = env::temp_dir())]
    dir: PathBuf,
}

impl Common {
    /// Tells the test which process is the guilty one.
    fn announce_culprit(&self) -> io::Result<()> {
        let from_environment = || env::var_os("MEMWATCH_CULPRIT_FILE").map(PathBuf::from);
        match self.culprit.clone().or_else(from_environment) {
            Some(path) => fs::write(path, std::process::id().to_string()),
            None => Ok(()),
        }
    }
}

#[derive(Subcommand)]
enum Workload {
    /// Hog: anonymous memory, as fast as the machine can.
    Leak {
        #[command(flatten)]
        pace: leak::Pace,
    },
    /// Hog: eight children, one of which leaks while the others hold what they have.
    ForkTree {
        #[command(flatten)]
        pace: leak::Pace,
        /// What each of the seven others holds.
        #[arg(long, value_parser = parse_size, default_value = "8M")]
        bystander_size: u64,
    },
    /// Hog: re-reads a mapped file of twice the limit at random.
    Thrash {
        /// How many threads do so.
        #[arg(long, default_value_t = 1)]
        threads: u32,
        /// Falls asleep for good after so many ms of that, with all that it has.
        #[arg(long)]
        asleep_after_ms: Option<u64>,
    },
    /// Hog: a child in a session of its own leaks while its parent waits.
    SetsidLeak {
        #[command(flatten)]
        pace: leak::Pace,
    },
    /// Hog: shared memory, which no process has in its anonymous memory.
    ShmLeak {
        /// Through a mapping, rather than by write(2), which leaves no trace in RSS.
        #[arg(long)]
        mapped: bool,
    },
    /// Innocent: reads a file of four times the limit from start to end through the page cache.
    Stream,
    /// Innocent: fills a share of the limit at a moderate pace and goes on using it.
    Steady {
        #[arg(long, default_value_t = 90)]
        percent: u64,
    },
    /// Innocent: comes near its limit step by step, and takes and gives back memory there.
    Brink {
        #[arg(long, default_value_t = 970)]
        permille: u64,
        #[arg(long, default_value_t = 100)]
        rounds: u32,
    },
    /// Innocent: many short processes.
    Burst {
        #[arg(long, default_value_t = 1000)]
        processes: u32,
    },
    /// Innocent: sleeps, computes, reads and executes, for those who move it about.
    Restless {
        #[command(flatten)]
        habits: restless::Habits,
    },
    /// Innocent: waits for the disk all the time, with memory free.
    IoStall,
    /// Innocent: sleeps ten milliseconds at a time, and writes down how long it was kept from running.
    Bystander {
        /// The file that holds the longest gap so far, in ms.
        #[arg(long)]
        gap: PathBuf,
        /// Comes first on every CPU, with its memory locked: the control.
        #[arg(long)]
        first: bool,
    },
    /// Innocent: tells the nanoseconds of each operation that a line on stdin names: fault, spawn, switch.
    Measure,
}

fn main() -> ExitCode {
    let Cli { workload, common } = Cli::parse();
    let deadline = Deadline::after_seconds(common.seconds);
    let outcome = match workload {
        Workload::Leak { pace } => leak::run(&common, deadline, pace),
        Workload::ForkTree {
            pace,
            bystander_size,
        } => fork_tree::run(&common, deadline, pace, bystander_size),
        Workload::Thrash {
            threads,
            asleep_after_ms,
        } => thrash::run(
            &common,
            deadline,
            threads,
            asleep_after_ms.map(Duration::from_millis),
        ),
        Workload::SetsidLeak { pace } => leak::run_in_own_session(&common, deadline, pace),
        Workload::ShmLeak { mapped } => shm_leak::run(&common, deadline, mapped),
        Workload::Stream => stream::run(&common, deadline),
        Workload::Steady { percent } => steady::run(deadline, percent),
        Workload::Brink { permille, rounds } => brink::run(deadline, permille, rounds),
        Workload::Burst { processes } => burst::run(deadline, processes),
        Workload::Restless { habits } => restless::run(deadline, &habits),
        Workload::IoStall => io_stall::run(&common, deadline),
        Workload::Bystander { gap, first } => bystander::run(deadline, &gap, first),
        Workload::Measure => measure::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::BystanderDied(who)) => {
            eprintln!("workload: {who} died and should have lived");
            ExitCode::from(4)
        }
        Err(Failure::NoLimit) => {
            eprintln!(
                "workload: refused, this process is in no memory cgroup with a limit of at most \
                 half of the machine; run it under `memwatch attach --memory-max 200M -- ...`"
            );
            ExitCode::from(3)
        }
        Err(Failure::Io(error)) => {
            eprintln!("workload: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a workload did not run to its end.
enum Failure {
    Io(io::Error),
    NoLimit,
    BystanderDied(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<nix::errno::Errno> for Failure {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Io(errno.into())
    }
}
