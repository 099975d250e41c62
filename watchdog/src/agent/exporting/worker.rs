//! One exporter at work: what waits in its queue is delivered, oldest first. A receiver that does not take
//! something now is left alone for a while, and then something else is tried first, so that no single incident
//! holds up the others.

use crate::export::backoff::Backoff;
use crate::export::queue::UnreadableError;
use crate::export::refusal::Refusal;
use crate::export::standing::Standing;
use crate::export::{Exporter, Queue};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use uuid::Uuid;

/// However quiet it is: the queue may have changed where nothing told.
const RESCAN: Duration = Duration::from_secs(30);
/// While much is delivered, how it goes is written down so often.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// The state of one exporter.
pub(super) struct Worker {
    name: String,
    state: PathBuf,
    exporter: Arc<Exporter>,
    queue: Queue,
    backoff: Backoff,
    standing: Standing,
    written: Option<Instant>,
    /// What could not be taken out of the queue: told of, and not to be told of again by this process.
    done: BTreeSet<Uuid>,
    /// What was tried last in vain.
    tried: Option<Uuid>,
}

/// What a round has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// Nothing waits.
    Done,
    /// The receiver is to be left alone for so long.
    Later(Duration),
}

impl Worker {
    pub(super) fn new(
        name: &str,
        state: &Path,
        exporter: Arc<Exporter>,
        retry: (Duration, Duration),
    ) -> Self {
        Self {
            name: name.to_owned(),
            exporter,
            queue: Queue::of(state, name),
            backoff: Backoff::new(retry),
            standing: Standing::read(state, name),
            state: state.to_owned(),
            written: None,
            done: BTreeSet::new(),
            tried: None,
        }
    }

    /// Delivers for ever; `wake` says that something new may wait.
    pub(super) async fn work(mut self, wake: Arc<Notify>) {
        loop {
            match self.round().await {
                Round::Later(pause) => tokio::time::sleep(pause).await,
                Round::Done => tokio::select! {
                    () = wake.notified() => {}
                    () = tokio::time::sleep(RESCAN) => {}
                },
            }
        }
    }

    /// Delivers until nothing waits any more, or the receiver does not take something.
    pub(super) async fn round(&mut self) -> Round {
        loop {
            let waiting = self.in_turn();
            if waiting.is_empty() {
                self.write_down();
                return Round::Done;
            }
            for id in waiting {
                if let Err(pause) = self.tell_of(id).await {
                    self.tried = Some(id);
                    self.write_down();
                    return Round::Later(pause);
                }
                if self.written.is_none_or(|at| at.elapsed() >= WRITE_EVERY) {
                    self.write_down();
                }
            }
        }
    }

    /// What waits, beginning after what was tried last.
    fn in_turn(&self) -> Vec<Uuid> {
        let mut waiting = self.queue.waiting();
        waiting.retain(|id| !self.done.contains(id));
        if let Some(tried) = self.tried {
            let first = waiting.partition_point(|id| *id <= tried);
            waiting.rotate_left(first);
        }
        waiting
    }

    async fn tell_of(&mut self, id: Uuid) -> Result<(), Duration> {
        let record = match self.queue.read(id) {
            Ok(record) => record,
            Err(UnreadableError::Gone) => return Ok(()),
            Err(error) if error.may_pass() => {
                let why = format!("incident {id}: {error}");
                return Err(self.fail(&why, None));
            }
            Err(error) => {
                self.put_aside(id, &error.to_string());
                return Ok(());
            }
        };
        match self.exporter.deliver(&record).await {
            Ok(delivered) => {
                let note = delivered.note.unwrap_or_default();
                tracing::info!("{}: incident {id} was taken: {note}", self.name);
                self.succeed();
                if let Err(error) = self.queue.delivered(id) {
                    tracing::warn!("{error}; incident {id} may be told of again");
                    self.done.insert(id);
                }
                Ok(())
            }
            // An answer, but no delivery: whether anything gets through is not known by it.
            Err(Refusal::Never { why }) => {
                self.put_aside(id, &why);
                Ok(())
            }
            Err(Refusal::Later { why, after }) => Err(self.fail(&why, after)),
        }
    }

    /// The receiver has taken something.
    fn succeed(&mut self) {
        if self.standing.failure.is_some() {
            tracing::warn!("the exporter {} gets through again", self.name);
        }
        self.standing.has_delivered();
        self.backoff.reset();
        self.tried = None;
    }

    fn fail(&mut self, why: &str, after: Option<Duration>) -> Duration {
        if self.standing.failure.is_none() {
            let waiting = self.queue.waiting().len();
            tracing::warn!(
                "the exporter {} does not get through: {why}; {waiting} incidents wait",
                self.name
            );
        }
        self.standing.has_failed(why);
        self.backoff.next(after)
    }

    fn put_aside(&mut self, id: Uuid, why: &str) {
        tracing::warn!(
            "incident {id} is lost to the exporter {}, unless `memwatch export retry {}` sends it again: {why}",
            self.name,
            self.name
        );
        self.standing.refusal = Some(why.into());
        if let Err(error) = self.queue.refuse(id) {
            tracing::warn!("{error}");
            self.done.insert(id);
        }
    }

    fn write_down(&mut self) {
        if let Err(error) = self.standing.write(&self.state, &self.name) {
            tracing::debug!("{error}");
        }
        self.written = Some(Instant::now());
    }

    /// What is left, and why.
    pub(super) fn left(&self) -> (usize, Option<&str>) {
        let why = self.standing.failure.as_ref().map(|why| why.as_str());
        (self.in_turn().len(), why)
    }
}
