//! Which configuration files count, weakest first. Pure but for [`Environment::of_this_process`]; what lies
//! in a directory of drop-ins `file` finds.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The machine's file, written by its administrator.
pub(super) const SYSTEM_FILE: &str = "/etc/memwatch/memwatch.toml";
/// The user's file below the directory for their configuration.
const USER_FILE: &str = "memwatch/memwatch.toml";

/// What the search depends on.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `MEMWATCH_CONFIG`: the only file to read, unless `--config` names another.
    pub memwatch_config: Option<OsString>,
    /// `XDG_CONFIG_HOME`; one that is not absolute is ignored, as its specification says.
    pub xdg_config_home: Option<OsString>,
    /// `HOME`.
    pub home: Option<OsString>,
    /// The machine's file; a test names its own.
    pub system_file: PathBuf,
}

impl Environment {
    /// Reads the variables of this process.
    pub fn of_this_process() -> Self {
        Self {
            memwatch_config: env::var_os("MEMWATCH_CONFIG"),
            xdg_config_home: env::var_os("XDG_CONFIG_HOME"),
            home: env::var_os("HOME"),
            system_file: SYSTEM_FILE.into(),
        }
    }
}

/// Why a file is read; an error about the file says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// `--config`.
    Flag,
    /// `MEMWATCH_CONFIG`.
    Variable,
    /// It is where the machine's configuration is looked for.
    Machine,
    /// It is where the user's is.
    User,
}

impl NamedBy {
    /// Whether somebody asked for it, so that it must be there.
    pub(super) fn somebody(self) -> bool {
        matches!(self, Self::Flag | Self::Variable)
    }
}

impl fmt::Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "named by --config",
            Self::Variable => "named by MEMWATCH_CONFIG",
            Self::Machine | Self::User => "read by default; --config names another",
        })
    }
}

/// A place to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What is expected there.
    pub(super) what: What,
    /// Why it is read. Only what somebody named must be there.
    pub(super) named_by: NamedBy,
}

/// What is expected in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    File,
    /// A directory, whose files count in the order of their names.
    DropIns,
}

/// What a command for one target reads, weakest first.
pub(super) fn for_a_run(flag: Option<&Path>, environment: &Environment) -> Vec<Found> {
    named(flag, environment).unwrap_or_else(|| {
        let mut all = of_the_machine(environment);
        all.extend(users_file(environment));
        all
    })
}

/// What the daemon reads, weakest first: nothing that is a user's.
pub(super) fn for_the_daemon(flag: Option<&Path>, environment: &Environment) -> Vec<Found> {
    named(flag, environment).unwrap_or_else(|| of_the_machine(environment))
}

/// The only file, if one was named.
fn named(flag: Option<&Path>, environment: &Environment) -> Option<Vec<Found>> {
    let (path, named_by) = match flag {
        Some(path) => (path.to_owned(), NamedBy::Flag),
        None => (set(&environment.memwatch_config)?, NamedBy::Variable),
    };
    let what = What::File;
    Some(vec![Found {
        path,
        what,
        named_by,
    }])
}

/// The machine's file, and what is dropped in beside it.
fn of_the_machine(environment: &Environment) -> Vec<Found> {
    let file = &environment.system_file;
    let mut directory = file.clone().into_os_string();
    directory.push(".d");
    [
        (file.clone(), What::File),
        (directory.into(), What::DropIns),
    ]
    .map(|(path, what)| Found {
        path,
        what,
        named_by: NamedBy::Machine,
    })
    .into()
}

fn users_file(environment: &Environment) -> Option<Found> {
    let directory = set(&environment.xdg_config_home)
        .filter(|path| path.is_absolute())
        .or_else(|| set(&environment.home).map(|home| home.join(".config")))
        .filter(|path| path.is_absolute())?;
    Some(Found {
        path: directory.join(USER_FILE),
        what: What::File,
        named_by: NamedBy::User,
    })
}

/// A variable that is set to nothing is not set.
fn set(variable: &Option<OsString>) -> Option<PathBuf> {
    variable
        .as_ref()
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(config: &str, xdg: &str, home: &str) -> Environment {
        let variable = |value: &str| Some(OsString::from(value));
        Environment {
            memwatch_config: variable(config),
            xdg_config_home: variable(xdg),
            home: variable(home),
            system_file: SYSTEM_FILE.into(),
        }
    }

    const DROP_INS: &str = "/etc/memwatch/memwatch.toml.d";

    fn names(found: Vec<Found>) -> Vec<String> {
        let names = found.iter().map(|found| found.path.display().to_string());
        names.collect()
    }

    fn paths(flag: Option<&str>, environment: &Environment) -> Vec<String> {
        names(for_a_run(flag.map(Path::new), environment))
    }

    #[test]
    fn the_machine_then_the_user() {
        assert_eq!(
            paths(None, &environment("", "/xdg", "/home/u")),
            [SYSTEM_FILE, DROP_INS, "/xdg/memwatch/memwatch.toml"]
        );
        for xdg in ["", "relative"] {
            assert_eq!(
                paths(None, &environment("", xdg, "/home/u")),
                [
                    SYSTEM_FILE,
                    DROP_INS,
                    "/home/u/.config/memwatch/memwatch.toml"
                ]
            );
        }
        for home in ["", "relative"] {
            assert_eq!(
                paths(None, &environment("", "", home)),
                [SYSTEM_FILE, DROP_INS]
            );
        }
    }

    #[test]
    fn a_named_file_is_the_only_one_and_the_flag_wins() {
        let environment = environment("/by/variable", "/xdg", "/home/u");
        assert_eq!(paths(None, &environment), ["/by/variable"]);
        assert_eq!(paths(Some("by/flag"), &environment), ["by/flag"]);
        let flag = Some(Path::new("by/flag"));
        assert_eq!(names(for_the_daemon(None, &environment)), ["/by/variable"]);
        assert_eq!(names(for_the_daemon(flag, &environment)), ["by/flag"]);
    }

    #[test]
    fn the_daemon_reads_nothing_of_a_user() {
        let environment = environment("", "/xdg", "/home/u");
        let found = names(for_the_daemon(None, &environment));
        assert_eq!(found, [SYSTEM_FILE, DROP_INS]);
    }
}
