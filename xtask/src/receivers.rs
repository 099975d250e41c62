//! The programs that tests have receive what memwatch exports: Debian's packages, unpacked below the target
//! directory and not installed, so that no service of theirs starts on this machine. What is tested with them is
//! `tests/exporters.rs`'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::packages::apt_install;
use crate::workspace::{step, target_dir};

/// Each with a file that it brings. They need nothing but libc.
const PACKAGES: [(&str, &str); 2] = [
    ("prometheus", "usr/bin/prometheus"),
    (
        "prometheus-node-exporter",
        "usr/bin/prometheus-node-exporter",
    ),
];

/// These belong to the machine.
const INSTALLED: [(&str, &str); 2] = [
    ("systemd", "/lib/systemd/systemd-journald"),
    ("dbus", "/usr/bin/dbus-daemon"),
];

/// Unpacks those that are not there yet; the directory that holds them.
///
/// # Errors
/// If a package cannot be had.
pub(crate) fn make() -> Result<PathBuf> {
    let home = target_dir().join("receivers");
    let lacking = |(_, file): &&(&str, &str)| !home.join(file).exists();
    let wanted: Vec<&str> = PACKAGES.iter().filter(lacking).map(|it| it.0).collect();
    if !wanted.is_empty() {
        let debs = home.join("debs");
        fs::create_dir_all(&debs)?;
        let mut update = Command::new("apt-get");
        step("fetch apt's lists", update.args(["update", "-qq"]))?;
        let mut download = Command::new("apt-get");
        download
            .args(["download", "-qq", "-o", "APT::Sandbox::User=root"])
            .args(&wanted);
        let what = format!("fetch {}", wanted.join(", "));
        step(&what, download.current_dir(&debs))?;
        for deb in fs::read_dir(&debs)? {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(deb?.path()).arg(&home);
            step("unpack it", &mut unpack)?;
        }
        fs::remove_dir_all(debs)?;
    }
    for (package, file) in PACKAGES {
        ensure!(home.join(file).exists(), "{package} does not bring {file}");
    }
    for (package, file) in INSTALLED {
        if !Path::new(file).exists() {
            apt_install(&[package], file)?;
        }
    }
    Ok(home)
}
