//! A cgroup held by its directory, for who goes by its id and not by its name.

use super::open_dir;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A directory held open: below [`Held::path`] lies this cgroup and no other, whatever becomes of its name.
#[derive(Debug)]
pub struct Held(File);

impl Held {
    /// The cgroup of that id, which must be at `dir`.
    ///
    /// # Errors
    /// It is not there; ENOENT, too, if another is in its place.
    pub fn open(dir: &Path, id: u64) -> io::Result<Self> {
        let held = open_dir(dir)?;
        if held.metadata()?.ino() == id {
            Ok(Self(held))
        } else {
            Err(io::Error::from_raw_os_error(libc::ENOENT))
        }
    }

    /// Where its files are, as long as this lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
