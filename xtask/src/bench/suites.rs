//! What memwatch with its plugin costs suites that nobody here wrote: from the command's start to its end.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::rounds::{Side, interleave};
use super::statistics::Estimate;
use super::table;
use crate::pytests;
use crate::workspace::Release;

const GOAL: f64 = 1.02;

/// Name, where its sources are below those of [`pytests`] if it is not installed, and what to run of it: whole suites,
/// or a whole part of those that take minutes.
const SUITES: [(&str, Option<&str>, &[&str]); 5] = [
    ("numpy", None, &["--pyargs", "numpy.lib"]),
    ("pandas", None, &["--pyargs", "pandas.tests.series"]),
    // Those of its package want it installed.
    (
        "attrs",
        Some("attrs"),
        &["tests", "--ignore=tests/test_packaging.py"],
    ),
    ("more-itertools", Some("more-itertools"), &["tests"]),
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
        let command = |watched: bool| {
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
                .stdin(Stdio::null());
            command
        };
        let measure = |watched: bool| -> Result<f64> {
            let started = Instant::now();
            let status = command(watched).stdout(Stdio::null()).status()?;
            ensure!(status.success(), "the tests of {name} failed ({status})");
            Ok(started.elapsed().as_secs_f64())
        };
        // Has Python write what it keeps for the next time, too.
        let first = command(false).output()?;
        let tests = tests_of(&String::from_utf8_lossy(&first.stdout));
        let tests = tests.with_context(|| format!("pytest does not say how {name} ended"))?;
        let [measured] = interleave(rounds, |side| Ok([measure(matches!(side, Side::With))?]))?;
        table::ratio(&format!("{name}, s"), &measured, GOAL);
        let [without, with] = [&measured.without, &measured.with].map(|s| Estimate::of(s).median);
        println!(
            "  ({tests} tests of {:.2} ms each; with memwatch {:.0} us more each, its own start and end among them)",
            without * 1e3 / tests as f64,
            (with - without) * 1e6 / tests as f64
        );
    }
    Ok(())
}

/// How many tests pytest says to have run, in its last line: `1425 passed, 72 skipped in 4.09s`. What it says in more
/// words, such as `9876 subtests passed`, are no tests.
fn tests_of(said: &str) -> Option<usize> {
    let (counts, _) = said.trim_end().lines().last()?.rsplit_once(" in ")?;
    let counts = counts.trim_start_matches(['=', ' ']).split(", ");
    let tests = counts.filter_map(|count| {
        let (number, what) = count.split_once(' ')?;
        let is_outcome = ["passed", "failed", "skipped", "xfailed", "xpassed"].contains(&what);
        is_outcome.then(|| number.parse::<usize>().ok())?
    });
    Some(tests.sum()).filter(|&tests| tests > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_and_nothing_else() {
        let line = "...\n1425 passed, 72 skipped, 1 xfailed, 2 warnings in 4.09s\n";
        assert_eq!(tests_of(line), Some(1498));
        let line = "===== 145 passed, 9876 subtests passed in 6.24s =====";
        assert_eq!(tests_of(line), Some(145));
        assert_eq!(tests_of("no tests ran in 0.01s"), None);
        assert_eq!(tests_of(""), None);
    }
}
