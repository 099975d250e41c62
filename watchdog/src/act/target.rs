//! Acts on a whole target at once: `cgroup.kill` and `cgroup.freeze`, or, where there is no cgroup, one process
//! after another.
//!
//! Both files take the kernel's cgroup lock and may wait for it, so they are never used on the deciding thread,
//! which signals the members it knows by pidfd.

use super::{Mode, Outcome, signal};
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
        Place::Tree(_) => kill_one_by_one(place, mode),
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

/// Lets a frozen cgroup run on.
pub fn thaw(place: &Place, mode: Mode) -> Outcome {
    match place {
        Place::Cgroup(dir) => write(dir, "cgroup.freeze", "0", mode),
        Place::Tree(_) => Outcome::Gone,
    }
}

fn kill_one_by_one(place: &Place, mode: Mode) -> Outcome {
    let mut told = BTreeSet::new();
    let mut outcome = Outcome::Gone;
    for _ in 0..ROUNDS {
        let pids = place.pids().into_iter();
        let fresh: Vec<u32> = pids.filter(|&pid| told.insert(pid)).collect();
        if fresh.is_empty() {
            break;
        }
        for pidfd in fresh
            .into_iter()
            .filter_map(|pid| signal::pidfd_open(pid).ok())
        {
            let one = signal::send(pidfd.as_fd(), libc::SIGKILL, mode);
            if outcome != Outcome::Delivered {
                outcome = one;
            }
        }
    }
    outcome
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
