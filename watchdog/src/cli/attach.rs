//! `memwatch attach`: from the command line to a run, and from a run's failure to an exit code.

use super::args::{AttachArgs, Target};
use super::failure;
use super::usage::OWN_FAILURE;
use crate::agent::launch::{LaunchError, Program};
use crate::agent::run::{self, Orders, Subject};
use crate::config::Config;
use crate::pytest::Terms;

/// Runs it; the exit code. What went wrong before the command ran has been said.
pub fn run(args: &AttachArgs, config: Config) -> u8 {
    let target = args.target();
    let line = match &target {
        Target::Shell(line) => Some(line.clone()),
        _ => None,
    };
    let subject = match target {
        Target::Shell(line) => Subject::Program(Program::shell(&line)),
        Target::Program { program, arguments } => Subject::Program(Program {
            program,
            arguments,
            environment: Vec::new(),
        }),
        Target::Pid(pid) => Subject::Pid(pid.unsigned_abs()),
        Target::Cgroup(path) => Subject::Cgroup(path),
    };
    let orders = Orders {
        subject,
        line,
        attach: config.attach,
        settings: config.policy,
        with_arguments: args.with_arguments,
        record: args.record.clone(),
        daemon: args.socket.clone(),
        tests: (!args.no_pytest).then(Terms::default),
    };
    run::run(orders).unwrap_or_else(|error| {
        failure::say(&*error);
        error
            .downcast_ref::<LaunchError>()
            .map_or(OWN_FAILURE, LaunchError::exit_code)
    })
}
