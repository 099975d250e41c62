//! `memwatch daemon`: from the command line to the service.

use crate::agent::daemon;
use crate::control;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// The long help.
pub const ABOUT: &str = "\
Guard, as the background service of this machine, what the configuration names and what users attach.

Runs in the foreground until SIGTERM; SIGHUP reads the configuration again, and one that is wrong changes nothing. \
Meant for the service manager: systemctl enable --now memwatch.";

/// Below the long help.
pub const ABOUT_MORE: &str = "\
Files:
  /etc/memwatch/memwatch.toml, /etc/memwatch/memwatch.toml.d/*.toml
                       what is guarded; check it with: memwatch config check
  /var/lib/memwatch/incidents
                       what was done, a file for each incident, for root alone";

/// `memwatch daemon`.
#[derive(Clone, Debug, Args)]
pub struct DaemonArgs {
    /// Listen here
    #[arg(long, value_name = "PATH", default_value = control::SOCKET)]
    socket: PathBuf,
}

/// Runs it; the exit code.
///
/// # Errors
/// It could not start.
pub fn run(args: &DaemonArgs, named: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    daemon::run(&args.socket, named).map(ExitCode::from)
}
