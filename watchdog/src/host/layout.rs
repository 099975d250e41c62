//! Where the cgroup hierarchies are mounted, what they offer, and where this process stands in them.
//!
//! Reading a group's files is `cgroup`'s; this file only says which directories to read.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::host::text;

/// The cgroup hierarchies that matter to a memory watchdog, as this process sees them.
///
/// Source: `proc_pid_mountinfo(5)`, `cgroups(7)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// The unified hierarchy: PSI per group, `cgroup.kill`, `cgroup.freeze`, cgroup ids for BPF.
    pub v2: Option<Hierarchy>,
    /// Controllers that the unified hierarchy offers at its mount point. On a hybrid machine those
    /// bound to v1 are missing here.
    pub v2_controllers: Vec<String>,
    /// The memory controller, where it lives on a hierarchy of its own (v1, or systemd's "hybrid").
    pub v1_memory: Option<Hierarchy>,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hierarchy {
    /// Mount point, below the root that was given to [`Layout::read`].
    pub mount: PathBuf,
    /// This process's group, relative to `mount`, with a leading slash; "/" is the mount point itself.
    pub own: String,
}

impl Hierarchy {
    /// The directory of this process's own group.
    pub fn own_dir(&self) -> PathBuf {
        match self.own.trim_start_matches('/') {
            "" => self.mount.clone(),
            below => self.mount.join(below),
        }
    }
}

/// Why the layout is unknown.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}; memwatch finds the cgroups through it, so /proc must be mounted", path.display())]
pub struct LayoutError {
    /// The file that could not be read.
    pub path: PathBuf,
    /// What the kernel answered.
    pub source: io::Error,
}

impl Layout {
    /// Finds the hierarchies of this process.
    ///
    /// A mount that does not show this process's own group (made in another cgroup namespace, or a
    /// bind mount of some other group) is passed over: nothing can be placed beside us in it.
    ///
    /// # Errors
    /// When `/proc/self/mountinfo` or `/proc/self/cgroup` cannot be read. A kernel without cgroups
    /// has no `/proc/self/cgroup`; that is an empty layout and no error.
    pub fn read(root: &Path) -> Result<Self, LayoutError> {
        let mounts = parse_mounts(&read_file(root.join("proc/self/mountinfo"))?);
        let groups = match read_file(root.join("proc/self/cgroup")) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            other => parse_groups(&other?),
        };
        let find = |wanted: Kind| {
            let group = &groups.iter().find(|group| group.kind == wanted)?.path;
            mounts
                .iter()
                .filter(|mount| mount.kind == wanted)
                .find_map(|mount| {
                    let below_root = mount.point.strip_prefix("/").unwrap_or(&mount.point);
                    let own = below(group, &mount.root)?;
                    Some(Hierarchy {
                        mount: root.join(below_root),
                        own: own.to_owned(),
                    })
                })
        };
        let v2 = find(Kind::Unified);
        let v2_controllers = v2
            .as_ref()
            .map(|v2| controllers(&v2.mount))
            .transpose()?
            .unwrap_or_default();
        Ok(Self {
            v2,
            v2_controllers,
            v1_memory: find(Kind::V1Memory),
        })
    }

    /// The v1 memory group of a process, if there is such a hierarchy and its mount shows that group.
    pub fn v1_memory_of(&self, pid: u32) -> Option<PathBuf> {
        let v1 = self.v1_memory.as_ref()?;
        let group = |who: &str| {
            let groups = parse_groups(&std::fs::read(format!("/proc/{who}/cgroup")).ok()?);
            let of_memory = groups
                .into_iter()
                .find(|group| group.kind == Kind::V1Memory);
            of_memory.map(|group| PathBuf::from(group.path))
        };
        // What the mount shows at its point is what the own path has more there than in the mount.
        let own = group("self")?;
        let shown = v1.own.trim_start_matches('/');
        let depth = own
            .components()
            .count()
            .saturating_sub(Path::new(shown).components().count());
        let root: PathBuf = own.components().take(depth).collect();
        let group = group(&pid.to_string())?;
        Some(v1.mount.join(group.strip_prefix(root).ok()?))
    }

    /// Where the unified hierarchy is mounted; where there is none, nothing is below this.
    pub fn v2_mount(&self) -> &Path {
        self.v2.as_ref().map_or(Path::new(""), |v2| &v2.mount)
    }

    /// Whether `memory.max` and `memory.high` exist on the unified hierarchy.
    pub fn v2_has_memory(&self) -> bool {
        self.v2_controllers.iter().any(|name| name == "memory")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unified,
    V1Memory,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    kind: Kind,
    /// The group that is shown at `point`.
    pub(super) root: OsString,
    point: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    kind: Kind,
    pub(super) path: OsString,
}

/// The cgroup mounts of `/proc/self/mountinfo`; the last mount comes first, as it hides those under
/// it. Lines of other file systems, or that make no sense, are left out.
pub(super) fn parse_mounts(mountinfo: &[u8]) -> Vec<Mount> {
    text::whole_lines(mountinfo)
        .split(|&byte| byte == b'\n')
        .rev()
        .filter_map(parse_mount)
        .collect()
}

fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = unescape(fields.nth(3)?);
    let point = PathBuf::from(unescape(fields.next()?));
    // Optional fields of any number lie between the mount options and a single dash.
    fields.find(|field| *field == b"-")?;
    let file_system = fields.next()?;
    let super_options = fields.nth(1)?;
    let kind = match file_system {
        b"cgroup2" => Kind::Unified,
        b"cgroup" if has_item(super_options, b"memory") => Kind::V1Memory,
        _ => return None,
    };
    Some(Mount { kind, root, point })
}

/// The groups of `/proc/self/cgroup`. Its paths, unlike mountinfo's, are not escaped.
pub(super) fn parse_groups(groups: &[u8]) -> Vec<Group> {
    text::whole_lines(groups)
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.splitn(3, |&byte| byte == b':');
            let (id, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let kind = match (id, names) {
                (b"0", b"") => Kind::Unified,
                _ if has_item(names, b"memory") => Kind::V1Memory,
                _ => return None,
            };
            Some(Group {
                kind,
                path: OsStr::from_bytes(path).to_owned(),
            })
        })
        .collect()
}

/// `group` as seen from a mount that shows `mount_root`; None when it lies outside, or when names
/// that a cgroup namespace hides ("..") stand between the two, or when it is not UTF-8.
pub(super) fn below<'a>(group: &'a OsStr, mount_root: &OsStr) -> Option<&'a str> {
    let (group, mount_root) = (group.to_str()?, mount_root.to_str()?);
    let rest = if mount_root == "/" {
        group
    } else {
        group.strip_prefix(mount_root)?
    };
    match rest {
        "" => Some("/"),
        _ if rest.split('/').any(|name| name == "..") => None,
        _ => rest.starts_with('/').then_some(rest),
    }
}

fn has_item(list: &[u8], item: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|name| name == item)
}

/// Undoes the kernel's `\ooo` for blanks and backslashes in mountinfo.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

fn controllers(mount: &Path) -> Result<Vec<String>, LayoutError> {
    let text = read_file(mount.join("cgroup.controllers"))?;
    Ok(String::from_utf8_lossy(&text)
        .split_whitespace()
        .map(str::to_owned)
        .collect())
}

fn read_file(path: PathBuf) -> Result<Vec<u8>, LayoutError> {
    std::fs::read(&path).map_err(|source| LayoutError { path, source })
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
