//! One client's connection, in the daemon: its frames become [`Call`]s, the answers and the events frames.
//! A client that sends half a frame, reads nothing or breaks the protocol harms its own connection alone.
//! Which connections there are is `server`'s.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::calls::{Answer, Call, Events};
use super::descriptors;
use super::protocol::{
    self, Event, FROM_CLIENT_BYTES, FROM_DAEMON_BYTES, FromDaemon, Hello, MEMWATCH, Refusal, Reply,
    Request, TESTS, VERSION,
};
use super::rights::Peer;
use crate::incident::Text;

/// For a client to say hello, to send the rest of a frame, and to take in an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Why a connection ends before the client hangs up.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// The client broke the protocol; it is told.
    #[error("{0}")]
    Protocol(Refusal),
    /// The socket did.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

impl From<protocol::FrameError> for Broken {
    fn from(error: protocol::FrameError) -> Self {
        Self::Protocol(error.into())
    }
}

fn broken(reason: impl Into<Text>, what_to_do: &str) -> Broken {
    Broken::Protocol(Refusal::new(reason, what_to_do))
}

/// Serves a client until it hangs up, breaks the protocol, or the daemon takes no calls any more.
pub(super) async fn serve(
    stream: UnixStream,
    peer: Peer,
    calls: mpsc::Sender<Call>,
    lost_in_all: Arc<AtomicU64>,
) {
    let mut connection = Connection { stream };
    match connection.converse(peer, &calls, lost_in_all).await {
        Ok(()) => {}
        Err(Broken::Protocol(refusal)) => {
            tracing::info!(
                uid = peer.uid,
                pid = peer.pid,
                "hung up on a client: {refusal}"
            );
            let _ = connection
                .say(&FromDaemon::Reply(Reply::Refused(refusal)))
                .await; // it may be gone
        }
        Err(Broken::Socket(error)) => {
            tracing::debug!(uid = peer.uid, pid = peer.pid, "lost a client: {error}");
        }
    }
}

struct Connection {
    stream: UnixStream,
}

/// The beginning of a frame.
#[derive(Default)]
struct Begun {
    header: [u8; 4],
    filled: usize,
    descriptors: Vec<OwnedFd>,
}

