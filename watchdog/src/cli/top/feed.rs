//! Asks the daemon, on a thread of its own: it may take its time, and keys are answered meanwhile. When it is
//! gone it is asked again until it is back.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use nix::unistd::{Uid, User};
use tokio::time::sleep;

use super::Message;
use crate::control::{Client, ClientError, Event, Status};
use crate::incident::{Text, Timestamp};

/// What comes from the daemon.
pub(super) enum News {
    /// It has answered.
    Status(Answer),
    /// A line about a target.
    Said { id: u64, line: Text },
    /// It does not answer.
    Silence { why: Text, now_us: i64 },
}

/// An answer, the first or a later one.
pub(super) struct Answer {
    /// How things are.
    pub(super) status: Box<Status>,
    /// Names of users in it that were not told before.
    pub(super) users: HashMap<u32, Text>,
}

/// Names of users that were asked for already: a directory service may be slow.
#[derive(Default)]
struct Users(HashSet<u32>);

/// Asks once, so that it can be said on the terminal as it was if nobody answers, then goes on every `interval`.
///
/// # Errors
/// No daemon answers.
pub(super) fn start(
    socket: PathBuf,
    interval: Duration,
    sender: Sender<Message>,
) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let mut users = Users::default();
    let (client, first) = runtime.block_on(async {
        let mut client = Client::connect(&socket).await?;
        let status = client.status().await?;
        Ok::<_, ClientError>((client, users.name(status)))
    })?;
    let feed = Feed {
        socket,
        interval,
        sender,
        users,
    };
    thread::Builder::new()
        .name("memwatch-feed".into())
        .spawn(move || runtime.block_on(feed.go_on(client)))
        .context("cannot start a thread")?;
    Ok(first)
}

struct Feed {
    socket: PathBuf,
    interval: Duration,
    sender: Sender<Message>,
    users: Users,
}

/// Nobody listens to the feed any more.
struct Over;

impl Feed {
    async fn go_on(mut self, client: Client) {
        let mut client = Some(client);
        while self.once(&mut client).await.is_ok() {}
    }

    /// Follows `client`, or a new one, until it breaks.
    async fn once(&mut self, client: &mut Option<Client>) -> Result<(), Over> {
        if client.is_none() {
            sleep(self.interval).await;
        }
        let broken = match client.take() {
            Some(client) => self.follow(client).await?,
            None => match Client::connect(&self.socket).await {
                Ok(client) => self.follow(client).await?,
                Err(error) => error,
            },
        };
        let now_us = Timestamp::from(SystemTime::now()).unix_us();
        self.say(News::Silence {
            why: Text::from(broken.to_string()),
            now_us: now_us.unwrap_or_default(),
        })
    }

    /// Asks until it breaks, and hears of events meanwhile; why it broke.
    async fn follow(&mut self, mut client: Client) -> Result<ClientError, Over> {
        let mut events = watcher(&self.socket).await;
        loop {
            let status = match client.status().await {
                Ok(status) => status,
                Err(error) => return Ok(error),
            };
            let news = self.users.name(status);
            self.say(News::Status(news))?;
            let until = tokio::time::Instant::now() + self.interval;
            while let Some(event) = next_event(&mut events, until).await {
                if let Some(news) = told(event) {
                    self.say(news)?;
                }
            }
        }
    }

    fn say(&self, news: News) -> Result<(), Over> {
        self.sender.send(Message::News(news)).map_err(|_| Over)
    }
}

/// A connection on which events come: of all targets for root, of the own ones for others. Without one there
/// is the rest.
async fn watcher(socket: &Path) -> Option<Client> {
    let mut client = Client::connect(socket).await.ok()?;
    client.watch().await.ok()?;
    Some(client)
}

/// The next event before `until`, which is waited for.
async fn next_event(events: &mut Option<Client>, until: tokio::time::Instant) -> Option<Event> {
    let Some(client) = events else {
        tokio::time::sleep_until(until).await;
        return None;
    };
    match tokio::time::timeout_at(until, client.event()).await {
        Ok(Ok(event)) => Some(event),
        // It has hung up; the other connection will say so, too.
        Ok(Err(_)) => {
            *events = None;
            tokio::time::sleep_until(until).await;
            None
        }
        Err(_) => None,
    }
}

fn told(event: Event) -> Option<News> {
    match event {
        Event::Said { id, line, .. } => Some(News::Said { id, line }),
        Event::Gone { id, .. } => Some(News::Said {
            id,
            line: "it is guarded no more".into(),
        }),
        Event::Hit(_) | Event::Lost { .. } => None,
    }
}

impl Users {
    /// The status, with the names of those of its users that were not asked for before.
    fn name(&mut self, status: Status) -> Answer {
        let mut users = HashMap::new();
        for uid in status.targets.iter().filter_map(|target| target.uid) {
            if !self.0.insert(uid) {
                continue;
            }
            if let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) {
                users.insert(uid, Text::of_name(user.name.as_bytes()));
            }
        }
        Answer {
            status: Box::new(status),
            users,
        }
    }
}
