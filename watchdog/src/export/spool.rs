//! Incidents on disk: one file each, whole or not there, for their owner's eyes alone; and with each, for every
//! exporter that is to tell of it, a second name of the same file ([`super::queue`]'s), which is there before the
//! incident is, so that no crash can part them.
//!
//! Bounded by number and by bytes: the oldest go, and what nobody was told of yet is counted as lost. All of it
//! waits for the disk. What stands in a file is `incident`'s.

use super::queue::{self, Queue};
use crate::config::Incidents;
use crate::host::file_error::FileError;
use crate::incident::Record;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::linkat;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The directory, below that of memwatch's state.
#[derive(Clone, Debug)]
pub struct Spool {
    state: PathBuf,
    bounds: Incidents,
    /// Who is to be told, also where there is no queue yet.
    told: Vec<String>,
}

/// What went for an incident that was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Incidents that were removed.
    pub evicted: usize,
    /// How many of them an exporter had not told of yet.
    pub undelivered: BTreeMap<String, usize>,
    /// Exporters that will not tell of the new one, and why.
    pub unqueued: Vec<String>,
    /// What could not be counted of all that.
    pub uncounted: Vec<String>,
}

impl Spool {
    /// Where it is, or will be: nothing is looked at.
    #[must_use]
    pub fn at(state: &Path, bounds: &Incidents) -> Self {
        Self {
            state: state.to_owned(),
            bounds: bounds.clone(),
            told: Vec::new(),
        }
    }

    /// The same, and made.
    ///
    /// # Errors
    /// As for [`Spool::make`].
    pub fn open(state: &Path, bounds: &Incidents) -> Result<Self, FileError> {
        let spool = Self::at(state, bounds);
        spool.make()?;
        Ok(spool)
    }

    /// Makes what is not there of it, and ends what others have begun and died over.
    ///
    /// # Errors
    /// It cannot be made, or not be made its owner's alone.
    pub fn make(&self) -> Result<(), FileError> {
        make_private(&self.dir())?;
        self.finish_others();
        Ok(())
    }

