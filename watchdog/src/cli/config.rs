//! `memwatch config`: what the files say, for people. Reading them is `config`'s.

use super::failure;
use super::usage::OWN_FAILURE;
use crate::causes::with_causes;
use crate::config::{Config, ConfigError, Daemon, Environment, Flags, Reading};
use crate::incident::Text;
use anyhow::Context;
use clap::{Args, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The long help.
pub const ABOUT: &str = "\
Check the configuration files.

Reads what `memwatch attach` would read for you, and what `memwatch daemon` would, and prints the files and what \
would be in force. The daemon reads no user's file, and none that others than root may write to.";

/// Below the long help.
pub const ABOUT_MORE: &str = "\
Exit codes:
  0     all is right
  125   something is wrong; of every file the topmost error is shown";

/// `memwatch config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum ConfigCommand {
    /// Show what is read, what is wrong with it, and what is in force
    #[command(long_about = ABOUT, after_long_help = ABOUT_MORE)]
    Check(CheckArgs),
}

#[derive(Clone, Debug, Args)]
struct CheckArgs {
    /// Check this file alone, as if --config named it
    file: Option<PathBuf>,
}

/// Checks; the exit code. `named` is what `--config` says.
///
/// # Errors
/// Nobody reads what is printed.
pub fn run(args: &ConfigArgs, named: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let ConfigCommand::Check(args) = &args.command;
    let named = args.file.clone().or(named);
    let mut out = io::stdout().lock();
    let wrong = check(&mut out, named, &Environment::of_this_process());
    let wrong = wrong.context("cannot print the configuration")?;
    wrong.iter().for_each(|error| failure::say(error));
    let is_right = wrong.is_empty();
    Ok(ExitCode::from(if is_right { 0 } else { OWN_FAILURE }))
}

/// Prints what is read and in force; what is wrong, told once though two commands read it.
fn check(
    out: &mut impl Write,
    named: Option<PathBuf>,
    environment: &Environment,
) -> io::Result<Vec<ConfigError>> {
    let flags = Flags {
        config: named,
        ..Flags::default()
    };
    let run = Config::read(&flags, environment);
    let daemon = Daemon::read(flags.config.as_deref(), environment);
    let mut wrong = show(out, "attach", run, Config::as_toml)?;
    writeln!(out)?;
    for error in show(out, "daemon", daemon, Daemon::as_toml)? {
        let words = with_causes(&error);
        if !wrong.iter().any(|known| with_causes(known) == words) {
            wrong.push(error);
        }
    }
    Ok(wrong)
}

/// Prints what was read for a command and what is in force for it; what is wrong is left to the caller.
fn show<T>(
    out: &mut impl Write,
    command: &str,
    reading: Reading<T>,
    as_toml: fn(&T) -> String,
) -> io::Result<Vec<ConfigError>> {
    let nothing = if reading.files.is_empty() {
        " no file"
    } else {
        ":"
    };
    writeln!(out, "# memwatch {command} reads{nothing}")?;
    for file in &reading.files {
        let name = Text::of_name(file.as_os_str().as_encoded_bytes());
        writeln!(out, "#   {name}")?;
    }
    let errors = match reading.result {
        Ok(said) => {
            out.write_all(as_toml(&said).as_bytes())?;
            return Ok(Vec::new());
        }
        Err(errors) => errors,
    };
    let (for_others, errors): (Vec<_>, Vec<_>) =
        errors.into_iter().partition(ConfigError::is_for_others);
    for error in for_others {
        writeln!(out, "# {}", Text::from(with_causes(&error)))?;
    }
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// The files of a machine, without a user's.
    fn machine(text: &str) -> (tempfile::TempDir, Environment) {
        let dir = tempfile::tempdir().expect("a directory");
        let system_file = dir.path().join("memwatch.toml");
        fs::write(&system_file, text).expect("written");
        let environment = Environment {
            system_file,
            ..Environment::default()
        };
        (dir, environment)
    }

    fn checked(named: Option<PathBuf>, environment: &Environment) -> (String, usize) {
        let mut out = Vec::new();
        let wrong = check(&mut out, named, environment).expect("printed");
        (String::from_utf8(out).expect("text"), wrong.len())
    }

    #[test]
    fn what_is_read_and_in_force_is_shown_for_both() {
        let text = "[attach]\nmemory_max = '3G'\n[[watch]]\nunits = ['docker.service']";
        let (_dir, environment) = machine(text);
        let (shown, wrong) = checked(None, &environment);
        assert_eq!(wrong, 0);
        let file = format!("reads:\n#   {}\n", environment.system_file.display());
        assert_eq!(shown.matches(&file).count(), 2, "{shown}");
        for line in [
            "\nmemory_max = \"3G\"\n",
            "\n[[watch]]\nunits = [\"docker.service\"]\n",
            "\ntakeover = true\n",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
    }

    #[test]
    fn what_two_commands_read_wrong_is_told_once() {
        let (_dir, environment) = machine("[attach]\nx = 1");
        let (shown, wrong) = checked(None, &environment);
        assert_eq!(wrong, 1);
        assert!(!shown.contains('['), "nothing is in force: {shown}");
    }

    #[test]
    fn a_file_that_only_the_daemon_does_not_read_is_wrong_unless_it_was_named() {
        let (_dir, environment) = machine("");
        let file = environment.system_file.clone();
        let others_write = fs::Permissions::from_mode(0o666);
        fs::set_permissions(&file, others_write).expect("changed");
        assert_eq!(checked(None, &environment).1, 1);
        let (shown, wrong) = checked(Some(file), &environment);
        assert_eq!(wrong, 0);
        assert!(shown.contains("# memwatch daemon does not read"), "{shown}");
    }
}
