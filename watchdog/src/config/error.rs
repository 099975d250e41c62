//! What can be wrong with a configuration. Every message says where it is and what to write instead.

use std::fmt;
use std::io;
use std::net::AddrParseError;
use std::path::PathBuf;

use super::file::MAX_BYTES;
use super::pattern::PatternError;
use super::resolve::{MIN_LIMIT, Origin};
use super::search::{NamedBy, SYSTEM_FILE};
use super::{HeaderError, Quoted, ReceiverError, Size, SizeError, Span, SpanError};

/// Why there is no valid configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be opened or read.
    #[error("cannot read the configuration file {} ({named_by})", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why this file was read at all.
        named_by: NamedBy,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory, fifo, device or socket.
    #[error("{} ({named_by}) is {kind}, not a regular file; to run without a configuration, name an empty file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// Why this file was read at all.
        named_by: NamedBy,
        /// What it is instead, with its article.
        kind: &'static str,
    },
    /// More than [`MAX_BYTES`].
    #[error("{} ({named_by}) is larger than {MAX_BYTES} bytes: is it a configuration file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Why this file was read at all.
        named_by: NamedBy,
    },
    /// What the daemon reads must be what root wrote.
    #[error("memwatch daemon does not read {0} ({named_by}): {mistrust} {0}", path.display())]
    NotRoots {
        /// The file, or the directory that it is in.
        path: PathBuf,
        /// Why it would be read at all.
        named_by: NamedBy,
        /// Why it may be somebody else's.
        mistrust: Mistrust,
    },
    /// TOML is UTF-8.
    #[error("{} is not UTF-8: the byte at offset {offset} is wrong; save the file as UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Bytes before the first wrong one.
        offset: usize,
    },
    /// A line says something that memwatch cannot take.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong there.
        problem: Box<Problem>,
    },
    /// `--set` says something that memwatch cannot take.
    #[error(
        "--set {assignment}: {problem}; write --set KEY=VALUE with a key of [policy], as --set foresight=8"
    )]
    Set {
        /// What it says.
        assignment: Quoted,
        /// What is wrong with it.
        problem: Box<Problem>,
    },
    /// Each option is right alone, but not all together.
    #[error(transparent)]
    Contradiction(#[from] Box<Contradiction>),
}

impl ConfigError {
    /// Whether it is only that the daemon does not read a file that somebody named, and so may have meant
    /// for others.
    pub fn is_for_others(&self) -> bool {
        matches!(self, Self::NotRoots { named_by, .. } if named_by.somebody())
    }
}

/// Why a file may say what others than root want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistrust {
    /// The user with this id can change it.
    #[error("it belongs to user {0}; run: chown root")]
    Owner(u32),
    /// Its mode lets others than its owner change it.
    #[error("others than root may write to it (mode {:04o}); run: chmod go-w", .0 & 0o7777)]
    Mode(u32),
}

/// What is wrong between options that are each well-formed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// A limit that no program fits into.
    #[error(
        "{} is too small for a program to start in (at least {MIN_LIMIT}); \
         was a unit forgotten? Write for example 2G or 512M",
        setting.saying(&size.bytes())
    )]
    TooSmall {
        /// Who says so.
        setting: Setting,
        /// What it says.
        size: Size,
    },
    /// The brake would come after the wall.
    #[error(
        "{} is not below the memory limit of {max}, so it would never brake; \
         give a smaller one, or none",
        setting.saying(high)
    )]
    HighNotBelowMax {
        /// Who says from where the target is braked.
        setting: Setting,
        /// From where.
        high: Size,
        /// The hard limit.
        max: Size,
    },
    /// Two durations of the policy of which one must not be longer than the other.
    #[error(
        "[policy] {} = \"{}\" is longer than {} = \"{}\"; swap them, or leave both out",
        shorter.0, shorter.1, longer.0, longer.1
    )]
    WrongWayRound {
        /// The key of the one that must be shorter, and its value.
        shorter: (&'static str, Span),
        /// The key of the one that must be longer, and its value.
        longer: (&'static str, Span),
    },
    /// Neither the table nor its name says what it speaks.
    #[error(
        "[export.{name}] has no type; write type = \"otlp\", \"webhook\", \"journal\" or \"desktop\""
    )]
    NoExporterType {
        /// Of the table.
        name: String,
    },
    /// Nobody to tell.
    #[error("[export.{name}] names no receiver; write url = \"https://...\"")]
    NoReceiver {
        /// Of the table.
        name: String,
    },
    /// A key that means nothing for an exporter of its type.
    #[error("{key} is for exporters of type {of}, and [export.{name}] is not one; leave it out")]
    NotOfThisType {
        /// Of the table.
        name: String,
        /// The key.
        key: &'static str,
        /// Which types it is for.
        of: &'static str,
    },
    /// Safe mode and its opposite, from one source or with the looser from the stronger source.
    #[error(
        "{} allows more than safe mode does ({cap}); drop {setting} or drop {safe}",
        setting.saying(value)
    )]
    LooserThanSafe {
        /// Who says more.
        setting: Setting,
        /// What it says.
        value: String,
        /// What safe mode allows.
        cap: String,
        /// Who turned on safe mode.
        safe: Setting,
    },
}

