//! `memwatch tests`: what concerns a project's tests, beside running them. One file per subcommand; what is judged
//! is `crate::tests`'s, where runs are kept is `crate::history`'s. Here is what they share: records are read and
//! answers printed.

mod classify;
mod compare;
mod guard;
mod history;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::args::Common;
use crate::host::file_error::FileError;
use crate::incident::{Record, Text};
use crate::tests::Run;

use classify::ClassifyArgs;
use compare::CompareArgs;
use history::HistoryArgs;

/// The long help.
pub const ABOUT: &str = "\
What concerns a project's tests. To run them is `memwatch attach`'s.

RUN is the record of a run of pytest: what `memwatch attach --report FILE -- pytest` writes.";

/// `memwatch tests`.
#[derive(Clone, Debug, Args)]
pub struct TestsArgs {
    /// What to do.
    #[command(subcommand)]
    command: TestsCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum TestsCommand {
    /// Say which tests are slow or take much memory, and mark them for pytest
    #[command(long_about = classify::ABOUT, after_long_help = classify::ABOUT_MORE)]
    Classify(ClassifyArgs),
    /// Say which tests got worse since the runs of a base
    #[command(
        long_about = compare::ABOUT,
        override_usage = compare::USAGE,
        after_long_help = compare::ABOUT_MORE
    )]
    Compare(CompareArgs),
    /// Keep runs, and show what became of their tests
    #[command(long_about = history::ABOUT, after_long_help = history::ABOUT_MORE)]
    History(HistoryArgs),
    /// Find direct calls of pytest in scripts, Makefiles and CI files
    #[command(long_about = guard::ABOUT, after_long_help = guard::ABOUT_MORE)]
    Guard(guard::GuardArgs),
}

/// Runs the subcommand; the exit code.
///
/// # Errors
/// What it was given cannot be read or used, or what comes out cannot be written.
pub fn run(args: &TestsArgs, common: &Common) -> anyhow::Result<ExitCode> {
    match &args.command {
        TestsCommand::Classify(args) => classify::run(args),
        TestsCommand::Compare(args) => compare::run(args),
        TestsCommand::History(args) => history::run(args),
        TestsCommand::Guard(args) => guard::run(args, common),
    }
}

/// The runs in `files`. One that is named twice counts once: what it measured is no second time.
fn read_runs(files: &[PathBuf]) -> anyhow::Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for file in files {
        let run = read_run(file)?;
        if !runs.iter().any(|known| known.id == run.id) {
            runs.push(run);
        }
    }
    Ok(runs)
}

fn read_run(file: &Path) -> anyhow::Result<Run> {
    let bytes = std::fs::read(file).map_err(FileError::at("read", file))?;
    let cannot = || {
        let file = Text::of_name(file.as_os_str().as_encoded_bytes());
        format!("cannot use {file}")
    };
    let record = Record::from_json(&bytes).with_context(cannot)?;
    Run::of(&record).with_context(cannot)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot print the tests")
}

/// Columns of figures, right-aligned, and what stands last as it is.
fn table<const N: usize>(heads: [&str; N], last: &str, rows: &[([String; N], String)]) -> String {
    let widths: [usize; N] = std::array::from_fn(|n| {
        let cells = rows.iter().map(|(cells, _)| cells[n].chars().count());
        cells.chain([heads[n].len()]).max().unwrap_or(0)
    });
    let line = |cells: &[String], last: &str| {
        let cells = cells.iter().zip(widths);
        let cells = cells.map(|(cell, width)| format!("{cell:>width$}  "));
        format!("{}{last}\n", cells.collect::<String>())
    };
    let mut table = line(&heads.map(str::to_owned), last);
    table.extend(rows.iter().map(|(cells, last)| line(cells, last)));
    table
}

/// `1 test`, `2 tests`.
fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
