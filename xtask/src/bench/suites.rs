//! What memwatch with its plugin costs suites that nobody here wrote: from the command's start to its end.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use super::rounds::{Side, interleave};
use super::table;
use crate::pytests;
use crate::workspace::Release;

const GOAL: f64 = 1.02;

/// Name, where its sources are below those of [`pytests`] if it is not installed, and what to run of it.
const SUITES: [(&str, Option<&str>, &[&str]); 5] = [
    (
        "numpy",
        None,
        &["--pyargs", "numpy.lib.tests.test_function_base"],
    ),
    (
        "pandas",
        None,
        &["--pyargs", "pandas.tests.series.test_constructors"],
    ),
    (
        "attrs",
        Some("attrs"),
        &["tests/test_make.py", "tests/test_dunders.py"],
    ),
    (
        "more-itertools",
        Some("more-itertools"),
        &["tests/test_recipes.py"],
    ),
    ("pluggy", Some("pluggy"), &["testing"]),
];

/// Measures and prints.
///
/// # Errors
/// If a suite cannot be had, or fails.
pub(crate) fn run(release: &Release, scratch: &Path, rounds: usize) -> Result<()> {
    let home = pytests::make()?;
    table::headline("suites", "suites that nobody here wrote, with the plugin");
    table::ratio_columns("suite");
    for (name, source, options) in SUITES {
        let place = source.map_or_else(
            || scratch.to_owned(),
            |name| home.join("sources").join(name),
        );
        let measure = |watched: bool| -> Result<f64> {
            let pytest = home.join("plugins/bin/pytest");
            let mut command = if watched {
                let mut command = Command::new(&release.memwatch);
                command.args(["attach", "--quiet", "--"]).arg(pytest);
                command
            } else {
                Command::new(pytest)
            };
            command
                .current_dir(&place)
                .env("PYTHONPATH", place.join("src"))
                // As users have it: the plugin is compiled once.
                .env_remove("PYTHONDONTWRITEBYTECODE")
                .args(["--quiet", "-p", "no:cacheprovider", "-p", "no:asyncio"])
                .args(options)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            let started = Instant::now();
            let status = command.status()?;
            ensure!(status.success(), "the tests of {name} failed ({status})");
            Ok(started.elapsed().as_secs_f64())
        };
        // Writes what Python keeps for the next time.
        measure(false)?;
        let [measured] = interleave(rounds, |side| Ok([measure(matches!(side, Side::With))?]))?;
        table::ratio(&format!("{name}, s"), &measured, GOAL);
    }
    Ok(())
}
