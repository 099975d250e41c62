//! A private Python environment below the target directory: the machine's own is never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::packages::apt_install;
use crate::workspace::{step, target_dir};

/// An environment that has the packages asked for.
pub(crate) struct Python {
    bin: PathBuf,
}

impl Python {
    /// Makes the environment of the chores if it is not there yet, and adds the packages that it lacks.
    ///
    /// # Errors
    /// If Python, its venv module or a package cannot be had.
    pub(crate) fn with_packages(packages: &[&str]) -> Result<Self> {
        // Debian splits the module: without python3-venv it is there and cannot work.
        if !runs(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
            apt_install(
                &["python3", "python3-venv"],
                "Python 3 with its venv module",
            )?;
        }
        Self::environment(&target_dir().join("venv"), Path::new("python3"), packages)
    }

    /// An environment for these packages alone, which would be in the way of others.
    ///
    /// # Errors
    /// As for [`Python::with_packages`].
    pub(crate) fn of_their_own(name: &str, packages: &[&str]) -> Result<Self> {
        Self::environment(
            &target_dir().join("venvs").join(name),
            Path::new("python3"),
            packages,
        )
    }

    /// The same in a directory and of a Python of one's own choice.
    ///
    /// # Errors
    /// If the environment or a package cannot be had.
    pub(crate) fn environment(home: &Path, base: &Path, packages: &[&str]) -> Result<Self> {
        let bin = home.join("bin");
        // What has been installed here is written down at the end: pip takes a second to find out.
        let list = home.join("packages");
        let wanted = packages.join("\n");
        if !runs(Command::new(bin.join("python")).arg("--version")) {
            let mut venv = Command::new(base);
            step(
                "make a private Python",
                venv.args(["-m", "venv", "--clear"]).arg(home),
            )?;
        }
        if fs::read_to_string(&list).is_ok_and(|installed| installed == wanted) {
            return Ok(Self { bin });
        }
        let mut install = Command::new(bin.join("python"));
        install
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(packages);
        step(&format!("install {}", packages.join(", ")), &mut install)
            .context("tests need these packages from PyPI; is it reachable?")?;
        fs::write(list, wanted)?;
        Ok(Self { bin })
    }

    /// Where it is.
    pub(crate) fn home(&self) -> &Path {
        self.bin.parent().unwrap_or(&self.bin)
    }

    /// A program of the environment: `python`, `pytest`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
