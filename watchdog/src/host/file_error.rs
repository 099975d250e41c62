//! A file operation that failed, for the errors of whole modules to carry.

use std::io;
use std::path::{Path, PathBuf};

/// What was being done, to what, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", path.display())]
pub struct FileError {
    /// As in "cannot write".
    pub doing: &'static str,
    /// To which file or directory.
    pub path: PathBuf,
    /// Why, with its errno.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`.
    pub fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            doing,
            path,
            source,
        }
    }
}
