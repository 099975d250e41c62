//! Where a target is made: in a scope of systemd's, or in the nearest cgroup that hands the memory controller
//! down.

use super::{CgroupError, is_target_name};
use crate::host::layout::{Hierarchy, Layout};
use crate::host::systemd::{Scope, ScopeError};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A scope of systemd's for a target of that name. `None` where it is not to be asked: it does not run, it does
/// not own the memory controller, or we run in a target ourselves, whose limit is ours.
pub(super) fn scope_for(layout: &Layout, name: &str) -> Option<Result<Scope, ScopeError>> {
    let v2 = layout.v2.as_ref()?;
    let own = v2.own_dir();
    if !Scope::can_be_had(Path::new("/"))
        || !layout.v2_has_memory()
        || own.ancestors().any(is_target_name)
    {
        return None;
    }
    // Whatever limits the slice that we are in limits the target, too.
    let slice = own
        .ancestors()
        .filter_map(|dir| dir.file_name()?.to_str())
        .find(|name| name.ends_with(".slice"));
    Some(Scope::start(&v2.mount, name, slice))
}

/// Makes a directory for a target without asking anybody; whether it has the memory controller.
pub(super) fn make_unasked(v2: &Hierarchy, name: &str) -> Result<(PathBuf, bool), CgroupError> {
    match v2_with_memory(v2, name)? {
        Some(dir) => Ok((dir, true)),
        None => Ok((make_dir(v2.own_dir().join(name))?, false)),
    }
}

/// The nearest place, from our own cgroup upwards, whose children have the memory controller and
/// where we may make one. A cgroup with processes of its own cannot hand controllers down, so this is
/// rarely our own (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint").
pub(super) fn v2_with_memory(v2: &Hierarchy, name: &str) -> Result<Option<PathBuf>, CgroupError> {
    let own = v2.own_dir();
    // Not beyond a target that we run in ourselves: its limit is ours.
    let mut inside = true;
    let ancestors = own.ancestors().take_while(|dir| {
        let goes_on = inside && dir.starts_with(&v2.mount);
        inside = !is_target_name(dir);
        goes_on
    });
    for parent in ancestors {
        let handed_down =
            fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
        if !handed_down.split_whitespace().any(|c| c == "memory") {
            continue;
        }
        match make_dir(parent.join(name)) {
            Ok(dir) => return Ok(Some(dir)),
            Err(CgroupError::NoPlace { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

pub(super) fn make_dir(path: PathBuf) -> Result<PathBuf, CgroupError> {
    match fs::create_dir(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(CgroupError::NoPlace { path, source }),
    }
}
