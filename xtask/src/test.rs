//! `cargo xtask test`: every test there is, from pure functions to the real kernel.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::browser;
use crate::collectors;
use crate::machine;
use crate::pytests;
use crate::python::Python;
use crate::soak;
use crate::workspace::{cargo, step, target_dir};

/// Runs all tests; the slow ones last.
///
/// # Errors
/// If the machine lacks what a test needs, or a test fails.
pub(crate) fn run() -> Result<()> {
    machine::require()?;
    let environment = environment()?;

    step(
        "unit, property and fixture tests",
        &mut cargo(&["test", "--workspace", "--lib", "--bins"]),
    )?;
    step(
        "examples in the documentation",
        &mut cargo(&["test", "--workspace", "--doc"]),
    )?;

    let mut build = cargo(&[
        "build",
        "-p",
        "memwatch",
        "-p",
        "xtask",
        "--bin",
        "memwatch",
        "--example",
        "workload",
    ]);
    step("build the workloads", &mut build)?;
    let mut real = cargo(&[
        "test",
        "-p",
        "memwatch",
        "--no-fail-fast",
        "--test",
        "*",
        "--",
        "--test-threads=1",
    ]);
    real.envs(environment);
    heed_keys(&mut real);
    step("the real binary on the real kernel", &mut real)?;

    soak::run(&soak::Args {
        runs: 2,
        only: None,
        quick: true,
    })
}

/// Whoever runs this in the background, or with nohup(1), has all that it starts ignore what a terminal's keys and its
/// end send. Tests are of what these signals do.
fn heed_keys(command: &mut Command) {
    let heed = || {
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
            // SAFETY: sets a disposition of the child's own, to one that calls no code.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: signal(2) may be called between fork and exec.
    unsafe { command.pre_exec(heed) };
}

/// Prints, for a shell, what tests on the real kernel find in their environment.
///
/// # Errors
/// If a Python cannot be had.
pub(crate) fn print_environment() -> Result<()> {
    for (name, value) in environment()? {
        println!("export {name}='{}'", value.display());
    }
    Ok(())
}

/// Where tests on the real kernel find the workloads, the Pythons, the receivers of incidents and the browser.
fn environment() -> Result<[(&'static str, PathBuf); 6]> {
    let python = Python::with_packages(&[
        "pytest",
        "pytest-xdist",
        "pytest-rerunfailures",
        "numpy",
        "pre-commit",
    ])?;
    // Reads what docs/fleet brings for other tools.
    let fleet = Python::of_their_own(
        "fleet",
        &["kubernetes-validate", "check-jsonschema", "pyyaml"],
    )?;
    Ok([
        ("MEMWATCH_TEST_PYTHON", python.program("python")),
        ("MEMWATCH_TEST_FLEET_PYTHON", fleet.program("python")),
        ("MEMWATCH_TEST_PYTESTS", pytests::make()?),
        ("MEMWATCH_TEST_COLLECTORS", collectors::make()?),
        ("MEMWATCH_TEST_BROWSER", browser::find()?),
        (
            "MEMWATCH_TEST_WORKLOAD",
            target_dir().join("debug/examples/workload"),
        ),
    ])
}
