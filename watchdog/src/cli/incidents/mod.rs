//! `memwatch incidents`: which there were, and one of them as words, as a picture, as a trace. What a picture
//! shows is `incident::picture`'s, where incidents are found `sources`'s.

mod listing;
mod pages;
mod sources;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;

use super::complete;
use crate::agent::blackbox;
use crate::config::Incidents;
use crate::control;
use crate::export::{Spool, place};
use crate::incident::store::LAST;
use crate::incident::{Record, Style, sparklines, summary};

use sources::Sources;

/// The long help.
pub const ABOUT: &str = "\
Show what memwatch has kept: each intervention, each kill of the kernel's, each freeze.

root sees the incidents of the service, everybody those of the own runs, and those of the own targets that the \
service guarded, which it is asked for. ID is the beginning of an incident's id, as much as tells it from the \
others, or `last`, or a file that `memwatch attach --report` wrote.";

/// Below the long help.
pub const ABOUT_MORE: &str = "\
Examples:
  memwatch incidents list --since 1d
  memwatch incidents show last
  memwatch incidents open 01970a3f
  memwatch incidents html report.json -o report.html

Files:
  /var/lib/memwatch/incidents            the service's: root's alone
  $XDG_STATE_HOME/memwatch/incidents     the own runs'; default ~/.local/state
  $XDG_CACHE_HOME/memwatch               pictures, unless -o says where; default ~/.cache

Exit codes:
  0     done
  125   there is no such incident, it cannot be read, or the picture cannot be written";

/// `memwatch incidents`.
#[derive(Clone, Debug, Args)]
pub struct IncidentsArgs {
    /// What to do; list them, if nothing is said.
    #[command(subcommand)]
    command: Option<IncidentsCommand>,
    /// Where else than usual.
    #[command(flatten)]
    place: Place,
}

/// Where incidents lie, if not where they usually do.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Place {
    /// The incidents in this directory, and no others
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) dir: Option<PathBuf>,
    /// The daemon that listens here
    #[arg(long, value_name = "PATH", default_value = control::SOCKET, global = true)]
    pub(super) socket: PathBuf,
}

#[derive(Clone, Debug, Subcommand)]
enum IncidentsCommand {
    /// List them, the newest last
    List(listing::ListArgs),
    /// Say what happened: who was ended and why, and how it came to that over time
    Show(ShowArgs),
    /// Draw one as an HTML page that needs nothing else, with a trace for Perfetto beside it; print where
    Html(pages::HtmlArgs),
    /// Draw one and open it in the browser
    Open(pages::OpenArgs),
}

#[derive(Clone, Debug, Args)]
struct ShowArgs {
    /// Which
    #[arg(value_name = "ID", default_value = "last", add = ArgValueCandidates::new(complete::incidents))]
    id: String,
    /// Print its record as JSON
    #[arg(long)]
    json: bool,
}

/// Runs it; the exit code.
///
/// # Errors
/// There is no such incident, it cannot be read, or the outcome cannot be printed or written.
pub fn run(args: &IncidentsArgs) -> anyhow::Result<ExitCode> {
    if args.place.dir.is_none() {
        recover();
    }
    let sources = Sources::of(&args.place);
    match &args.command {
        None => listing::run(&listing::ListArgs::default(), &sources)?,
        Some(IncidentsCommand::List(list)) => listing::run(list, &sources)?,
        Some(IncidentsCommand::Show(show)) => self::show(show, &sources)?,
        Some(IncidentsCommand::Html(html)) => pages::html(html, &sources)?,
        Some(IncidentsCommand::Open(open)) => pages::open(open, &sources)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What a black box tells of this machine's end becomes an incident now, if nobody has seen to that since. Older ones
/// do not go for it: how many are kept the configuration says, to who runs commands.
fn recover() {
    let Some(state) = place::of_a_run().ok().filter(|state| state.exists()) else {
        return;
    };
    let all = Incidents {
        most: u32::MAX,
        most_bytes: u64::MAX,
        ..Incidents::default()
    };
    let keep = |record: &Record| {
        let kept = Spool::open(&state, &all).and_then(|spool| spool.keep(record));
        blackbox::was_kept(kept, warn)
    };
    for error in blackbox::recover(&state, keep).failed {
        warn(&error.to_string());
    }
}

fn show(args: &ShowArgs, sources: &Sources) -> anyhow::Result<()> {
    let record = sources.read(&args.id)?;
    if args.json {
        return print(&String::from_utf8_lossy(&record.to_json()));
    }
    let style = style();
    let text = [
        listing::identity(&record),
        summary(&record, style),
        sparklines(&record, style),
    ];
    print(&text.concat())
}

/// This user's incident of which that is the beginning of the id, or the word for the newest.
///
/// # Errors
/// There is none, or it cannot be read.
pub(super) fn read(typed: &str) -> anyhow::Result<Record> {
    Sources::of(&usual()).read(typed)
}

fn usual() -> Place {
    Place {
        socket: control::SOCKET.into(),
        dir: None,
    }
}

/// The ids of this user's incidents, the newest first, and the word for that.
pub(super) fn ids() -> Vec<String> {
    let ids = Sources::of(&usual()).ids();
    let last = (!ids.is_empty()).then(|| LAST.to_owned());
    let ids = ids.iter().rev().map(ToString::to_string);
    last.into_iter().chain(ids).collect()
}

/// For standard output.
fn style() -> Style {
    let is_terminal = io::stdout().is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // SAFETY: the size is plain numbers and the call fills it or fails.
    let columns = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) == 0).then_some(size.ws_col)
    };
    Style {
        color: is_terminal && !no_color,
        width: columns.filter(|&columns| columns > 0).map(usize::from),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot print the incidents")
}

/// What was passed over is said where it does not get into what is printed.
fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "memwatch: {text}"); // nobody is left to tell if it is closed
}