struct Frame {
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Connection {
    async fn converse(
        &mut self,
        peer: Peer,
        calls: &mpsc::Sender<Call>,
        lost_in_all: Arc<AtomicU64>,
    ) -> Result<(), Broken> {
        let hello = async {
            match self.beginning().await? {
                Some(begun) => self.rest(begun).await.map(Some),
                None => Ok(None),
            }
        };
        let Some(hello) = in_time(hello).await? else {
            return Ok(());
        };
        self.welcome(&hello).await?;
        let (events, mut waiting) = Events::new(lost_in_all);
        loop {
            tokio::select! {
                begun = self.beginning() => {
                    let Some(begun) = begun? else {
                        return Ok(());
                    };
                    let frame = in_time(self.rest(begun)).await?;
                    let Some(answer) = ask(frame, peer, calls, &events).await? else {
                        return Ok(());
                    };
                    self.say(&FromDaemon::Reply(answer)).await?;
                }
                Some(event) = waiting.recv() => self.tell(event, &events).await?,
            }
        }
    }

    async fn welcome(&mut self, frame: &Frame) -> Result<(), Broken> {
        no_descriptors(frame)?;
        let hello: Hello = protocol::decode(&frame.body)?;
        if hello.version != VERSION {
            let reason = format!(
                "this client speaks version {} of the control protocol, the daemon (memwatch {MEMWATCH}) version {VERSION}",
                hello.version
            );
            return Err(broken(
                reason,
                "use the memwatch that the daemon was started from, or restart the daemon: systemctl restart memwatch",
            ));
        }
        let welcome = Reply::Welcome {
            version: VERSION,
            memwatch: MEMWATCH.into(),
        };
        Ok(self.say(&FromDaemon::Reply(welcome)).await?)
    }

    /// The first bytes of the next frame, as late as they come; `None` if the client hangs up instead. Cancel
    /// safe.
    async fn beginning(&self) -> Result<Option<Begun>, Broken> {
        let mut begun = Begun::default();
        begun.filled = self
            .receive(&mut begun.header, &mut begun.descriptors)
            .await?;
        Ok((begun.filled > 0).then_some(begun))
    }

    async fn rest(&self, begun: Begun) -> Result<Frame, Broken> {
        let Begun {
            mut header,
            filled,
            mut descriptors,
        } = begun;
        self.fill(&mut header[filled..], &mut descriptors).await?;
        let mut body = vec![0; protocol::body_length(header, FROM_CLIENT_BYTES)?];
        self.fill(&mut body, &mut descriptors).await?;
        Ok(Frame { body, descriptors })
    }

    async fn fill(
        &self,
        mut rest: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<(), Broken> {
        while !rest.is_empty() {
            let bytes = self.receive(rest, descriptors).await?;
            if bytes == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            rest = &mut rest[bytes..];
        }
        Ok(())
    }

    /// Some of a frame; 0 bytes at the end of the stream. No frame has more than one descriptor. Cancel safe.
    async fn receive(
        &self,
        into: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<usize, Broken> {
        let receive = || descriptors::receive(self.stream.as_fd(), into);
        let received = self.stream.async_io(Interest::READABLE, receive).await?;
        descriptors.extend(received.descriptors);
        if received.truncated || descriptors.len() > 1 {
            return Err(broken(
                "more than one descriptor came with a frame",
                "send the descriptor of one cgroup directory with each attach",
            ));
        }
        Ok(received.bytes)
    }

    /// Sends what was asked for: who asks must read.
    async fn say(&mut self, message: &FromDaemon) -> io::Result<()> {
        let frame = frame_of(message);
        timeout(PATIENCE, self.stream.write_all(&frame)).await?
    }

    /// Sends what was not asked for: a client that sleeps may take it in when it wakes up.
    async fn tell(&mut self, event: Event, events: &Events) -> io::Result<()> {
        let lost = events.take_lost();
        if lost > 0 {
            let lost = FromDaemon::Event(Event::Lost { events: lost });
            self.stream.write_all(&frame_of(&lost)).await?;
        }
        self.stream
            .write_all(&frame_of(&FromDaemon::Event(event)))
            .await
    }
}

/// What a client owes at once.
async fn in_time<T>(owed: impl Future<Output = Result<T, Broken>>) -> Result<T, Broken> {
    timeout(PATIENCE, owed).await.unwrap_or_else(|_| {
        Err(broken(
            format!("no whole frame came within {} s", PATIENCE.as_secs()),
            "connect again",
        ))
    })
}

fn no_descriptors(frame: &Frame) -> Result<(), Broken> {
    if frame.descriptors.is_empty() {
        return Ok(());
    }
    Err(broken(
        "a descriptor came with a frame that takes none",
        "send one with attach alone",
    ))
}

/// The frame, or a refusal in its place if it would be too long.
fn frame_of(message: &impl Serialize) -> Vec<u8> {
    protocol::encode(message, FROM_DAEMON_BYTES).unwrap_or_else(|error| {
        let refusal = Refusal::new(error.to_string(), "look at the daemon's journal");
        let refusal = FromDaemon::Reply(Reply::Refused(refusal));
        protocol::encode(&refusal, FROM_DAEMON_BYTES).unwrap_or_default()
    })
}

/// Puts a frame's request to the daemon; `None` if that takes no calls any more.
async fn ask(
    mut frame: Frame,
    peer: Peer,
    calls: &mpsc::Sender<Call>,
    events: &Events,
) -> Result<Option<Reply>, Broken> {
    let request: Request = protocol::decode(&frame.body)?;
    let descriptor = match request {
        Request::Attach(_) => frame.descriptors.pop(),
        _ => None,
    };
    no_descriptors(&frame)?;
    let reply = match request {
        Request::Attach(attach) => {
            let cgroup = descriptor.ok_or_else(|| {
                broken(
                    "no descriptor came with attach",
                    "send the descriptor of the cgroup's directory with it",
                )
            })?;
            let events = events.clone();
            let call = |answer| Call::Attach {
                peer,
                attach,
                cgroup,
                events,
                answer,
            };
            put(calls, call, |(id, notes)| Reply::Attached { id, notes }).await
        }
        Request::Detach { id } => {
            let call = |answer| Call::Detach { peer, id, answer };
            put(calls, call, |record| Reply::Detached { record }).await
        }
        Request::Tests { id, running } => {
            if running.len() > TESTS {
                return Err(broken(
                    format!(
                        "{} tests at a time, where {TESTS} are the most",
                        running.len()
                    ),
                    "leave some out",
                ));
            }
            let call = |answer| Call::Tests {
                peer,
                id,
                running,
                answer,
            };
            put(calls, call, |stall_ns| Reply::Stalls { stall_ns }).await
        }
        Request::Blame(blame) => {
            let blame = Box::new(blame);
            let call = |answer| Call::Blame {
                peer,
                blame,
                answer,
            };
            put(calls, call, |()| Reply::Noted {}).await
        }
        Request::Status {} => {
            put(calls, |answer| Call::Status { peer, answer }, Reply::Status).await
        }
        Request::Incidents { before } => {
            let call = |answer| Call::Incidents {
                peer,
                before,
                answer,
            };
            let reply = |(incidents, next)| Reply::Incidents { incidents, next };
            put(calls, call, reply).await
        }
        Request::Incident { id, from } => {
            let call = |answer| Call::Incident {
                peer,
                id,
                from,
                answer,
            };
            put(calls, call, |(part, bytes)| Reply::Incident { part, bytes }).await
        }
        Request::Watch {} => {
            let events = events.clone();
            let call = |answer| Call::Watch {
                peer,
                events,
                answer,
            };
            put(calls, call, |()| Reply::Watching {}).await
        }
    };
    Ok(reply)
}

async fn put<T>(
    calls: &mpsc::Sender<Call>,
    call: impl FnOnce(Answer<T>) -> Call,
    reply: impl FnOnce(T) -> Reply,
) -> Option<Reply> {
    let (answer, answered) = oneshot::channel();
    calls.send(call(answer)).await.ok()?;
    Some(match answered.await {
        Ok(Ok(answer)) => reply(answer),
        Ok(Err(refusal)) => Reply::Refused(refusal),
        Err(_) => Reply::Refused(Refusal::new(
            "the daemon is about to end",
            "try again when it has been started",
        )),
    })
}
