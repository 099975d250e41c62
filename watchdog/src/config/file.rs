//! Reads one configuration file without trusting it to be one: a fifo, a device or a directory must
//! end in an error and never in a wait, and nothing is read without bound.

use std::fs::{FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use super::error::ConfigError;
use super::search::{Found, NamedBy};

/// A configuration has a few hundred bytes; more than this is something else.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The text of a file; `None` if a file of the default search does not exist.
pub(super) fn read(found: &Found) -> Result<Option<String>, ConfigError> {
    let path = found.path.clone();
    let named_by = found.named_by;
    match bounded(found) {
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
        Err(Failure::Io(error)) if named_by == NamedBy::Search && is_missing(&error) => Ok(None),
        Err(Failure::Io(source)) => Err(ConfigError::Read {
            path,
            named_by,
            source,
        }),
        Err(Failure::Kind(kind)) => Err(ConfigError::NotAFile {
            path,
            named_by,
            kind,
        }),
    }
}

/// Why there are no bytes.
enum Failure {
    Io(io::Error),
    Kind(&'static str),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// At most one byte more than allowed.
fn bounded(found: &Found) -> Result<Vec<u8>, Failure> {
    let file = OpenOptions::new()
        .read(true)
        // Opening a fifo without a writer waits for ever, and opening a terminal can adopt it.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(&found.path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() {
        return Err(Failure::Kind(name_of(kind)));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
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
