//! The tree of cgroups as it is: who is in which, and what is below.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Depth of `dir` below the root of the hierarchy at `mount`.
pub(super) fn level(mount: &Path, dir: &Path) -> u32 {
    let below = dir.strip_prefix(mount);
    below.map_or(0, |below| below.components().count()) as u32
}

/// What the kernel knows a cgroup by, as long as it exists and never again (kernfs).
///
/// # Errors
/// It is gone.
pub fn id(dir: &Path) -> io::Result<u64> {
    fs::metadata(dir).map(|metadata| metadata.ino())
}

/// The pids in a cgroup, nested ones included.
pub fn pids(dir: &Path) -> Vec<u32> {
    let mut found: Vec<u32> = fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for nested in nested(dir) {
        found.extend(pids(&nested));
    }
    found
}

/// Whether the cgroup of that id, below `mount`, is there and holds processes.
pub fn is_populated(mount: &Path, id: u64) -> bool {
    by_id(mount, id).is_some_and(|dir| !pids(&dir).is_empty())
}

/// The directory of the cgroup of that id, below `mount`.
pub fn by_id(mount: &Path, id: u64) -> Option<PathBuf> {
    let is_it = |dir: &PathBuf| fs::metadata(dir).is_ok_and(|found| found.ino() == id);
    descendants(mount).into_iter().find(is_it)
}

/// The cgroups directly below.
pub fn nested(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// The cgroups below, at any depth.
pub fn descendants(dir: &Path) -> Vec<PathBuf> {
    let mut found = nested(dir);
    let mut at = 0;
    while let Some(dir) = found.get(at) {
        let below = nested(dir);
        found.extend(below);
        at += 1;
    }
    found
}
