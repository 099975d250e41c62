//! A directory of incidents, read: which there are, and which one a few letters mean. One file each, `UUID.json`,
//! as the spool writes them; their names sort by time. What does not hold a record is said and passed over.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{Headline, ReadError, Record, Text};
use crate::host::file_error::FileError;

/// The longest file that is read: more than any record takes.
const LONGEST: u64 = 256 << 20;

/// A file that holds no record, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The kernel said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something else stands in it.
    #[error("{file} holds no incident: {source}")]
    Content {
        /// Which.
        file: Text,
        /// Why not.
        source: ReadError,
    },
}

/// Nothing, or more than one thing, is meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// No id begins like this.
    #[error("no incident begins with `{0}`; see which there are: memwatch incidents list")]
    None(Text),
    /// Several do.
    #[error("{count} incidents begin with `{typed}`: {first}, {second}{more}; give more of it")]
    Several {
        /// What was given.
        typed: Text,
        /// How many begin with it.
        count: usize,
        /// One of them.
        first: Uuid,
        /// Another.
        second: Uuid,
        /// A comma and dots, if there are more.
        more: &'static str,
    },
    /// There are no incidents at all.
    #[error("there is no incident yet")]
    Empty,
}

/// The word for the newest.
pub const LAST: &str = "last";

/// A directory with incidents. It need not be there: then it has none.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The incidents in `dir`.
    #[must_use]
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The ids of all incidents, the oldest first. Other files are none.
    ///
    /// # Errors
    /// The directory is there and cannot be read.
    pub fn ids(&self) -> Result<Vec<Uuid>, FileError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::at("list", &self.dir)(error)),
        };
        let mut ids: Vec<Uuid> = entries
            .filter_map(|entry| id_of(Path::new(&entry.ok()?.file_name())))
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The file of an incident.
    #[must_use]
    pub fn file(&self, id: Uuid) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    /// An incident in a line.
    ///
    /// # Errors
    /// Its file cannot be read, or holds none.
    pub fn headline(&self, id: Uuid) -> Result<Headline, StoreError> {
        let file = self.file(id);
        let bytes = bytes_of(&file)?;
        Headline::from_json(&bytes).map_err(|source| content(&file, source))
    }

    /// An incident, whole.
    ///
    /// # Errors
    /// Its file cannot be read, or holds none.
    pub fn read(&self, id: Uuid) -> Result<Record, StoreError> {
        read(&self.file(id))
    }
}

/// The incident in `file`.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn read(file: &Path) -> Result<Record, StoreError> {
    let bytes = bytes_of(file)?;
    Record::from_json(&bytes).map_err(|source| content(file, source))
}

/// The one of `ids`, the oldest first, that `typed` means: its first letters, or [`LAST`].
///
/// # Errors
/// None is meant, or several are.
pub fn find(ids: &[Uuid], typed: &str) -> Result<Uuid, NotFound> {
    if typed == LAST {
        return ids.last().copied().ok_or(NotFound::Empty);
    }
    let wanted = typed.to_ascii_lowercase();
    let mut matching: Vec<Uuid> = ids
        .iter()
        .copied()
        .filter(|id| !wanted.is_empty() && id.to_string().starts_with(&wanted))
        .collect();
    matching.dedup();
    match matching[..] {
        [] => Err(NotFound::None(Text::of_name(typed.as_bytes()))),
        [one] => Ok(one),
        [first, second, ref rest @ ..] => Err(NotFound::Several {
            typed: Text::of_name(typed.as_bytes()),
            count: matching.len(),
            first,
            second,
            more: if rest.is_empty() { "" } else { ", ..." },
        }),
    }
}

/// As many letters of each of `ids`, the oldest first, as tell them apart, and at least `least`.
#[must_use]
pub fn shortest(ids: &[Uuid], least: usize) -> usize {
    let texts: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let common = |pair: &[String]| {
        let alike = pair[0].bytes().zip(pair[1].bytes());
        alike.take_while(|(one, other)| one == other).count() + 1
    };
    let needed = texts.windows(2).map(common).max().unwrap_or(0);
    // Not in the middle of the dashes, which nobody types alone.
    let needed = needed.max(least).min(36);
    if [9, 14, 19, 24].contains(&needed) {
        needed + 1
    } else {
        needed
    }
}

