//! The deciding thread: when a pass happens, and the privileges that keep it awake.
//!
//! Its memory is locked, its stack and code touched before that, its scheduling realtime where that is
//! allowed. What is refused is returned, for the record to say. Before the first pass it rehearses the kill.
//!
//! **What it still waits for**, knowingly: the memory controller of v2 sums up its counts under a lock for
//! `memory.stat` (kernel/cgroup/rstat.c); what looking at processes waits for is told in
//! [`super::members`].

use super::channel::{Channel, Notice};
use super::eyes::KernelEyes;
use super::pass::Pass;
use super::rehearsal;
use crate::bpf;
use crate::host::clock;
use crossbeam_queue::ArrayQueue;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Where the eyes in the kernel are handed over once they are ready.
pub type KernelEyesSlot = ArrayQueue<KernelEyes>;
/// Where events of the BPF programs go on from the deciding thread: the target's, and the machine's.
pub type Events = ArrayQueue<bpf::Event>;

/// What this process was not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Locking its memory: it may be paged out when it is needed most.
    pub memory_lock: Option<i32>,
    /// Realtime scheduling: it competes with what it watches.
    pub realtime: Option<i32>,
    /// A low `oom_score_adj`: the kernel may choose it.
    pub oom_score: Option<i32>,
}

/// Starts the thread.
///
/// # Errors
/// No thread could be started.
pub fn start(
    mut pass: Pass,
    channel: Arc<Channel>,
    eyes: Arc<KernelEyesSlot>,
    events: Arc<Events>,
) -> io::Result<JoinHandle<Option<i32>>> {
    std::thread::Builder::new()
        .name("memwatch-decide".into())
        .stack_size(512 << 10)
        .spawn(move || {
            grow_stack();
            touch_code();
            let rehearsal = rehearsal::rehearse();
            if rehearsal.as_ref().is_err_and(|e| e.is_refusal()) {
                pass.leave_it_to_the_guard();
            }
            channel.tell_rehearsal(rehearsal);
            let refused = become_realtime().err().and_then(|e| e.raw_os_error());
            decide(&mut pass, &channel, &eyes, &events);
            refused
        })
}

fn decide(pass: &mut Pass, channel: &Channel, eyes: &KernelEyesSlot, events: &Events) {
    let mut woken = false;
    while !channel.is_stopped() {
        if let Some(ready) = eyes.pop() {
            pass.eyes().open_kernel(ready);
        }
        let Ok(pause) = pass.once(clock::now(), woken) else {
            channel.tell(Notice::TargetGone);
            return;
        };
        wait(pass.ring(), channel.deciding_side(), pause);
        woken = drain(pass, events);
    }
}

/// Empties the ring; whether reclaim has begun. What the slow side cannot take is lost to it, but the
/// deciding thread has seen it.
fn drain(pass: &mut Pass, events: &Events) -> bool {
    let mut reclaim = false;
    // Bounded: a storm of exits must not keep this thread from its looks.
    for _ in 0..256 {
        let Some(event) = pass.eyes().next_event() else {
            break;
        };
        match event {
            bpf::Event::ReclaimStarted { .. } => reclaim = true,
            // The row is that of whoever asked for memory; the victim may be anybody. Asked at once: a
            // dying process is listed until it is dead.
            bpf::Event::OomVictim { pid, .. } if !pass.has_member(pid) => {}
            other => drop(events.force_push(other)),
        }
    }
    reclaim
}

fn wait(ring: Option<BorrowedFd<'_>>, wanted: BorrowedFd<'_>, pause: Duration) {
    let readable = |fd: BorrowedFd<'_>| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut fds = [readable(wanted), readable(ring.unwrap_or(wanted))];
    let timeout = libc::timespec {
        tv_sec: pause.as_secs() as i64,
        tv_nsec: pause.subsec_nanos().into(),
    };
    // SAFETY: two valid pollfds and a valid timespec. EINTR only makes the next look early.
    unsafe {
        libc::ppoll(
            fds.as_mut_ptr(),
            fds.len() as u64,
            &timeout,
            std::ptr::null(),
        )
    };
    if fds[0].revents != 0 {
        let mut count = [0u8; 8];
        // SAFETY: the buffer is writable and as long as said; the descriptor does not block.
        unsafe {
            libc::read(
                wanted.as_fd().as_raw_fd(),
                count.as_mut_ptr().cast(),
                count.len(),
            )
        };
    }
}

/// Touches the stack that a pass can need, so that locking finds it there.
fn grow_stack() {
    let mut stack = [0u8; 256 << 10];
    std::hint::black_box(&mut stack);
}

