//! The target's cgroup: made, entered, limited, emptied, removed. What a dead memwatch left behind is
//! `sweep`'s, what it had written on it for then is `words`'s, the group of memwatch itself is `shelter`'s.
//!
//! A target is a v2 cgroup (for pressure, identity and membership) and, where the memory controller
//! lives on v1, a memory group of the same name beside it. Where the hierarchies are is `layout`'s;
//! where a target is made is `place`'s, a place that systemd gives `systemd`'s, the ways in are `entrances`',
//! holding on to one is `held`'s, who is in which `walk`'s; reading what a target holds is `memory`'s.
//!
//! **Ownership is a lock.** Whoever made a target holds flock(2) on its v2 directory. The kernel drops
//! the lock when the holder dies, however it dies, so a target whose lock can be taken is provably
//! orphaned: no pid that may have been re-used, no file that may be stale.

use crate::host::file_error::FileError;
use crate::host::layout::{Hierarchy, Layout};
use crate::host::memory::Controller;
use crate::host::place::Place;
use crate::host::systemd::{Scope, ScopeError};
use crate::host::text;
use crate::host::tree::Tree;
use crate::host::xattr;
use nix::fcntl::{Flock, FlockArg};
use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

mod entrances;
mod held;
mod place;
mod shelter;
mod sweep;
#[cfg(test)]
mod tests;
mod walk;
mod words;

pub use entrances::Entrances;
pub use held::Held;
use place::{make_dir, make_unasked, scope_for};
pub use shelter::{NoShelter, Shelter};
pub use sweep::{Orphan, Sweep, forget_terms, sweep};
use walk::level;
pub use walk::{by_id, descendants, id, is_populated, nested, pids};

/// What targets are called: this and eight hex digits.
const PREFIX: &str = "memwatch-";
/// On the v2 directory: where its v1 memory group is, so that an orphan's can be found.
const MEMORY_XATTR: &str = "user.memwatch.memory";
/// On the v2 directory: tells systemd-oomd that somebody looks after this cgroup
/// (systemd.resource-control(5), ManagedOOMPreference).
const OOMD_OMIT_XATTR: &str = "user.oomd_omit";

/// Something about a cgroup could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no cgroup2 mount.
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one with: mount -t cgroup2 none /sys/fs/cgroup"
    )]
    NoV2,
    /// Nowhere on the way up may a cgroup be made.
    #[error(
        "cannot make the cgroup {}: {source}; run memwatch as root, or in a cgroup that is yours, as with: systemd-run --user --scope memwatch ...",
        path.display()
    )]
    NoPlace {
        /// The last that was tried.
        path: PathBuf,
        /// Why, with its errno.
        source: io::Error,
    },
    /// Neither systemd gives a place, nor is there one that may be taken without asking.
    #[error("{place} ({scope})")]
    NoScope {
        /// What systemd said.
        scope: ScopeError,
        /// What came of going without it.
        place: Box<Self>,
    },
    /// memwatch would be inside of what it guards.
    #[error(
        "{} holds this memwatch itself, which must stay outside of what it guards; give a cgroup below it, or start memwatch elsewhere",
        path.display()
    )]
    Own {
        /// What was given.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] FileError),
    /// The path is not a cgroup v2 directory.
    #[error("{} is not a cgroup v2 directory; give a path such as /sys/fs/cgroup/user.slice", path.display())]
    NotACgroup {
        /// What was given.
        path: PathBuf,
    },
}

/// Limits to set, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `memory.max`.
    pub max_bytes: Option<u64>,
    /// `memory.high`, the brake; v1 has none.
    pub high_bytes: Option<u64>,
}

/// A guarded cgroup, or what stands in for one.
#[derive(Debug)]
pub struct Target {
    /// Where its processes are.
    pub place: Place,
    /// The v2 cgroup's id: its inode number (kernfs), what `bpf_get_current_cgroup_id` returns. 0 without one.
    pub id: u64,
    /// Depth below the root of the v2 hierarchy.
    pub level: u32,
    /// Where its memory is counted; `None` if no controller could be had.
    pub memory: Option<Controller>,
    /// Held while this memwatch owns the target; `None` for one it was only pointed at.
    owner: Option<Flock<File>>,
    /// Where it lies, if systemd gave the place. Goes when the target has gone.
    scope: Option<Scope>,
    /// Held while what was only pointed at is frozen.
    freezer: Option<Flock<File>>,
    /// A removal was tried: another, at the drop, would only wait once more for who does not go.
    tried: Cell<bool>,
}

