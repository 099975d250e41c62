//! What it costs a suite to have its tests measured and watched: memwatch with its plugin for pytest, and
//! beside it plugins that are used for a part of that. On tests that do nothing, so that nothing hides it. What
//! memwatch costs without its plugin is `pytest`'s.

use std::path::Path;

use anyhow::Result;

use super::pytest::{FILES, TESTS_PER_FILE, seconds, write_suite};
use super::rounds::{Side, interleave};
use super::table;
use crate::python::Python;
use crate::workspace::Release;

const GOAL: f64 = 1.05;

/// Another plugin: its package, the name under which pytest knows it, what turns it on, how many files of tests
/// it is given and in how many rounds, since some take a minute for the whole suite.
struct Other {
    package: &'static str,
    name: &'static str,
    options: &'static [&'static str],
    files: usize,
    rounds: usize,
}

const OTHERS: [Other; 3] = [
    Other {
        package: "pytest-timeout",
        name: "timeout",
        options: &["--timeout=60"],
        files: FILES,
        rounds: 30,
    },
    Other {
        package: "pytest-memray",
        name: "memray",
        options: &["--memray"],
        files: 3,
        rounds: 6,
    },
    Other {
        package: "pytest-monitor",
        name: "monitor",
        options: &["--db=monitor.db"],
        files: 1,
        rounds: 6,
    },
];

/// Measures and prints.
///
/// # Errors
/// If pytest cannot be had, or fails.
pub(crate) fn run(release: &Release, scratch: &Path, rounds: usize) -> Result<()> {
    let python = Python::with_packages(&["pytest", "pytest-xdist"])?.program("python");
    let suite = write_suite(scratch, FILES)?;
    let run = ["-m", "pytest", "--quiet", "-p", "no:xdist"].map(Path::new);
    let pytest = [&[python.as_path()], &run[..], &[suite.as_path()]].concat();
    let attach = ["attach", "--quiet", "--"].map(Path::new);
    let watched = [&[release.memwatch.as_path()], &attach[..], &pytest[..]].concat();

    let tests = FILES * TESTS_PER_FILE;
    table::headline("tests", "what it costs to measure and watch empty tests");
    seconds(&pytest, scratch)?;
    table::ratio_columns("with");
    let [measured] = interleave(rounds, |side| {
        let command = match side {
            Side::With => &watched,
            Side::Without | Side::Again => &pytest,
        };
        Ok([seconds(command, scratch)?])
    })?;
    table::ratio(&format!("memwatch, {tests} tests, s"), &measured, GOAL);
    for other in &OTHERS {
        if let Err(why) = beside(other, scratch, rounds) {
            println!("{:<28} not measured: {why:#}", other.package);
        }
    }
    Ok(())
}

/// Another plugin on the newest pytest that all of them work with, against the same pytest without it.
fn beside(other: &Other, scratch: &Path, rounds: usize) -> Result<()> {
    let packages = ["pytest<8", "setuptools<81", other.package];
    let python = Python::of_their_own(other.package, &packages)?.program("python");
    let suite = write_suite(scratch, other.files)?;
    let off = format!("no:{}", other.name);
    let run = ["-m", "pytest", "--quiet"].map(Path::new);
    let begin = [&[python.as_path()], &run[..]].concat();
    let without = [&begin[..], &[Path::new("-p"), Path::new(&off), &suite]].concat();
    let options: Vec<&Path> = other.options.iter().map(Path::new).collect();
    let with = [&begin[..], &options, &[suite.as_path()]].concat();
    seconds(&without, scratch)?;
    let [measured] = interleave(rounds.min(other.rounds), |side| {
        let command = match side {
            Side::With => &with,
            Side::Without | Side::Again => &without,
        };
        Ok([seconds(command, scratch)?])
    })?;
    let tests = other.files * TESTS_PER_FILE;
    table::ratio(&format!("{}, {tests}, s", other.package), &measured, GOAL);
    Ok(())
}
