//! `memwatch record`: the flight recorder alone. It is `memwatch attach` as a dry run with no limits and every look
//! written down, so that what is recorded is what memwatch would see; running that is `agent::run`'s.

use super::failure;
use super::usage::{self, OWN_FAILURE};
use crate::agent::launch::{LaunchError, Program};
use crate::agent::run::{self, Orders, Subject};
use crate::config::{Attach, Config, Exporters, Incidents, Limit, UseDaemon};
use crate::control;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// The long help.
pub const ABOUT: &str = "\
Write down every look at a program, a process or a cgroup, and do nothing to it: nobody is signalled, no limit is \
set, until it ends or memwatch is told to (Ctrl-C). `memwatch replay FILE` then says what memwatch would have done, \
also with other settings.";

/// The ways to call it.
pub const USAGE: &str = "\
memwatch record [OPTIONS] FILE -- PROGRAM [ARGUMENT]...
       memwatch record [OPTIONS] --pid PID FILE
       memwatch record [OPTIONS] --cgroup PATH FILE";

/// Below the long help.
pub const ABOUT_MORE: &str = "\
A process that is named with --pid is moved to a cgroup of its own with its descendants, as by `memwatch attach`, \
and back at the end: only so can its memory and its pressure be told from others'.

What memwatch would do is said while it records, as for `memwatch attach --dry-run`.

Exit codes:
  the command's own, or 0 with --pid and --cgroup
  125   memwatch itself failed; FILE must not exist yet
  126, 127   the command cannot be executed, or does not exist";

/// What is recorded, and where.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct RecordArgs {
    /// The file that is made, with a look on each line
    file: PathBuf,
    #[command(flatten)]
    subject: SubjectArgs,
}

/// Exactly one of these.
#[derive(Clone, Debug, Args)]
#[group(id = "whom", required = true, multiple = false)]
struct SubjectArgs {
    /// A running process and its descendants
    #[arg(long, value_name = "PID", value_parser = usage::pid)]
    pid: Option<i32>,
    /// A cgroup: a directory below /sys/fs/cgroup
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// A program to run, with its arguments
    #[arg(last = true, value_name = "PROGRAM", num_args = 1..)]
    program: Vec<OsString>,
}

/// Records; the exit code. What went wrong before the command ran has been said.
pub fn run(args: &RecordArgs, config: Config) -> u8 {
    let SubjectArgs {
        pid,
        cgroup,
        program,
    } = &args.subject;
    let subject = match (pid, cgroup, program.split_first()) {
        (Some(pid), ..) => Subject::Pid(pid.unsigned_abs()),
        (_, Some(path), _) => Subject::Cgroup(path.clone()),
        (_, _, Some((program, arguments))) => Subject::Program(Program {
            program: program.clone(),
            arguments: arguments.to_vec(),
            environment: Vec::new(),
        }),
        (None, None, None) => unreachable!("clap requires one of the group"),
    };
    let orders = Orders {
        subject,
        line: None,
        attach: untouched(config.attach),
        settings: config.policy,
        with_arguments: false,
        record: Some(args.file.clone()),
        ctrf: None,
        // Nothing happens of which others would be told.
        incidents: Incidents {
            of_runs: false,
            ..config.incidents
        },
        exporters: Exporters::default(),
        daemon: control::SOCKET.into(),
        tests: None,
    };
    run::run(orders).unwrap_or_else(|error| {
        failure::say(&*error);
        error
            .downcast_ref::<LaunchError>()
            .map_or(OWN_FAILURE, LaunchError::exit_code)
    })
}

/// Whatever the configuration says is done to targets is not done to this one.
fn untouched(attach: Attach) -> Attach {
    Attach {
        memory_max: Limit::None,
        memory_high: Limit::None,
        timeout: None,
        test_memory: None,
        test_timeout: None,
        pytest: false,
        dry_run: true,
        daemon: UseDaemon::Never,
        safe: false,
        report: None,
        ..attach
    }
}
