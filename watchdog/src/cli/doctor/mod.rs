//! `memwatch doctor`: what this machine offers for guarding, what is missing, what that costs, and
//! what to do about it.
//!
//! One direction: `facts` reads (and `probe` tries) → `diagnose` judges, pure → `render` prints.

mod check;
mod diagnose;
mod facts;
mod probe;
mod render;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

pub use check::{Advice, Check, Group, Severity, Trouble, exit_code};
pub use diagnose::diagnose;
pub use facts::{Cgroups, Limits, MachineFacts, OwnLimit};
pub use probe::{BpfFacts, Feature, OwnFacts, Probes, TriggerProbe};
pub use render::{SCHEMA_VERSION, json, terminal};

/// `memwatch doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Say of optional things, too, what they cost and what to do
    #[arg(short, long, conflicts_with = "json")]
    pub all: bool,
}

/// `memwatch doctor --help`, to be given as `long_about` and `after_long_help`.
pub const ABOUT: &str = "\
Say what this machine offers for guarding, what is missing, and what that costs.

Everything is read or really tried, as the user who asks: BPF programs are loaded and dropped, PSI
triggers are set and removed, a child is made and killed. Nothing on the machine is changed. Ask as root for what the daemon
would have.";

/// Below `memwatch doctor --help`.
pub const ABOUT_MORE: &str = "\
Exit codes:
  0   all is fine, or only what memwatch can do without is missing
  1   something important is missing: memwatch protects, but with less
  2   memwatch cannot protect here";

/// Examines the machine, prints the findings to standard output, and returns the exit code.
///
/// # Errors
/// Standard output cannot be written to.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let facts = MachineFacts::read(Path::new("/"), Probes::run());
    let checks = diagnose(&facts);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json(&facts, &checks)?)
    } else {
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        write!(out, "{}", terminal(&checks, args.all, colour))
    }
    .context("cannot print the findings")?;
    Ok(ExitCode::from(exit_code(&checks)))
}