/// The id that a file is named by, if it is one.
fn id_of(name: &Path) -> Option<Uuid> {
    let stem = name.file_stem()?.to_str()?;
    let is_json = name.extension()? == "json";
    // As it is written, and in no other of the ways that a UUID can be.
    let id = Uuid::try_parse(stem).ok()?;
    (is_json && id.to_string() == stem).then_some(id)
}

fn bytes_of(file: &Path) -> Result<Vec<u8>, FileError> {
    let read = || {
        // A fifo of this name would be waited at for ever.
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(file)?;
        let about = opened.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("this is no regular file"));
        }
        if about.len() > LONGEST {
            return Err(io::Error::other("this is longer than any record"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0));
        opened.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(FileError::at("read", file))
}

fn content(file: &Path, source: ReadError) -> StoreError {
    StoreError::Content {
        file: Text::of_name(file.as_os_str().as_encoded_bytes()),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;

    fn id(text: &str) -> Uuid {
        text.parse().expect("a UUID")
    }

    fn three() -> [Uuid; 3] {
        [
            id("01970000-0000-7000-8000-000000000001"),
            id("01970000-0000-7000-8000-0000000000ff"),
            id("01980000-0000-7000-8000-000000000001"),
        ]
    }

    #[test]
    fn a_few_letters_are_enough_if_they_tell_them_apart() {
        let [first, _, third] = three();
        assert_eq!(find(&three(), "0198"), Ok(third));
        assert_eq!(find(&three(), LAST), Ok(third));
        assert_eq!(find(&three(), &first.to_string().to_uppercase()), Ok(first));
        assert_eq!(find(&[], LAST), Err(NotFound::Empty));
        let several = find(&three(), "0197").expect_err("two begin like this");
        assert_eq!(
            several.to_string(),
            "2 incidents begin with `0197`: 01970000-0000-7000-8000-000000000001, \
             01970000-0000-7000-8000-0000000000ff; give more of it"
        );
        for nothing in ["", "02", "\x1b[2J", "../../etc/passwd"] {
            let error = find(&three(), nothing).expect_err("nothing");
            assert!(!error.to_string().contains('\x1b'), "{error}");
        }
    }

    #[test]
    fn ids_are_shown_as_short_as_they_can_be() {
        assert_eq!(shortest(&three(), 8), 35);
        assert_eq!(shortest(&three()[1..], 8), 8);
        assert_eq!(shortest(&[], 8), 8);
        let apart = [
            id("01970000-1000-7000-8000-000000000001"),
            id("01970000-2000-7000-8000-000000000001"),
        ];
        assert_eq!(shortest(&apart, 8), 10, "and no dash at the end");
    }

    #[test]
    fn a_directory_with_all_sorts_of_files_has_the_incidents_that_are_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::at(dir.path().to_owned());
        assert!(store.ids().expect("readable").is_empty());
        let mut kept = [sample::killed(), sample::grave()];
        kept[0].id = three()[0];
        kept[1].id = three()[2];
        for record in &kept {
            fs::write(store.file(record.id), record.to_json()).expect("room");
        }
        let torn = three()[1];
        fs::write(store.file(torn), &kept[0].to_json()[..300]).expect("room");
        for other in [
            "notes.txt",
            "01970000.json",
            ".memwatch-x.tmp",
            "{01980000-0000-7000-8000-000000000001}.json",
        ] {
            fs::write(dir.path().join(other), "{}").expect("room");
        }
        assert_eq!(store.ids().expect("readable"), three());
        assert_eq!(store.read(kept[1].id).expect("whole"), kept[1]);
        assert_eq!(
            store.headline(kept[0].id).expect("whole"),
            Headline::from(&kept[0])
        );
        let error = store.headline(torn).expect_err("torn");
        assert!(error.to_string().contains("holds no incident"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("fifo.json");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("made");
        let error = read(&fifo).expect_err("no file");
        assert!(error.to_string().contains("no regular file"), "{error}");
        assert!(read(dir.path()).is_err());
        let missing = Store::at(dir.path().join("missing"));
        assert!(missing.ids().expect("as good as empty").is_empty());
    }
}
