//! A user's run whose target the machine's daemon guards: asking it to, hearing of it, and taking the target
//! back. What it is asked over is [`crate::control`]'s; until it has said yes, and from when it is gone, the run
//! guards by itself.

use super::run::{Ended, Run, Running};
use super::signals::Change;
use crate::causes::with_causes;
use crate::config::UseDaemon;
use crate::control::{Attach, Client, ClientError, Event};
use crate::host::cgroup;
use crate::incident::{Record, Text};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;

/// A command that was killed by the daemon may be seen to end before the daemon has said so.
const LAST_HIT: Duration = Duration::from_millis(300);
/// For the daemon to tell all at the end: a run does not wait much longer for it than it has lasted.
const PATIENCE: Duration = Duration::from_secs(5);

type Asking = Pin<Box<dyn Future<Output = Result<(Client, u64, Vec<Text>), ClientError>>>>;

/// How it stands with the daemon.
#[derive(Default)]
pub(super) enum Entrusted {
    /// The run guards by itself.
    #[default]
    No,
    /// So it does still.
    Asking(Asking),
    /// The daemon guards.
    Yes { client: Client, id: u64 },
}

/// What comes from the daemon.
pub(super) enum Word {
    /// It guards from now on; what the user should know.
    Guards(Text, Vec<Text>),
    /// It will not, or cannot be asked.
    No(ClientError),
    /// Something happened to the target.
    Event(Event),
    /// It guards no more: it cannot be heard.
    Lost(ClientError),
}

impl Entrusted {
    /// Whether the daemon guards.
    pub(super) fn is_guarding(&self) -> bool {
        matches!(self, Self::Yes { .. })
    }

    /// The next word of it. Cancel safe.
    pub(super) async fn word(&mut self) -> Word {
        match self {
            Self::No => std::future::pending().await,
            Self::Asking(asking) => match asking.await {
                Ok((client, id, notes)) => {
                    let memwatch = client.memwatch().clone();
                    *self = Self::Yes { client, id };
                    Word::Guards(memwatch, notes)
                }
                Err(error) => {
                    *self = Self::No;
                    Word::No(error)
                }
            },
            Self::Yes { client, .. } => match client.event().await {
                Ok(event) => Word::Event(event),
                Err(error) => {
                    *self = Self::No;
                    Word::Lost(error)
                }
            },
        }
    }
}

/// Hands the cgroup over by its directory.
async fn ask(
    socket: PathBuf,
    cgroup: PathBuf,
    attach: Attach,
) -> Result<(Client, u64, Vec<Text>), ClientError> {
    let mut client = Client::connect(&socket).await?;
    let dir = File::open(&cgroup).map_err(|source| ClientError::Io {
        doing: "hand the cgroup to",
        path: socket,
        source,
    })?;
    let (id, notes) = client.attach(dir.as_fd(), attach).await?;
    Ok((client, id, notes))
}

impl Run {
    /// Asks the daemon to guard, on behalf of a user. root can do all of it alone; looks that are recorded are
    /// taken here.
    pub(super) fn entrust(&mut self) {
        let orders = &self.orders;
        let wanted = orders.attach.daemon == UseDaemon::Auto
            && orders.record.is_none()
            && !nix::unistd::geteuid().is_root();
        let Some(dir) = self.watched.guarded.target.place.dir().filter(|_| wanted) else {
            return;
        };
        let attach = Attach {
            on_pressure: orders.attach.on_pressure,
            dry_run: orders.attach.dry_run,
            limit_bytes: self.watched.guarded.limit_bytes,
            high_bytes: self.watched.guarded.high_bytes,
            leader: self.leader(),
        };
        let asking = ask(orders.daemon.clone(), dir.to_owned(), attach);
        self.entrusted = Entrusted::Asking(Box::pin(asking));
    }

    pub(super) fn leader(&self) -> Option<u32> {
        match &self.subject {
            Running::Child { pid } => Some(*pid),
            Running::Adopted(adopted) => Some(adopted.leader),
            Running::Cgroup => None,
        }
    }

