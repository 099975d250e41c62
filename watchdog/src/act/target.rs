//! Acts on a whole target at once: `cgroup.kill` and `cgroup.freeze`, or, where there is no cgroup, one process
//! after another. The files ask nobody whose the processes are: for a user they are used only if all are that
//! user's to signal.
//!
//! Both files take the kernel's cgroup lock and may wait for it, so they are never used on the deciding thread,
//! which signals the members it knows by pidfd.

use super::{Mode, Outcome, permission, signal};
use crate::host::place::Place;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

/// More rounds than a tree can need that is killed faster than it grows.
const ROUNDS: usize = 100;

/// Kills every process in the cgroup and below, forks under way included (kernel/cgroup/cgroup.c,
/// `cgroup_kill_write`; 5.14). A threaded cgroup refuses. Of a tree everybody who is found, until nobody new is.
pub fn kill(place: &Place, mode: Mode) -> Outcome {
    match place {
        Place::Cgroup(dir) => write(dir, "cgroup.kill", "1", mode),
        Place::Tree(_) => kill_one_by_one(place, None, mode),
    }
}

/// The same for `uid`, whose processes alone die: one by one where there are others.
pub fn kill_for(uid: u32, place: &Place, mode: Mode) -> Outcome {
    match place {
        Place::Cgroup(_) if all_are_of(uid, place) => kill(place, mode),
        _ => kill_one_by_one(place, Some(uid), mode),
    }
}

/// Stops every process in the cgroup and below where it is. They can still be killed. A tree has no such
/// standstill: SIGSTOP is seen by parents and undone by anybody.
pub fn freeze(place: &Place, mode: Mode) -> Outcome {
    match place {
        Place::Cgroup(dir) => write(dir, "cgroup.freeze", "1", mode),
        Place::Tree(_) => Outcome::Refused {
            errno: libc::EOPNOTSUPP,
        },
    }
}

/// The same for `uid`; refused where there are processes of others.
pub fn freeze_for(uid: u32, place: &Place, mode: Mode) -> Outcome {
    if all_are_of(uid, place) {
        freeze(place, mode)
    } else {
        Outcome::Refused { errno: libc::EPERM }
    }
}

/// Lets a frozen cgroup run on.
pub fn thaw(place: &Place, mode: Mode) -> Outcome {
    match place {
        Place::Cgroup(dir) => write(dir, "cgroup.freeze", "0", mode),
        Place::Tree(_) => Outcome::Gone,
    }
}

/// Everybody, or everybody who is `uid`'s to signal.
fn kill_one_by_one(place: &Place, uid: Option<u32>, mode: Mode) -> Outcome {
    let mut told = BTreeSet::new();
    let mut outcome = Outcome::Gone;
    for _ in 0..ROUNDS {
        let pids = place.pids().into_iter();
        let fresh: Vec<u32> = pids.filter(|&pid| told.insert(pid)).collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            let Ok(pidfd) = signal::pidfd_open(pid) else {
                continue;
            };
            if uid.is_some_and(|uid| !permission::may_signal(uid, pid, pidfd.as_fd())) {
                continue;
            }
            let one = signal::send(pidfd.as_fd(), libc::SIGKILL, mode);
            if outcome != Outcome::Delivered {
                outcome = one;
            }
        }
    }
    outcome
}

/// Whether everybody who is there is that user's to signal.
fn all_are_of(uid: u32, place: &Place) -> bool {
    place
        .pids()
        .into_iter()
        .all(|pid| match signal::pidfd_open(pid) {
            Ok(pidfd) => {
                permission::may_signal(uid, pid, pidfd.as_fd()) || signal::has_exited(&pidfd)
            }
            Err(error) => error.raw_os_error() == Some(libc::ESRCH),
        })
}

fn write(dir: &Path, file: &str, text: &str, mode: Mode) -> Outcome {
    if mode == Mode::DryRun {
        return Outcome::DryRun;
    }
    let written = OpenOptions::new()
        .write(true)
        .open(dir.join(file))
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written.map_err(|e| e.raw_os_error()) {
        Ok(()) => Outcome::Delivered,
        Err(Some(libc::ENOENT | libc::ENODEV)) => Outcome::Gone,
        Err(errno) => Outcome::Refused {
            errno: errno.unwrap_or(0),
        },
    }
}
