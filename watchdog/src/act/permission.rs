//! Whom a user may signal: for a user's target memwatch, which may signal everybody, signals nobody else.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::BorrowedFd;

use super::signal;
use crate::host::process::{self, Uids};
use crate::host::reread::Reread;

/// Room for the beginning of `/proc/PID/status`, up to the uids: a name of at most 64 bytes, escaped, and
/// seven short lines come before them.
const STATUS_BYTES: usize = 512;

/// Whether kill(2) would let `uid` signal the process `pid`, of which `pidfd` is open: its real or saved user
/// is that one (kernel/signal.c, `kill_ok_by_cred`), or that one is root. What the user may do to processes of
/// others, by capabilities in a user namespace of the own, is not counted. A process that has ended or cannot
/// be read may not be signalled.
///
/// For the deciding thread: no allocation. Ask right before the signal: a process may change its user.
#[must_use]
pub fn may_signal(uid: u32, pid: u32, pidfd: BorrowedFd<'_>) -> bool {
    let is_the_users = |uids: Uids| uids.real == uid || uids.saved == uid;
    // While it has not ended, its number is nobody else's.
    uid == 0 || uids(pid).is_some_and(is_the_users) && !signal::has_exited(pidfd)
}

fn uids(pid: u32) -> Option<Uids> {
    let mut path = [0; 32];
    write!(&mut path[..], "/proc/{pid}/status\0").ok()?;
    let status = Reread::open_c(CStr::from_bytes_until_nul(&path).ok()?).ok()?;
    let mut buf = [0; STATUS_BYTES];
    process::parse_uids(status.read_short(&mut buf).ok()?)
}
