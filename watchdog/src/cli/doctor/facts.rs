//! Everything the diagnosis is made from, collected once. Facts only: no judgement here.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};
use serde::Serialize;

use super::probe::{Feature, Probes};
use crate::host::cgroup::Shelter;
use crate::host::layout::Layout;
use crate::host::machine::{self, Init, Settings};
use crate::host::meminfo;
use crate::host::memory::is_limit;
use crate::host::oomd::{self, Oomd};
use crate::host::privileges::Privileges;
use crate::host::swap::{self, SwapArea};
use crate::host::systemd::Scope;
use crate::host::zfs::{self, ArcStats};

/// One machine, as one user sees it.
#[derive(Clone, Debug, Serialize)]
pub struct MachineFacts {
    /// Such as "6.8.0-45-generic".
    pub kernel_release: Option<String>,
    /// Who is PID 1.
    pub init: Init,
    /// Kernel settings.
    pub settings: Settings,
    /// Where targets can be made.
    pub cgroups: Cgroups,
    /// What this process may do.
    pub privileges: Privileges,
    /// RAM; None where `/proc/meminfo` is hidden.
    pub ram_bytes: Option<u64>,
    /// Active swap areas.
    pub swap: Vec<SwapArea>,
    /// The ZFS ARC; None without ZFS.
    pub arc: Option<ArcStats>,
    /// systemd-oomd.
    pub oomd: Oomd,
    /// What was tried.
    pub probes: Probes,
    /// Files that are there and could not be read, and why. Their facts are missing above.
    pub unread: Vec<String>,
}

/// The cgroups, and what may be made in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cgroups {
    /// The hierarchies.
    pub layout: Layout,
    /// Whether systemd can be asked for a scope to make it in.
    pub scope: bool,
    /// Where a target can be made on v2 without asking; None where this process may make none.
    pub target_parent: Option<PathBuf>,
    /// By what the kernel can limit a target's memory.
    pub limits: Limits,
    /// Whether memwatch can have a group of its own with protected memory.
    pub own_group: Feature,
    /// Whether anything limits what is started here without memwatch; `None` if that is not to be seen.
    pub own_limit: Option<OwnLimit>,
}

/// What limits a process that is started here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnLimit {
    /// The machine alone.
    None,
    /// The tightest limit of our own group and those above it.
    Bytes(u64),
}

/// By what the kernel can limit a target's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limits {
    /// `memory.max` and `memory.high`.
    V2,
    /// `memory.limit_in_bytes` of a v1 group beside the target.
    V1,
    /// By nothing.
    #[default]
    None,
}

impl MachineFacts {
    /// Reads the machine below `root`. What cannot be read is named in `unread`.
    pub fn read(root: &Path, probes: Probes) -> Self {
        let mut unread = Vec::new();
        Self {
            kernel_release: keep(machine::kernel_release(root), &mut unread).flatten(),
            init: keep(machine::init(root), &mut unread).unwrap_or_default(),
            settings: keep(machine::settings(root), &mut unread).unwrap_or_default(),
            cgroups: keep(Layout::read(root), &mut unread).map_or_else(
                || Cgroups::of(Layout::default(), root),
                |layout| Cgroups::of(layout, root),
            ),
            privileges: keep(Privileges::read(root), &mut unread).unwrap_or_default(),
            ram_bytes: keep(machine::read_if_there(root, "proc/meminfo"), &mut unread)
                .flatten()
                .and_then(|text| Some(meminfo::parse(&text)?.total_bytes)),
            swap: keep(swap::read(root), &mut unread).unwrap_or_default(),
            arc: keep(zfs::read(root), &mut unread).flatten(),
            oomd: keep(oomd::read(root), &mut unread).unwrap_or(Oomd::NotInstalled),
            probes,
            unread,
        }
    }
}

fn keep<T, E: ToString>(outcome: Result<T, E>, unread: &mut Vec<String>) -> Option<T> {
    outcome.map_err(|error| unread.push(error.to_string())).ok()
}

impl Cgroups {
    /// Looks where `host::cgroup` would make a target: on v2 in the nearest ancestor that hands the
    /// memory controller down, else in our own group, with a v1 group beside it; or whether systemd gives a
    /// place.
    fn of(layout: Layout, root: &Path) -> Self {
        let own = layout.v2.as_ref().map(|v2| (v2.own_dir(), &v2.mount));
        let with_memory = own.as_ref().and_then(|(own, mount)| {
            own.ancestors()
                .take_while(|dir| dir.starts_with(mount))
                .find(|dir| hands_memory_down(dir) && may_make_groups_in(dir))
                .map(Path::to_owned)
        });
        let v1 = layout
            .v1_memory
            .as_ref()
            .is_some_and(|v1| may_make_groups_in(&v1.own_dir()));
        let scope = layout.v2_has_memory() && Scope::can_be_had(root);
        let limits = match &with_memory {
            _ if scope => Limits::V2,
            Some(_) => Limits::V2,
            None if v1 => Limits::V1,
            None => Limits::None,
        };
        let own = own
            .map(|(own, _)| own)
            .filter(|own| may_make_groups_in(own));
        let target_parent = with_memory.or(own);
        let own_group = Feature::of(Shelter::place(&layout));
        let own_limit = OwnLimit::of(&layout);
        Self {
            layout,
            scope,
            target_parent,
            limits,
            own_group,
            own_limit,
        }
    }
}

impl OwnLimit {
    /// The tightest on the way up, where the memory controller is.
    fn of(layout: &Layout) -> Option<Self> {
        let (hierarchy, file) = match (&layout.v1_memory, &layout.v2) {
            (Some(v1), _) => (v1, "memory.limit_in_bytes"),
            (None, v2) => (v2.as_ref()?, "memory.max"),
        };
        let own = hierarchy.own_dir();
        let above = own
            .ancestors()
            .take_while(|dir| dir.starts_with(&hierarchy.mount));
        let limits = above.filter_map(|dir| {
            let text = std::fs::read_to_string(dir.join(file)).ok()?;
            Some(text.trim().parse().ok().filter(|&bytes| is_limit(bytes)))
        });
        // Not even the word that there is none: nobody tells.
        let tightest = limits.reduce(|one, other| match (one, other) {
            (Some(one), Some(other)) => Some(std::cmp::min::<u64>(one, other)),
            (one, other) => one.or(other),
        })?;
        Some(tightest.map_or(Self::None, Self::Bytes))
    }
}

fn hands_memory_down(dir: &Path) -> bool {
    std::fs::read_to_string(dir.join("cgroup.subtree_control"))
        .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "memory"))
}

/// A group can be made in a directory that is writable; a process can be moved into it by who may write
/// `cgroup.procs` there.
fn may_make_groups_in(dir: &Path) -> bool {
    eaccess(dir, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
        && eaccess(&dir.join("cgroup.procs"), AccessFlags::W_OK).is_ok()
}
