//! The spelling of the command line and its help. What the options mean and how they combine with
//! the configuration files is `config`'s; running a subcommand is its own file's.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use super::config::ConfigArgs;
use super::daemon::{self, DaemonArgs};
use super::doctor::{self, DoctorArgs};
use super::export::{self, ExportArgs};
use super::guard::{self, GuardArgs};
use super::incidents::{self, IncidentsArgs};
use super::record::{self, RecordArgs};
use super::replay::{self, ReplayArgs};
use super::status::{self, StatusArgs};
use super::tests::{self as project_tests, TestsArgs};
use super::top::{self, TopArgs};
use super::{complete, help, usage};
use crate::config::{
    Config, ConfigError, Environment, Flags, Layer, Limit, Live, OnPressure, OrNone, Origin, Size,
    Span, UseDaemon, Verbosity,
};
use crate::control;

/// Keep the machine usable while something eats its memory
#[derive(Clone, Debug, Parser)]
#[command(
    name = "memwatch",
    bin_name = "memwatch",
    version,
    long_about = help::ABOUT,
    after_long_help = help::FILES
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every subcommand.
    #[command(flatten)]
    pub common: Common,
}

/// Options of every subcommand.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Read this configuration file and no other
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Say what is decided and why; twice: also what is seen, four times a second
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say errors only, and the summary only if something was done to the target
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a command, or adopt a running one, in a cgroup of its own, and guard it
    #[command(
        long_about = help::ATTACH,
        override_usage = help::ATTACH_USAGE,
        after_long_help = help::ATTACH_MORE
    )]
    Attach(Box<AttachArgs>),
    /// Say what this machine offers for guarding, what is missing, and what that costs
    #[command(long_about = doctor::ABOUT, after_long_help = doctor::ABOUT_MORE)]
    Doctor(DoctorArgs),
    /// Write down every look at a program, a process or a cgroup, and do nothing to it
    #[command(
        long_about = record::ABOUT,
        override_usage = record::USAGE,
        after_long_help = record::ABOUT_MORE
    )]
    Record(RecordArgs),
    /// Run recorded looks through the policy again, and say what it orders
    #[command(long_about = replay::ABOUT, after_long_help = replay::ABOUT_MORE)]
    Replay(ReplayArgs),
    /// Show or lift the guard in the kernel
    #[command(long_about = guard::ABOUT)]
    Guard(GuardArgs),
    /// Check the configuration files, and show what is in force
    Config(ConfigArgs),
    /// Guard what the configuration names and what users attach, as a service
    #[command(long_about = daemon::ABOUT, after_long_help = daemon::ABOUT_MORE)]
    Daemon(DaemonArgs),
    /// Say how the daemon and what it guards are
    #[command(long_about = status::ABOUT, after_long_help = status::ABOUT_MORE)]
    Status(StatusArgs),
    /// Tell others of incidents, and see whether that works
    #[command(long_about = export::ABOUT, after_long_help = export::ABOUT_MORE)]
    Export(ExportArgs),
    /// Show what happened: each kill and each freeze, with its evidence, as words and as a picture
    #[command(long_about = incidents::ABOUT, after_long_help = incidents::ABOUT_MORE)]
    Incidents(IncidentsArgs),
    /// Watch the daemon's targets on the terminal, with keys as in htop
    #[command(long_about = top::ABOUT, after_long_help = top::ABOUT_MORE)]
    Top(TopArgs),
    /// What concerns a project's tests: which are slow or got worse, and which are not run under memwatch
    #[command(long_about = project_tests::ABOUT)]
    Tests(Box<TestsArgs>),
}

/// `memwatch attach`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct AttachArgs {
    /// What to guard.
    #[command(flatten)]
    target: TargetArgs,

    /// Memory that the target may use: 2G, 1.5GiB, 512M; auto or none
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, long_help = help::MEMORY_MAX)]
    memory_max: Option<Limit>,
    /// Memory from which the target is braked instead of killed; auto or none
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, long_help = help::MEMORY_HIGH)]
    memory_high: Option<Limit>,
    /// Time for the whole run: 300s, 5m, 1h30m; or none
    #[arg(long, value_name = "DURATION", help_heading = LIMITS, long_help = help::TIMEOUT)]
    timeout: Option<OrNone<Span>>,
    /// Safe mode: 2 GiB, 300 s in total, 120 s for a test, at most two CPUs
    #[arg(
        long, help_heading = LIMITS, long_help = help::SAFE, value_name = "BOOL", hide_possible_values = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    safe: Option<bool>,

    /// What is done to the target under pressure
    #[arg(long, value_name = "ACTION", value_enum, help_heading = ACTION)]
    on_pressure: Option<OnPressure>,
    /// Decide and report as always, but signal nobody; the limits are set all the same
    #[arg(
        long, help_heading = ACTION, value_name = "BOOL", hide_possible_values = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    dry_run: Option<bool>,
    /// Whether a user's target is handed to the machine's daemon
    #[arg(long, value_name = "WHEN", value_enum, help_heading = ACTION)]
    daemon: Option<UseDaemon>,
    /// The daemon that listens here
    #[arg(long, value_name = "PATH", default_value = control::SOCKET, help_heading = ACTION)]
    pub socket: PathBuf,

    /// The most by which one test may grow, with what it starts: 500M; or none
    #[arg(long, value_name = "SIZE", help_heading = TESTS, long_help = help::TEST_MEMORY)]
    test_memory: Option<OrNone<Size>>,
    /// Time for one test: 30s, 2m; or none
    #[arg(long, value_name = "DURATION", help_heading = TESTS, long_help = help::TEST_TIMEOUT)]
    test_timeout: Option<OrNone<Span>>,
    /// Fail the run of tests if a test leaves something of this kind behind
    #[arg(
        long, value_name = "KIND", value_enum, value_delimiter = ',', help_heading = TESTS,
        long_help = help::FAIL_ON_LEAK, conflicts_with = "no_pytest"
    )]
    pub fail_on_leak: Vec<Leaking>,
    /// Do not give pytest memwatch's plugin
    #[arg(long, help_heading = TESTS)]
    no_pytest: bool,

    /// Write the incident record, JSON, to this file when the target has ended
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    report: Option<PathBuf>,
    /// Write the tests to this file as CTRF, the Common Test Report Format, with their figures
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub ctrf: Option<PathBuf>,
    /// Let the record carry command lines; they can hold secrets, so they are left out by default
    #[arg(long, help_heading = OUTPUT)]
    pub with_arguments: bool,
    /// Write every look at the machine as a line of JSON, to replay the decisions from
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub record: Option<PathBuf>,
    /// Draw a line with pressure, memory and time during a long run
    #[arg(long, value_name = "WHEN", value_enum, help_heading = OUTPUT)]
    live: Option<Live>,
}

