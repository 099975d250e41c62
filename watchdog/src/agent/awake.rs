//! What keeps the deciding thread awake while memory is short: its memory is locked, its stack touched before
//! that and the code of a kill gone through ([`super::drill`]), its scheduling realtime where that is allowed. What
//! is refused is returned, for the record to say.

use super::drill;
use std::io;

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

/// Touches the stack that a pass can need, so that locking finds it there.
pub(super) fn grow_stack() {
    let mut stack = [0u8; 256 << 10];
    std::hint::black_box(&mut stack);
}

/// Lets go of the program's code and constants: what the start took, and nothing takes again, goes; what is
/// needed comes back from the page cache. The libraries stay, since there is little of them that a pass does not
/// take.
fn let_go_of_code() {
    // SAFETY: `let_go_of_segments` only looks at what it is given.
    unsafe { libc::dl_iterate_phdr(Some(let_go_of_segments), std::ptr::null_mut()) };
}

/// Called for the program itself, which comes first, and by its answer for no other object.
unsafe extern "C" fn let_go_of_segments(
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
        // What the loader may have written into has no other copy.
        if part.p_type != libc::PT_LOAD || part.p_flags & libc::PF_W != 0 {
            continue;
        }
        let begin = base + part.p_vaddr as usize;
        let aligned = begin & !(page - 1);
        let len = begin + part.p_memsz as usize - aligned;
        // SAFETY: the loader mapped the program's file there, and nobody writes to it.
        unsafe { libc::madvise(aligned as *mut libc::c_void, len, libc::MADV_DONTNEED) };
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
/// just that moment. The code of a kill is gone through once more, for what of it was let go of.
pub fn give_back_memory() {
    unlock_memory();
    let_go_of_code();
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's locks, which the deciding thread never asks for.
    unsafe {
        libc::malloc_trim(0)
    };
    let _ = lock_memory();
    // Where no child can be made the rehearsal has said so.
    let _ = drill::run_all();
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
