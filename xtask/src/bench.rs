//! `cargo xtask bench`: what memwatch costs and how fast it is, as tables with their goals. A goal that
//! is not reached stands there as such and fails nothing; what fails is a measurement that could not be
//! made, or a program of memwatch on a path on which it must not be.
//!
//! Each table has a file of its own; `statistics` says what the numbers can tell.

mod abort;
mod agent;
mod awake;
mod budget;
mod guard;
mod held;
mod maps;
mod memory_back;
mod operations;
mod place;
mod programs;
mod pytest;
mod reaction;
mod rounds;
mod statistics;
mod suites;
mod table;
mod targets;
mod telling;
mod tests;
mod thrash;
mod victim;
mod watched;

use std::fs;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::machine;
use crate::workspace::{Release, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these tables.
    tables: Vec<Table>,
    /// Few runs: to see that it works, less what is true.
    #[arg(long)]
    quick: bool,
    /// How often what is run is run, instead of as often as each table does by itself.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Table {
    /// What memwatch costs processes that it does not watch.
    NonTarget,
    /// What memwatch costs processes that it watches.
    Target,
    /// What memwatch costs a test suite, without its plugin for pytest.
    Pytest,
    /// What memwatch costs a test suite with its plugin, and what other plugins cost.
    Tests,
    /// What memwatch costs suites that nobody here wrote.
    Suites,
    /// How soon a test fails that is asked to, calm and in reclaim.
    Abort,
    /// memwatch's own processor time and memory.
    Agent,
    /// From the stall's budget being used up to the victim's exit.
    Reaction,
    /// From SIGKILL to memory that can be used again.
    MemoryBack,
    /// What the guard in the kernel does when memwatch cannot, and while it can; 25 minutes.
    Guard,
    /// Whether the deciding thread stays awake under pressure.
    Loop,
    /// The daemon's processor time and memory with a thousand targets that do nothing.
    Targets,
}

/// Measures what was asked for and prints it.
///
/// # Errors
/// If something is missing or a measurement cannot be made.
pub(crate) fn run(args: &Args) -> Result<()> {
    machine::require()?;
    let release = Release::build()?;
    let scratch = target_dir().join("bench");
    fs::create_dir_all(&scratch)?;
    let tables = match args.tables.as_slice() {
        [] => Table::value_variants(),
        chosen => chosen,
    };
    print_machine()?;
    let pick = |quick: usize, whole| if args.quick { quick } else { whole };
    let runs = |quick, whole| args.runs.map_or(pick(quick, whole), usize::from);
    let seconds = |quick, whole| Duration::from_secs(pick(quick, whole) as u64);
    for table in tables {
        match table {
            Table::NonTarget => operations::outside(&release, runs(6, 90))?,
            Table::Target => operations::inside(&release, &scratch, runs(6, 90))?,
            Table::Pytest => pytest::run(&release, &scratch, runs(6, 30))?,
            Table::Tests => tests::run(&release, &scratch, runs(6, 30))?,
            Table::Suites => suites::run(&release, &scratch, runs(2, 6))?,
            Table::Abort => abort::run(&release, &scratch, runs(2, 10))?,
            Table::Agent => agent::run(&release, seconds(5, 30))?,
            Table::Reaction => reaction::run(&release, &scratch, runs(6, 50))?,
            Table::MemoryBack => memory_back::run(&release, &scratch, runs(6, 60))?,
            Table::Guard => guard::run(&release, &scratch, runs(6, 50))?,
            Table::Loop => awake::run(&release, &scratch, seconds(10, 60))?,
            Table::Targets => targets::run(&release, &scratch, seconds(5, 30))?,
        }
    }
    Ok(())
}

/// Says what the figures are of: they are worth little without.
fn print_machine() -> Result<()> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    println!(
        "\nLinux {}, {} CPUs, load {} when this began",
        kernel.trim(),
        std::thread::available_parallelism()?,
        load.split(' ').next().unwrap_or_default(),
    );
    Ok(())
}
