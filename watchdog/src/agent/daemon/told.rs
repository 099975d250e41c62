//! How the exporters do, for those who ask the daemon. They are another process, which leaves it on the disk
//! (`export::standing`); a disk may hang, so somebody else looks, now and then, and what was seen last is answered.

use crate::agent::helpers::Helpers;
use crate::control::status;
use crate::export::standing;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(2);

/// Until it is dropped somebody looks.
struct Looking(Arc<AtomicBool>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What was seen last.
#[derive(Default)]
pub(super) struct Told {
    seen: Arc<Mutex<Vec<status::Exporter>>>,
    is_looking: Arc<AtomicBool>,
    due: Duration,
}

impl Told {
    /// Has somebody look again, if it is time and nobody is at it.
    pub(super) fn look(&mut self, state: &Path, now: Duration, helpers: &Helpers) {
        if now < self.due || self.is_looking.swap(true, Ordering::Relaxed) {
            return;
        }
        self.due = now + EVERY;
        let seen = Arc::clone(&self.seen);
        // Also if it finds no thread.
        let looking = Looking(Arc::clone(&self.is_looking));
        let state = state.to_owned();
        helpers.start(move || {
            let reports = standing::all(&state).into_iter();
            let exporters = reports.map(|report| status::Exporter {
                state: report.line().into(),
                name: report.name.into(),
            });
            let exporters = exporters.collect();
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = exporters;
            drop(looking);
        });
    }

    /// That.
    pub(super) fn exporters(&self) -> Vec<status::Exporter> {
        let seen = self.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
