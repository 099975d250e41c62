//! The incident of a command that still runs: on the disk as soon as something has happened, and again whenever more
//! has, so that it is there should memwatch be killed or the machine go down. It is gone when the run is over and
//! told as a whole; one whose memwatch is dead is kept as it is ([`adopt`]). Where incidents are kept is
//! [`super::spool`]'s.
//!
//! Its owner holds flock(2) on it as long as it lives; the kernel drops the lock however that ends.

use super::spool::{Kept, Spool, file_name, ids, make_private, sync};
use crate::host::file_error::FileError;
use crate::incident::Record;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// More than a record takes.
const LONGEST: u64 = 256 << 20;
/// What is said in one that is kept for a dead memwatch.
const ENDED: &str = "memwatch ended before the command did: what came later is not known";

/// One, its owner's.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    held: Flock<File>,
}

impl Draft {
    /// Puts it onto the disk, below the state of `spool`.
    ///
    /// # Errors
    /// It did not get there.
    pub fn begin(spool: &Spool, record: &Record) -> Result<Self, FileError> {
        let dir = dir(spool);
        make_private(&dir)?;
        let path = dir.join(file_name(record.id));
        let held = write(&path, record).map_err(FileError::at("write", &path))?;
        Ok(Self { path, held })
    }

    /// Puts another in its place.
    ///
    /// # Errors
    /// It did not get there; the one before is still there.
    pub fn rewrite(&mut self, record: &Record) -> Result<(), FileError> {
        self.held = write(&self.path, record).map_err(FileError::at("write", &self.path))?;
        Ok(())
    }

    /// It is told otherwise now.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<(), FileError> {
        fs::remove_file(&self.path).map_err(FileError::at("remove", &self.path))
    }
}

/// Keeps those whose owner is dead. What came of each.
#[must_use]
pub fn adopt(spool: &Spool) -> Vec<Result<Kept, FileError>> {
    let dir = dir(spool);
    let all = ids(&dir).into_iter().map(|id| dir.join(file_name(id)));
    all.filter_map(|path| {
        let orphan = orphan(&path).map_err(FileError::at("read", &path));
        orphan.transpose().map(|record| {
            let mut record = record?;
            record.notes.push(ENDED.into());
            let kept = spool.keep(&record)?;
            fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
            Ok(kept)
        })
    })
    .collect()
}

fn dir(spool: &Spool) -> PathBuf {
    spool.state().join("unfinished")
}

/// Whole or not at all, and locked before it has its name.
fn write(path: &Path, record: &Record) -> io::Result<Flock<File>> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let (file, passing) = tempfile::NamedTempFile::new_in(dir)?.into_parts();
    let mut held = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, why)| why)?;
    held.write_all(&record.to_json())?;
    held.sync_all()?;
    passing.persist(path).map_err(|error| error.error)?;
    sync(dir)?;
    Ok(held)
}

/// What stands in it, if nobody holds it any more.
fn orphan(path: &Path) -> io::Result<Option<Record>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => held,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, why)) => return Err(why.into()),
    };
    // Its owner may have put another in its place, and held that before it let go of this.
    if fs::symlink_metadata(path).map_or(0, |now| now.ino()) != held.metadata()?.ino() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    (&*held).take(LONGEST).read_to_end(&mut bytes)?;
    Record::from_json(&bytes)
        .map(Some)
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Incidents;
    use crate::incident::{sample, store};

    fn spool() -> (tempfile::TempDir, Spool) {
        let state = tempfile::tempdir().expect("a directory");
        let spool = Spool::open(state.path(), &Incidents::default()).expect("made");
        (state, spool)
    }

    fn drafts(spool: &Spool) -> usize {
        fs::read_dir(dir(spool)).map_or(0, Iterator::count)
    }

    #[test]
    fn one_whose_owner_lives_is_nobodys_and_goes_with_the_end_of_the_run() {
        let (_state, spool) = spool();
        let mut record = sample::killed();
        let mut draft = Draft::begin(&spool, &record).expect("room");
        record.notes.push("more".into());
        draft.rewrite(&record).expect("room");
        assert!(adopt(&spool).is_empty() && spool.ids().is_empty());
        assert_eq!(drafts(&spool), 1);
        draft.remove().expect("there");
        assert_eq!(drafts(&spool), 0);
    }

    #[test]
    fn one_whose_owner_is_dead_is_kept_once_as_it_was_last() {
        let (_state, spool) = spool();
        let mut record = sample::killed();
        let mut draft = Draft::begin(&spool, &record).expect("room");
        record.notes.push("more".into());
        draft.rewrite(&record).expect("room");
        drop(draft);
        let adopted = adopt(&spool);
        assert!(matches!(adopted[..], [Ok(_)]), "{adopted:?}");
        assert_eq!(drafts(&spool), 0);
        assert_eq!(spool.ids(), [record.id]);
        let kept = store::read(&spool.dir().join(file_name(record.id))).expect("whole");
        record.notes.push(ENDED.into());
        assert_eq!(kept, record);
        assert!(adopt(&spool).is_empty());
    }

    #[test]
    fn what_holds_no_record_stays_and_is_said() {
        let (_state, spool) = spool();
        let draft = Draft::begin(&spool, &sample::killed()).expect("room");
        fs::write(&draft.path, "{").expect("ours");
        drop(draft);
        let adopted = adopt(&spool);
        assert!(matches!(adopted[..], [Err(_)]), "{adopted:?}");
        assert_eq!(drafts(&spool), 1);
    }
}
