//! Incidents on their way to the disk, one after the other, by a thread of their own: a disk that hangs, is full or
//! cannot be written keeps neither the daemon from starting nor its helpers from ending processes. What is lost by
//! that is said and counted. What an incident is on the disk is `export::spool`'s.

use crate::agent::{drafting, exporting, service_log};
use crate::causes::with_causes;
use crate::config::{Exporters, Incidents};
use crate::export::Spool;
use crate::host::clock;
use crate::incident::Record;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The most that wait for a disk: some 100 KiB each.
const WAITING_AT_MOST: usize = 64;
/// To write a record nests calls deeper than other work of the daemon's.
const STACK_BYTES: usize = 256 << 10;

/// Where incidents are given away.
pub(super) struct Archive {
    errands: SyncSender<Errand>,
    thread: JoinHandle<()>,
    lost: Arc<AtomicU64>,
    spool: Spool,
}

enum Errand {
    Keep(Box<Record>),
    Bound(Incidents, Exporters),
}

impl Archive {
    /// Begins. Nothing waits for the disk; that nothing can be kept is said when it is known.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn start(spool: Spool, bounds: Incidents, exporters: Exporters) -> io::Result<Self> {
        let (errands, waiting) = sync_channel(WAITING_AT_MOST);
        let lost = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new()
            .name("memwatch-keep".into())
            .stack_size(STACK_BYTES)
            .spawn({
                let (spool, lost) = (spool.clone(), Arc::clone(&lost));
                move || run_errands(spool, &waiting, &lost)
            })?;
        let archive = Self {
            errands,
            thread,
            lost,
            spool,
        };
        archive.bound(bounds, exporters);
        Ok(archive)
    }

    /// The directory.
    pub(super) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Keeps so many from now on, and has them told by these.
    pub(super) fn bound(&self, incidents: Incidents, exporters: Exporters) {
        if self
            .errands
            .try_send(Errand::Bound(incidents, exporters))
            .is_err()
        {
            tracing::error!(
                "the disk has not taken the incidents before: their bounds stay as they were"
            );
        }
    }

    /// Puts an incident on the disk, in its turn.
    pub(super) fn keep(&self, record: Record) {
        if self
            .errands
            .try_send(Errand::Keep(Box::new(record)))
            .is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                "an incident is lost: the disk has not taken the {WAITING_AT_MOST} before it"
            );
        }
    }

    /// How many did not get to the disk.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until all of them have got there, at most so long.
    pub(super) fn finish(self, patience: Duration) {
        let Self {
            errands, thread, ..
        } = self;
        drop(errands);
        let until = clock::now() + patience;
        while !thread.is_finished() {
            if clock::now() >= until {
                tracing::error!(
                    "incidents may be lost: the disk has not taken them within {patience:?}"
                );
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn run_errands(mut spool: Spool, waiting: &Receiver<Errand>, lost: &AtomicU64) {
    while let Ok(errand) = waiting.recv() {
        match errand {
            Errand::Bound(incidents, exporters) => {
                spool.bound(&incidents);
                spool.tell(exporters.keys());
                if let Err(error) = spool.make() {
                    let error = with_causes(&error);
                    tracing::error!("incidents cannot be kept as things are: {error}");
                }
                for line in exporting::prepare(spool.state(), &exporters) {
                    tracing::error!("{line}");
                }
                drafting::adopt(&spool);
            }
            Errand::Keep(mut record) => {
                service_log::complete(&mut record);
                match spool.keep(&record) {
                    Ok(kept) => kept
                        .lines()
                        .iter()
                        .for_each(|line| tracing::warn!("{line}")),
                    Err(error) => {
                        lost.fetch_add(1, Ordering::Relaxed);
                        tracing::error!("an incident is lost: {}", with_causes(&error));
                    }
                }
            }
        }
    }
}
