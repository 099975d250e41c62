//! `memwatch attach`: from the command line to a run, and from a run's failure to an exit code.

use super::args::{AttachArgs, Target};
use super::failure;
use super::usage::OWN_FAILURE;
use crate::agent::launch::{LaunchError, Program};
use crate::agent::run::{self, Orders, Subject};
use crate::config::{Attach, Config, Limit, SAFE_TEST_TIMEOUT};
use crate::pytest::Terms;
use std::time::Duration;

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
    let tests = config.attach.pytest.then(|| terms(args, &config.attach));
    let orders = Orders {
        subject,
        line,
        attach: config.attach,
        settings: config.policy,
        incidents: config.incidents,
        exporters: config.exporters,
        with_arguments: args.with_arguments,
        record: args.record.clone(),
        ctrf: args.ctrf.clone(),
        daemon: args.socket.clone(),
        tests,
    };
    run::run(orders).unwrap_or_else(|error| {
        failure::say(&*error);
        error
            .downcast_ref::<LaunchError>()
            .map_or(OWN_FAILURE, LaunchError::exit_code)
    })
}

/// What pytest's plugin is told.
fn terms(args: &AttachArgs, attach: &Attach) -> Terms {
    let us = |time: Duration| time.as_micros() as u64;
    let memory_bytes = match attach.memory_max {
        Limit::Bytes(bytes) => Some(bytes),
        Limit::Auto | Limit::None => None,
    };
    Terms {
        test_memory_bytes: attach.test_memory,
        test_timeout_us: attach.test_timeout.map(us),
        longest_test_us: attach.safe.then_some(us(SAFE_TEST_TIMEOUT)),
        workers: memory_bytes
            .filter(|_| attach.safe)
            .map(|bytes| (bytes / WORKER_BYTES).max(1)),
        fail_on_leak: args.fail_on_leak.iter().map(|kind| kind.name()).collect(),
    }
}

/// What a worker of pytest-xdist is reckoned to need in safe mode: an interpreter with numpy, an index and its
/// vectors took 200 to 400 MiB.
const WORKER_BYTES: u64 = 512 << 20;
