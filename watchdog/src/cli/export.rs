//! `memwatch export`: whom incidents are told to, from the command line. Delivering is `agent::exporting`'s.

use crate::agent::exporting::{self, Orders};
use crate::agent::identity;
use crate::causes::with_causes;
use crate::config::{self, Exporters};
use crate::control;
use crate::export::desktop::show;
use crate::export::refusal::Refusal;
use crate::export::standing::{self, Report};
use crate::export::{Exporter, Queue, queue};
use crate::incident::{Kind, Record, Verdict, duration};
use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

/// The long help.
pub const ABOUT: &str = "\
Tell others of incidents: what is configured under [export.NAME].

Root reads the machine's files alone and delivers what the daemon and root's commands have kept; everybody else \
delivers what their own commands have kept.";

/// Below the long help.
pub const ABOUT_MORE: &str = "\
Files:
  /var/lib/memwatch    the machine's incidents (incidents/), and what is still to be told (queue/NAME/)
  $XDG_STATE_HOME/memwatch
                       a user's; MEMWATCH_STATE names another place

Exit codes:
  0    everything was told
  1    something was not
  125  memwatch itself failed, or nothing is configured";

/// `memwatch export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// What to do.
    #[command(subcommand)]
    command: ExportCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ExportCommand {
    #[command(flatten)]
    Kept(KeptCommand),
    /// Show a notification, read from standard input, on one's own desktop
    #[command(hide = true)]
    ShowNotification,
}

/// About incidents that are kept.
#[derive(Clone, Debug, Subcommand)]
enum KeptCommand {
    /// Deliver what waits, and whatever comes, until SIGTERM; SIGHUP reads the configuration again
    Run(RunArgs),
    /// Send a marked incident in which nothing happened, and say what came back
    Test {
        /// To this exporter alone
        name: Option<String>,
    },
    /// Say how each exporter does
    List,
    /// Deliver again what a receiver has refused
    Retry {
        /// The exporter's name
        name: String,
    },
    /// Drop what waits for an exporter that is not configured any more
    Forget {
        /// The exporter's name
        name: String,
    },
}

#[derive(Clone, Debug, Args)]
struct RunArgs {
    /// End when everything that waits has been tried
    #[arg(long)]
    once: bool,
    /// Deliver also what was kept before an exporter was configured
    #[arg(long)]
    all: bool,
    /// Send the figures of the daemon that listens here
    #[arg(long, value_name = "PATH", default_value = control::SOCKET)]
    socket: PathBuf,
}

/// Runs it; the exit code. `named` is what `--config` says.
///
/// # Errors
/// The configuration is wrong, or the incidents cannot be reached.
pub fn run(args: &ExportArgs, named: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let command = match &args.command {
        ExportCommand::Kept(command) => command,
        ExportCommand::ShowNotification => {
            show::run(io::stdin().lock())?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let state = exporting::state()?;
    match command {
        KeptCommand::Run(args) => {
            let orders = Orders {
                named,
                state,
                daemon: args.socket.clone(),
                once: args.once,
                all: args.all,
            };
            Ok(code(exporting::run(&orders)?))
        }
        KeptCommand::Test { name } => {
            let exporters = exporting::read(named.as_deref())?.exporters;
            test(&exporters, name.as_deref())
        }
        KeptCommand::List => {
            let exporters = exporting::read(named.as_deref())?.exporters;
            list(&state, &exporters).context("cannot print the exporters")?;
            Ok(ExitCode::SUCCESS)
        }
        KeptCommand::Retry { name } => {
            let count = of_name(&state, name)?.retry()?;
            say(&format!("{count} incidents wait for {name} again\n"))
        }
        KeptCommand::Forget { name } => {
            let exporters = exporting::read(named.as_deref())?.exporters;
            ensure!(
                !exporters.contains_key(name),
                "{name} is configured; remove [export.{name}] first"
            );
            let count = of_name(&state, name)?.remove();
            standing::forget(&state, name);
            say(&format!(
                "{count} incidents do not wait for {name} any more\n"
            ))
        }
    }
}

fn code(is_well: bool) -> ExitCode {
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn say(text: &str) -> anyhow::Result<ExitCode> {
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn of_name(state: &Path, name: &str) -> anyhow::Result<Queue> {
    let names = queue::names(state);
    ensure!(
        names.iter().any(|known| known == name),
        "there is no exporter {name} in {}; there are: {}",
        state.display(),
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    );
    Ok(Queue::of(state, name))
}

fn list(state: &Path, exporters: &Exporters) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if exporters.is_empty() {
        writeln!(
            out,
            "No exporters. Configure one under [export.NAME]: docs/CONFIG.md"
        )?;
    }
    for (name, config) in exporters {
        let report = Report::of(state, name);
        let url = config
            .url
            .as_ref()
            .map_or_else(String::new, |url| format!(" to {}", url.place()));
        writeln!(
            out,
            "{name} ({}{url}): {}",
            kind(name, config),
            report.line()
        )?;
    }
    for report in standing::all(state) {
        if !exporters.contains_key(&report.name) {
            writeln!(
                out,
                "{} (not configured any more): {}",
                report.name,
                report.line()
            )?;
        }
    }
    Ok(())
}

fn kind(name: &str, config: &config::Exporter) -> String {
    let kind = config.of_name(name);
    kind.map_or_else(String::new, |kind| format!("{kind:?}").to_lowercase())
}

/// Sends a test to each, or to the one; whether all took it is the exit code.
fn test(exporters: &Exporters, name: Option<&str>) -> anyhow::Result<ExitCode> {
    if exporters.is_empty() {
        bail!("no exporter is configured; write one under [export.NAME]: docs/CONFIG.md");
    }
    let chosen: Vec<_> = exporters
        .iter()
        .filter(|(known, _)| name.is_none_or(|name| name == *known))
        .collect();
    if let (Some(name), []) = (name, chosen.as_slice()) {
        let known: Vec<&str> = exporters.keys().map(String::as_str).collect();
        bail!(
            "there is no exporter {name}; there are: {}",
            known.join(", ")
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let record = marked();
    let mut is_well = true;
    let mut out = io::stdout().lock();
    for (name, config) in chosen {
        let began = Instant::now();
        let told = match Exporter::new(name, config) {
            Ok(exporter) => match runtime.block_on(exporter.deliver(&record)) {
                Ok(delivered) => Ok(delivered.note.unwrap_or_else(|| "taken".to_owned())),
                Err(Refusal::Later { why, .. }) => Err(format!("not taken now: {why}")),
                Err(Refusal::Never { why }) => Err(format!("refused: {why}")),
            },
            Err(error) => Err(with_causes(&error)),
        };
        let took = duration(began.elapsed().as_micros() as u64);
        is_well &= told.is_ok();
        let line = match told {
            Ok(note) => format!("{name}: taken in {took}: {note}"),
            Err(why) => format!("{name}: FAILED after {took}: {why}"),
        };
        writeln!(out, "{line}").context("cannot print")?;
    }
    writeln!(out, "The incident's id is {}", record.id).context("cannot print")?;
    runtime.shutdown_background();
    Ok(code(is_well))
}

/// An incident in which nothing happened, and which says so.
fn marked() -> Record {
    let now = SystemTime::now();
    let mut record = Record::new(now, now, 0, Verdict::Finished);
    record.kind = Kind::Test;
    record.host = identity::host();
    record.notes = vec!["a test by `memwatch export test`: nothing happened".into()];
    record
}
