//! What memwatch costs a test suite as a whole: from the command's start to its end, on tests that do
//! nothing, so that nothing hides it. Without its plugin for pytest; with it is `tests`'.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use super::rounds::{Side, interleave};
use super::table;
use crate::python::Python;
use crate::workspace::Release;

pub(crate) const FILES: usize = 30;
pub(crate) const TESTS_PER_FILE: usize = 100;
const GOAL: f64 = 1.02;

/// Measures and prints.
///
/// # Errors
/// If pytest cannot be had, or fails.
pub(crate) fn run(release: &Release, scratch: &Path, rounds: usize) -> Result<()> {
    let python = Python::with_packages(&["pytest"])?.program("python");
    let suite = write_suite(scratch, FILES)?;
    let pytest = [
        python.as_path(),
        Path::new("-m"),
        Path::new("pytest"),
        Path::new("--quiet"),
        &suite,
    ];
    let watched = [
        &[
            release.memwatch.as_path(),
            Path::new("attach"),
            Path::new("--quiet"),
            Path::new("--no-pytest"),
            Path::new("--"),
        ],
        &pytest[..],
    ]
    .concat();

    table::headline("pytest", "a suite of 3,000 empty tests");
    // Writes what Python and pytest keep for the next time.
    seconds(&pytest, scratch)?;
    table::ratio_columns("suite");
    let [measured] = interleave(rounds, |side| {
        let command = match side {
            Side::With => &watched[..],
            Side::Without | Side::Again => &pytest[..],
        };
        Ok([seconds(command, scratch)?])
    })?;
    table::ratio("from start to end, s", &measured, GOAL);
    Ok(())
}

/// So many files of empty tests.
pub(crate) fn write_suite(scratch: &Path, files: usize) -> Result<PathBuf> {
    let dir = scratch.join(format!("suite-{files}"));
    fs::create_dir_all(&dir)?;
    let tests: String = (0..TESTS_PER_FILE)
        .map(|number| format!("def test_{number}():\n    pass\n\n\n"))
        .collect();
    for number in 0..files {
        let file = dir.join(format!("test_{number}.py"));
        // The same file keeps its time, and so its compiled form.
        if fs::read_to_string(&file).is_ok_and(|old| old == tests) {
            continue;
        }
        fs::write(file, &tests)?;
    }
    Ok(dir)
}

/// How long it takes, in that directory.
pub(crate) fn seconds(command: &[&Path], directory: &Path) -> Result<f64> {
    let started = Instant::now();
    let status = Command::new(command[0])
        .args(&command[1..])
        .current_dir(directory)
        // As users have it: the plugin is compiled once.
        .env_remove("PYTHONDONTWRITEBYTECODE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "the empty tests failed ({status})");
    Ok(started.elapsed().as_secs_f64())
}
