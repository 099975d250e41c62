//! Moves running processes: into a target (`--pid`), and out of it when memwatch ends before they do.
//!
//! Going in, the target is frozen first: a process stops the moment it arrives, so a tree that is moved
//! from its root cannot fork away, and looking for new children comes to an end. What the processes were
//! charged for before stays with their old groups; the record says so.

use crate::act::{self, Mode, signal};
use crate::host::cgroup::{CgroupError, Entrances, Target};
use crate::host::layout::{Hierarchy, Layout};
use crate::host::process::{self, Comm};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A process tree that was moved into a target.
#[derive(Debug)]
pub struct Adopted {
    /// The process that was named.
    pub leader: u32,
    /// Its name.
    pub comm: Comm,
    /// Where each process came from: the groups to put it back into.
    origins: BTreeMap<u32, Vec<PathBuf>>,
}

/// A process could not be adopted. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is none.
    #[error("there is no process {pid}; it may have ended: look with ps -p {pid}")]
    NoSuchProcess {
        /// What was asked for.
        pid: u32,
    },
    /// memwatch would be inside its own target.
    #[error(
        "process {pid} is an ancestor of this memwatch, which must stay outside of what it guards; start memwatch from another terminal"
    )]
    Ancestor {
        /// What was asked for.
        pid: u32,
    },
    /// The kernel refused to move it.
    #[error(
        "process {pid} cannot be moved into the target: {source}; kernel threads never can, and another user's only by root"
    )]
    Refused {
        /// Which process of the tree.
        pid: u32,
        /// Why: EINVAL for a kernel thread, EACCES for somebody else's.
        source: io::Error,
    },
    /// The cgroup's files do not open.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// More rounds than a tree can need whose processes stop as they arrive.
const ROUNDS: usize = 100;

/// Moves `pid` and its descendants into `target`.
///
/// # Errors
/// See [`AdoptError`]; processes that were moved already are put back.
pub fn adopt(pid: u32, target: &Target, layout: &Layout) -> Result<Adopted, AdoptError> {
    // Held from here on: if it says that the process lives, the number still means the same one.
    let leader = signal::pidfd_open(pid).map_err(|_| AdoptError::NoSuchProcess { pid })?;
    let comm = process::stat_of(pid)
        .ok_or(AdoptError::NoSuchProcess { pid })?
        .comm;
    if ancestors(std::process::id()).contains(&pid) {
        return Err(AdoptError::Ancestor { pid });
    }
    let entrances = target.entrances()?;
    let mut adopted = Adopted {
        leader: pid,
        comm,
        origins: BTreeMap::new(),
    };
    act::target::freeze(&target.place, Mode::Real);
    let moved = adopted.move_in(&entrances, layout, &leader);
    act::target::thaw(&target.place, Mode::Real);
    if let Err(error) = moved {
        adopted.give_back(target);
        return Err(error);
    }
    Ok(adopted)
}

impl Adopted {
    fn move_in(
        &mut self,
        entrances: &Entrances<'_>,
        layout: &Layout,
        leader: &OwnedFd,
    ) -> Result<(), AdoptError> {
        for _ in 0..ROUNDS {
            let fresh: Vec<u32> = tree(self.leader)
                .into_iter()
                .filter(|pid| !self.origins.contains_key(pid))
                .collect();
            if fresh.is_empty() {
                break;
            }
            for pid in fresh {
                let origin = groups_of(pid, layout);
                match entrances.let_in(pid) {
                    Ok(()) => drop(self.origins.insert(pid, origin)),
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) && pid != self.leader => {}
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {
                        return Err(AdoptError::NoSuchProcess { pid });
                    }
                    Err(source) => return Err(AdoptError::Refused { pid, source }),
                }
                if signal::has_exited(leader) {
                    return Err(AdoptError::NoSuchProcess { pid: self.leader });
                }
            }
        }
        Ok(())
    }

    /// What a reader of the record must know.
    pub fn notes(&self) -> Vec<String> {
        let adopted = match self.origins.len() {
            1 => "1 process was".to_owned(),
            count => format!("{count} processes were"),
        };
        vec![format!(
            "{adopted} adopted; memory that was charged before stays with the old groups"
        )]
    }

    /// Puts what still runs back to where it came from; those born in the target go where the leader
    /// came from. Returns how many there were.
    pub fn give_back(&self, target: &Target) -> usize {
        let leaders = self.origins.get(&self.leader);
        empty(target, |pid| {
            self.origins
                .get(&pid)
                .or(leaders)
                .cloned()
                .unwrap_or_default()
        })
    }
}

