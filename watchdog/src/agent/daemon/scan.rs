//! Where in the tree the cgroups are that the configuration names.
//!
//! By their names and paths alone, without asking the service manager: it may hang when it matters, and there
//! may be none.

use crate::config::{self, OnPressure};
use crate::host::cgroup;
use crate::host::clock;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A cgroup that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) dir: PathBuf,
    /// The cgroup's id.
    pub(super) id: u64,
    pub(super) on_pressure: OnPressure,
    pub(super) dry_run: bool,
}

/// When it is looked for them again.
#[derive(Debug, Default)]
pub(super) struct Scan {
    due: Option<Duration>,
}

/// Between two looks on a machine of usual size.
const PAUSE: Duration = Duration::from_secs(2);
/// Of the time, the part that looking may take: one in so many.
const SHARE: u32 = 1000;

impl Scan {
    /// Whether it is time; never, where the configuration names nothing.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// Looks through the whole tree.
    pub(super) fn look(&mut self, config: &config::Daemon, mount: &Path) -> Vec<Found> {
        if config.watch.is_empty() {
            self.due = None;
            return Vec::new();
        }
        let began = clock::now();
        let found = cgroup::descendants(mount)
            .into_iter()
            .filter_map(|dir| {
                let watch = config.watch_of(dir.strip_prefix(mount).ok()?)?;
                Some(Found {
                    id: cgroup::id(&dir).ok()?,
                    on_pressure: watch.on_pressure,
                    dry_run: watch.dry_run,
                    dir,
                })
            })
            .collect();
        let now = clock::now();
        self.due = Some(now + PAUSE.max((now - began) * SHARE));
        found
    }
}