impl Target {
    /// Makes a target of our own: in a scope of its own where systemd gives one; else below this process's
    /// cgroup, or below the nearest ancestor that hands the memory controller down. A target that is dropped
    /// is removed.
    ///
    /// # Errors
    /// No cgroup2 mount, or no right to make a cgroup anywhere on the way up.
    pub fn create(layout: &Layout) -> Result<Self, CgroupError> {
        let v2 = layout.v2.as_ref().ok_or(CgroupError::NoV2)?;
        loop {
            let name = format!("{PREFIX}{:08x}", random());
            let (dir, has_memory, scope) = match scope_for(layout, &name) {
                Some(Ok(scope)) => (make_dir(scope.dir.join(&name))?, true, Some(scope)),
                Some(Err(scope)) => match make_unasked(v2, &name) {
                    Ok((dir, has_memory)) => (dir, has_memory, None),
                    Err(place) => {
                        let place = Box::new(place);
                        return Err(CgroupError::NoScope { scope, place });
                    }
                },
                None => {
                    let (dir, has_memory) = make_unasked(v2, &name)?;
                    (dir, has_memory, None)
                }
            };
            // Until it is locked, the sweep of another memwatch takes it for an orphan.
            let Some(mut target) = Self::claim(v2, dir.clone())? else {
                continue;
            };
            target.scope = scope;
            xattr::set(&dir, OOMD_OMIT_XATTR, b"1");
            if has_memory {
                target.memory = Some(Controller::V2(dir));
            } else if let Some(v1) = &layout.v1_memory {
                let group = v1.own_dir().join(&name);
                xattr::set(&dir, MEMORY_XATTR, group.as_os_str().as_bytes());
                // A v1 hierarchy that is there but not ours to write leaves the agent's own counting.
                if let Ok(group) = make_dir(group) {
                    target.memory = Some(Controller::V1(group));
                }
            }
            return Ok(target);
        }
    }

    /// Becomes the owner of a directory that was just made; `None` if a sweep was quicker.
    fn claim(v2: &Hierarchy, dir: PathBuf) -> Result<Option<Self>, CgroupError> {
        let claimed = lock(&dir).and_then(|owner| {
            let mut target = Self::at(v2, dir)?;
            target.owner = Some(owner);
            Ok(target)
        });
        match claimed {
            Err(CgroupError::Io(FileError { source, .. }))
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::WouldBlock
                ) =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Points at a cgroup that somebody else made. Nothing in it is changed.
    ///
    /// # Errors
    /// The path is missing, no cgroup v2 directory, or holds this process.
    pub fn existing(layout: &Layout, dir: &Path) -> Result<Self, CgroupError> {
        let v2 = layout.v2.as_ref().ok_or(CgroupError::NoV2)?;
        let dir = dir
            .canonicalize()
            .map_err(FileError::at("open the cgroup", dir))?;
        let is_cgroup = dir.starts_with(&v2.mount) && dir.join("cgroup.procs").is_file();
        if !is_cgroup {
            return Err(CgroupError::NotACgroup { path: dir });
        }
        if v2.own_dir().starts_with(&dir) {
            return Err(CgroupError::Own { path: dir });
        }
        let mut target = Self::at(v2, dir.clone())?;
        if dir.join("memory.current").is_file() {
            target.memory = Some(Controller::V2(dir));
        } else if let Some(group) = beside(layout, &dir) {
            target.memory = Some(Controller::V1(group));
        }
        Ok(target)
    }

    /// Whatever descends from this process, where no cgroup can be had.
    ///
    /// # Errors
    /// This kernel does not tell who descends from whom.
    pub fn tree() -> io::Result<Self> {
        Ok(Self::new(Place::Tree(Tree::take_root()?), 0, 0))
    }

    fn at(v2: &Hierarchy, dir: PathBuf) -> Result<Self, CgroupError> {
        let id = id(&dir).map_err(FileError::at("look at", &dir))?;
        let level = level(&v2.mount, &dir);
        Ok(Self::new(Place::Cgroup(dir), id, level))
    }

    fn new(place: Place, id: u64, level: u32) -> Self {
        Self {
            place,
            id,
            level,
            memory: None,
            owner: None,
            scope: None,
            freezer: None,
            tried: Cell::new(false),
        }
    }

    /// The v2 directory, if it is a cgroup.
    pub fn dir(&self) -> Option<&Path> {
        self.place.dir()
    }

    /// Whether this memwatch made it, and so removes it.
    pub fn is_ours(&self) -> bool {
        self.owner.is_some()
    }

    /// Whether the kernel can slow it down at our word: `memory.high`, which v1 has not.
    pub fn can_be_braked(&self) -> bool {
        self.is_ours() && matches!(self.memory, Some(Controller::V2(_)))
    }

    /// Sets limits on a target of our own. What the controller has no file for is left to the agent
    /// and returned.
    ///
    /// # Errors
    /// The kernel refuses the value.
    pub fn limit(&self, limits: Limits) -> Result<Limits, CgroupError> {
        let mut left = limits;
        match &self.memory {
            Some(Controller::V2(dir)) => {
                if let Some(max) = left.max_bytes.take() {
                    write_value(&dir.join("memory.max"), max)?;
                }
                if let Some(high) = left.high_bytes.take() {
                    write_value(&dir.join("memory.high"), high)?;
                }
            }
            Some(Controller::V1(dir)) => {
                if let Some(max) = left.max_bytes.take() {
                    write_value(&dir.join("memory.limit_in_bytes"), max)?;
                }
            }
            None => {}
        }
        Ok(left)
    }

    /// The ways in.
    ///
    /// # Errors
    /// One of them cannot be opened.
    pub fn entrances(&self) -> Result<Entrances<'_>, CgroupError> {
        match (&self.scope, self.dir()) {
            (Some(scope), Some(dir)) if scope.moves() => Ok(Entrances::by_systemd(scope, dir)),
            _ => Entrances::open(self.groups()),
        }
    }

