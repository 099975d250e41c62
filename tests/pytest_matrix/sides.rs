//! One command with memwatch and without it, and what differs.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;
use serde_json::Value;

use super::lab::{Lab, Ran};

/// The plugin, which is also a package.
pub(crate) const PLUGIN: &str = include_str!("../../watchdog/src/pytest/memwatch_pytest.py");
/// A suite with a test of every outcome.
pub(crate) const MIXED: &str = include_str!("suites/test_mixed.py");
/// How many tests pytest selects of it.
pub(crate) const MIXED_TESTS: usize = 22;

/// Environments of pytest whose names begin so, as `xtask/src/pytests.rs` calls them.
pub(crate) fn environments(prefix: &str) -> Vec<PathBuf> {
    let home = env::var_os("MEMWATCH_TEST_PYTESTS").unwrap_or_else(|| {
        panic!("MEMWATCH_TEST_PYTESTS is not set: run these tests with `cargo xtask test`")
    });
    let entries = fs::read_dir(&home).expect("the environments");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.starts_with(prefix)
        })
        .collect();
    found.sort();
    found
}

/// A program of an environment that is always there: `plugins`, `runners`.
pub(crate) fn program(environment: &str, name: &str) -> String {
    let found = environments(environment);
    let [home] = found.as_slice() else {
        panic!("one environment {environment}, not {found:?}");
    };
    home.join("bin").join(name).display().to_string()
}

/// A lab with the mixed suite and no file that pytest would take its settings from.
pub(crate) fn mixed_lab() -> Lab {
    let lab = Lab::new();
    fs::write(lab.file("test_mixed.py"), MIXED).expect("a suite");
    lab
}

/// What became of a command without memwatch and with it.
pub(crate) struct Sides {
    what: String,
    plain: Ran,
    pub(crate) watched: Ran,
}

/// Runs it on both sides.
pub(crate) fn run<S: AsRef<OsStr>>(lab: &Lab, command: &[S], variables: &[(&str, &str)]) -> Sides {
    let words: Vec<&OsStr> = command.iter().map(AsRef::as_ref).collect();
    let variables: Vec<(&str, OsString)> = [("PYTHONDONTWRITEBYTECODE", "1")]
        .iter()
        .chain(variables)
        .map(|(name, value)| (*name, value.into()))
        .collect();
    let mut plain = lab.command(words[0]);
    plain.args(&words[1..]).envs(variables.clone());
    let plain = lab.run(plain);
    let mut watched =
        lab.reporting(&[&[OsStr::new("--quiet"), OsStr::new("--")], &words[..]].concat());
    watched.envs(variables);
    Sides {
        what: format!("{words:?}"),
        plain,
        watched: lab.run(watched),
    }
}

impl Sides {
    /// Fails unless both ended with the same code and printed the same.
    #[track_caller]
    pub(crate) fn expect_same(self) -> Self {
        self.expect_same_but(masked)
    }

    /// The same of what is left of the output by `view`.
    #[track_caller]
    pub(crate) fn expect_same_but(self, view: impl Fn(&[u8]) -> String) -> Self {
        let Self {
            plain,
            watched,
            what,
        } = &self;
        let [before, after] = [plain, watched].map(|ran| view(&ran.out));
        assert_eq!(before, after, "{what}: what it printed");
        let [before, after] = [plain, watched].map(|ran| view(ran.err.as_bytes()));
        assert_eq!(before, after, "{what}: what it printed as errors");
        assert_eq!(plain.status, watched.status, "{what}: {watched:#?}");
        self
    }

    /// Fails unless the record has so many tests, each once.
    #[track_caller]
    pub(crate) fn expect_tests(self, number: usize) -> Self {
        let suite = &self.watched.report["suite"];
        let told = outcomes(&self.watched.report);
        assert_eq!(told.len(), number, "{}: {suite:#}", self.what);
        let all = suite["tests"].as_array().map_or(0, Vec::len);
        assert_eq!(all, number, "{}: {suite:#}", self.what);
        assert_eq!(suite["selected"], number, "{}", self.what);
        self
    }

