//! Debian packages that a chore needs, installed by name where that is allowed; elsewhere the user is
//! told what to install. Python packages are `python`'s.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Installs `packages`, or the newest of them. `what` says what they are for.
///
/// # Errors
/// If this is no Debian machine or not root, with the command to run; or if apt-get fails.
pub(crate) fn apt_install(packages: &[&str], what: &str) -> Result<()> {
    let command = format!("apt-get install -y {}", packages.join(" "));
    // SAFETY: reads one number of this process.
    let root = unsafe { libc::geteuid() } == 0;
    if !root || !Path::new("/etc/debian_version").exists() {
        bail!("{what} is missing; on Debian, as root: apt-get update && {command}");
    }
    // A machine's lists may be as old as its image, and name versions that are gone or too old.
    run(&["update", "-qq"])?;
    println!("{command}");
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    run(&[&install, packages].concat())
}

fn run(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("cannot start apt-get")?;
    ensure!(
        output.status.success(),
        "apt-get {} failed ({}):\n{}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
