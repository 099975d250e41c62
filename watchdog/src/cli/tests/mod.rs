//! `memwatch tests`: what concerns a project's tests, beside running them. One file per subcommand.

mod guard;

use super::args::Common;
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// The long help.
pub const ABOUT: &str = "\
What concerns a project's tests. To run them is `memwatch attach`'s.";

/// `memwatch tests`.
#[derive(Clone, Debug, Args)]
pub struct TestsArgs {
    /// What to do.
    #[command(subcommand)]
    command: TestsCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum TestsCommand {
    /// Find direct calls of pytest in scripts, Makefiles and CI files
    #[command(long_about = guard::ABOUT, after_long_help = guard::ABOUT_MORE)]
    Guard(guard::GuardArgs),
}

/// Runs the subcommand; the exit code.
///
/// # Errors
/// As the subcommand says.
pub fn run(args: &TestsArgs, common: &Common) -> anyhow::Result<ExitCode> {
    match &args.command {
        TestsCommand::Guard(args) => guard::run(args, common),
    }
}