/// What is wrong in one line of a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// A table or key that does not exist.
    #[error("there is no {what} {name}{place}; {hint}")]
    Unknown {
        /// `table` or `key`.
        what: &'static str,
        /// As it is written in the file.
        name: Quoted,
        /// The table that it was looked for in, if any.
        place: String,
        /// The nearest that exists, or all.
        hint: String,
    },
    /// A table of the daemon's in a file that it does not read.
    #[error(
        "{table} is the machine's to say, and this is a user's file; put it into {SYSTEM_FILE}"
    )]
    NotTheUsers {
        /// Its heading.
        table: &'static str,
    },
    /// A name that cannot be a directory's.
    #[error("{0} cannot be an exporter's name; write letters, digits, `-` and `_`, at most 64")]
    ExporterName(Quoted),
    /// Neither a unit nor a cgroup is named.
    #[error(
        "this [[watch]] names nothing; give it units = [\"docker.service\"] or cgroups = [\"/ci/*\"]"
    )]
    NothingToWatch,
    /// A value that its key cannot take.
    #[error("{key}: {source}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        source: ValueError,
    },
    /// A value of a type that its key cannot take.
    #[error("{key} cannot be {found}; write for example {key} = {example}")]
    Type {
        /// The key, or table.
        key: &'static str,
        /// The type, with its article.
        found: &'static str,
        /// A right value as TOML writes it.
        example: &'static str,
    },
}

/// Why a value of the right type is no value of its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a size.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Not a duration.
    #[error(transparent)]
    Span(#[from] SpanError),
    /// Not a pattern for units or cgroups.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Not one of the words.
    #[error("{found} is not one of {allowed}")]
    Word {
        /// As it is written.
        found: Quoted,
        /// All that would be right.
        allowed: String,
    },
    /// Not a whole number in the range.
    #[error("{found} is not a whole number from {least} to {most}")]
    Range {
        /// As it is written.
        found: Quoted,
        /// The smallest right one.
        least: u32,
        /// The largest right one.
        most: u32,
    },
    /// Not where a receiver could be.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// Not a header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Nowhere to listen at.
    #[error("{0}; write an address with a port: 127.0.0.1:19188")]
    Address(#[from] AddrParseError),
    /// A path of no characters.
    #[error("an empty path names no file; leave the key out to write none")]
    EmptyPath,
}

/// One option as the user wrote it: the flag's name, or the key and its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, as in the file.
    pub key: &'static str,
    /// Where it was set.
    pub origin: Origin,
}

impl Setting {
    /// The option with its value, as the user wrote it.
    fn saying(&self, value: &dyn fmt::Display) -> String {
        match &self.origin {
            Origin::CommandLine => format!("{self} {value}"),
            Origin::File(path) => format!("`{} = {value}` in {}", self.key, path.display()),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::CommandLine => write!(f, "--{}", self.key.replace('_', "-")),
            Origin::File(path) => write!(f, "`{}` in {}", self.key, path.display()),
        }
    }
}
