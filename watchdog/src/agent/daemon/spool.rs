//! Incidents on disk: one file each, whole or not there, root's alone.
//!
//! Bounded: of more than [`KEPT`] the oldest go.

use crate::host::file_error::FileError;
use crate::incident::{Record, ReportError, ReportFile};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// As many incidents as are kept.
const KEPT: usize = 1000;
/// Where, unless the service manager says otherwise (systemd.exec(5), StateDirectory=).
const STATE: &str = "/var/lib/memwatch";

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    dir: PathBuf,
}

impl Spool {
    /// Makes it.
    ///
    /// # Errors
    /// It is not there and cannot be made, or not be made root's alone.
    pub(super) fn open() -> Result<Self, FileError> {
        let state = std::env::var_os("STATE_DIRECTORY").unwrap_or_else(|| OsString::from(STATE));
        Self::at(&Path::new(&state).join("incidents"))
    }

    fn at(dir: &Path) -> Result<Self, FileError> {
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(FileError::at("make", dir))?;
        fs::set_permissions(dir, Permissions::from_mode(0o700))
            .map_err(FileError::at("close to others", dir))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Keeps an incident; how many older ones went for it. Waits for the disk.
    ///
    /// # Errors
    /// It did not get there.
    pub(super) fn keep(&self, record: &Record) -> Result<usize, ReportError> {
        // Names begin with the time (UUID version 7), so that they sort by it.
        ReportFile::open(&self.dir.join(format!("{}.json", record.id)))?.write(record)?;
        Ok(self.evict())
    }

    fn evict(&self) -> usize {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return 0;
        };
        let mut names: Vec<OsString> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name()))
            .filter(|name| Path::new(name).extension().is_some_and(|e| e == "json"))
            .collect();
        names.sort();
        let too_many = names.len().saturating_sub(KEPT);
        let removed = names.iter().take(too_many);
        removed
            .filter(|name| fs::remove_file(self.dir.join(name)).is_ok())
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::Verdict;
    use std::time::SystemTime;

    #[test]
    fn the_oldest_go_and_the_directory_is_closed_to_others() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("state/incidents");
        let spool = Spool::at(&dir).expect("made");
        let mode = fs::metadata(&dir).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        for n in 0..KEPT {
            fs::write(dir.join(format!("0-{n:04}.json")), "{}").expect("room");
        }
        fs::write(dir.join("notes.txt"), "not ours").expect("room");
        let now = SystemTime::now();
        let record = Record::new(now, now, 0, Verdict::Ongoing);
        assert_eq!(spool.keep(&record).expect("room"), 1);
        assert!(!dir.join("0-0000.json").exists(), "the oldest");
        assert!(dir.join("0-0001.json").exists());
        assert!(dir.join("notes.txt").exists());
        let kept = fs::read(dir.join(format!("{}.json", record.id))).expect("kept");
        let kept: Record = serde_json::from_slice(&kept).expect("whole");
        assert_eq!(kept.id, record.id);
    }
}