    /// The directory of memwatch's state.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where the incidents are.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.state.join("incidents")
    }

    /// Keeps so many from now on.
    pub fn bound(&mut self, bounds: &Incidents) {
        self.bounds = bounds.clone();
    }

    /// Tells these exporters from now on, beside those that have a queue already.
    pub fn tell<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        self.told = names.into_iter().cloned().collect();
    }

    /// Keeps an incident, and gives it to each exporter that has a queue. Returns when the disk has it.
    ///
    /// # Errors
    /// It did not get there.
    pub fn keep(&self, record: &Record) -> Result<Kept, FileError> {
        let dir = self.dir();
        // Names begin with the time (UUID version 7), so that they sort by it.
        let path = dir.join(file_name(record.id));
        let passing = dir.join(passing_name(record.id));
        let error = FileError::at("write", &path);
        let json = record.to_json();
        let written = write_whole(&dir, &passing, &json).or_else(|why| match why.kind() {
            // It could not be made before, or somebody has removed it.
            io::ErrorKind::NotFound => {
                make_private(&dir).map_err(|error| error.source)?;
                write_whole(&dir, &passing, &json)
            }
            _ => Err(why),
        });
        written.map_err(error)?;
        let mut kept = Kept::default();
        let missed = self.hand_out(record.id)?;
        self.evict(&mut kept);
        self.try_again(record.id, missed, &mut kept);
        Ok(kept)
    }

    /// Gives what is whole under its passing name to each queue, and then its name. The name comes last: what has
    /// one has been handed out, and a queue may be rid of it again before that. Which queues could not have it.
    fn hand_out(&self, id: Uuid) -> Result<Vec<String>, FileError> {
        let dir = self.dir();
        let (path, passing) = (dir.join(file_name(id)), dir.join(passing_name(id)));
        let mut names = queue::names(&self.state);
        names.extend(self.told.iter().cloned());
        names.sort_unstable();
        names.dedup();
        names.retain(|name| self.give(name, &passing, id).is_err());
        match fs::rename(&passing, &path).and_then(|()| sync(&dir)) {
            // Somebody took it for a dead one's, and was as far.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => {
                return Ok(Vec::new());
            }
            named => named.map_err(FileError::at("keep", &path))?,
        }
        Ok(names)
    }

    /// Gives it to a queue. One that was ended meanwhile wants it no more.
    fn give(&self, name: &str, path: &Path, id: Uuid) -> Result<(), FileError> {
        let queue = Queue::of(&self.state, name);
        if !self.told.iter().any(|told| told == name) {
            return queue.add(path, id).or_else(|error| {
                if queue.dir().exists() {
                    Err(error)
                } else {
                    Ok(())
                }
            });
        }
        let made = queue.make();
        queue.add(path, id).or_else(|error| made.and(Err(error)))
    }

    /// Gives it once more to those who could not have it, since there may be room by now. Who still cannot has lost
    /// it.
    fn try_again(&self, id: Uuid, missed: Vec<String>, kept: &mut Kept) {
        let path = self.dir().join(file_name(id));
        for name in missed {
            if let Err(error) = self.give(&name, &path, id) {
                kept.unqueued.push(format!("{name}: {error}"));
                kept.count(&Queue::of(&self.state, &name));
            }
        }
    }

    /// Hands out what a memwatch that died had still to. It may be that it lives and is at it: then a queue may
    /// have it twice, one after the other, which is harmless.
    fn finish_others(&self) {
        let entries = fs::read_dir(self.dir()).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?.strip_prefix('.')?.strip_suffix(".new")?;
            Uuid::parse_str(name).ok()
        });
        for id in ids {
            let mut kept = Kept::default();
            match self.hand_out(id) {
                Ok(missed) => self.try_again(id, missed, &mut kept),
                Err(error) => tracing::warn!("{error}"),
            }
            kept.lines()
                .iter()
                .for_each(|line| tracing::warn!("{line}"));
        }
    }

    /// The ids of those that are kept, oldest first.
    #[must_use]
    pub fn ids(&self) -> Vec<Uuid> {
        ids(&self.dir())
    }

    /// How many are kept below this state.
    #[must_use]
    pub fn count(state: &Path) -> usize {
        ids(&state.join("incidents")).len()
    }

    fn evict(&self, kept: &mut Kept) {
        let dir = self.dir();
        // One at a time; who comes second need not.
        let Ok(lock) = File::open(&dir) else { return };
        if lock.try_lock().is_err() {
            return;
        }
        let ids = self.ids();
        let sizes: Vec<u64> = ids
            .iter()
            .map(|id| fs::symlink_metadata(dir.join(file_name(*id))).map_or(0, |file| file.size()))
            .collect();
        let (mut left, mut bytes) = (ids.len(), sizes.iter().sum::<u64>());
        for (id, size) in ids.iter().zip(sizes) {
            // The newest stays, however large it is.
            let is_too_much = left > self.bounds.most as usize || bytes > self.bounds.most_bytes;
            if !is_too_much || left == 1 {
                break;
            }
            let mut uncounted = Vec::new();
            for name in queue::names(&self.state) {
                let queue = Queue::of(&self.state, &name);
                let Some(counted) = queue.lose(*id) else {
                    continue;
                };
                *kept.undelivered.entry(name).or_default() += 1;
                if counted.is_err() {
                    uncounted.push(queue);
                }
            }
            if fs::remove_file(dir.join(file_name(*id))).is_ok() {
                kept.evicted += 1;
            }
            // A full disk has room again.
            uncounted.iter().for_each(|queue| kept.count(queue));
            left -= 1;
            bytes -= size;
        }
    }
}

impl Kept {
    /// One more is lost to an exporter.
    fn count(&mut self, queue: &Queue) {
        if let Err(error) = queue.count_lost() {
            self.uncounted.push(error.to_string());
        }
    }

    /// What is to be said about it, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.evicted > 0 {
            lines.push(format!(
                "{} old incidents were removed for a new one",
                self.evicted
            ));
        }
        for (exporter, count) in &self.undelivered {
            lines.push(format!(
                "{count} incidents are lost to the exporter {exporter}: they were removed before it could deliver them"
            ));
        }
        for lost in &self.unqueued {
            lines.push(format!(
                "an incident is kept, but lost to the exporter {lost}; when that is mended, all that is kept is sent \
                 by: memwatch export run --once --all"
            ));
        }
        for error in &self.uncounted {
            lines.push(format!("more is lost than is counted: {error}"));
        }
        lines
    }
}

