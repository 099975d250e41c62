//! The receivers that tests send incidents and figures to, as people run them: rotel for OTLP's logs, VictoriaMetrics
//! for its metrics, Prometheus and node_exporter, which come for theirs. Below the target directory, so that no
//! service of theirs starts on this machine; journald and a bus, of which there is one, are the machine's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages::apt_install;
use crate::python::Python;
use crate::vm::Archive;
use crate::workspace::target_dir;

/// The first release of Debian whose VictoriaMetrics takes OTLP. It is one program that needs no library.
const SUITE: &str = "trixie";

/// Debian's packages of this machine's own release, and the programs of theirs that are wanted. They need no library.
const OF_THIS_RELEASE: [(&str, &[&str]); 2] = [
    ("prometheus", &["prometheus", "promtool"]),
    ("prometheus-node-exporter", &["prometheus-node-exporter"]),
];

/// These belong to the machine.
const INSTALLED: [(&str, &str); 2] = [
    ("systemd", "/lib/systemd/systemd-journald"),
    ("dbus", "/usr/bin/dbus-daemon"),
];

/// Gets those that are not there yet; the directory that holds each by its name.
///
/// # Errors
/// If one cannot be had.
pub(crate) fn make() -> Result<PathBuf> {
    let home = target_dir().join("collectors");
    fs::create_dir_all(&home)?;
    let rotel = home.join("rotel");
    if !rotel.exists() {
        let python = Python::of_their_own("rotel", &["rotel==0.0.1a15"])?;
        let program = find(&python.home().join("lib"), "rotel-agent");
        let program = program.context("rotel's wheel has no rotel-agent")?;
        place(&program, &rotel)?;
    }
    let victoria = home.join("victoria-metrics");
    if !victoria.exists() {
        let unpacked = home.join("unpacked");
        let archive = Archive::of_this_machine(home.join("apt"))?;
        let package = "victoria-metrics";
        let suites = archive.suites(&[SUITE])?;
        suites.unpack(package, |name| name == package, &unpacked)?;
        let program = find(&unpacked, "victoria-metrics");
        let program = program.context("Debian's package has no victoria-metrics")?;
        place(&program, &victoria)?;
        fs::remove_dir_all(unpacked)?;
    }
    for (package, programs) in OF_THIS_RELEASE {
        if programs.iter().all(|name| home.join(name).exists()) {
            continue;
        }
        let unpacked = home.join("unpacked");
        let archive = Archive::of_this_machine(home.join("apt"))?;
        let suites = archive.of_its_release()?;
        suites.unpack(package, |name| name == package, &unpacked)?;
        for name in programs {
            let program = find(&unpacked, name);
            let program = program.with_context(|| format!("{package} has no {name}"))?;
            place(&program, &home.join(name))?;
        }
        fs::remove_dir_all(unpacked)?;
    }
    for (package, file) in INSTALLED {
        if !Path::new(file).exists() {
            apt_install(&[package], file)?;
        }
    }
    Ok(home)
}

/// Whole or not at all.
fn place(program: &Path, name: &Path) -> Result<()> {
    let passing = name.with_extension("passing");
    fs::copy(program, &passing)?;
    Ok(fs::rename(passing, name)?)
}

/// The first program of this name below `dir`.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).ok()?.flatten() {
            let kind = entry.file_type().ok()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() && entry.file_name() == name && is_program(&entry.path()) {
                return Some(entry.path());
            }
        }
    }
    None
}

/// Not a file of its own name with what it is started with.
fn is_program(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
}
