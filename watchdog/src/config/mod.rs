//! File + environment + flags -> one validated [`Config`]. This module owns what the options mean
//! and how their sources combine; the flags' spelling and help are `cli::args`'s, the policy's
//! numbers and their reasons are `watch::settings`'s. docs/CONFIG.md is the user's view of it.
//!
//! The path of a value: `search` (which files) -> `file` (bytes, bounded) -> `keys` (TOML to a
//! [`Layer`] and to what is the [`Daemon`]'s), of which `gather` does all -> `resolve` (layers to
//! [`Attach`], cross-checks). Sources from weak to strong: the defaults, `/etc`, the user's own file, the
//! command line; for the daemon `/etc` alone. No file of the working directory or of a project is read:
//! what a checkout brings along must not be able to loosen a limit or name a path.

mod daemon;
mod error;
mod exporters;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gather;
mod keys;
mod kinds;
mod nearest;
mod pattern;
mod prometheus;
mod resolve;
mod search;
mod show;
mod size;
mod span;
mod value;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use daemon::{Daemon, Oomd, Users, Watch};
pub use error::{ConfigError, Contradiction, Mistrust, Problem, Setting, ValueError};
pub use exporters::{
    Compression, Exporter, ExporterType, Exporters, HeaderError, Headers, Incidents, Receiver,
    ReceiverError,
};
pub use gather::Reading;
pub use pattern::{Pattern, PatternError};
pub use prometheus::Prometheus;
pub use resolve::{Layer, Origin, SAFE_MEMORY_MAX, SAFE_TEST_TIMEOUT, SAFE_TIMEOUT};
pub use search::{Environment, NamedBy};
pub use size::{Size, SizeError};
pub use span::{Span, SpanError};
pub use value::{OrNone, Quoted};

use crate::watch::Settings;
use file::Reader;
use gather::gather;

/// Everything that a run was asked for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How to run and guard the target.
    pub attach: Attach,
    /// The numbers of the policy.
    pub policy: Settings,
    /// Which incidents are kept.
    pub incidents: Incidents,
    /// Who is told of them.
    pub exporters: Exporters,
}

/// How to run and guard one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The target's hard limit.
    pub memory_max: Limit,
    /// From where on the target is braked; below `memory_max` where both are in bytes.
    pub memory_high: Limit,
    /// The whole run's time; `None` for as long as it takes.
    pub timeout: Option<Duration>,
    /// The most by which one test of pytest may grow, in bytes; `None` for no limit. A test's own marker counts
    /// more.
    pub test_memory: Option<u64>,
    /// The longest that one test of pytest may take; `None` for as long as it takes. As above, but in safe mode
    /// no marker may say more than [`SAFE_TEST_TIMEOUT`].
    pub test_timeout: Option<Duration>,
    /// Whether pytest is given memwatch's plugin.
    pub pytest: bool,
    /// What is done to a target under pressure.
    pub on_pressure: OnPressure,
    /// Decide and report, but touch no process.
    pub dry_run: bool,
    /// Whether the machine's daemon is to guard it for a user.
    pub daemon: UseDaemon,
    /// Safe mode: its caps are already in `memory_max` and `timeout`; limited parallelism is left
    /// to whoever starts the command.
    pub safe: bool,
    /// Where the incident record goes. Relative to the working directory.
    pub report: Option<PathBuf>,
    /// Whether a line is drawn during the run.
    pub live: Live,
    /// How much is said on standard error.
    pub verbosity: Verbosity,
}

/// A limit of the target's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limit {
    /// Chosen at the start: the hard limit from the machine's memory, the brake from the hard limit.
    #[default]
    Auto,
    /// None.
    None,
    /// This many bytes.
    Bytes(u64),
}

impl FromStr for Limit {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(|OrNone(size): OrNone<Size>| {
                size.map_or(Self::None, |size| Self::Bytes(size.bytes()))
            }),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Bytes(bytes) => match Size::new(*bytes) {
                Some(size) => size.fmt(f),
                None => f.write_str("0"),
            },
        }
    }
}

/// What is done to a target under pressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPressure {
    /// End the process that causes it: SIGTERM, then SIGKILL
    #[default]
    Kill,
    /// Freeze the target, for those who want to look before they kill
    Freeze,
    /// Say so and do nothing
    Warn,
}

/// Whether a user's target is handed to the machine's daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum UseDaemon {
    /// If one listens: it can do more than a user
    #[default]
    Auto,
    /// Never
    Never,
}

/// Whether a line with pressure, memory and elapsed time is drawn during the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Live {
    /// On a terminal, in a long run
    #[default]
    Auto,
    /// Never
    Never,
}

/// How much is said on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// `-q`: errors only; the summary only if something was done to the target.
    Quiet,
    /// Warnings and the summary.
    #[default]
    Normal,
    /// `-v`: also what was decided and why.
    Verbose,
    /// `-vv`: also every look at the machine.
    Trace,
}

/// What the command line says: the strongest source.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`: the only file to read.
    pub config: Option<PathBuf>,
    /// The options that a file can set too.
    pub layer: Layer,
    /// From `-v` and `-q`.
    pub verbosity: Verbosity,
}

/// Changes a number of the policy, as `--set KEY=VALUE` asks.
///
/// # Errors
/// There is no such key, or this is no value for it.
pub fn set_policy(assignment: &str, policy: &mut Settings) -> Result<(), ConfigError> {
    let changed = keys::assign(assignment, policy);
    changed.map_err(|problem| ConfigError::Set {
        assignment: Quoted::new(assignment),
        problem: Box::new(problem),
    })?;
    resolve::check_policy(policy).map_err(ConfigError::Contradiction)
}

impl Config {
    /// Reads the files that `flags` or `environment` name and combines them with `flags`.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        Self::read(flags, environment).first_error()
    }

    /// The same, with all that is wrong.
    pub fn read(flags: &Flags, environment: &Environment) -> Reading<Self> {
        let search = search::for_a_run(flags.config.as_deref(), environment);
        gather(search, Reader::TheUser).finish(|mut layers, daemon| {
            layers.push(flags.layer.clone());
            let attach = resolve::attach(&layers, flags.verbosity)?;
            Ok(Self {
                attach,
                policy: daemon.policy,
                incidents: daemon.incidents,
                exporters: daemon.exporters,
            })
        })
    }
}

#[cfg(test)]
mod tests;
