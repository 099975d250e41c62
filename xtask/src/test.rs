//! `cargo xtask test`: every test there is, from pure functions to the real kernel.

use anyhow::Result;

use crate::machine;
use crate::python::Python;
use crate::soak;
use crate::workspace::{cargo, step, target_dir};

/// Runs all tests; the slow ones last.
///
/// # Errors
/// If the machine lacks what a test needs, or a test fails.
pub(crate) fn run() -> Result<()> {
    machine::require()?;
    let python = Python::with_packages(&[
        "pytest",
        "pytest-xdist",
        "pytest-rerunfailures",
        "numpy",
        "pre-commit",
    ])?;

    step(
        "unit, property and fixture tests",
        &mut cargo(&["test", "--workspace", "--lib", "--bins"]),
    )?;
    step(
        "examples in the documentation",
        &mut cargo(&["test", "--workspace", "--doc"]),
    )?;

    // Tests on the real kernel find the workloads and this Python where the next two lines put them.
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
        "--test",
        "*",
        "--",
        "--test-threads=1",
    ]);
    real.env("MEMWATCH_TEST_PYTHON", python.program("python"));
    real.env(
        "MEMWATCH_TEST_WORKLOAD",
        target_dir().join("debug/examples/workload"),
    );
    step("the real binary on the real kernel", &mut real)?;

    soak::run(&soak::Args {
        runs: 2,
        only: None,
        quick: true,
    })
}