/// What an incident is called in every directory that has it.
pub(super) fn file_name(id: Uuid) -> String {
    format!("{id}.json")
}

/// What it is called while it is handed out.
fn passing_name(id: Uuid) -> String {
    format!(".{id}.new")
}

/// The ids of the incidents in a directory, oldest first. What is called otherwise is none of memwatch's.
pub(super) fn ids(dir: &Path) -> Vec<Uuid> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut ids: Vec<Uuid> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let id = Uuid::parse_str(name.to_str()?.strip_suffix(".json")?).ok()?;
            // Not another spelling of it, which would be another file.
            (file_name(id) == *name.to_str()?).then_some(id)
        })
        .collect();
    ids.sort_unstable();
    ids
}

/// Makes a directory that is its owner's alone.
pub(super) fn make_private(dir: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(FileError::at("make", dir))?;
    let about = fs::metadata(dir).map_err(FileError::at("look at", dir))?;
    if about.permissions().mode() & 0o777 != 0o700 {
        fs::set_permissions(dir, Permissions::from_mode(0o700))
            .map_err(FileError::at("close to others", dir))?;
    }
    Ok(())
}

/// Puts a new file in the place of an old one, or leaves that.
pub(super) fn replace(dir: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// The names in a directory are on the disk, too.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Puts a file whole onto the disk under its passing name: without a name until then, or, where the file system has
/// no nameless files (open(2)), under yet another one.
fn write_whole(dir: &Path, passing: &Path, content: &[u8]) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(0o600);
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(AT_FDCWD, dir, flags | OFlag::O_TMPFILE, mode) {
        Err(Errno::EOPNOTSUPP) => {
            replace(dir, passing, content)?;
        }
        file => {
            let mut file = File::from(file?);
            file.write_all(content)?;
            file.sync_all()?;
            // This is how open(2) names a nameless file without a capability.
            let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            linkat(AT_FDCWD, nameless.as_str(), AT_FDCWD, passing, follow)?;
        }
    }
    sync(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::Verdict;
    use std::time::SystemTime;

    fn record() -> Record {
        let now = SystemTime::now();
        Record::new(now, now, 0, Verdict::Ongoing)
    }

    fn spool(most: u32, most_bytes: u64) -> (tempfile::TempDir, Spool) {
        let root = tempfile::tempdir().expect("a directory");
        let bounds = Incidents {
            most,
            most_bytes,
            ..Incidents::default()
        };
        let spool = Spool::open(&root.path().join("state"), &bounds).expect("made");
        (root, spool)
    }

    #[test]
    fn the_oldest_go_and_the_directory_is_closed_to_others() {
        let (_root, spool) = spool(3, 1 << 30);
        let dir = spool.dir();
        let mode = fs::metadata(&dir).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(dir.join("notes.txt"), "not ours").expect("room");
        let ids: Vec<Uuid> = (0..4)
            .map(|_| {
                let record = record();
                spool.keep(&record).expect("room");
                record.id
            })
            .collect();
        assert_eq!(spool.ids(), ids[1..], "the oldest is gone");
        assert!(dir.join("notes.txt").exists());
        let path = dir.join(file_name(ids[3]));
        let mode = fs::metadata(&path).expect("kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let kept = Record::from_json(&fs::read(path).expect("kept")).expect("whole");
        assert_eq!(kept.id, ids[3]);
    }

    #[test]
    fn bytes_are_bounded_too_but_the_newest_stays() {
        let (_root, spool) = spool(1000, 1);
        for _ in 0..3 {
            let record = record();
            spool.keep(&record).expect("room");
            assert_eq!(spool.ids(), [record.id]);
        }
    }

    #[test]
    fn each_queue_has_it_and_what_is_evicted_undelivered_is_counted_as_lost() {
        let (_root, spool) = spool(2, 1 << 30);
        let [told, untold] = ["told", "untold"].map(|name| Queue::of(&spool.state, name));
        told.make().expect("made");
        untold.make().expect("made");
        let first = record();
        spool.keep(&first).expect("room");
        assert_eq!(told.waiting(), [first.id]);
        assert_eq!(untold.read(first.id).expect("there"), first);
        told.delivered(first.id).expect("there");
        spool.keep(&record()).expect("room");
        let kept = spool.keep(&record()).expect("room");
        assert_eq!(kept.evicted, 1);
        assert_eq!(kept.undelivered, BTreeMap::from([("untold".into(), 1)]));
        assert_eq!((told.lost(), untold.lost()), (0, 1));
        assert_eq!(untold.waiting().len(), 2);
        assert_eq!(
            kept.lines()[1],
            "1 incidents are lost to the exporter untold: they were removed before it could deliver them"
        );
    }

    #[test]
    fn what_a_dead_one_had_not_handed_out_is_handed_out() {
        let (_root, spool) = spool(9, 1 << 30);
        let queue = Queue::of(&spool.state, "x");
        queue.make().expect("made");
        let record = record();
        let passing = spool.dir().join(passing_name(record.id));
        write_whole(&spool.dir(), &passing, &record.to_json()).expect("room");
        assert!(spool.ids().is_empty());
        let spool = Spool::open(&spool.state, &spool.bounds).expect("there");
        assert_eq!(
            (spool.ids(), queue.waiting()),
            (vec![record.id], vec![record.id])
        );
        assert!(!passing.exists());
        // Whose work it was finds it done.
        assert_eq!(spool.hand_out(record.id).ok(), Some(Vec::new()));
    }

    #[test]
    fn a_queue_that_cannot_be_had_loses_the_incident_which_is_kept_and_counted() {
        let (_root, mut spool) = spool(9, 1 << 30);
        let [well, bad] = ["well", "bad"].map(|name| Queue::of(&spool.state, name));
        spool.tell(&["well".to_owned(), "bad".to_owned()]);
        fs::create_dir(spool.state.join("queue")).expect("room");
        fs::write(bad.dir(), "a file").expect("room");
        let record = record();
        let kept = spool.keep(&record).expect("room");
        assert_eq!(
            (spool.ids(), well.waiting()),
            (vec![record.id], vec![record.id])
        );
        assert_eq!((bad.lost(), well.lost()), (1, 0));
        let [line] = &kept.lines()[..] else {
            panic!("{:?}", kept.lines());
        };
        assert!(
            line.starts_with("an incident is kept, but lost to the exporter bad: cannot "),
            "{line}"
        );
        // Mended, it has what comes.
        fs::remove_file(bad.dir()).expect("there");
        let next = super::tests::record();
        assert_eq!(spool.keep(&next).expect("room"), Kept::default());
        assert_eq!((bad.waiting(), bad.lost()), (vec![next.id], 1));
        assert_eq!(bad.fill().expect("room"), 1, "the one that was lost to it");
    }

    #[test]
    fn what_was_refused_is_counted_too_when_it_goes() {
        let (_root, spool) = spool(1, 1 << 30);
        let queue = Queue::of(&spool.state, "x");
        queue.make().expect("made");
        let refused = record();
        spool.keep(&refused).expect("room");
        queue.refuse(refused.id).expect("there");
        let kept = spool.keep(&record()).expect("room");
        assert_eq!(kept.undelivered, BTreeMap::from([("x".into(), 1)]));
        assert_eq!((queue.lost(), queue.refused()), (1, 0));
    }

    #[test]
    fn a_directory_that_is_gone_is_made_and_one_that_cannot_be_is_an_error_that_says_which() {
        let (root, spool) = spool(2, 1 << 30);
        fs::remove_dir(spool.dir()).expect("empty");
        spool.keep(&record()).expect("room");
        fs::remove_dir_all(root.path().join("state")).expect("ours");
        fs::write(root.path().join("state"), "no directory").expect("room");
        let error = spool.keep(&record()).expect_err("no directory").to_string();
        assert!(
            error.contains("incidents/") && error.contains("Not a directory"),
            "{error}"
        );
    }
}
