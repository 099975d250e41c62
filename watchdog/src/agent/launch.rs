//! Starts the command inside its target: moved before exec, so that not one of its allocations escapes.
//!
//! Owns the few system calls between fork and exec, and the words for what goes wrong there. Which
//! target, and what happens afterwards, is [`super::run`]'s.

use crate::host::reread::Reread;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
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
}

impl Program {
    /// A line for the user's shell: `$SHELL`, or `/bin/sh`.
    pub fn shell(line: &OsStr) -> Self {
        let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
        Self {
            program: shell.unwrap_or_else(|| "/bin/sh".into()),
            arguments: vec!["-c".into(), line.to_owned()],
        }
    }
}

/// What the child must get back although memwatch changed it for itself, and what it gets on top.
#[derive(Debug)]
pub struct Inheritance {
    /// The signal mask memwatch was started with.
    pub signal_mask: SigSet,
    /// The `oom_score_adj` memwatch was started with.
    pub oom_score_adj: Option<CString>,
    /// CPUs to confine the command to.
    pub cpus: Option<usize>,
}

impl Inheritance {
    /// This process's own, before it changes anything. Signals that the slow side takes are blocked
    /// from here on.
    ///
    /// # Errors
    /// The kernel refuses the mask, which it does not.
    pub fn take(blocked: &SigSet, cpus: Option<usize>) -> nix::Result<Self> {
        let mut signal_mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(blocked), Some(&mut signal_mask))?;
        let mut buf = [0; 16];
        let oom_score_adj = Reread::open_c(c"/proc/self/oom_score_adj")
            .ok()
            .and_then(|file| CString::new(file.read_short(&mut buf).ok()?).ok());
        Ok(Self {
            signal_mask,
            oom_score_adj,
            cpus,
        })
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

/// Starts `program` in the groups that `entrances` open.
///
/// # Errors
/// See [`LaunchError`]; no process is left behind.
pub fn launch(
    program: &Program,
    entrances: &[File],
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

    let doors: Vec<i32> = entrances.iter().map(AsRawFd::as_raw_fd).collect();
    let signal_mask = inheritance.signal_mask;
    let oom_score_adj = inheritance.oom_score_adj.clone();
    let cpus = inheritance.cpus.map(first_cpus);
    let mut command = Command::new(&program.program);
    command.args(&program.arguments);
    // SAFETY: between fork and exec only system calls are made: no allocation, no lock.
    unsafe {
        command.pre_exec(move || {
            for &door in &doors {
                write_all(door, b"0")?; // 0: the writer itself (kernel/cgroup/cgroup.c)
            }
            if let Some(adj) = &oom_score_adj {
                give_back_oom_score(adj);
            }
            if let Some(cpus) = &cpus {
                libc::sched_setaffinity(0, size_of_val(cpus), cpus);
            }
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signal_mask), None)?;
            stage.get().store(Stage::MOVED, Ordering::SeqCst);
            Ok(())
        })
    };
    let spawned = command.spawn();
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

fn write_all(fd: i32, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the buffer is as long as said.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    if written < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Raising the score to where it was is always allowed; if it fails the child is merely hard to kill.
fn give_back_oom_score(adj: &CString) {
    // SAFETY: a valid C string.
    let fd = unsafe {
        libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        )
    };
    if fd >= 0 {
        let _ = write_all(fd, adj.to_bytes());
        // SAFETY: opened above.
        unsafe { libc::close(fd) };
    }
}

/// The first `count` CPUs of those this process may run on.
fn first_cpus(count: usize) -> libc::cpu_set_t {
    // SAFETY: a zeroed set is an empty set, the call fills it, and the macros index within it.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut allowed);
        let mut chosen: libc::cpu_set_t = std::mem::zeroed();
        (0..libc::CPU_SETSIZE as usize)
            .filter(|&cpu| libc::CPU_ISSET(cpu, &allowed))
            .take(count)
            .for_each(|cpu| libc::CPU_SET(cpu, &mut chosen));
        chosen
    }
}
