//! What holds the processes of a target together: a cgroup, or, where none can be had, descent from memwatch.

use crate::host::cgroup;
use crate::host::process;
use crate::host::tree::Tree;
use std::fmt;
use std::path::{Path, PathBuf};

/// One of them.
#[derive(Clone, Debug)]
pub enum Place {
    /// A v2 directory: whoever is in it or below.
    Cgroup(PathBuf),
    /// Whoever descends from this process.
    Tree(Tree),
}

/// The most descendants that are listed at once.
const AT_MOST: usize = 1 << 15;

impl Place {
    /// Who is there now; nobody who has ended.
    pub fn pids(&self) -> Vec<u32> {
        match self {
            Self::Cgroup(dir) => cgroup::pids(dir),
            Self::Tree(tree) => {
                let mut found = Vec::with_capacity(AT_MOST);
                tree.list(&mut found);
                found.retain(|&pid| lives(pid));
                found
            }
        }
    }

    /// The directory, if it is one.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Self::Cgroup(dir) => Some(dir),
            Self::Tree(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(dir) => dir.display().fmt(f),
            Self::Tree(_) => f.write_str("the processes below memwatch"),
        }
    }
}

/// A zombie is in no cgroup any more, but its parent's child until that looks.
fn lives(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| process::parse_stat(&stat))
        .is_some_and(|stat| !matches!(stat.state, b'Z' | b'X'))
}
