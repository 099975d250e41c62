//! Reads one configuration file without trusting it to be one: a fifo, a device or a directory must
//! end in an error and never in a wait, and nothing is read without bound.

use std::fs::{self, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use super::error::{ConfigError, Mistrust};
use super::search::{Found, What};

/// A configuration has a few hundred bytes; more than this is something else.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// Who reads, and so whom it believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Acts with the rights of whoever started it, and can do no more than they.
    TheUser,
    /// Acts as root for others: believes root alone.
    TheDaemon,
}

/// The text of a file; `None` if one that nobody named does not exist.
pub(super) fn read(found: &Found, reader: Reader) -> Result<Option<String>, ConfigError> {
    let path = found.path.clone();
    let named_by = found.named_by;
    match bounded(found, reader) {
        Ok(bytes) if bytes.len() as u64 > MAX_BYTES => {
            Err(ConfigError::TooLarge { path, named_by })
        }
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                Err(ConfigError::NotUtf8 { path, offset })
            }
        },
        Err(Failure::Io(error)) if !named_by.somebody() && is_missing(&error) => Ok(None),
        Err(failure) => Err(failure.of(found)),
    }
}

/// The files in a directory of drop-ins, weakest first; none if there is no such directory. As elsewhere,
/// a name says with its end that the file counts, and one with a dot in front is hidden.
pub(super) fn drop_ins(found: &Found, reader: Reader) -> Result<Vec<Found>, ConfigError> {
    match names(found, reader) {
        Ok(mut paths) => {
            paths.sort();
            let file = |path| Found {
                path,
                what: What::File,
                named_by: found.named_by,
            };
            Ok(paths.into_iter().map(file).collect())
        }
        Err(Failure::Io(error)) if is_missing(&error) => Ok(Vec::new()),
        Err(failure) => Err(failure.of(found)),
    }
}

/// Why there are no bytes.
enum Failure {
    Io(io::Error),
    Kind(&'static str),
    Mistrust(Mistrust),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Failure {
    fn of(self, found: &Found) -> ConfigError {
        let path = found.path.clone();
        let named_by = found.named_by;
        match self {
            Self::Io(source) => ConfigError::Read {
                path,
                named_by,
                source,
            },
            Self::Kind(kind) => ConfigError::NotAFile {
                path,
                named_by,
                kind,
            },
            Self::Mistrust(mistrust) => ConfigError::NotRoots {
                path,
                named_by,
                mistrust,
            },
        }
    }
}

fn names(found: &Found, reader: Reader) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(&found.path)?;
    check_trust(&fs::metadata(&found.path)?, reader)?;
    let mut paths = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let bytes = name.as_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            paths.push(found.path.join(name));
        }
    }
    Ok(paths)
}

/// At most one byte more than allowed.
fn bounded(found: &Found, reader: Reader) -> Result<Vec<u8>, Failure> {
    let file = OpenOptions::new()
        .read(true)
        // Opening a fifo without a writer waits for ever, and opening a terminal can adopt it.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(&found.path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Failure::Kind(name_of(about.file_type())));
    }
    check_trust(&about, reader)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Refuses what others than root could write to, if that matters.
fn check_trust(about: &Metadata, reader: Reader) -> Result<(), Failure> {
    const OTHERS_WRITE: u32 = 0o022;
    let mistrust = match reader {
        Reader::TheDaemon if about.uid() != 0 => Mistrust::Owner(about.uid()),
        Reader::TheDaemon if about.mode() & OTHERS_WRITE != 0 => Mistrust::Mode(about.mode()),
        _ => return Ok(()),
    };
    Err(Failure::Mistrust(mistrust))
}

/// A file that is no regular file, with its article.
fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a fifo"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "a special file"
    }
}

/// A path that leads through a file (`~/.config` is one) has no configuration either.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
