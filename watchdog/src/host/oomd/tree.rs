//! The cgroups below a managed unit that systemd-oomd would choose among, with the marks of their owners.
//!
//! A candidate is a leaf, or a cgroup whose processes go together (`memory.oom.group`); a unit without cgroups
//! in it is one itself. A mark counts if root set it, or who owns the unit: with other users' marks anybody
//! could keep out of reach.

use super::Preference;
use crate::host::{cgroup, xattr};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A cgroup that may be killed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its directory.
    pub dir: PathBuf,
    /// Its id in the kernel.
    pub id: u64,
    /// Who owns it.
    pub uid: u32,
    mark: Preference,
}

impl Found {
    fn at(dir: PathBuf) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(&dir)?;
        Ok(Self {
            id: metadata.ino(),
            uid: metadata.uid(),
            mark: mark(&dir),
            dir,
        })
    }

    /// What its mark comes to below a unit that `uid` owns.
    pub fn preference_under(&self, uid: u32) -> Preference {
        match self.uid == 0 || self.uid == uid {
            true => self.mark,
            false => Preference::None,
        }
    }
}

/// The candidates below `unit`. What vanishes meanwhile is left out.
pub fn candidates(unit: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    collect(unit, &mut found);
    found
}

fn collect(dir: &Path, found: &mut Vec<Found>) {
    let nested = cgroup::nested(dir);
    if nested.is_empty() {
        found.extend(Found::at(dir.to_owned()));
    }
    for dir in nested {
        match fs::read(dir.join("memory.oom.group")) {
            Ok(text) if text.starts_with(b"1") => found.extend(Found::at(dir)),
            Ok(_) => collect(&dir, found),
            Err(_) => {}
        }
    }
}

/// How many cgroups there are below: whether that has changed is cheaper to see than what.
pub fn descendants(dir: &Path) -> Option<u64> {
    let stat = fs::read(dir.join("cgroup.stat")).ok()?;
    crate::host::text::keyed_lines(&stat)
        .find_map(|(key, n)| (key == b"nr_descendants").then_some(n))
}

fn mark(dir: &Path) -> Preference {
    let is_set = |name| {
        let value = xattr::get(dir, name);
        value.is_some_and(|value| is_true(value.as_encoded_bytes()))
    };
    if is_set("user.oomd_omit") {
        Preference::Omit
    } else if is_set("user.oomd_avoid") {
        Preference::Avoid
    } else {
        Preference::None
    }
}

/// As systemd reads a boolean.
fn is_true(value: &[u8]) -> bool {
    let words: [&[u8]; 6] = [b"1", b"yes", b"y", b"true", b"t", b"on"];
    words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, path: &str, oom_group: &str) {
        let dir = root.join(path);
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("memory.oom.group"), oom_group).expect("a file");
    }

    #[test]
    fn leaves_and_who_goes_together_are_candidates() {
        let root = tempfile::tempdir().expect("a directory");
        let unit = root.path().join("user.slice");
        for (path, together) in [
            ("user.slice", "0\n"),
            ("user.slice/a.scope", "0\n"),
            ("user.slice/b.service", "1\n"),
            ("user.slice/b.service/inner", "0\n"),
            ("user.slice/c.slice", "0\n"),
            ("user.slice/c.slice/d.scope", "0\n"),
            ("alone.service", "0\n"),
        ] {
            group(root.path(), path, together);
        }
        // One without the memory controller.
        fs::create_dir(unit.join("e.scope")).expect("a directory");
        let names = |unit: &Path| {
            let mut names: Vec<_> = candidates(unit)
                .iter()
                .map(|it| it.dir.file_name().expect("a name").to_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&unit), ["a.scope", "b.service", "d.scope"]);
        let alone = root.path().join("alone.service");
        assert_eq!(names(&alone), ["alone.service"]);
        assert!(candidates(&root.path().join("none")).is_empty());
    }

    #[test]
    fn a_mark_counts_by_who_made_it() {
        let found = |uid| Found {
            dir: PathBuf::new(),
            id: 1,
            uid,
            mark: Preference::Omit,
        };
        assert_eq!(found(0).preference_under(1000), Preference::Omit);
        assert_eq!(found(1000).preference_under(1000), Preference::Omit);
        assert_eq!(found(1000).preference_under(0), Preference::None);
        assert_eq!(found(1000).preference_under(1001), Preference::None);
    }

    #[test]
    fn booleans_as_systemd_reads_them() {
        for yes in ["1", "yes", "TRUE", "On", "t"] {
            assert!(is_true(yes.as_bytes()), "{yes}");
        }
        for no in ["", "0", "no", "2", "truely"] {
            assert!(!is_true(no.as_bytes()), "{no}");
        }
    }
}
