//! `cargo xtask demo`: one word in front of pytest, on a suite with one bad test. Everything it makes
//! is below the target directory, but for a cgroup that memwatch makes and removes.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use crate::machine;
use crate::python::Python;
use crate::soak::CULPRIT_FILE;
use crate::soak::judge::{Ending, Evidence, judge};
use crate::workspace::{Release, root, target_dir};

/// Low enough to be reached in seconds, and room enough for pytest and two workers.
const LIMIT: &str = "300M";

/// Runs the demo.
///
/// # Errors
/// If the hog was not stopped by memwatch, or if something is left behind.
pub(crate) fn run() -> Result<()> {
    machine::require()?;
    let release = Release::build()?;
    let python = Python::with_packages(&["pytest", "pytest-xdist"])?;
    let dir = target_dir().join("demo");
    fs::create_dir_all(&dir)?;
    let incident = dir.join("incident.json");
    let culprit = dir.join("culprit");
    for old in [&incident, &culprit] {
        if old.exists() {
            fs::remove_file(old)?;
        }
    }

    let pytest = format!(
        "{} -n 2 tests/workloads/suite",
        python.program("pytest").display()
    );
    println!("\n$ memwatch attach --memory-max {LIMIT} --cmd '{pytest}'\n");
    let oom_kills_before = machine::oom_kills()?;
    let status = Command::new(&release.memwatch)
        .current_dir(root())
        .args(["attach", "--memory-max", LIMIT, "--report"])
        .arg(&incident)
        .args(["--cmd", &pytest])
        .env(CULPRIT_FILE, &culprit)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status()?;

    let evidence = Evidence::gather(status.code(), &incident, &culprit, oom_kills_before)?;
    // pytest's own code for "a test failed": the run went on and could say so.
    let wrong = judge(Ending::TestEnded { exit_code: 1 }, &evidence);
    if !wrong.is_empty() {
        bail!("the demo did not go as it must: {}", wrong.join("; "));
    }
    println!("\nOne test ate memory; memwatch had it fail, and the other tests went on.");
    println!("The incident: {}", incident.display());
    Ok(())
}
