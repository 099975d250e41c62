//! A sandbox in which the kernel refuses one system call, as a container's seccomp profile does, or a disk that is
//! broken.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io;

/// Has the kernel answer EACCES to `call` from this thread on, and in what it starts.
pub(crate) fn refuse(call: libc::c_long) -> io::Result<()> {
    refuse_with(call, libc::EACCES)
}

/// The same with this error.
pub(crate) fn refuse_with(call: libc::c_long, errno: i32) -> io::Result<()> {
    let step = |code: u32, jt, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    let mut filter = [
        // The number of the call is the first of what a filter sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ERRNO | errno as u32,
        ),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the filter is valid while the calls last.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
    };
    if refused {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
