//! The daemon's socket: bound, accepted on, taken away. What goes on in a connection is `connection`'s, what
//! is answered the daemon's. It needs a tokio runtime and never holds the daemon's loop up.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::calls::Call;
use super::connection;
use super::protocol::{self, FROM_DAEMON_BYTES, FromDaemon, Refusal, Reply};
use super::rights::Peer;
use crate::host::file_error::FileError;

/// Connections of all users but root at a time.
pub const CONNECTIONS: usize = 64;
/// Connections of one user at a time, root too.
pub const CONNECTIONS_PER_UID: usize = 8;
/// Calls that wait for the daemon; further clients wait with theirs.
const CALLS: usize = 64;
/// Between two tries to accept, where descriptors have run out.
const BREATH: Duration = Duration::from_millis(100);
/// For another daemon to have bound.
const LOCK_TRIES: u32 = 50;

/// There is no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens already.
    #[error("a daemon listens at {} already; stop it first: systemctl stop memwatch", path.display())]
    Live {
        /// Where.
        path: PathBuf,
    },
    /// Something else lies there.
    #[error("{} is there and is no socket; remove it", path.display())]
    NoSocket {
        /// Where.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] FileError),
}

/// The listening socket. Dropping it hangs up on everybody and removes it.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// Device and inode of what was bound, so that nobody else's is removed.
    identity: (u64, u64),
    calls: mpsc::Receiver<Call>,
    accepting: JoinHandle<()>,
    lost_events: Arc<AtomicU64>,
}

impl Server {
    /// Listens at `path`, for every user, in place of a daemon that is dead. Its directory must be there, and
    /// nobody's but the caller's to write.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let dir = path.parent().unwrap_or(Path::new("/"));
        // Whoever else is about to bind must not take this socket for a dead one before it listens.
        let _lock = lock(dir).map_err(FileError::at("lock", dir))?;
        remove_dead(path)?;
        let listener = UnixListener::bind(path).map_err(FileError::at("listen at", path))?;
        let metadata = fs::symlink_metadata(path).map_err(FileError::at("look at", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o666))
            .map_err(FileError::at("open to all users", path))?;
        let (taken, calls) = mpsc::channel(CALLS);
        let lost_events = Arc::default();
        Ok(Self {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            calls,
            accepting: tokio::spawn(accept(listener, taken, Arc::clone(&lost_events))),
            lost_events,
        })
    }

    /// The next call. Cancel safe: made for a `select!`.
    pub async fn call(&mut self) -> Call {
        match self.calls.recv().await {
            Some(call) => call,
            // Nobody accepts any more, which only dropping this brings about.
            None => std::future::pending().await,
        }
    }

    /// Events that clients did not read in time, so far.
    pub fn lost_events(&self) -> u64 {
        self.lost_events.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        let there = fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path); // the next one removes it otherwise
        }
    }
}

fn lock(dir: &Path) -> io::Result<Flock<File>> {
    let mut file = File::open(dir)?;
    for _ in 0..LOCK_TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EWOULDBLOCK)) => file = again,
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(BREATH);
    }
    Err(io::Error::from_raw_os_error(libc::EWOULDBLOCK))
}

fn remove_dead(path: &Path) -> Result<(), BindError> {
    let path_buf = || path.to_owned();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::at("look at", path)(error).into()),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(BindError::NoSocket { path: path_buf() });
        }
        Ok(_) => {}
    }
    match knock(path) {
        Err(Errno::ECONNREFUSED) => {
            Ok(fs::remove_file(path).map_err(FileError::at("remove the dead socket", path))?)
        }
        // EAGAIN: so many wait that it takes no more just now.
        Ok(()) | Err(Errno::EAGAIN) => Err(BindError::Live { path: path_buf() }),
        Err(errno) => Err(FileError::at("connect to", path)(errno.into()).into()),
    }
}

/// Connects, without waiting for one that is stuck.
fn knock(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let visitor = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(visitor.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Accepts for ever; ends, and every connection with it, when it is aborted.
async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>, lost_events: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    let mut held = Held::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let peer = accepted.and_then(|(stream, _)| Ok((Peer::of(&stream)?, stream)));
                match peer {
                    Ok((peer, stream)) => match held.take(peer.uid) {
                        Ok(()) => {
                            let serve = connection::serve(stream, peer, calls.clone(), Arc::clone(&lost_events));
                            connections.spawn(async move {
                                serve.await;
                                peer.uid
                            });
                        }
                        Err(refusal) => refuse(&stream, refusal),
                    },
                    Err(error) => {
                        tracing::warn!("cannot take a client on: {error}");
                        tokio::time::sleep(BREATH).await;
                    }
                }
            }
            Some(ended) = connections.join_next() => match ended {
                Ok(uid) => held.give_back(uid),
                Err(error) => tracing::error!("a connection ended badly: {error}"),
            },
        }
    }
}

/// Tells it if the socket takes that at once, and hangs up.
fn refuse(stream: &UnixStream, refusal: Refusal) {
    let reply = FromDaemon::Reply(Reply::Refused(refusal));
    if let Ok(frame) = protocol::encode(&reply, FROM_DAEMON_BYTES) {
        let _ = stream.try_write(&frame); // who is not reading is not told
    }
}

/// Who holds how many connections.
#[derive(Debug, Default)]
struct Held(HashMap<u32, usize>);

impl Held {
    fn take(&mut self, uid: u32) -> Result<(), Refusal> {
        let of_users: usize = self
            .0
            .iter()
            .filter(|(uid, _)| **uid != 0)
            .map(|(_, n)| n)
            .sum();
        let own = self.0.get(&uid).copied().unwrap_or(0);
        if own >= CONNECTIONS_PER_UID {
            return Err(Refusal::new(
                format!("uid {uid} has {own} connections to the daemon, and may have no more"),
                "end a memwatch that waits, or try again later",
            ));
        }
        // Users leave root a way in.
        if uid != 0 && of_users >= CONNECTIONS {
            return Err(Refusal::new(
                format!("the daemon has {of_users} connections, and takes no more"),
                "try again later",
            ));
        }
        self.0.insert(uid, own + 1);
        Ok(())
    }

    fn give_back(&mut self, uid: u32) {
        if let Some(held) = self.0.get_mut(&uid) {
            *held -= 1;
            if *held == 0 {
                self.0.remove(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_connections() {
        let mut held = Held::default();
        for uid in 1000..1000 + (CONNECTIONS / CONNECTIONS_PER_UID) as u32 {
            for _ in 0..CONNECTIONS_PER_UID {
                held.take(uid).expect("within the quota");
            }
            assert!(held.take(uid).is_err());
        }
        let refusal = held.take(7).expect_err("all are taken");
        assert!(refusal.to_string().contains("64 connections"), "{refusal}");
        held.take(0).expect("root has a way in");
        held.give_back(1000);
        held.take(7).expect("one is free");
        held.give_back(0);
        assert!(!held.0.contains_key(&0));
    }
}
