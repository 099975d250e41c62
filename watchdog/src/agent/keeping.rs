//! What happened to a command goes onto the disk before anybody is told, and then to whom the configuration says, as
//! far as that is quick. A disk that is full, read-only or broken is said, and changes nothing else. How it is kept
//! is `export`'s, delivering [`super::exporting`]'s.

use super::exporting;
use super::helpers::Helpers;
use super::terminal::Terminal;
use crate::causes::with_causes;
use crate::config::{Exporters, Incidents};
use crate::export::draft::Draft;
use crate::export::{Kept, Spool, place};
use crate::host::file_error::FileError;
use crate::incident::{Kind, Record};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// An incident that is kept.
#[derive(Debug)]
pub(super) struct Keeping {
    state: PathBuf,
    exporters: Exporters,
}

/// Keeps it in place of its draft, unless nothing happened or the configuration says otherwise.
pub(super) fn keep(
    record: &Record,
    draft: Option<Draft>,
    (incidents, exporters): (&Incidents, &Exporters),
    helpers: &Helpers,
    terminal: &Terminal,
) -> Option<Keeping> {
    if !incidents.of_runs || record.kind == Kind::Run {
        return None;
    }
    let lost = |why: &str| {
        terminal.warn(&format!(
            "the incident is not kept: {why}; of_runs = false under [incidents] in the configuration asks for none, \
             --report FILE keeps it elsewhere"
        ));
    };
    let state = place::of_a_run()
        .map_err(|error| lost(&error.to_string()))
        .ok()?;
    let kept = {
        let (state, record) = (state.clone(), record.clone());
        let (incidents, exporters) = (incidents.clone(), exporters.clone());
        helpers.ask(PATIENCE, move || {
            on_disk(&state, &record, draft, &incidents, &exporters)
        })
    };
    match kept {
        Some(Ok(kept)) => kept.lines().iter().for_each(|line| terminal.warn(line)),
        Some(Err(error)) => {
            lost(&with_causes(&error));
            return None;
        }
        None => {
            lost(&format!("the disk has not answered within {PATIENCE:?}"));
            return None;
        }
    }
    Some(Keeping {
        state,
        exporters: exporters.clone(),
    })
}

fn on_disk(
    state: &Path,
    record: &Record,
    mut draft: Option<Draft>,
    incidents: &Incidents,
    exporters: &Exporters,
) -> Result<Kept, FileError> {
    // Should memwatch die between the two, it is the same incident.
    if let Some(draft) = &mut draft {
        draft.rewrite(record)?;
    }
    let mut spool = Spool::open(state, incidents)?;
    spool.tell(exporters.keys());
    let kept = spool.keep(record)?;
    // One that stays is the same incident to who finds it.
    if let Some(Err(error)) = draft.map(Draft::remove) {
        tracing::warn!("{error}");
    }
    Ok(kept)
}

impl Keeping {
    /// Tells others of it, as far as that is quick.
    pub(super) fn deliver(&self, terminal: &Terminal) {
        if self.exporters.is_empty() {
            return;
        }
        for line in exporting::briefly(&self.state, &self.exporters) {
            terminal.say(&line);
        }
    }
}