    /// The v1 memory group, if there is one, and the v2 directory: the order of removal, and of leaving.
    fn groups(&self) -> impl Iterator<Item = &Path> {
        let v1 = match &self.memory {
            Some(Controller::V1(dir)) => Some(dir.as_path()),
            _ => None,
        };
        v1.into_iter().chain(self.dir())
    }

    /// Removes everything that was made. It must be empty; processes that are just exiting are waited
    /// for, with an end to it. A target that was only pointed at stays.
    ///
    /// # Errors
    /// A group could not be removed; something still runs in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        if !self.is_ours() {
            return Ok(());
        }
        self.tried.set(true);
        self.groups().try_for_each(remove_tree)
    }
}

/// The v1 memory group that is called as a v2 cgroup is: systemd, container engines and memwatch name a group alike
/// in every hierarchy. Where one of its processes is, or, while it has none, at the same place.
fn beside(layout: &Layout, dir: &Path) -> Option<PathBuf> {
    let name = dir.file_name()?;
    let of_member = pids(dir).first().and_then(|&pid| layout.v1_memory_of(pid));
    let of_member = of_member.and_then(|group| {
        let mut around = group.ancestors();
        around
            .find(|group| group.file_name() == Some(name))
            .map(Path::to_owned)
    });
    let below = dir.strip_prefix(layout.v2_mount()).ok()?;
    let alike = layout.v1_memory.as_ref().map(|v1| v1.mount.join(below));
    let mut groups = of_member.into_iter().chain(alike);
    groups.find(|group| group.join("memory.usage_in_bytes").is_file())
}

impl Target {
    /// Leaves what runs in it where it is, without limits, if only systemd could move it and has no other place
    /// for it: the scope goes when its last process has gone. How many there are.
    pub fn leave_to_systemd(&self, runs: impl Fn(u32) -> bool) -> usize {
        if !self.scope.as_ref().is_some_and(Scope::moves) {
            return 0;
        }
        let left = self
            .place
            .pids()
            .into_iter()
            .filter(|&pid| runs(pid))
            .count();
        if left > 0 {
            self.tried.set(true);
            for limit in ["memory.high", "memory.max"] {
                // It is there, and ours.
                let _ = self.dir().map(|dir| write_text(&dir.join(limit), "max"));
            }
        }
        left
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.tried.get() {
            let _ = self.remove();
        }
    }
}

fn write_value(path: &Path, value: u64) -> Result<(), CgroupError> {
    write_text(path, &value.to_string())
}

/// Writes a cgroup control file.
///
/// # Errors
/// Whatever the kernel says, with the path.
pub fn write_text(path: &Path, text: &str) -> Result<(), CgroupError> {
    let file = OpenOptions::new().write(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    Ok(written.map_err(FileError::at("write", path))?)
}

fn lock(dir: &Path) -> Result<Flock<File>, CgroupError> {
    let file = open_dir(dir).map_err(FileError::at("open", dir))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| FileError::at("lock", dir)(errno.into()).into())
}

fn open_dir(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(dir)
}

/// Removes a cgroup and those below it, deepest first. Waits, with an end to it, for the kernel to
/// let go of processes that are just exiting.
fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    for below in nested(dir) {
        remove_tree(&below)?;
    }
    let mut tries = 0;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && tries < 200 => {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(e) => return Err(FileError::at("remove the cgroup", dir)(e).into()),
        }
    }
}

/// What processes of a v2 cgroup have spent of the CPUs since it was made, whoever of them is over.
pub fn cpu_time(dir: &Path) -> Option<std::time::Duration> {
    let stat = fs::read(dir.join("cpu.stat")).ok()?;
    let mut lines = text::keyed_lines(&stat);
    let (_, usage_us) = lines.find(|(key, _)| *key == b"usage_usec")?;
    Some(std::time::Duration::from_micros(usage_us))
}

fn is_target_name(dir: &Path) -> bool {
    has_name(dir, PREFIX)
}

fn has_name(dir: &Path, prefix: &str) -> bool {
    dir.file_name()
        .and_then(|name| name.to_str()?.strip_prefix(prefix))
        .is_some_and(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // SAFETY: the buffer is writable and as long as said. A short read leaves zeros, and a name that
    // is taken is an error of mkdir.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u32::from_ne_bytes(bytes)
}