/// Brings the program's code and constants into memory, for the same reason: what only a kill runs would
/// otherwise be read from the disk when it is needed first, under pressure. What a kill takes of the
/// libraries every pass takes.
fn touch_code() {
    // SAFETY: `populate` only looks at what it is given.
    unsafe { libc::dl_iterate_phdr(Some(populate), std::ptr::null_mut()) };
}

/// Called for the program itself, which comes first, and by its answer for no other object.
unsafe extern "C" fn populate(
    program: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader's description is valid while this is called; sysconf reads no memory of ours.
    let (base, headers, page) = unsafe {
        let program = &*program;
        let headers = std::slice::from_raw_parts(program.dlpi_phdr, program.dlpi_phnum.into());
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        (program.dlpi_addr as usize, headers, page)
    };
    for part in headers {
        if part.p_type != libc::PT_LOAD || part.p_flags & libc::PF_W != 0 {
            continue;
        }
        let begin = base + part.p_vaddr as usize;
        let aligned = begin & !(page - 1);
        let len = begin + part.p_memsz as usize - aligned;
        // SAFETY: the loader mapped it, and it is only read. Kernels before 5.14 refuse.
        unsafe { libc::madvise(aligned as *mut libc::c_void, len, libc::MADV_POPULATE_READ) };
    }
    1
}

/// This thread: FIFO above everything of normal priority; children start with normal scheduling.
///
/// # Errors
/// It is not allowed.
pub fn become_realtime() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 10 };
    // SAFETY: `param` is valid; 0 is this thread.
    let result = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &param)
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Gives back what loading took and left: aya reads the whole of the kernel's BTF, and its 20 MiB of
/// small pieces stay with the allocator. What is locked cannot be given back (madvise(2),
/// MADV_DONTNEED), so for a moment nothing is; what is resident stays so unless the kernel takes it in
/// just that moment.
pub fn give_back_memory() {
    unlock_memory();
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's locks, which the deciding thread never asks for.
    unsafe {
        libc::malloc_trim(0)
    };
    let _ = lock_memory();
}

/// Locks what this process has and will touch, and tells the kernel's OOM killer to spare it. Call
/// before the deciding thread starts.
pub fn protect_process() -> Refused {
    // Threads that start later share one arena: of the others malloc_trim(3) never gives back the top.
    #[cfg(target_env = "gnu")]
    // SAFETY: a number of the allocator's, set before there are other threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
    let memory_lock = lock_memory().err().and_then(|e| e.raw_os_error());
    let oom_score = lower_oom_score()
        .err()
        .map(|e| e.raw_os_error().unwrap_or(0));
    Refused {
        memory_lock,
        realtime: None,
        oom_score,
    }
}

/// Asks the kernel's OOM killer to spare this process.
///
/// # Errors
/// It is not allowed.
pub fn lower_oom_score() -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "-1000")
}

/// Lets go of what [`lock_memory`] locked.
pub fn unlock_memory() {
    // SAFETY: no pointers are passed.
    unsafe { libc::munlockall() };
}

/// Locks what this process has and will touch.
///
/// # Errors
/// It is not allowed, or not so much.
pub fn lock_memory() -> io::Result<()> {
    // ONFAULT: only what is touched is locked, so that stacks and arenas do not count whole.
    let what = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: no pointers are passed.
    if unsafe { libc::mlockall(what) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::Mode;
    use crate::agent::eyes::{Eyes, TargetEyes};
    use crate::agent::guarded::machine_eyes;
    use crate::agent::members::Members;
    use crate::host::reread::Reread;
    use crate::watch::{Policy, Response, Settings};
    use std::path::Path;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_file_that_cannot_be_read_is_no_end_of_the_target() {
        let settings = Settings::default();
        let channel = Arc::new(Channel::new().expect("descriptors"));
        let target = TargetEyes {
            memory: None,
            pressure: None,
            io_pressure: None,
            // Opens, and answers every read with EISDIR.
            procs: vec![Reread::open(Path::new("/")).expect("a directory")],
            limit_bytes: None,
        };
        let pass = Pass::new(
            Eyes::new(target, machine_eyes().expect("/proc/meminfo")),
            Members::new(None, settings.growth_window, 4),
            Policy::new(settings, Response::Warn),
            Mode::DryRun,
            Arc::clone(&channel),
            None,
        );
        let (eyes, events) = (KernelEyesSlot::new(1), Events::new(1));
        let decider = start(pass, Arc::clone(&channel), eyes.into(), events.into());
        let decider = decider.expect("a thread");
        let failed = &channel.status.failed_looks;
        while failed.load(Ordering::Relaxed) < 2 {
            assert!(!decider.is_finished(), "it looks again");
            std::thread::sleep(Duration::from_millis(1));
        }
        channel.stop();
        decider.join().expect("no panic");
        assert!(channel.next().is_none(), "nobody was told that it is gone");
    }
}
