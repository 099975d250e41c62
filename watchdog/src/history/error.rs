//! Why the history cannot be used. Each says which file, and what to do.

use std::path::PathBuf;

use crate::host::file_error::FileError;
use crate::incident::Text;

/// Why the history cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Its directory cannot be made.
    #[error(transparent)]
    Directory(#[from] FileError),
    /// There is none.
    #[error(
        "there is no history at {}; begin one: memwatch tests history add RUN",
        shown(path)
    )]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// The file is something else.
    #[error(
        "{} is no history of memwatch's; name another file with --db",
        shown(path)
    )]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// A later memwatch wrote it.
    #[error(
        "the history {} has version {found}, this memwatch reads up to {known}; use the memwatch that wrote it, or a newer one",
        shown(path)
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite cannot do it.
    #[error(
        "cannot {doing} the history {}: {source}{}",
        shown(path),
        remedy(source)
    )]
    Database {
        /// As in "cannot read".
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

fn shown(path: &std::path::Path) -> Text {
    Text::of_name(path.as_os_str().as_encoded_bytes())
}

/// What helps, where something does.
fn remedy(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => {
            "; another process has been writing to it for long: wait for it, or end it"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "; name a file that you may write to with --db"
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            "; move it away, and add the records that you have again"
        }
        Some(ErrorCode::DiskFull) => "; make room, and add the run again",
        _ => "",
    }
}
