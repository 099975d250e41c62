//! The `memwatch` binary: parse, run, exit code; or help a shell to complete its command line. Everything else is the library's.

use memwatch::cli::{self, Cli, Command, OWN_FAILURE};
use memwatch::config::Verbosity;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    cli::complete::answer_a_shell();
    let cli = match Cli::from_arguments(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code.into(),
    };
    log_to_stderr(cli.common.verbosity());
    run(&cli).unwrap_or_else(|error| {
        cli::failure::say(&*error);
        OWN_FAILURE.into()
    })
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Attach(args) => Ok(cli::attach::run(args, cli.config()?).into()),
        Command::Doctor(args) => cli::doctor::run(args),
        Command::Record(args) => Ok(cli::record::run(args, cli.config()?).into()),
        Command::Replay(args) => {
            let named = cli.common.config.is_some();
            cli::replay::run(args, &cli.config()?, named)
        }
        Command::Guard(args) => cli::guard::run(args),
        Command::Daemon(args) => cli::daemon::run(args, cli.common.config.clone()),
        Command::Config(args) => cli::config::run(args, cli.common.config.clone()),
        Command::Status(args) => cli::status::run(args),
        Command::Export(args) => cli::export::run(args, cli.common.config.clone()),
        Command::Incidents(args) => cli::incidents::run(args),
        Command::Top(args) => cli::top::run(args),
        Command::Tests(args) => cli::tests::run(args, &cli.common),
    }
}

/// memwatch's own log and the BPF programs' (through `log`). `MEMWATCH_LOG` overrides what `-v` and
/// `-q` say.
fn log_to_stderr(verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Quiet => "error",
        Verbosity::Normal => "warn",
        Verbosity::Verbose => "info",
        Verbosity::Trace => "trace",
    };
    let filter = EnvFilter::try_from_env("MEMWATCH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would be told to the same standard error that nobody reads, and panic there.
        .log_internal_errors(false);
    // The journal has the time of each line already (systemd.exec(5)).
    match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => log.without_time().with_target(false).init(),
        None => log.init(),
    }
}
