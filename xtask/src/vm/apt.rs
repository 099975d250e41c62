//! Debian packages of other releases than this machine's, by name, from the mirror that its own apt uses.
//! Lists and archives lie below the target directory; the machine's sources stay as they are. Packages
//! of its own release are `crate::packages`'.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::output;

/// The archive as this machine reaches it.
pub(crate) struct Archive {
    mirror: String,
    /// This machine's release: `bookworm`.
    codename: String,
    dir: PathBuf,
}

impl Archive {
    /// Lists and archives go below `dir`.
    ///
    /// # Errors
    /// If this is no Debian, or its apt has no source for its own release.
    pub(crate) fn of_this_machine(dir: PathBuf) -> Result<Self> {
        let about = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
        let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name));
        ensure!(
            field("ID=") == Some("debian"),
            "guests are made from Debian's packages, so this needs a Debian machine"
        );
        let codename = field("VERSION_CODENAME=").context("/etc/os-release has no codename")?;
        let sources = output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(RELEASE) $(REPO_URI)",
            "Created-By: Packages",
        ]))?;
        let mirror = sources
            .lines()
            .find_map(|line| line.strip_prefix(codename)?.strip_prefix(' '))
            .with_context(|| format!("apt's sources on this machine have none for {codename}"))?;
        Ok(Self {
            mirror: mirror.to_owned(),
            codename: codename.to_owned(),
            dir,
        })
    }

    /// The line of a `sources.list` for a suite.
    pub(crate) fn source(&self, suite: &str) -> String {
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        format!("deb [signed-by={keyring}] {} {suite} main", self.mirror)
    }

    /// Installs packages on this machine from its release's backports, where it has them.
    ///
    /// # Errors
    /// If apt-get fails.
    pub(crate) fn install(&self, packages: &[&str]) -> Result<()> {
        let backports = format!("{}-backports", self.codename);
        let updates = format!("{}-updates", self.codename);
        let suites = self.suites(&[&self.codename, &updates, &backports])?;
        let mut install = suites.command("apt-get");
        install
            .args(["install", "-y", "-qq", "--no-install-recommends", "-t"])
            .arg(backports)
            .args(packages);
        output(&mut install).map(drop)
    }

    /// Fetches the lists of this machine's own release.
    ///
    /// # Errors
    /// If apt-get fails.
    pub(crate) fn of_its_release(&self) -> Result<Suites> {
        self.suites(&[&self.codename])
    }

    /// Fetches the lists of these suites, and of no other.
    ///
    /// # Errors
    /// If apt-get fails.
    pub(crate) fn suites(&self, names: &[&str]) -> Result<Suites> {
        let dir = self.dir.join(names.join("+"));
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        let sources: Vec<_> = names.iter().map(|name| self.source(name) + "\n").collect();
        fs::write(dir.join("sources.list"), sources.concat())?;
        let suites = Suites { dir };
        output(suites.command("apt-get").args(["update", "-qq"]))?;
        Ok(suites)
    }
}

/// Some suites whose lists are here.
pub(crate) struct Suites {
    dir: PathBuf,
}

impl Suites {
    /// Downloads `package` and those that it needs, as far as `wanted` says so, and unpacks them below
    /// `into`.
    ///
    /// # Errors
    /// If there is no such package, or it does not come.
    pub(crate) fn unpack(
        &self,
        package: &str,
        wanted: impl Fn(&str) -> bool,
        into: &Path,
    ) -> Result<()> {
        let depends = ["depends", "--recurse", "--important", package];
        let tree = output(self.command("apt-cache").args(depends))?;
        let names = tree.lines().filter(|line| !line.starts_with([' ', '<']));
        let debs = into.join("debs");
        fs::create_dir_all(&debs)?;
        let mut download = self.command("apt-get");
        download.args(["download", "-qq"]).current_dir(&debs);
        output(download.args(names.filter(|name| wanted(name))))?;
        for deb in fs::read_dir(&debs)? {
            let mut unpack = Command::new("dpkg-deb");
            output(unpack.arg("-x").arg(deb?.path()).arg(into))?;
        }
        fs::remove_dir_all(debs)?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let dir = self.dir.display();
        for option in [
            format!("Dir::Etc::sourcelist={dir}/sources.list"),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            "Acquire::Languages=none".to_owned(),
            // Its usual user may not write below the target directory.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}
