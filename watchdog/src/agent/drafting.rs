//! What has happened to a command goes onto the disk while the command runs on, by a thread of its own that may hang
//! there for as long as it will. What a draft is, is [`crate::export::draft`]'s; at the end of the run it makes place
//! for the whole ([`super::keeping`]).

use crate::config::{Exporters, Incidents};
use crate::export::draft::{self, Draft};
use crate::export::{Spool, place};
use crate::host::clock;
use crate::incident::Record;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// After the last thing that happened: memory has come back, or will not.
const SETTLED: Duration = Duration::from_secs(2);
/// To write a record nests calls deeper than other work of the agent's.
const STACK_BYTES: usize = 256 << 10;

/// Where records are given away, and who writes them.
type Thread = (SyncSender<Box<Record>>, JoinHandle<Option<Draft>>);

/// The drafts of a run.
#[derive(Debug, Default)]
pub(super) struct Drafting {
    /// `None` where nothing is kept of runs, or no thread can be had.
    thread: Option<Thread>,
    due: Option<Duration>,
}

impl Drafting {
    /// Starts the thread. First it keeps the drafts of the dead.
    pub(super) fn start(incidents: &Incidents, exporters: &Exporters) -> Self {
        let spool = incidents.of_runs.then(place::of_a_run);
        let Some(Ok(state)) = spool else {
            return Self::default();
        };
        let mut spool = Spool::at(&state, incidents);
        spool.tell(exporters.keys());
        let (records, written) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("memwatch-draft".into())
            .stack_size(STACK_BYTES)
            .spawn(move || write_all(&spool, &written));
        Self {
            thread: thread.ok().map(|thread| (records, thread)),
            due: None,
        }
    }

    /// Something has happened.
    pub(super) fn happened(&mut self, now: Duration) {
        self.due = Some(now + SETTLED);
    }

    /// Whether what has happened is to be written now.
    pub(super) fn is_due(&mut self, now: Duration) -> bool {
        self.thread.is_some() && self.due.take_if(|due| now >= *due).is_some()
    }

    /// Writes it.
    pub(super) fn write(&mut self, record: Record) {
        let Some((records, _)) = &self.thread else {
            return;
        };
        // The one before is still on its way: this one is tried again.
        if let Err(TrySendError::Full(_)) = records.try_send(Box::new(record)) {
            self.happened(clock::now());
        }
    }

    /// The run is over: its draft, if there is one and the disk answers in time.
    pub(super) fn finish(self, patience: Duration) -> Option<Draft> {
        let (records, thread) = self.thread?;
        drop(records);
        let until = clock::now() + patience;
        while !thread.is_finished() {
            if clock::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        thread.join().ok().flatten()
    }
}

/// Keeps the drafts of the dead, and says so.
pub(super) fn adopt(spool: &Spool) {
    for adopted in draft::adopt(spool) {
        match adopted {
            Ok(kept) => {
                tracing::warn!(
                    "what a memwatch that died has left was kept: memwatch incidents list"
                );
                kept.lines()
                    .iter()
                    .for_each(|line| tracing::warn!("{line}"));
            }
            Err(error) => tracing::warn!("what a memwatch that died has left is not kept: {error}"),
        }
    }
}

fn write_all(spool: &Spool, records: &Receiver<Box<Record>>) -> Option<Draft> {
    adopt(spool);
    let mut draft: Option<Draft> = None;
    while let Ok(record) = records.recv() {
        let written = match &mut draft {
            Some(draft) => draft.rewrite(&record),
            None => Draft::begin(spool, &record).map(|begun| draft = Some(begun)),
        };
        if let Err(error) = written {
            tracing::warn!("should memwatch die, what has happened so far is lost: {error}");
        }
    }
    draft
}