    /// Fails unless the record has every test that pytest says it collected, and counts as pytest does.
    #[track_caller]
    pub(crate) fn expect_all_tests(self) -> Self {
        let printed = self.watched.text();
        let found = |pattern: &str| {
            let pattern = Regex::new(pattern).expect("a pattern");
            let found = pattern.captures_iter(&printed).last();
            found.map_or(0, |found| found[1].parse::<usize>().expect("a number"))
        };
        let collected = found("collected ([0-9]+) items");
        assert!(collected > 0, "{}: {printed}", self.what);
        let told = outcomes(&self.watched.report);
        for word in ["passed", "failed", "skipped", "xfailed"] {
            let number = told.values().filter(|outcome| *outcome == word).count();
            let printed = found(&format!("\n=.* ([0-9]+) {word}"));
            assert_eq!(number, printed, "{}: {word}", self.what);
        }
        self.expect_tests(collected)
    }

    /// Fails if there is a plugin where none can be.
    #[track_caller]
    pub(crate) fn expect_no_suite(self) -> Self {
        assert_eq!(self.watched.report["suite"], Value::Null, "{}", self.what);
        self
    }

    /// Fails unless the command ended like this on both sides.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        let Self { plain, what, .. } = &self;
        assert_eq!(plain.status.code(), Some(code), "{what}: {plain:#?}");
        self
    }
}

/// The tests of a record and how they ended.
pub(crate) fn outcomes(report: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tests = report["suite"]["tests"].as_array();
    tests
        .into_iter()
        .flatten()
        .map(|test| (text(&test["id"]), text(&test["outcome"])))
        .collect()
}

/// What is printed, without what differs from run to run: times, pids, addresses, and the rule that is drawn to
/// the end of the line after a time.
pub(crate) fn masked(printed: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(printed).into_owned();
    for (pattern, mask) in [
        (r"[0-9]+\.[0-9]+ ?s(econds)?\b", "TIME"),
        (r"\b[0-9]+\.[0-9]{2}\b", "TIME"),
        (r"0x[0-9a-f]{6,}", "ADDRESS"),
        (r"pid=[0-9]+", "PID"),
        (r"pytest-of-([a-z]+)/pytest-[0-9]+", "TEMPORARY"),
        (r"\b[0-9]{14,}\b", "THREAD"),
        (r"={2,}", "="),
    ] {
        let pattern = Regex::new(pattern).expect("a pattern");
        text = pattern.replace_all(&text, mask).into_owned();
    }
    text
}

/// The same without the order of lines, which is chance's where workers run tests, and without who ran what.
pub(crate) fn in_any_order(printed: &[u8]) -> String {
    let worker = Regex::new(r"\[gw[0-9]+\]( \[ *[0-9]+%\])?").expect("a pattern");
    // One letter for a test, in the order in which they end.
    let progress = Regex::new(r"^[.FEsxXu]+ +\[ *[0-9]+%\]$").expect("a pattern");
    let text = masked(printed);
    let mut lines: Vec<_> = text
        .lines()
        .filter(|line| !progress.is_match(line))
        .map(|line| worker.replace_all(line, "[WORKER]").into_owned())
        .collect();
    lines.sort();
    lines.join("\n")
}

/// Writes the package that people install, with another version than that which is injected.
pub(crate) fn install(lab: &Lab, directory: &str) {
    let about = format!("{directory}/pytest_memwatch-77.7.dist-info");
    for (name, text) in [
        (format!("{directory}/memwatch_pytest.py"), PLUGIN),
        (
            format!("{about}/METADATA"),
            "Metadata-Version: 2.1\nName: pytest-memwatch\nVersion: 77.7\n",
        ),
        (
            format!("{about}/entry_points.txt"),
            "[pytest11]\nmemwatch_pytest = memwatch_pytest\n",
        ),
    ] {
        write(lab, &name, text);
    }
}

/// Where a file of the lab is, for a command line.
pub(crate) fn path(lab: &Lab, name: &str) -> String {
    lab.file(name).display().to_string()
}

/// Writes a file of the lab, with the directories above it.
pub(crate) fn write(lab: &Lab, name: &str, text: &str) {
    let file = lab.file(name);
    fs::create_dir_all(file.parent().unwrap_or(Path::new("/"))).expect("a directory");
    fs::write(file, text).expect("a file");
}
