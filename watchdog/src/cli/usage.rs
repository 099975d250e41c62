//! Says what to write instead, where clap only says what is missing, and reads the values that no
//! other module reads.

use std::ffi::OsString;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

use super::args::Cli;
use crate::config::Quoted;

/// The exit code when memwatch itself fails, a command line or a configuration that makes no sense
/// included. Not clap's 2, which would be mistaken for the command's own; env(1) and timeout(1) end
/// in 125 too.
pub const OWN_FAILURE: u8 = 125;

/// What the process ends with after `error`, which may also be help that was asked for.
pub(super) fn exit_code(error: &clap::Error) -> u8 {
    if error.use_stderr() { OWN_FAILURE } else { 0 }
}

/// The error as clap words it, or in better words.
pub(super) fn explain(error: clap::Error) -> clap::Error {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => Some(argument.as_str()),
        _ => None,
    };
    let message = match (error.kind(), argument) {
        (ErrorKind::MissingRequiredArgument, _) if misses_target(&error) => {
            "nothing to guard; write for example: memwatch attach -- pytest tests/".to_owned()
        }
        (ErrorKind::UnknownArgument, Some(word)) if !word.starts_with('-') => format!(
            "{} is no option; a command to run goes after --, as in: memwatch attach -- pytest tests/",
            Quoted::new(word)
        ),
        // clap takes `-2G` for a group of short options.
        (ErrorKind::UnknownArgument, Some(word)) if is_negative(word) => format!(
            "{} is negative, and no option takes that; write for example --memory-max 2G or --timeout 5m",
            Quoted::new(word)
        ),
        _ => return error,
    };
    attach_command().error(error.kind(), message)
}

/// Whether what is missing is what `memwatch attach` is to guard, and not an argument of another subcommand.
fn misses_target(error: &clap::Error) -> bool {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(missing)) => missing.iter().any(|word| word.contains("--cmd")),
        _ => false,
    }
}

fn is_negative(word: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The only subcommand with required or free-standing arguments, ready to print its usage.
fn attach_command() -> Command {
    let mut root = Cli::command();
    root.build();
    root.find_subcommand("attach").cloned().unwrap_or(root)
}

/// A process id.
pub(super) fn pid(text: &str) -> Result<i32, String> {
    let shown = || {
        format!(
            "{} is not a process id; write for example 4242, as ps(1) shows it",
            Quoted::new(text)
        )
    };
    text.parse().ok().filter(|pid| *pid > 0).ok_or_else(shown)
}

/// A line for the shell that is not blank.
pub(super) fn shell_line() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|line| {
        if line.as_encoded_bytes().trim_ascii().is_empty() {
            Err("an empty command runs nothing; write for example --cmd 'pytest tests/'")
        } else {
            Ok(line)
        }
    })
}
