//! The kernels that guests boot: Debian's for clouds, one for each release that users have. Their drivers
//! for NVMe and ext4 are built in, so they need neither modules nor an initrd.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::apt::Archive;
use super::cache::keep;

/// A kernel, by its series.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Kernel {
    /// Of Debian 12.
    #[value(name = "6.1")]
    V6_1,
    /// Of Debian 13.
    #[value(name = "6.12")]
    V6_12,
    /// Of Debian 13's backports.
    #[value(name = "7.3")]
    V7_3,
}

const PACKAGE: &str = "linux-image-cloud-amd64";

impl Kernel {
    pub(super) const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_3];

    /// As people and headers of scenarios call it.
    pub(super) fn series(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_3 => "7.3",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::V7_3 => "trixie-backports",
        }
    }

    /// Where its `vmlinuz` is, below `dir`, after it was fetched if it was not there.
    ///
    /// # Errors
    /// If the package does not come, or is of another series by now.
    pub(super) fn provide(self, archive: &Archive, dir: &Path) -> Result<PathBuf> {
        let dir = dir.join(format!("kernel-{}", self.series()));
        let recipe = format!("{PACKAGE} of {}\n", self.suite());
        keep(&dir, &recipe, |dir| self.fetch(archive, dir))?;
        Ok(dir.join("vmlinuz"))
    }

    fn fetch(self, archive: &Archive, dir: &Path) -> Result<()> {
        println!("\n── fetch Linux {}", self.series());
        let unpacked = dir.join("unpacked");
        // 7.3's image is empty and needs others that hold its parts.
        let of_the_kernel =
            |name: &str| name.starts_with("linux-") && name.ends_with("cloud-amd64");
        let suites = archive.suites(&[self.suite()])?;
        suites.unpack(PACKAGE, of_the_kernel, &unpacked)?;
        let (vmlinuz, release) = find_vmlinuz(&unpacked)?
            .with_context(|| format!("{PACKAGE} of {} has no vmlinuz", self.suite()))?;
        if !release.starts_with(&format!("{}.", self.series())) {
            bail!(
                "{} has moved on from {} to {release}",
                self.suite(),
                self.series()
            );
        }
        println!("{release}");
        fs::rename(vmlinuz, dir.join("vmlinuz"))?;
        fs::remove_dir_all(unpacked)?;
        Ok(())
    }
}

/// The kernel below a directory and its release: `boot/vmlinuz-RELEASE`, or `RELEASE/vmlinuz`.
fn find_vmlinuz(dir: &Path) -> Result<Option<(PathBuf, String)>> {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find_vmlinuz(&path)? {
                return Ok(Some(found));
            }
        } else if let Some(file) = name(&path).filter(|file| file.starts_with("vmlinuz")) {
            let release = file.strip_prefix("vmlinuz-").map(str::to_owned);
            return Ok(release.or_else(|| name(dir)).map(|release| (path, release)));
        }
    }
    Ok(None)
}
