//! What an exporter has still to tell of: a directory with a name for each incident, a second one of the very file
//! that the spool keeps. It is made with the incident ([`super::spool`]) and removed when a receiver has it, so
//! that nothing is lost by a crash, and what was told of twice has the same id. A queue exists from when its
//! exporter was first configured.
//!
//! ```text
//! incidents/UUID.json        kept
//! queue/NAME/UUID.json       to be told of
//! refused/NAME/UUID.json     will never be taken as it is
//! lost/NAME                  how many were evicted before they were told of, or never came into the queue
//! ```

use super::spool::{file_name, ids, make_private, replace, sync};
use crate::host::file_error::FileError;
use crate::incident::{ReadError, Record};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use uuid::Uuid;

/// A record has some hundred kilobytes at most; more than this is something else.
const MAX_BYTES: u64 = 64 << 20;
/// For somebody else who counts: it takes a moment.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// One exporter's.
#[derive(Clone, Debug)]
pub struct Queue {
    state: PathBuf,
    name: String,
}

/// Why there is no record in a file of the queue.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableError {
    /// It is gone: delivered by somebody else, or evicted.
    #[error("it is gone")]
    Gone,
    /// It cannot be read, now.
    #[error("it cannot be read: {0}")]
    Io(#[source] io::Error),
    /// It is no file.
    #[error("it is no regular file")]
    NotAFile,
    /// It is too large.
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// It is no record, or not that one.
    #[error(transparent)]
    Record(#[from] ReadError),
    /// It is another's.
    #[error("it is the record of {0}")]
    Other(Uuid),
}

impl UnreadableError {
    /// Whether another try may find a record.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

/// The names of the exporters that have a queue.
#[must_use]
pub fn names(state: &Path) -> Vec<String> {
    let entries = fs::read_dir(state.join("queue"));
    let entries = entries.into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> = dirs
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

impl Queue {
    /// Of the exporter of this name, below memwatch's state.
    #[must_use]
    pub fn of(state: &Path, name: &str) -> Self {
        Self {
            state: state.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.state.join("queue").join(&self.name)
    }

    fn refused_dir(&self) -> PathBuf {
        self.state.join("refused").join(&self.name)
    }

    fn lost_file(&self) -> PathBuf {
        self.state.join("lost").join(&self.name)
    }

    /// Begins it, if it is not there yet: what is kept from now on comes into it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(&self) -> Result<(), FileError> {
        make_private(&self.dir())
    }

    /// Puts everything that is kept into it; how much that is.
    ///
    /// # Errors
    /// A file did not get there.
    pub fn fill(&self) -> Result<usize, FileError> {
        self.make()?;
        let kept = self.state.join("incidents");
        let mut filled = 0;
        for id in ids(&kept) {
            let name = file_name(id);
            let link = self.dir().join(&name);
            match fs::hard_link(kept.join(&name), &link) {
                Ok(()) => filled += 1,
                Err(error) if is_harmless(&error) => {}
                Err(error) => return Err(FileError::at("make", &link)(error)),
            }
        }
        Ok(filled)
    }

    /// Ends it, with all that waits in it; how much that was.
    pub fn remove(&self) -> usize {
        let waiting = self.waiting();
        for id in &waiting {
            let _ = fs::remove_file(self.dir().join(file_name(*id)));
        }
        let _ = fs::remove_dir_all(self.refused_dir());
        let _ = fs::remove_file(self.lost_file());
        // What else lies there is not memwatch's, and keeps the directory.
        let _ = fs::remove_dir(self.dir());
        waiting.len()
    }

    /// The ids of those that wait, oldest first.
    #[must_use]
    pub fn waiting(&self) -> Vec<Uuid> {
        ids(&self.dir())
    }

    /// How many will never be taken.
    #[must_use]
    pub fn refused(&self) -> usize {
        ids(&self.refused_dir()).len()
    }

    /// How many it will not tell of: they were evicted, or did not get into it.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.read_lost().unwrap_or(0)
    }

    fn read_lost(&self) -> io::Result<u64> {
        match fs::read(self.lost_file()) {
            Ok(text) => Ok(count(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// It is to tell of what lies whole at `path`.
    ///
    /// # Errors
    /// It will not.
    pub(super) fn add(&self, path: &Path, id: Uuid) -> Result<(), FileError> {
        let dir = self.dir();
        let link = dir.join(file_name(id));
        match fs::hard_link(path, &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked
                .and_then(|()| sync(&dir))
                .map_err(FileError::at("make", &link)),
        }
    }

    /// What one of them says.
    ///
    /// # Errors
    /// There is none, or something else.
    pub fn read(&self, id: Uuid) -> Result<Record, UnreadableError> {
        let record = Record::from_json(&bytes(&self.dir().join(file_name(id)))?)?;
        if record.id == id {
            Ok(record)
        } else {
            Err(UnreadableError::Other(record.id))
        }
    }

    /// A receiver has it.
    ///
    /// # Errors
    /// It stays, and will be told of again.
    pub fn delivered(&self, id: Uuid) -> Result<(), FileError> {
        let path = self.dir().join(file_name(id));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::at("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// No receiver will ever take it.
    ///
    /// # Errors
    /// It stays, and will be tried again.
    pub fn refuse(&self, id: Uuid) -> Result<(), FileError> {
        let refused = self.refused_dir();
        make_private(&refused)?;
        let name = file_name(id);
        let path = self.dir().join(&name);
        match fs::rename(&path, refused.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::at("put aside", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Puts back what was refused: the receiver has been set right. How much that is.
    ///
    /// # Errors
    /// One did not get there.
    pub fn retry(&self) -> Result<usize, FileError> {
        let refused = self.refused_dir();
        let ids = ids(&refused);
        for id in &ids {
            let name = file_name(*id);
            let path = refused.join(&name);
            fs::rename(&path, self.dir().join(&name)).map_err(FileError::at("put back", &path))?;
        }
        Ok(ids.len())
    }

    /// It is evicted; if it was still to be told of, whether that could be counted.
    pub(super) fn lose(&self, id: Uuid) -> Option<Result<(), FileError>> {
        let name = file_name(id);
        let places = [self.dir(), self.refused_dir()].map(|dir| dir.join(&name));
        let is_there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
        if !places.iter().any(is_there) {
            return None;
        }
        // First, so that no crash hides a loss.
        let counted = self.count_lost();
        for path in places {
            let _ = fs::remove_file(path);
        }
        Some(counted)
    }

    /// One more is lost to it.
    ///
    /// # Errors
    /// The count is what it was.
    pub(super) fn count_lost(&self) -> Result<(), FileError> {
        let dir = self.state.join("lost");
        make_private(&dir)?;
        let path = self.lost_file();
        let error = FileError::at("count in", &path);
        // Two at a time would count as one.
        let counted = locked(&dir).and_then(|_lock| {
            let lost = self.read_lost()?.saturating_add(1);
            replace(&dir, &path, lost.to_string().as_bytes())
        });
        counted.map_err(error)
    }
}

/// What the file of losses says.
pub(super) fn count(text: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(text);
    text.trim().parse().unwrap_or(0)
}

/// Locks a directory, but does not wait for somebody who has it and stands still.
fn locked(dir: &Path) -> io::Result<File> {
    let file = File::open(dir)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::WouldBlock))
}

fn is_harmless(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
    )
}

fn bytes(path: &Path) -> Result<Vec<u8>, UnreadableError> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => UnreadableError::Gone,
            Some(libc::ELOOP | libc::ENXIO) => UnreadableError::NotAFile,
            _ => UnreadableError::Io(error),
        })?;
    if !file.metadata().map_err(UnreadableError::Io)?.is_file() {
        return Err(UnreadableError::NotAFile);
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(UnreadableError::Io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(UnreadableError::TooLarge);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Incidents;
    use crate::export::spool::Spool;
    use crate::incident::sample;
    use std::os::unix::fs::symlink;

    fn kept(count: usize) -> (tempfile::TempDir, Queue, Vec<Uuid>) {
        let state = tempfile::tempdir().expect("a directory");
        let spool = Spool::open(state.path(), &Incidents::default()).expect("made");
        let ids = (0..count).map(|_| {
            let mut record = sample::killed();
            record.id = Uuid::now_v7();
            spool.keep(&record).expect("room");
            record.id
        });
        let ids = ids.collect();
        let queue = Queue::of(state.path(), "x");
        (state, queue, ids)
    }

    #[test]
    fn it_begins_empty_unless_it_is_filled_and_ends_with_all_in_it() {
        let (state, queue, ids) = kept(2);
        queue.make().expect("made");
        assert!(queue.waiting().is_empty());
        assert_eq!(queue.fill().expect("room"), 2);
        assert_eq!(queue.fill().expect("room"), 0, "they are there already");
        assert_eq!(queue.waiting(), ids);
        assert_eq!(names(state.path()), ["x"]);
        assert_eq!(queue.remove(), 2);
        assert!(names(state.path()).is_empty());
    }

    #[test]
    fn what_was_refused_is_put_aside_and_can_be_put_back() {
        let (_state, queue, ids) = kept(1);
        queue.fill().expect("room");
        queue.refuse(ids[0]).expect("room");
        assert_eq!((queue.waiting().len(), queue.refused()), (0, 1));
        assert_eq!(queue.retry().expect("room"), 1);
        assert_eq!((queue.waiting(), queue.refused()), (ids, 0));
    }

    #[test]
    fn what_is_lost_is_counted_wherever_it_lay_and_once() {
        let (state, queue, ids) = kept(3);
        queue.fill().expect("room");
        queue.refuse(ids[1]).expect("room");
        queue.delivered(ids[2]).expect("there");
        for id in &ids[..2] {
            queue.lose(*id).expect("it was there").expect("room");
        }
        assert!(queue.lose(ids[0]).is_none(), "it is gone");
        assert!(queue.lose(ids[2]).is_none(), "it was told of");
        assert_eq!((queue.lost(), queue.refused()), (2, 0));
        assert!(queue.waiting().is_empty());
        // The old count stands until the new one is whole: who has it open sees it to the end.
        let mut old = File::open(queue.lost_file()).expect("there");
        queue.count_lost().expect("room");
        let mut text = String::new();
        old.read_to_string(&mut text).expect("there");
        assert_eq!((text.as_str(), queue.lost()), ("2", 3));
        // Where there is no room for a new one, that is said.
        fs::remove_file(queue.lost_file()).expect("there");
        fs::create_dir(queue.lost_file()).expect("room");
        let error = queue.count_lost().expect_err("a directory").to_string();
        assert!(error.contains("lost/x"), "{error}");
        let left = fs::read_dir(state.path().join("lost")).expect("there");
        assert_eq!(left.count(), 1, "nothing is left of the try");
    }

    #[test]
    fn who_count_at_the_same_time_all_count() {
        let (_state, queue, _) = kept(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| queue.count_lost().expect("room")));
            }
        });
        assert_eq!(queue.lost(), 100);
    }

    #[test]
    fn what_is_no_record_is_told_from_what_cannot_be_read_now() {
        let (_state, queue, ids) = kept(2);
        queue.fill().expect("room");
        let path = |id| queue.dir().join(file_name(id));
        let said = |id| queue.read(id).expect_err("none").to_string();
        fs::copy(path(ids[0]), path(Uuid::nil())).expect("room");
        assert_eq!(said(Uuid::nil()), format!("it is the record of {}", ids[0]));
        let whole = fs::read(path(ids[1])).expect("there");
        for cut in [0, 1, whole.len() / 2, whole.len() - 3] {
            fs::write(path(ids[1]), &whole[..cut]).expect("room");
            assert!(said(ids[1]).starts_with("not an incident record"));
            assert!(!queue.read(ids[1]).expect_err("none").may_pass());
        }
        fs::remove_file(path(ids[0])).expect("there");
        assert_eq!(said(ids[0]), "it is gone");
        symlink("/dev/zero", path(ids[0])).expect("room");
        assert_eq!(said(ids[0]), "it is no regular file");
        fs::remove_file(path(ids[0])).expect("there");
        fs::create_dir(path(ids[0])).expect("room");
        assert_eq!(said(ids[0]), "it is no regular file");
    }
}
