//! `cargo xtask dist`: the Debian package, with the binary, its man pages, shell completions, the commented
//! configuration and the licences, of which `watchdog/Cargo.toml` says what goes where; and the plugin's wheel.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::packages::apt_install;
use crate::wheel;
use crate::workspace::{Release, cargo, step, target_dir};

/// The last one that is known to build with the compiler that this repository asks for.
const CARGO_DEB: &str = "3.8.0";

/// Makes the package and the wheel, and prints where they are.
///
/// # Errors
/// If something cannot be installed, built or packed.
pub(crate) fn run() -> Result<()> {
    let (package, wheel) = (package()?, wheel::make(&target_dir())?);
    println!("\n{}\n{}", package.display(), wheel.display());
    Ok(())
}

/// The same for other chores: the package's path.
///
/// # Errors
/// As `run`.
pub(crate) fn package() -> Result<PathBuf> {
    require_tools()?;
    Release::build()?;
    let generated = target_dir().join("release/dist");
    step(
        "man pages and completions",
        cargo(&["run", "--quiet", "--release", "-p", "xtask"])
            .args(["--example", "manual", "--"])
            .arg(generated),
    )?;
    let deb = target_dir().join("memwatch.deb");
    step(
        "package",
        cargo(&["deb", "--package", "memwatch", "--no-build", "--quiet"])
            .arg("--output")
            .arg(&deb),
    )?;
    Ok(deb)
}

fn require_tools() -> Result<()> {
    let works = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !works("dpkg-shlibdeps", "--version") {
        apt_install(&["dpkg-dev"], "dpkg-shlibdeps")?;
    }
    if !works("xz", "--version") {
        apt_install(&["xz-utils"], "xz")?;
    }
    let found = cargo(&["deb", "--version"]).output();
    let found = found.context("cannot start cargo")?;
    if String::from_utf8_lossy(&found.stdout).trim() == CARGO_DEB {
        return Ok(());
    }
    step(
        "install cargo-deb",
        cargo(&[
            "install",
            "--quiet",
            "--locked",
            "--no-default-features",
            "cargo-deb",
        ])
        .args(["--version", CARGO_DEB]),
    )
}
