//! `memwatch tests history`: adds runs to the history, lists them, and writes the page.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::history::{History, Kept, default_file, page, project_of};
use crate::incident::{ReportFile, Text, bytes, duration};

/// The long help.
pub(super) const ABOUT: &str = "\
Keep runs, and show what became of their tests.

A run is kept once, however often it is added: its record's UUID names it. Runs belong to a project, which is \
the working copy of git that the current directory is in, or else that directory, by its path; --project gives \
it another name.";

/// Below the long help.
pub(super) const ABOUT_MORE: &str = "\
Examples:
  memwatch tests history add run.json
  memwatch tests history html tests.html
  memwatch tests history forget --keep 500
  memwatch tests compare --base-history 10 run.json

Files:
  $XDG_STATE_HOME/memwatch/history.db   default ~/.local/state

Exit codes:
  0     done
  125   the history or a record cannot be used, or the page cannot be written";

/// `memwatch tests history`.
#[derive(Clone, Debug, Args)]
pub(super) struct HistoryArgs {
    /// What to do.
    #[command(subcommand)]
    command: HistoryCommand,
    /// Where and whose.
    #[command(flatten)]
    place: Place,
}

/// Where the history lies, and whose runs are meant.
#[derive(Clone, Debug, Args)]
pub(super) struct Place {
    /// The history, instead of that in the user's state directory
    #[arg(long, value_name = "FILE", global = true)]
    db: Option<PathBuf>,
    /// The project whose runs are meant, instead of the current directory's
    #[arg(long, value_name = "NAME", global = true)]
    project: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum HistoryCommand {
    /// Keep runs
    Add {
        /// Records of runs
        #[arg(value_name = "RUN", required = true)]
        runs: Vec<PathBuf>,
    },
    /// List the runs that are kept
    List {
        /// Of all projects
        #[arg(long)]
        all: bool,
    },
    /// Forget all runs but the latest
    Forget {
        /// So many are kept, the latest
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32))]
        keep: u32,
    },
    /// Write a page with each test's memory and time over the runs, as one file that needs no network
    Html {
        /// Where to
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// So many runs, the latest
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        last: u32,
    },
}

impl Place {
    /// The history's file.
    pub(super) fn file(&self) -> anyhow::Result<PathBuf> {
        match &self.db {
            Some(file) => Ok(file.clone()),
            None => {
                let variable = std::env::var_os;
                Ok(default_file(variable("XDG_STATE_HOME"), variable("HOME"))?)
            }
        }
    }

    /// The project's name.
    pub(super) fn project(&self) -> anyhow::Result<Text> {
        if let Some(name) = &self.project {
            return Ok(name.as_str().into());
        }
        let directory: io::Result<PathBuf> = std::env::current_dir();
        let directory = directory
            .context("cannot find the current directory; name the project with --project")?;
        Ok(project_of(&directory))
    }
}

/// Runs it; the exit code.
pub(super) fn run(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        HistoryCommand::Add { runs } => add(&args.place, runs)?,
        HistoryCommand::List { all } => list(&args.place, *all)?,
        HistoryCommand::Forget { keep } => forget(&args.place, *keep as usize)?,
        HistoryCommand::Html { file, last } => html(&args.place, file, *last as usize)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn add(place: &Place, files: &[PathBuf]) -> anyhow::Result<()> {
    // All are read before any is kept, so that a wrong name changes nothing.
    let runs = super::read_runs(files)?;
    let project = place.project()?;
    let mut history = History::open_or_create(&place.file()?)?;
    let mut added = 0;
    for run in &runs {
        added += usize::from(history.add(run, &project)?);
    }
    let known = match runs.len() - added {
        0 => String::new(),
        known => format!(", {known} known already"),
    };
    super::print(&format!(
        "{} added to {project}{known}\n",
        super::counted(added, "run")
    ))
}

fn list(place: &Place, all: bool) -> anyhow::Result<()> {
    let project = (!all).then(|| place.project()).transpose()?;
    let runs = History::open(&place.file()?)?.list(project.as_ref())?;
    if runs.is_empty() {
        let of = project.map_or(String::new(), |project| {
            format!(" of {project}; those of all projects: memwatch tests history list --all")
        });
        return super::print(&format!("no runs{of}\n"));
    }
    let row = |run: &Kept| {
        let cells = [
            run.id.to_string(),
            run.started_at.to_string(),
            run.tests.to_string(),
            run.failed.to_string(),
            run.peak_bytes.map_or("-".to_owned(), bytes),
            duration(run.total_us),
        ];
        (cells, run.project.to_string())
    };
    let rows: Vec<_> = runs.iter().map(row).collect();
    let heads = ["RUN", "BEGAN", "TESTS", "FAILED", "MEMORY", "TIME"];
    super::print(&super::table(heads, "PROJECT", &rows))
}

fn forget(place: &Place, keep: usize) -> anyhow::Result<()> {
    let project = place.project()?;
    let mut history = History::open(&place.file()?)?;
    let forgotten = history.forget(&project, keep)?;
    super::print(&format!(
        "{} of {project} forgotten\n",
        super::counted(forgotten, "run")
    ))
}

fn html(place: &Place, file: &std::path::Path, last: usize) -> anyhow::Result<()> {
    let file = ReportFile::open(file)?;
    let project = place.project()?;
    let runs = History::open(&place.file()?)?.last(&project, last, &[])?;
    if runs.is_empty() {
        bail!("no runs of {project}; those of all projects: memwatch tests history list --all");
    }
    file.write_bytes(page(&project, &runs).as_bytes())?;
    Ok(())
}
