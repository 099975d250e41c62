//! How each exporter does, in a small file that whoever delivers keeps: what `memwatch status` and `memwatch export
//! list` show, also while nobody delivers. How much waits is looked up, not believed.

use super::queue::{self, Queue};
use crate::host::file_error::FileError;
use crate::incident::{Text, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Of one exporter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// When a receiver took something, last.
    pub delivered_at: Option<Timestamp>,
    /// When it did not, last, if it has taken nothing since.
    pub failed_at: Option<Timestamp>,
    /// Why.
    pub failure: Option<Text>,
    /// Why something was refused for good, last.
    pub refusal: Option<Text>,
}

/// The same with what lies in its queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What it is called.
    pub name: String,
    /// What whoever delivers has written down.
    pub standing: Standing,
    /// How many incidents wait.
    pub waiting: usize,
    /// How many were refused.
    pub refused: usize,
    /// How many were evicted before they could be delivered.
    pub lost: u64,
}

/// More than any of them has.
const MAX_BYTES: u64 = 64 << 10;

impl Standing {
    /// What was written last; nothing is known of what cannot be read.
    #[must_use]
    pub fn read(state: &Path, name: &str) -> Self {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path(state, name));
        let mut text = Vec::new();
        let read = file.and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text));
        read.map(|_| Self::parse(&text)).unwrap_or_default()
    }

    pub(super) fn parse(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_default()
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// It did not get there.
    pub fn write(&self, state: &Path, name: &str) -> Result<(), FileError> {
        let dir = state.join("exporters");
        super::spool::make_private(&dir)?;
        let path = path(state, name);
        let error = FileError::at("write", &path);
        let written = tempfile::NamedTempFile::new_in(&dir).and_then(|mut file| {
            file.write_all(&serde_json::to_vec(self)?)?;
            file.persist(&path).map_err(|error| error.error)
        });
        written.map(drop).map_err(error)
    }

    /// A receiver has taken something.
    pub fn has_delivered(&mut self) {
        self.delivered_at = Some(SystemTime::now().into());
        (self.failed_at, self.failure) = (None, None);
    }

    /// A receiver has not taken it now.
    pub fn has_failed(&mut self, why: &str) {
        self.failed_at = Some(SystemTime::now().into());
        self.failure = Some(why.into());
    }
}

/// How all of them do that have a queue.
#[must_use]
pub fn all(state: &Path) -> Vec<Report> {
    let names = queue::names(state).into_iter();
    names.map(|name| Report::of(state, &name)).collect()
}

impl Report {
    /// How it does.
    #[must_use]
    pub fn of(state: &Path, name: &str) -> Self {
        let queue = Queue::of(state, name);
        Self {
            name: name.to_owned(),
            standing: Standing::read(state, name),
            waiting: queue.waiting().len(),
            refused: queue.refused(),
            lost: queue.lost(),
        }
    }

    /// In a line.
    #[must_use]
    pub fn line(&self) -> String {
        let standing = &self.standing;
        let mut parts = Vec::new();
        match (self.waiting, &standing.failure) {
            (0, None) => parts.push("up to date".to_owned()),
            (0, Some(why)) => parts.push(format!("nothing waits, but last time: {why}")),
            (n, None) => parts.push(format!("{n} wait")),
            (n, Some(why)) => parts.push(format!("{n} wait ({why})")),
        }
        if self.refused > 0 {
            let why = standing.refusal.as_ref();
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            parts.push(format!("{} refused{why}", self.refused));
        }
        if self.lost > 0 {
            parts.push(format!("{} lost", self.lost));
        }
        if let Some(at) = &standing.delivered_at {
            let at = at.to_string();
            let second = at.split_once('.').map_or(at.as_str(), |(second, _)| second);
            parts.push(format!("delivered last at {second}Z"));
        }
        parts.join(", ")
    }
}

/// Removes what was written of an exporter that is no more.
pub fn forget(state: &Path, name: &str) {
    let _ = fs::remove_file(path(state, name));
}

fn path(state: &Path, name: &str) -> PathBuf {
    state.join("exporters").join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_junk_is_nothing() {
        let state = tempfile::tempdir().expect("a directory");
        let mut standing = Standing::default();
        standing.has_delivered();
        standing.has_failed("503 Service Unavailable\x1b");
        standing.write(state.path(), "x").expect("room");
        assert_eq!(Standing::read(state.path(), "x"), standing);
        fs::write(path(state.path(), "x"), "{").expect("room");
        assert_eq!(Standing::read(state.path(), "x"), Standing::default());
        assert_eq!(Standing::read(state.path(), "y"), Standing::default());
        let mut report = Report {
            standing,
            waiting: 3,
            lost: 2,
            ..Report::of(state.path(), "x")
        };
        report.standing.delivered_at = None;
        assert_eq!(
            report.line(),
            "3 wait (503 Service Unavailable\\x1b), 2 lost"
        );
    }
}
