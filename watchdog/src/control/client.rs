//! The other end of the daemon's socket: for `memwatch status`, and for `memwatch attach` as a user. It
//! needs a tokio runtime.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::descriptors;
use super::protocol::{
    self, Attach, Blame, Event, FROM_CLIENT_BYTES, FROM_DAEMON_BYTES, FrameError, FromDaemon,
    Hello, MEMWATCH, Refusal, Reply, Request, RunningTest, VERSION,
};
use super::status::Status;
use crate::incident::{Headline, Record, Text};

/// For the daemon to answer. It answers in milliseconds unless the machine is at its worst.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The daemon cannot be asked, or says no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("no daemon listens at {}: {source}; start it with: systemctl start memwatch", path.display())]
    NoDaemon {
        /// Where.
        path: PathBuf,
        /// Why, with its errno.
        source: io::Error,
    },
    /// The socket may not be reached.
    #[error(
        "may not reach the daemon at {}: {source}; every directory on the way must let you through: namei -l {0}",
        path.display()
    )]
    NoWay {
        /// Where.
        path: PathBuf,
        /// Why, with its errno.
        source: io::Error,
    },
    /// The connection broke.
    #[error("cannot {doing} the daemon at {}: {source}; see how it is: systemctl status memwatch", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why, with its errno.
        source: io::Error,
    },
    /// What came is no answer to what was asked.
    #[error("the daemon at {} does not speak as memwatch {MEMWATCH} does ({why}); restart it: systemctl restart memwatch", path.display())]
    Strange {
        /// Where.
        path: PathBuf,
        /// How.
        why: String,
    },
    /// The daemon says no.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// No record is longer.
const RECORD_BYTES: usize = 256 << 20;

/// A connection that has said hello.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: UnixStream,
    /// What has come and is no whole frame yet.
    begun: Vec<u8>,
    /// Events that came before an answer.
    events: VecDeque<Event>,
    /// The daemon's version.
    memwatch: Text,
}

