//! Removes what dead memwatches left behind: what is theirs by name, by owner and by a lock that nobody
//! holds. How targets are made and locked is `super`'s.

use super::shelter::is_shelter_name;
use super::words::{FROZEN_XATTR, TERMS_XATTR};
use super::{
    CgroupError, MEMORY_XATTR, id, is_target_name, level, lock, nested, pids, remove_tree,
    write_text,
};
use crate::host::layout::Layout;
use crate::host::xattr;
use nix::fcntl::Flock;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Orphaned targets that were empty and are still there.
    pub failed: Vec<CgroupError>,
    /// Orphaned targets in which something still runs: left where it is.
    pub left: Vec<Orphan>,
    /// What memwatches that died had frozen and what runs again: of `left`, and cgroups that they had only
    /// been pointed at.
    pub thawed: Vec<PathBuf>,
}

/// A target whose memwatch is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its v2 directory.
    pub dir: PathBuf,
    /// The cgroup's id.
    pub id: u64,
    /// Depth below the root of the v2 hierarchy.
    pub level: u32,
    /// What its memwatch had written down with [`super::Target::leave_terms`].
    pub terms: Option<String>,
}

/// Removes the empty targets of memwatches that are dead, and thaws the others.
pub fn sweep(layout: &Layout) -> Sweep {
    let mut found = Sweep::default();
    let Some(v2) = &layout.v2 else { return found };
    for dir in super::descendants(&v2.mount) {
        // The lock says that whoever froze it is dead.
        if xattr::get(&dir, FROZEN_XATTR).is_some() && lock(&dir).is_ok_and(|_| thaw(&dir)) {
            xattr::remove(&dir, FROZEN_XATTR);
            found.thawed.push(dir);
        }
    }
    for (dir, _lock) in orphans(&v2.mount) {
        if pids(&dir).is_empty() {
            found.failed.extend(remove(&dir, layout).err());
            continue;
        }
        // Who knows how to thaw it is dead.
        if thaw(&dir) {
            found.thawed.push(dir.clone());
        }
        if let Ok(id) = id(&dir) {
            let terms = xattr::get(&dir, TERMS_XATTR);
            found.left.push(Orphan {
                level: level(&v2.mount, &dir),
                id,
                terms: terms.and_then(|terms| terms.into_string().ok()),
                dir,
            });
        }
    }
    found
}

/// Takes back on what terms the targets of dead memwatches are to be guarded: they are not to be.
pub fn forget_terms(layout: &Layout) {
    let v2 = layout.v2.iter();
    for (dir, _lock) in v2.flat_map(|v2| orphans(&v2.mount)) {
        xattr::remove(&dir, TERMS_XATTR);
    }
}

/// The outermost targets below `dir` whose owners are dead, with their locks.
fn orphans(dir: &Path) -> Vec<(PathBuf, Flock<File>)> {
    let mut found = Vec::new();
    for below in nested(dir) {
        if !is_target_name(&below) && !is_shelter_name(&below) {
            found.extend(orphans(&below));
            continue;
        }
        // A directory that another user made may carry any name and any mark.
        let owner = fs::metadata(&below).map(|metadata| metadata.uid()).ok();
        if owner != Some(nix::unistd::geteuid().as_raw()) {
            continue;
        }
        // Or its owner lives, or another sweep is at it.
        if let Ok(lock) = lock(&below) {
            found.push((below, lock));
        }
    }
    found
}

/// Whether it was frozen and is no more.
fn thaw(dir: &Path) -> bool {
    let freeze = dir.join("cgroup.freeze");
    let frozen = fs::read(&freeze).is_ok_and(|text| text.starts_with(b"1"));
    frozen && write_text(&freeze, "0").is_ok()
}

fn remove(dir: &Path, layout: &Layout) -> Result<(), CgroupError> {
    let memory = xattr::get(dir, MEMORY_XATTR).map(PathBuf::from);
    memory
        .filter(|group| is_memory_group_of(group, dir, layout))
        .map_or(Ok(()), |group| remove_tree(&group))
        .and_then(|()| remove_tree(dir))
}

/// The mark is believed only if it names the group that this target must have: same name, in the v1
/// memory hierarchy.
fn is_memory_group_of(group: &Path, target: &Path, layout: &Layout) -> bool {
    layout
        .v1_memory
        .as_ref()
        .is_some_and(|v1| group.starts_with(&v1.mount))
        && group.file_name() == target.file_name()
        && group.components().all(|c| c != Component::ParentDir)
}
