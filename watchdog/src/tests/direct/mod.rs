//! Finds direct calls of pytest, those that do not run under `memwatch attach`, in the files that a project
//! starts its tests from. Pure: texts in, findings out. `shell` splits commands, `call` judges them, and
//! there is one file for each way to write commands down; `cli::tests::guard` reads the files and prints.

mod call;
mod docker;
mod groovy;
mod ini;
mod kind;
mod place;
mod python;
mod recipes;
mod runners;
mod shell;
mod tables;
mod tokens;
mod yaml;
mod yaml_lines;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod junk_tests;

pub use kind::Kind;

use place::Sink;
use shell::Dialect;

/// A direct call of pytest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line it starts in; the first is 1.
    pub line: usize,
    /// What stands there, in one line.
    pub found: String,
    /// What to write instead, in the same syntax.
    pub instead: String,
    /// What else must be done for that to work.
    pub also: Option<&'static str>,
}

/// What was seen in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// In the order of their lines.
    pub findings: Vec<Finding>,
    /// Where the file is not as its format asks, and why. TOML is not read from there on, YAML as a whole line
    /// by line, JSON not at all.
    pub mistake: Option<(usize, String)>,
}

/// Looks through the text of a file.
pub fn look(kind: Kind, text: &str) -> Looked {
    let mut sink = Sink::new(text);
    match kind {
        Kind::Shell => sink.shell(text, 1, Dialect::Plain, None),
        Kind::Make => recipes::make(text, &mut sink),
        Kind::Just => recipes::just(text, &mut sink),
        Kind::Docker => docker::look(text, &mut sink),
        Kind::Groovy => groovy::look(text, &mut sink),
        Kind::Ini => ini::look(text, &mut sink),
        Kind::Python => python::look(text, &mut sink),
        Kind::Toml => tables::look(text, &mut sink),
        Kind::Yaml | Kind::PackageJson => yaml::look(text, kind, &mut sink),
    }
    sink.allow(kind, text);
    sink.looked()
}