impl Client {
    /// Connects to the daemon that listens at `path`.
    ///
    /// # Errors
    /// None does, it may not be reached, or it speaks another version.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NoDaemon { path, source }
                }
                io::ErrorKind::PermissionDenied => ClientError::NoWay { path, source },
                _ => ClientError::Io {
                    doing: "connect to",
                    path,
                    source,
                },
            }
        })?;
        let mut client = Self {
            path: path.to_owned(),
            stream,
            begun: Vec::new(),
            events: VecDeque::new(),
            memwatch: Text::default(),
        };
        let hello = Hello { version: VERSION };
        match client.say(&hello, None).await? {
            Reply::Welcome { version, memwatch } if version == VERSION => {
                client.memwatch = memwatch;
                Ok(client)
            }
            other => Err(client.strange(&other)),
        }
    }

    /// The daemon's version.
    #[must_use]
    pub fn memwatch(&self) -> &Text {
        &self.memwatch
    }

    /// Has `cgroup`, a directory, guarded; the target's id, and what the user should know.
    ///
    /// # Errors
    /// The daemon refuses, or cannot be asked.
    pub async fn attach(
        &mut self,
        cgroup: BorrowedFd<'_>,
        attach: Attach,
    ) -> Result<(u64, Vec<Text>), ClientError> {
        match self.say(&Request::Attach(attach), Some(cgroup)).await? {
            Reply::Attached { id, notes } => Ok((id, notes)),
            other => Err(self.strange(&other)),
        }
    }

    /// Has a target guarded no more; its record, if there is one to tell.
    ///
    /// # Errors
    /// The daemon refuses, or cannot be asked.
    pub async fn detach(&mut self, id: u64) -> Result<Option<serde_json::Value>, ClientError> {
        match self.say(&Request::Detach { id }, None).await? {
            Reply::Detached { record } => Ok(record),
            other => Err(self.strange(&other)),
        }
    }

    /// Says which tests run in a target; what the process of each has spent in reclaim so far, in ns, as far as the
    /// daemon knows.
    ///
    /// # Errors
    /// The daemon refuses, or cannot be asked.
    pub async fn tests(
        &mut self,
        id: u64,
        running: Vec<RunningTest>,
    ) -> Result<Vec<Option<u64>>, ClientError> {
        match self.say(&Request::Tests { id, running }, None).await? {
            Reply::Stalls { stall_ns } => Ok(stall_ns),
            other => Err(self.strange(&other)),
        }
    }

    /// Says which test a process ran that was signalled.
    ///
    /// # Errors
    /// The daemon refuses, or cannot be asked.
    pub async fn blame(&mut self, blame: Blame) -> Result<(), ClientError> {
        match self.say(&Request::Blame(blame), None).await? {
            Reply::Noted {} => Ok(()),
            other => Err(self.strange(&other)),
        }
    }

    /// How things are.
    ///
    /// # Errors
    /// The daemon refuses, or cannot be asked.
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        match self.say(&Request::Status {}, None).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(self.strange(&other)),
        }
    }

    /// The incidents of all one's targets; root's: all of them.
    ///
    /// # Errors
    /// The daemon refuses, or cannot be asked.
    pub async fn incidents(&mut self) -> Result<Vec<Headline>, ClientError> {
        let mut all = Vec::new();
        let mut before = None;
        loop {
            match self.say(&Request::Incidents { before }, None).await? {
                Reply::Incidents { incidents, next } => {
                    all.extend(incidents);
                    // Each part is older than the one before: it comes to an end.
                    if next.is_none() || (before.is_some() && next >= before) {
                        return Ok(all);
                    }
                    before = next;
                }
                other => return Err(self.strange(&other)),
            }
        }
    }

    /// One of them, whole.
    ///
    /// # Errors
    /// The daemon refuses, or cannot be asked; or what it sends is no record.
    pub async fn incident(&mut self, id: Uuid) -> Result<Record, ClientError> {
        let mut json = String::new();
        loop {
            let from = json.len() as u64;
            let (part, bytes) = match self.say(&Request::Incident { id, from }, None).await? {
                Reply::Incident { part, bytes } => (part, bytes),
                other => return Err(self.strange(&other)),
            };
            let is_over = part.is_empty();
            json.push_str(&part);
            if is_over || json.len() as u64 >= bytes || json.len() > RECORD_BYTES {
                break;
            }
        }
        Record::from_json(json.as_bytes()).map_err(|error| ClientError::Strange {
            path: self.path.clone(),
            why: error.to_string(),
        })
    }

    /// Asks for the events of all one's targets. A connection that has attached some hears theirs anyway, and
    /// then twice.
    ///
    /// # Errors
    /// The daemon refuses, or cannot be asked.
    pub async fn watch(&mut self) -> Result<(), ClientError> {
        match self.say(&Request::Watch {}, None).await? {
            Reply::Watching {} => Ok(()),
            other => Err(self.strange(&other)),
        }
    }

    /// The next event, waited for as long as it takes. Cancel safe.
    ///
    /// # Errors
    /// The daemon has hung up, or speaks strangely.
    pub async fn event(&mut self) -> Result<Event, ClientError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        match self.hear().await? {
            FromDaemon::Event(event) => Ok(event),
            FromDaemon::Reply(reply) => Err(self.strange(&reply)),
        }
    }

    /// Sends a frame and waits for its reply, with an end to it.
    async fn say(
        &mut self,
        message: &impl Serialize,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, ClientError> {
        let frame = protocol::encode(message, FROM_CLIENT_BYTES).map_err(|e| self.bad_frame(&e))?;
        let reply = async {
            // Who hangs up at once has said why before.
            let sent = self.send(&frame, descriptor).await;
            loop {
                match (self.hear().await, sent.as_ref()) {
                    (Ok(FromDaemon::Event(event)), _) => self.events.push_back(event),
                    (Ok(FromDaemon::Reply(Reply::Refused(refusal))), _) => {
                        return Err(ClientError::Refused(refusal));
                    }
                    (Ok(FromDaemon::Reply(reply)), Ok(())) => return Ok(reply),
                    (_, Err(error)) => return Err(self.io("ask", copy_of(error))),
                    (Err(error), _) => return Err(error),
                }
            }
        };
        match timeout(PATIENCE, reply).await {
            Ok(reply) => reply,
            Err(_) => Err(self.io("wait any longer for", io::ErrorKind::TimedOut.into())),
        }
    }

    async fn send(&mut self, frame: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut sent = 0;
        if let Some(descriptor) = descriptor {
            let send = || descriptors::send(self.stream.as_fd(), frame, descriptor);
            sent = self.stream.async_io(Interest::WRITABLE, send).await?;
        }
        self.stream.write_all(&frame[sent..]).await
    }

    /// The next frame. What has come of it is kept if this is dropped half-way.
    async fn hear(&mut self) -> Result<FromDaemon, ClientError> {
        loop {
            if let Some(heard) = self.whole_frame().map_err(|error| self.bad_frame(&error))? {
                return Ok(heard);
            }
            match self.stream.read_buf(&mut self.begun).await {
                Ok(0) => {
                    let source = io::ErrorKind::UnexpectedEof.into();
                    return Err(self.io("hear any more from", source));
                }
                Ok(_) => {}
                Err(source) => return Err(self.io("hear", source)),
            }
        }
    }

    fn whole_frame(&mut self) -> Result<Option<FromDaemon>, FrameError> {
        let Some((&header, rest)) = self.begun.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = protocol::body_length(header, FROM_DAEMON_BYTES)?;
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let heard = protocol::decode(body)?;
        self.begun.drain(..4 + length);
        Ok(Some(heard))
    }

    fn io(&self, doing: &'static str, source: io::Error) -> ClientError {
        ClientError::Io {
            doing,
            path: self.path.clone(),
            source,
        }
    }

    fn strange(&self, reply: &Reply) -> ClientError {
        ClientError::Strange {
            path: self.path.clone(),
            why: format!("it answers something else: {reply:?}"),
        }
    }

    fn bad_frame(&self, error: &FrameError) -> ClientError {
        ClientError::Strange {
            path: self.path.clone(),
            why: error.to_string(),
        }
    }
}

/// `io::Error` is not `Clone`; the errno is what is told.
fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => error.kind().into(),
    }
}
