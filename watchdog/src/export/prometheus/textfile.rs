//! The page as a file for node_exporter's textfile collector, for machines that Prometheus scrapes there alone.
//! What stands in it is [`super::page`]'s.

use std::convert::Infallible;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Source;
use crate::host::file_error::FileError;

/// Its name in node_exporter's directory.
pub const NAME: &str = "memwatch.prom";
/// How often it is written. Prometheus scrapes every 15 to 60 s.
pub const EVERY: Duration = Duration::from_secs(15);

/// Writes it again and again, until it is dropped; then it is removed, since what is not written any more would be
/// told on and on.
pub async fn keep<S: Source>(dir: PathBuf, every: Duration, source: S) -> Infallible {
    let _remove = Remove(dir.join(NAME));
    let mut due = interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        due.tick().await;
        let page = source.snapshot().await.page();
        let place = dir.clone();
        let written = tokio::task::spawn_blocking(move || write(&place, &page)).await;
        match written {
            Ok(Ok(())) => said = false,
            Ok(Err(error)) if !said => {
                tracing::warn!(
                    "node_exporter is told nothing: {error}; the directory must be the one of its \
                     --collector.textfile.directory, and memwatch must be allowed to write there"
                );
                said = true;
            }
            _ => {}
        }
    }
}

/// Writes it whole: nobody ever reads a half. It can be read by everybody, as node_exporter is not root.
///
/// # Errors
/// The directory is not there, or may not be written to.
pub fn write(dir: &Path, page: &str) -> Result<(), FileError> {
    // The collector takes *.prom alone.
    let mut file = tempfile::Builder::new()
        .prefix(".memwatch-")
        .suffix(".unfinished")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)
        .map_err(FileError::at("make a file in", dir))?;
    file.as_file()
        .set_permissions(Permissions::from_mode(0o644)) // whatever the umask
        .and_then(|()| file.write_all(page.as_bytes()))
        .map_err(FileError::at("write to a file in", dir))?;
    let place = dir.join(NAME);
    file.persist(&place)
        .map_err(|failed| FileError::at("replace", &place)(failed.error))?;
    Ok(())
}

struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // it may never have been written
    }
}
