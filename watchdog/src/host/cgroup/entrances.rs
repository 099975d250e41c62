//! The ways into a target: files to write a pid to, or systemd, which moves what this user may not.

use super::CgroupError;
use crate::host::file_error::FileError;
use crate::host::systemd::Scope;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

/// How processes come into a target.
#[derive(Debug)]
pub enum Entrances<'t> {
    /// Each process may write itself in, and root everybody.
    Files(Vec<File>),
    /// systemd must be asked.
    Systemd {
        /// Where the target lies.
        scope: &'t Scope,
        /// Its name there.
        below: String,
    },
}

impl<'t> Entrances<'t> {
    pub(super) fn open<'d>(groups: impl Iterator<Item = &'d Path>) -> Result<Self, CgroupError> {
        let files = groups.map(|dir| {
            let path = dir.join("cgroup.procs");
            let file = OpenOptions::new().write(true).open(&path);
            file.map_err(FileError::at("open", &path))
        });
        let mut files: Vec<File> = files.collect::<Result<_, _>>()?;
        // By v2 first: who is there is known to be in the target, should this memwatch die before the rest.
        files.reverse();
        Ok(Self::Files(files))
    }

    pub(super) fn by_systemd(scope: &'t Scope, target: &Path) -> Self {
        let below = target.strip_prefix(&scope.dir).unwrap_or(target);
        Self::Systemd {
            scope,
            below: below.to_string_lossy().into_owned(),
        }
    }

    /// The files, for a process to write itself in; none where systemd must be asked.
    pub fn doors(&self) -> Vec<RawFd> {
        match self {
            Self::Files(files) => files.iter().map(AsRawFd::as_raw_fd).collect(),
            Self::Systemd { .. } => Vec::new(),
        }
    }

    /// Whether a process cannot go in by itself.
    pub fn must_be_asked(&self) -> bool {
        matches!(self, Self::Systemd { .. })
    }

    /// Moves a process in.
    ///
    /// # Errors
    /// ESRCH if there is no such process; EACCES, EPERM or systemd's word if it may not be moved.
    pub fn let_in(&self, pid: u32) -> io::Result<()> {
        match self {
            Self::Files(files) => files
                .iter()
                .try_for_each(|mut file| file.write_all(pid.to_string().as_bytes())),
            Self::Systemd { scope, below } => scope.attach(below, pid).map_err(io::Error::other),
        }
    }
}
