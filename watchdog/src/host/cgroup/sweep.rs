//! Removes what dead memwatches left behind: what is theirs by name, by owner and by a lock that nobody
//! holds. How targets are made and locked is `super`'s.

use super::shelter::is_shelter_name;
use super::{MEMORY_XATTR, is_target_name, lock, nested, pids, remove_tree, write_text};
use crate::host::layout::Layout;
use crate::host::xattr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// What a sweep found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Orphaned targets that were empty and are gone now.
    pub removed: Vec<PathBuf>,
    /// Orphaned targets in which something still runs: left where it is.
    pub left: Vec<PathBuf>,
    /// Those of `left` that their memwatch had frozen, and that run again.
    pub thawed: Vec<PathBuf>,
}

/// Removes the empty targets of memwatches that are dead, and thaws the others.
pub fn sweep(layout: &Layout) -> Sweep {
    let mut found = Sweep::default();
    if let Some(v2) = &layout.v2 {
        sweep_below(&v2.mount, layout, &mut found);
    }
    found
}

fn sweep_below(dir: &Path, layout: &Layout, found: &mut Sweep) {
    for below in nested(dir) {
        if !is_target_name(&below) && !is_shelter_name(&below) {
            sweep_below(&below, layout, found);
            continue;
        }
        // A directory that another user made may carry any name and any mark.
        if fs::metadata(&below).map(|m| m.uid()).ok() != Some(nix::unistd::geteuid().as_raw()) {
            continue;
        }
        // Its owner lives, or another sweep is at it.
        let Ok(_orphan) = lock(&below) else { continue };
        if !pids(&below).is_empty() {
            // Who knows how to thaw it is dead.
            let freeze = below.join("cgroup.freeze");
            let frozen = fs::read(&freeze).is_ok_and(|text| text.starts_with(b"1"));
            if frozen && write_text(&freeze, "0").is_ok() {
                found.thawed.push(below.clone());
            }
            found.left.push(below);
            continue;
        }
        let memory = xattr::get(&below, MEMORY_XATTR).map(PathBuf::from);
        let removed = memory
            .filter(|group| is_memory_group_of(group, &below, layout))
            .map_or(Ok(()), |group| remove_tree(&group))
            .and_then(|()| remove_tree(&below));
        if removed.is_ok() {
            found.removed.push(below);
        }
    }
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
