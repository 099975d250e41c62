//! Starts the command inside its target: moved before exec, so that not one of its allocations escapes.
//!
//! Owns the way from fork to exec, and the words for what goes wrong there. What the command finds is
//! [`super::inheritance`]'s; which target, and what happens afterwards, is [`super::run`]'s.

use super::inheritance::Inheritance;
use crate::host::cgroup::Entrances;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::ffi::{OsStr, OsString};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU8, Ordering};

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// As execvp(3) takes it.
    pub program: OsString,
    /// After the name.
    pub arguments: Vec<OsString>,
    /// What its environment holds beside what memwatch's own does.
    pub environment: Vec<(&'static str, OsString)>,
}

impl Program {
    /// A line for the user's shell: `$SHELL`, or `/bin/sh`.
    pub fn shell(line: &OsStr) -> Self {
        let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
        Self {
            program: shell.unwrap_or_else(|| "/bin/sh".into()),
            arguments: vec!["-c".into(), line.to_owned()],
            environment: Vec::new(),
        }
    }
}

/// The command did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It is not there: exit code 127.
    #[error("{}: command not found; check the spelling and PATH", program.display())]
    NotFound {
        /// What was asked for.
        program: OsString,
    },
    /// It cannot be executed: exit code 126.
    #[error("{}: cannot be executed: {source}", program.display())]
    NotExecutable {
        /// What was asked for.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// It could not be put into its cgroup: exit code 125. It did not run.
    #[error("the command could not be moved into its cgroup and was not started: {source}")]
    NotMoved {
        /// Why.
        source: io::Error,
    },
    /// No process could be made: exit code 125.
    #[error("no process could be started: {source}")]
    NoProcess {
        /// Why.
        source: io::Error,
    },
}

impl LaunchError {
    /// As env(1) and timeout(1) have it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::NotMoved { .. } | Self::NoProcess { .. } => 125,
        }
    }
}

/// How far the child got: written by the child, read by the parent if it never got to its program.
#[derive(Clone, Copy)]
struct Stage(*const AtomicU8);
// SAFETY: an atomic in a mapping that outlives both users.
unsafe impl Send for Stage {}
// SAFETY: as above.
unsafe impl Sync for Stage {}

impl Stage {
    const FORKED: u8 = 0;
    const MOVED: u8 = 1;

    fn get(&self) -> &AtomicU8 {
        // SAFETY: points to the shared page, which `launch` unmaps last.
        unsafe { &*self.0 }
    }
}

/// Starts `program` in the groups that `entrances` open. Where systemd must be asked, the child waits before its
/// program until it has been moved.
///
/// # Errors
/// See [`LaunchError`]; no process is left behind.
pub fn launch(
    program: &Program,
    entrances: &Entrances<'_>,
    inheritance: &Inheritance,
) -> Result<Child, LaunchError> {
    let page = NonZeroUsize::new(4096).unwrap_or(NonZeroUsize::MIN);
    // SAFETY: a fresh anonymous page, shared with the child by fork.
    let shared = unsafe {
        mmap_anonymous(
            None,
            page,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
        )
    }
    .map_err(|e| LaunchError::NoProcess { source: e.into() })?;
    let stage = Stage(shared.as_ptr().cast::<AtomicU8>());

    let doors = entrances.doors();
    let gate = entrances
        .must_be_asked()
        .then(Gate::new)
        .transpose()
        .map_err(|source| LaunchError::NoProcess { source })?;
    let outside = gate.as_ref().map(|gate| gate.outside.as_raw_fd());
    let inheritance = inheritance.clone();
    let mut command = Command::new(&program.program);
    command.args(&program.arguments);
    command.envs(
        program
            .environment
            .iter()
            .map(|(name, value)| (*name, value)),
    );
    // SAFETY: between fork and exec only system calls are made: no allocation, no lock.
    unsafe {
        command.pre_exec(move || {
            for &door in &doors {
                write_all(door, b"0")?; // 0: the writer itself (kernel/cgroup/cgroup.c)
            }
            if let Some(outside) = outside {
                wait_at(outside)?;
            }
            inheritance.give_back()?;
            stage.get().store(Stage::MOVED, Ordering::SeqCst);
            Ok(())
        })
    };
    let spawned = match gate {
        None => command.spawn(),
        Some(Gate { outside, inside }) => std::thread::scope(|threads| {
            let usher = threads.spawn(move || usher(&inside, entrances));
            let spawned = command.spawn();
            drop(outside); // of a child that never came there is nothing to wait for
            match usher.join() {
                Ok(Err(why)) if spawned.is_err() => Err(why),
                _ => spawned,
            }
        }),
    };
    let reached = stage.get().load(Ordering::SeqCst);
    // SAFETY: mapped above, of that length, and the child has its own copy or is gone.
    let _ = unsafe { munmap(shared, page.get()) };
    spawned.map_err(|source| {
        let program = program.program.clone();
        match (reached, source.raw_os_error()) {
            (Stage::MOVED, Some(libc::ENOENT)) => LaunchError::NotFound { program },
            (Stage::MOVED, _) => LaunchError::NotExecutable { program, source },
            (_, Some(libc::EAGAIN | libc::ENOMEM)) => LaunchError::NoProcess { source },
            (Stage::FORKED, _) => LaunchError::NotMoved { source },
            _ => LaunchError::NoProcess { source },
        }
    })
}

/// Where a child waits to be moved: it says who it is and is told when it may go on.
struct Gate {
    outside: OwnedFd,
    inside: OwnedFd,
}

impl Gate {
    fn new() -> io::Result<Self> {
        let (outside, inside) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok(Self { outside, inside })
    }
}

/// The child's side.
fn wait_at(gate: RawFd) -> io::Result<()> {
    // SAFETY: a number of this process.
    let pid = unsafe { libc::getpid() };
    write_all(gate, &pid.to_ne_bytes())?;
    let mut may_go = [0u8; 1];
    // SAFETY: the buffer is as long as said.
    let read = unsafe { libc::read(gate, may_go.as_mut_ptr().cast(), may_go.len()) };
    match read {
        1 => Ok(()),
        0 => Err(io::Error::from_raw_os_error(libc::EPERM)), // why is the other side's to say
        _ => Err(io::Error::last_os_error()),
    }
}

/// memwatch's side: lets in who comes.
fn usher(gate: &OwnedFd, entrances: &Entrances<'_>) -> io::Result<()> {
    let mut pid = [0u8; 4];
    if nix::unistd::read(gate, &mut pid)? == pid.len() {
        entrances.let_in(u32::from_ne_bytes(pid))?;
        nix::unistd::write(gate, b"1")?;
    }
    Ok(())
}

fn write_all(fd: i32, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the buffer is as long as said.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    if written < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
