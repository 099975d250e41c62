//! memwatch's own cgroup, with memory that the kernel does not take from it.
//!
//! `memory.min` holds as far as every ancestor holds it too, so the group is made at the very top of the v2
//! hierarchy, where there are none. There memwatch is also out of reach of the limits and brakes of the
//! cgroup that it was started in, and of whoever kills that as a whole. Targets are made where they would be
//! without it, and nobody is started in it.
//!
//! It is locked as a target is, so that `sweep` knows those of the dead.

use super::{CgroupError, OOMD_OMIT_XATTR, is_target_name, lock, random, write_text, write_value};
use crate::host::file_error::FileError;
use crate::host::layout::Layout;
use crate::host::xattr;
use nix::fcntl::Flock;
use nix::unistd::{AccessFlags, eaccess};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What they are called: this and eight hex digits.
const PREFIX: &str = "memwatch-agent-";
/// What memwatch may keep: 9 MiB are resident, and 20 MiB more while it reads the kernel's types to load
/// the programs. What is not used is not kept from anybody, and a leak of ours is not protected.
const KEPT_BYTES: u64 = 32 << 20;

/// Why there is no such cgroup here.
#[derive(Debug, thiserror::Error)]
pub enum NoShelter {
    /// Nothing is mounted that could hold it.
    #[error("no cgroup v2 hierarchy is mounted")]
    NoV2,
    /// The memory controller is on v1, whose soft limits keep nothing, or it is not handed down.
    #[error("the memory controller is not on cgroup v2 here")]
    NoMemory,
    /// What is mounted is a part of the hierarchy: a promise in it is void unless all above promise too.
    #[error("the top of the cgroup v2 hierarchy is not in view here")]
    NotTheTop,
    /// Whoever is guarded does not leave.
    #[error("this memwatch runs in the target of another")]
    Guarded,
    /// It is root's to make.
    #[error("only root may make a cgroup at the top")]
    NotPermitted,
    /// It was tried.
    #[error(transparent)]
    Failed(#[from] CgroupError),
}

/// The group while memwatch is in it.
#[derive(Debug)]
pub struct Shelter {
    dir: PathBuf,
    mount: PathBuf,
    /// Where memwatch came from.
    origin: PathBuf,
    _owner: Flock<File>,
}

impl Shelter {
    /// Below which directory it would be made; nothing is changed.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn place(layout: &Layout) -> Result<&Path, NoShelter> {
        let v2 = layout.v2.as_ref().ok_or(NoShelter::NoV2)?;
        if v2.own_dir().ancestors().any(is_target_name) {
            return Err(NoShelter::Guarded);
        }
        // The kernel has this file everywhere but at the top.
        if v2.mount.join("cgroup.type").exists() {
            return Err(NoShelter::NotTheTop);
        }
        let handed_down =
            fs::read_to_string(v2.mount.join("cgroup.subtree_control")).unwrap_or_default();
        if !handed_down.split_whitespace().any(|name| name == "memory") {
            return Err(NoShelter::NoMemory);
        }
        // Who moves a process must be allowed to write where both its groups hang.
        let writable = eaccess(&v2.mount, AccessFlags::W_OK | AccessFlags::X_OK)
            .and_then(|()| eaccess(&v2.mount.join("cgroup.procs"), AccessFlags::W_OK));
        writable
            .map(|()| v2.mount.as_path())
            .map_err(|_| NoShelter::NotPermitted)
    }

    /// Makes the group and moves this process into it. Dropped, it moves back to where it came from and
    /// removes the group; what cannot be removed the next sweep removes.
    ///
    /// # Errors
    /// Why it cannot be had; then nothing is left of it.
    pub fn enter(layout: &Layout) -> Result<Self, NoShelter> {
        let mount = Self::place(layout)?;
        let origin = layout.v2.as_ref().ok_or(NoShelter::NoV2)?.own_dir();
        let (dir, owner) = loop {
            let dir = mount.join(format!("{PREFIX}{:08x}", random()));
            let made = fs::create_dir(&dir).map_err(FileError::at("make the cgroup", &dir));
            made.map_err(CgroupError::from)?;
            // Until it is locked, the sweep of another memwatch takes it for an orphan.
            match lock(&dir) {
                Ok(owner) => break (dir, owner),
                Err(_) if !dir.exists() => {}
                Err(error) => {
                    let _ = fs::remove_dir(&dir);
                    return Err(error.into());
                }
            }
        };
        let shelter = Self {
            dir,
            mount: mount.to_owned(),
            origin,
            _owner: owner,
        };
        write_value(&shelter.dir.join("memory.min"), KEPT_BYTES)?;
        xattr::set(&shelter.dir, OOMD_OMIT_XATTR, b"1");
        // 0: the writer itself.
        write_text(&shelter.dir.join("cgroup.procs"), "0")?;
        Ok(shelter)
    }
}

impl Drop for Shelter {
    /// A process cannot remove the group that it is in. Where it came from may be gone, or hold no
    /// processes any more; the top always does.
    fn drop(&mut self) {
        let mut homes = self
            .origin
            .ancestors()
            .take_while(|dir| dir.starts_with(&self.mount));
        let _ = homes.find(|dir| write_text(&dir.join("cgroup.procs"), "0").is_ok());
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Whether this is the group of a memwatch.
pub(super) fn is_shelter_name(dir: &Path) -> bool {
    super::has_name(dir, PREFIX)
}