const LIMITS: &str = "Limits";
const ACTION: &str = "Under pressure";
const TESTS: &str = "Tests of pytest";
const OUTPUT: &str = "Output";

/// What `--fail-on-leak` takes: the kinds as the record names them, or any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Leaking {
    /// Open file descriptors
    FileDescriptors,
    /// Threads that run on
    Threads,
    /// Child processes that run on
    Children,
    /// Files in /dev/shm
    SharedMemory,
    /// Files in the directory for temporary files
    TemporaryFiles,
    /// 16 MiB or more that its process did not give back
    Memory,
    /// Each of these
    Any,
}

impl Leaking {
    /// As pytest's plugin knows it.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Exactly one of these.
#[derive(Clone, Debug, Args)]
#[group(id = "what", required = true, multiple = false)]
struct TargetArgs {
    /// Run this through your shell ($SHELL, or /bin/sh)
    #[arg(long, value_name = "STRING", help_heading = TARGET, value_parser = usage::shell_line())]
    cmd: Option<OsString>,
    /// Adopt this running process and its descendants
    #[arg(long, value_name = "PID", help_heading = TARGET, value_parser = usage::pid)]
    pid: Option<i32>,
    /// Guard this cgroup: a directory below /sys/fs/cgroup
    #[arg(
        long, value_name = "PATH", help_heading = TARGET,
        add = ArgValueCompleter::new(complete::cgroups)
    )]
    cgroup: Option<PathBuf>,
    /// Run this program with these arguments, without a shell
    #[arg(last = true, value_name = "PROGRAM", num_args = 1.., help_heading = TARGET)]
    program: Vec<OsString>,
}

const TARGET: &str = "What to guard (exactly one)";

/// What to guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A line for the user's shell.
    Shell(OsString),
    /// A program, run without a shell.
    Program {
        /// As execvp(3) takes it: a path, or a name to look up.
        program: OsString,
        /// The arguments after the program's name.
        arguments: Vec<OsString>,
    },
    /// A running process. At least 1.
    Pid(i32),
    /// An existing cgroup.
    Cgroup(PathBuf),
}

impl Cli {
    /// Parses the process's arguments, the program's name first. On `Err` the help, the version or
    /// the error has been printed, and the process should end with the code.
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, u8> {
        Self::parse_arguments(arguments).map_err(|error| {
            // A closed stdout or stderr leaves nobody to tell.
            let _ = error.print();
            usage::exit_code(&error)
        })
    }

    pub(super) fn parse_arguments(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments).map_err(usage::explain)
    }

    /// Combines the flags with the configuration files that they and the environment name.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::load(&self.flags(), &Environment::of_this_process())
    }

    fn flags(&self) -> Flags {
        let layer = match &self.command {
            Command::Attach(attach) => attach.layer(),
            Command::Doctor(_)
            | Command::Record(_)
            | Command::Replay(_)
            | Command::Guard(_)
            | Command::Config(_)
            | Command::Daemon(_)
            | Command::Status(_)
            | Command::Export(_)
            | Command::Incidents(_)
            | Command::Top(_)
            | Command::Tests(_) => Layer::default(),
        };
        Flags {
            config: self.common.config.clone(),
            layer,
            verbosity: self.common.verbosity(),
        }
    }
}

impl Common {
    /// From `-q`, nothing, `-v` or `-vv`.
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, 1) => Verbosity::Verbose,
            (false, _) => Verbosity::Trace,
        }
    }
}

impl AttachArgs {
    /// What to guard.
    pub fn target(&self) -> Target {
        let TargetArgs {
            cmd,
            pid,
            cgroup,
            program,
        } = &self.target;
        match (cmd, pid, cgroup, program.split_first()) {
            (Some(line), ..) => Target::Shell(line.clone()),
            (_, Some(pid), ..) => Target::Pid(*pid),
            (_, _, Some(path), _) => Target::Cgroup(path.clone()),
            (.., Some((program, arguments))) => Target::Program {
                program: program.clone(),
                arguments: arguments.to_vec(),
            },
            (None, None, None, None) => unreachable!("clap requires one of the group"),
        }
    }

    fn layer(&self) -> Layer {
        Layer {
            origin: Origin::CommandLine,
            memory_max: self.memory_max,
            memory_high: self.memory_high,
            timeout: self.timeout,
            test_memory: self.test_memory,
            test_timeout: self.test_timeout,
            pytest: self.no_pytest.then_some(false),
            on_pressure: self.on_pressure,
            safe: self.safe,
            dry_run: self.dry_run,
            daemon: self.daemon,
            live: self.live,
            report: self.report.clone(),
        }
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