/// Moves what still runs in `target` to this process's own groups. Returns how many there were.
pub fn let_go(target: &Target, layout: &Layout) -> usize {
    let own: Vec<PathBuf> = hierarchies(layout).map(|(_, h)| h.own_dir()).collect();
    empty(target, |_| own.clone())
}

fn empty(target: &Target, destination: impl Fn(u32) -> Vec<PathBuf>) -> usize {
    let mut moved = BTreeSet::new();
    for _ in 0..ROUNDS {
        let left = target.place.pids();
        if left.is_empty() {
            break;
        }
        for pid in left {
            for dir in destination(pid) {
                let procs = OpenOptions::new()
                    .write(true)
                    .open(dir.join("cgroup.procs"));
                if procs
                    .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
                    .is_ok()
                {
                    moved.insert(pid);
                }
            }
        }
    }
    moved.retain(|&pid| !is_dying(pid));
    moved.len()
}

/// Whether a process only has its end before it: it is listed in its cgroup until it is dead.
pub fn is_dying(pid: u32) -> bool {
    const PF_EXITING: u32 = 4; // include/linux/sched.h
    const KILLED: u64 = 1 << (libc::SIGKILL - 1);
    let end = || {
        let process = procfs::process::Process::new(pid as i32)?;
        let (stat, status) = (process.stat()?, process.status()?);
        let killed = (status.shdpnd | status.sigpnd) & KILLED != 0;
        procfs::ProcResult::Ok(
            killed || stat.flags & PF_EXITING != 0 || matches!(stat.state, 'Z' | 'X'),
        )
    };
    // No files: no process.
    end().unwrap_or(true)
}

/// `pid` first, then its descendants.
fn tree(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = procfs::process::all_processes()
        .into_iter()
        .flatten()
        .filter_map(|process| process.ok()?.stat().ok())
        .map(|stat| (stat.pid as u32, stat.ppid as u32))
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(
            parents
                .iter()
                .filter(|&&(_, ppid)| ppid == parent)
                .map(|&(child, _)| child),
        );
        at += 1;
    }
    found
}

fn ancestors(pid: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut at = pid;
    while at != 0 && found.insert(at) {
        at = process::stat_of(at).map_or(0, |stat| stat.ppid);
    }
    found
}

/// The groups that `pid` is in, of the hierarchies that a target uses.
fn groups_of(pid: u32, layout: &Layout) -> Vec<PathBuf> {
    let process = procfs::process::Process::new(pid as i32);
    let groups = process.and_then(|process| process.cgroups());
    let groups: Vec<_> = groups.into_iter().flatten().collect();
    hierarchies(layout)
        .filter_map(|(controller, hierarchy)| {
            let group = groups.iter().find(|group| match controller {
                None => group.hierarchy == 0,
                Some(controller) => group.controllers.iter().any(|it| it == controller),
            })?;
            let below = Path::new(&group.pathname).strip_prefix("/").ok()?;
            Some(hierarchy.mount.join(below))
        })
        .collect()
}

/// The hierarchies, with the controller by which a v1 one is known, in the order of leaving: who is still in
/// the v2 cgroup is known to be in the target.
fn hierarchies(layout: &Layout) -> impl Iterator<Item = (Option<&'static str>, &Hierarchy)> {
    let v1 = layout.v1_memory.as_ref().map(|h| (Some("memory"), h));
    let v2 = layout.v2.as_ref().map(|h| (None, h));
    v1.into_iter().chain(v2)
}
