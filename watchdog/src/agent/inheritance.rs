//! What memwatch was started with, and the command must find although memwatch or Rust's runtime changed
//! it for themselves: signals, standard streams, open files, what the OOM killer thinks of it.
//!
//! It is taken before anything is changed and given back between fork and exec. Starting the command is
//! [`super::launch`]'s.

use crate::host::reread::Reread;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

/// What a command inherits.
#[derive(Clone, Debug)]
pub struct Inheritance {
    signal_mask: SigSet,
    ignored: [Option<Signal>; 2],
    closed_streams: [bool; 3],
    open_files: Option<(rlim_t, rlim_t)>,
    oom_score_adj: Option<CString>,
    cpus: Option<libc::cpu_set_t>,
}

impl Inheritance {
    /// This process's own, before it changes anything. From here on `blocked` is blocked, ended
    /// children are kept until they are waited for, and as many files may be open as the hard limit
    /// allows: a large target takes three for each of its processes.
    ///
    /// `cpus` confines the command to that many CPUs.
    ///
    /// # Errors
    /// The kernel refuses the mask, which it does not.
    pub fn take(blocked: &SigSet, cpus: Option<usize>) -> io::Result<Self> {
        let mut signal_mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(blocked), Some(&mut signal_mask))?;
        // SAFETY: the default is no handler of ours.
        let children = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
        let start = AT_START.load(Ordering::Relaxed);
        let open_files = getrlimit(Resource::RLIMIT_NOFILE).ok();
        if let Some((_, hard)) = open_files {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
        let mut buf = [0; 16];
        let oom_score_adj = Reread::open_c(c"/proc/self/oom_score_adj")
            .ok()
            .and_then(|file| CString::new(file.read_short(&mut buf).ok()?).ok());
        Ok(Self {
            signal_mask,
            ignored: [
                matches!(children, SigHandler::SigIgn).then_some(Signal::SIGCHLD),
                (start & SIGPIPE_IGNORED != 0).then_some(Signal::SIGPIPE),
            ],
            closed_streams: [0, 1, 2].map(|fd| start & (1 << fd) != 0),
            open_files,
            oom_score_adj,
            cpus: cpus.map(first_cpus),
        })
    }

    /// Gives it to this process, which is about to become the command. Only system calls: no
    /// allocation, no lock.
    pub(super) fn give_back(&self) -> io::Result<()> {
        if let Some(adj) = &self.oom_score_adj {
            give_back_oom_score(adj);
        }
        if let Some(cpus) = &self.cpus {
            // SAFETY: a set of that size; 0 is this process.
            unsafe { libc::sched_setaffinity(0, size_of_val(cpus), cpus) };
        }
        if let Some((soft, hard)) = self.open_files {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
        }
        for (fd, _) in (0..).zip(self.closed_streams).filter(|(_, closed)| *closed) {
            // SAFETY: in its place Rust's runtime opened /dev/null, which nobody here uses.
            unsafe { libc::close(fd) };
        }
        for ignored in self.ignored.into_iter().flatten() {
            // SAFETY: ignoring is no handler of ours.
            unsafe { signal(ignored, SigHandler::SigIgn) }?;
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.signal_mask), None)?;
        Ok(())
    }
}

/// What Rust's runtime changes before `main`, as it was: a bit for each standard stream that was
/// closed, where the runtime opens `/dev/null`, and one for SIGPIPE, which it ignores.
static AT_START: AtomicU8 = AtomicU8::new(0);
const SIGPIPE_IGNORED: u8 = 1 << 3;

/// The loader calls what stands in this section before the runtime starts.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_THE_RUNTIME: extern "C" fn() = look_before_the_runtime;

extern "C" fn look_before_the_runtime() {
    let mut found = 0;
    // SAFETY: no pointers are passed; a closed descriptor is an error and no harm.
    for fd in (0..3).filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0) {
        found |= 1 << fd;
    }
    // SAFETY: a zeroed action is valid, and the call only fills it.
    let pipe = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut action);
        action.sa_sigaction
    };
    if pipe == libc::SIG_IGN {
        found |= SIGPIPE_IGNORED;
    }
    AT_START.store(found, Ordering::Relaxed);
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
        let adj = adj.to_bytes();
        // SAFETY: opened above; the buffer is as long as said.
        unsafe {
            libc::write(fd, adj.as_ptr().cast(), adj.len());
            libc::close(fd);
        }
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