    /// Takes in what came from the daemon.
    pub(super) fn heed(&mut self, word: Word) -> Option<Ended> {
        match word {
            Word::Guards(memwatch, notes) => {
                self.stop_deciding();
                if let (Some(testing), Entrusted::Yes { id, .. }) = (&self.testing, &self.entrusted)
                {
                    testing.tell_daemon(self.orders.daemon.clone(), *id);
                }
                self.terminal.explain(&format!(
                    "the daemon (memwatch {memwatch}) guards from now on"
                ));
                for note in notes.iter().map(Text::as_str) {
                    if !self.watched.notes.iter().any(|known| known == note) {
                        self.terminal.warn(note);
                    }
                }
            }
            Word::No(ClientError::NoDaemon { source, .. }) => {
                tracing::debug!("no daemon: {source}");
            }
            Word::No(error) => self.tell_alone(&format!(
                "the daemon does not guard this run, memwatch does so alone: {}",
                with_causes(&error)
            )),
            Word::Event(Event::Said {
                line, told_at_end, ..
            }) => self.terminal.said_by_daemon(line.as_str(), told_at_end),
            Word::Event(Event::Hit(hit)) => {
                if let Some(testing) = &mut self.testing {
                    testing.hear_daemon(&hit, self.watched.guarded.limit_bytes);
                }
            }
            Word::Event(Event::Lost { events }) => {
                let note = format!("{events} lines of the daemon were not read in time");
                self.watched.notes.push(note);
            }
            Word::Event(Event::Gone { record, .. }) => {
                self.entrusted = Entrusted::No;
                return self.gone(record);
            }
            Word::Lost(error) => {
                self.decide_alone(&with_causes(&error));
            }
        }
        None
    }

    /// The daemon has let the target go.
    fn gone(&mut self, record: Option<serde_json::Value>) -> Option<Ended> {
        let target = &self.watched.guarded.target;
        let id = target.place.dir().and_then(|dir| cgroup::id(dir).ok());
        let is_there = id == Some(target.id);
        self.take_in(record, !is_there);
        if is_there {
            self.decide_alone("it has let the target go");
            None
        } else {
            self.target_is_gone()
        }
    }

    fn take_in(&mut self, record: Option<serde_json::Value>, to_the_end: bool) {
        match record.map(serde_json::from_value::<Record>) {
            Some(Ok(record)) => {
                self.watched.take_in(record, to_the_end);
                if let Some(testing) = &mut self.testing {
                    testing.join(&mut self.watched.story);
                }
            }
            Some(Err(error)) => {
                let note = format!("what the daemon tells of the run cannot be read: {error}");
                self.watched.notes.push(note);
            }
            None => {}
        }
    }

    fn decide_alone(&mut self, why: &str) {
        self.tell_alone(&format!(
            "the daemon guards this run no more, memwatch does so alone from here on: {why}"
        ));
        if let Err(error) = self.start_deciding() {
            self.lose_guard(&format!(
                "memwatch cannot look at it: {}",
                with_causes(&*error)
            ));
        }
    }

    fn tell_alone(&mut self, note: &str) {
        self.terminal.say(note);
        self.watched.notes.push(note.to_owned());
    }

    /// What the daemon did last, of which the command has ended maybe: it is told which tests that was, for its
    /// own record, before it closes that. Whether it has let the target go meanwhile.
    async fn blame(&mut self, client: &mut Client, id: u64, was_killed: bool) -> bool {
        let mut until = Instant::now();
        if was_killed && self.testing.is_some() {
            until += LAST_HIT;
        }
        while let Ok(Ok(event)) = tokio::time::timeout_at(until, client.event()).await {
            match event {
                Event::Gone { record, .. } => {
                    self.take_in(record, true);
                    return true;
                }
                Event::Hit(_) => until = Instant::now(),
                _ => {}
            }
            let _ = self.heed(Word::Event(event)); // nothing that ends a run but its end
        }
        let blames = self.testing.iter().flat_map(|testing| testing.blames(id));
        for blame in blames.collect::<Vec<_>>() {
            if let Err(error) = client.blame(blame).await {
                tracing::debug!("the daemon is not told of a test: {error}");
            }
        }
        false
    }

    /// The end: the daemon tells what it saw and did, and guards no more.
    pub(super) async fn take_back(&mut self, ended: Option<&Ended>) {
        let Entrusted::Yes { mut client, id } = std::mem::take(&mut self.entrusted) else {
            return;
        };
        let was_killed = matches!(ended, Some(Ended::Leader(Change::Killed(_))));
        if self.blame(&mut client, id, was_killed).await {
            return;
        }
        let told = match tokio::time::timeout(PATIENCE, client.detach(id)).await {
            Ok(Ok(record)) => {
                self.take_in(record, true);
                return;
            }
            Ok(Err(error)) => with_causes(&error),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        // It may have let the target go a moment before, and said so.
        while let Ok(event) = tokio::time::timeout(Duration::ZERO, client.event()).await {
            match event {
                Ok(Event::Gone { record, .. }) => return self.take_in(record, true),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.tell_alone(&format!(
            "what the daemon saw and did is not in this record: {told}"
        ));
    }
}
