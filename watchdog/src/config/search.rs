//! Which configuration files count, weakest first. Pure but for [`Environment::of_this_process`].

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// The machine's file, written by its administrator.
const SYSTEM_FILE: &str = "/etc/memwatch/memwatch.toml";
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
    /// It is where a configuration is looked for.
    Search,
}

impl fmt::Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "named by --config",
            Self::Variable => "named by MEMWATCH_CONFIG",
            Self::Search => "read by default; --config names another",
        })
    }
}

/// A file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The file.
    pub(super) path: PathBuf,
    /// Why it is read. Only a file of the search may be missing.
    pub(super) named_by: NamedBy,
}

/// The files to read, weakest first.
pub(super) fn files(flag: Option<&Path>, environment: &Environment) -> Vec<Found> {
    let only = |path: PathBuf, named_by| vec![Found { path, named_by }];
    if let Some(path) = flag {
        return only(path.to_owned(), NamedBy::Flag);
    }
    if let Some(path) = set(&environment.memwatch_config) {
        return only(path, NamedBy::Variable);
    }
    let user_directory = set(&environment.xdg_config_home)
        .filter(|path| path.is_absolute())
        .or_else(|| set(&environment.home).map(|home| home.join(".config")))
        .filter(|path| path.is_absolute());
    [
        Some(environment.system_file.clone()),
        user_directory.map(|path| path.join(USER_FILE)),
    ]
    .into_iter()
    .flatten()
    .map(|path| Found {
        path,
        named_by: NamedBy::Search,
    })
    .collect()
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

    fn paths(flag: Option<&str>, environment: &Environment) -> Vec<String> {
        files(flag.map(Path::new), environment)
            .into_iter()
            .map(|found| found.path.display().to_string())
            .collect()
    }

    #[test]
    fn the_machine_then_the_user() {
        assert_eq!(
            paths(None, &environment("", "/xdg", "/home/u")),
            [SYSTEM_FILE, "/xdg/memwatch/memwatch.toml"]
        );
        for xdg in ["", "relative"] {
            assert_eq!(
                paths(None, &environment("", xdg, "/home/u")),
                [SYSTEM_FILE, "/home/u/.config/memwatch/memwatch.toml"]
            );
        }
        for home in ["", "relative"] {
            assert_eq!(paths(None, &environment("", "", home)), [SYSTEM_FILE]);
        }
    }

    #[test]
    fn a_named_file_is_the_only_one_and_the_flag_wins() {
        let environment = environment("/by/variable", "/xdg", "/home/u");
        assert_eq!(paths(None, &environment), ["/by/variable"]);
        assert_eq!(paths(Some("by/flag"), &environment), ["by/flag"]);
    }
}
