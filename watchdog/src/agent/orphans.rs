//! What is done for the targets of memwatches that have died, beside the command of a run and at its end.
//! Finding them, removing the empty ones and thawing the others is [`cgroup::sweep`]'s.

use super::kernel::known_level;
use crate::bpf;
use crate::host::cgroup::{self, Orphan};
use std::path::Path;

/// Puts them under the guard that their memwatches had asked for and died before they had it. A run that was
/// too short for `programs` of its own loads some for that.
pub(super) fn guard(programs: Option<&mut bpf::Programs>, orphans: &[Orphan], v2_mount: &Path) {
    let shared = Path::new(bpf::SHARED);
    let asked_for = |orphan: &Orphan| {
        Some(bpf::Unguarded {
            cgroup_id: orphan.id,
            level: known_level(orphan.level),
            terms: orphan.terms.as_ref()?.parse().ok()?,
        })
    };
    let asked_for: Vec<bpf::Unguarded> = orphans.iter().filter_map(asked_for).collect();
    if asked_for.is_empty() {
        return;
    }
    let standing = bpf::standing(shared).unwrap_or_default();
    let has_it = |target: &bpf::Unguarded| {
        let mut armed = standing.iter().filter(|standing| standing.armed);
        armed.any(|standing| standing.cgroup_id == target.cgroup_id)
    };
    if asked_for.iter().all(has_it) {
        return;
    }
    // Where there is no guard they go without; the limit of their cgroups holds all the same.
    let _ = match programs {
        Some(programs) => programs.guard_for_the_dead(&asked_for),
        None => {
            let populated = |id| cgroup::is_populated(v2_mount, id);
            bpf::Programs::join(&bpf::plan(&bpf::Facts::read()), shared, populated)
                .and_then(|mut programs| programs.guard_for_the_dead(&asked_for))
        }
    };
}

/// How it is told that one of them runs again.
pub(super) fn thawed(dir: &Path) -> String {
    format!(
        "{} was frozen by a memwatch that died; what is in it runs again",
        dir.display()
    )
}
