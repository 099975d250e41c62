//! Where loaded programs live: a BPF file system of our own, in which maps, links and programs are pinned.
//!
//! *Shared*: mounted at `/run/memwatch/bpf-N-HASH`, root's and 0700; N is the version of the ABI, and the
//! hash is the object's, so that no two builds of memwatch meet in one. What is pinned there outlives whoever
//! pinned it; the next memwatch finds it. *Private*: mounted nowhere and
//! gone with this process. `/sys/fs/bpf` is not used: anybody may have made what lies there.
//!
//! Owners of the programs are directories here, with flock(2) held on them as long as the owner lives.

use super::view::is_one_sided;
use crate::host::file_error::FileError;
use memwatch_ebpf::{ABI_VERSION, MAX_OWNERS};
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::statfs::{FsType, statfs};
use std::ffi::CStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the shared home is.
pub const SHARED: &str = "/run/memwatch";

/// include/uapi/linux/magic.h
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11u32 as _);

/// There is no place for the programs.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Something of somebody else stands where the home should be.
    #[error("{} is not a directory of root's alone (mode 0700); remove it", path.display())]
    NotOurs {
        /// What stands there.
        path: PathBuf,
    },
    /// Another memwatch has held the lock for longer than it takes.
    #[error("another memwatch is at work in {0} and does not come to an end; try again, or see who it is: fuser {0}", path.display())]
    Busy {
        /// Where.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] FileError),
    /// No BPF file system can be mounted.
    #[error("cannot mount a BPF file system: {0}")]
    Mount(#[source] io::Error),
    /// Here it would be mounted for this process alone.
    #[error(
        "what this memwatch mounts at {} others do not see; run before it, outside: memwatch guard prepare", path.display()
    )]
    Unseen {
        /// Where.
        path: PathBuf,
    },
    /// All places for owners are taken.
    #[error("{MAX_OWNERS} memwatches run already")]
    Full,
}

/// Makes the place below `base` that all memwatches share, for one whose own mounts nobody else sees.
///
/// # Errors
/// See [`HomeError`].
pub fn prepare(base: &Path) -> Result<(), HomeError> {
    Home::shared(base).map(drop)
}

/// The place.
#[derive(Debug)]
pub(super) struct Home {
    root: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The mount, held by its descriptor alone.
    Private { _mount: OwnedFd },
    /// The directory that it is mounted in.
    Shared { base: PathBuf },
}

/// Held while something shared is changed.
pub(super) type Lock = Flock<File>;

impl Home {
    /// A place for this process alone.
    ///
    /// # Errors
    /// No BPF file system can be mounted.
    pub(super) fn private() -> Result<Self, HomeError> {
        let mount = mount_detached().map_err(HomeError::Mount)?;
        let root = format!("/proc/self/fd/{}", mount.as_raw_fd()).into();
        Ok(Self {
            root,
            kind: Kind::Private { _mount: mount },
        })
    }

    /// The place below `base` that all share, made if it is not there, and the lock on it.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub(super) fn shared(base: &Path) -> Result<(Self, Lock), HomeError> {
        let lock = loop {
            match DirBuilder::new().mode(0o700).create(base) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(FileError::at("make", base)(e).into()),
            }
            let lock = match lock_base(base) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {
                    let path = base.to_owned();
                    return Err(HomeError::NotOurs { path });
                }
                other => other.map_err(not_locked(base))?,
            };
            // Whoever left last may have removed what was just locked.
            match (lock.metadata(), fs::symlink_metadata(base)) {
                (Ok(locked), Ok(there)) if locked.ino() == there.ino() => break lock,
                _ => {}
            }
        };
        check_ours(base)?;
        let root = base.join(own_name());
        if !root.exists() {
            DirBuilder::new()
                .mode(0o700)
                .create(&root)
                .map_err(FileError::at("make", &root))?;
        }
        check_ours(&root)?;
        if statfs(&root)
            .map_err(|e| FileError::at("look at", &root)(e.into()))?
            .filesystem_type()
            != BPF_FS_MAGIC
        {
            if is_one_sided(&root).map_err(FileError::at("look at", &root))? {
                let _ = fs::remove_dir(&root).and_then(|()| fs::remove_dir(base));
                return Err(HomeError::Unseen { path: root });
            }
            let mount = mount_detached().map_err(HomeError::Mount)?;
            move_mount(&mount, &root).map_err(HomeError::Mount)?;
        }
        let base = base.to_owned();
        let home = Self {
            root,
            kind: Kind::Shared { base },
        };
        Ok((home, lock))
    }

    /// The places below `base` of other builds. The caller holds the lock.
    pub(super) fn others(base: &Path) -> Vec<Self> {
        let entries = fs::read_dir(base).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| name.starts_with("bpf-") && *name != own_name())
            .map(|name| Self {
                root: base.join(name),
                kind: Kind::Shared {
                    base: base.to_owned(),
                },
            })
            .collect()
    }

    /// Whether what is pinned here has this build's layout.
    pub(super) fn is_of_this_abi(&self) -> bool {
        let name = self.root.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&format!("bpf-{ABI_VERSION}-")))
    }

    /// The lock, for a change later on. A private home needs none.
    ///
    /// # Errors
    /// The directory is gone, or cannot be locked.
    pub(super) fn lock(&self) -> Result<Option<Lock>, HomeError> {
        match &self.kind {
            Kind::Private { .. } => Ok(None),
            Kind::Shared { base } => lock_base(base).map(Some).map_err(not_locked(base)),
        }
    }

    /// The path of something here.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What is here in one of its directories, by name.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Makes the directories for what is pinned.
    ///
    /// # Errors
    /// They cannot be made.
    pub(super) fn furnish(&self, directories: &[&str]) -> Result<(), HomeError> {
        for directory in directories {
            let path = self.path(directory);
            if !path.exists() {
                fs::create_dir(&path).map_err(FileError::at("make", &path))?;
            }
        }
        Ok(())
    }

    /// Removes all that is pinned here: links first, so that no program runs on maps that are gone.
    pub(super) fn clear(&self, directories: &[&str]) {
        for directory in directories {
            for name in self.names(directory) {
                let path = self.path(directory).join(name);
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
            }
            let _ = fs::remove_dir(self.path(directory));
        }
    }

    /// Takes the home itself away, if it is shared and empty.
    pub(super) fn leave(&self) {
        if let Kind::Shared { base } = &self.kind {
            // Where nothing is mounted (its memwatch died over it) only the directory is left.
            let _ = nix::mount::umount2(&self.root, nix::mount::MntFlags::MNT_DETACH);
            let _ = fs::remove_dir(&self.root);
            let _ = fs::remove_dir(base);
        }
    }

    /// Claims a place for an owner, of those that `free` allows.
    ///
    /// # Errors
    /// All are taken.
    pub(super) fn claim(&self, free: impl Fn(u32) -> bool) -> Result<Owner, HomeError> {
        self.furnish(&[OWNERS])?;
        for slot in (0..MAX_OWNERS).filter(|&slot| free(slot)) {
            let path = self.path(OWNERS).join(slot.to_string());
            if !path.exists() {
                fs::create_dir(&path).map_err(FileError::at("make", &path))?;
            }
            if let Ok(claim) = lock_dir(&path, FlockArg::LockExclusiveNonblock) {
                return Ok(Owner {
                    slot,
                    path,
                    _claim: claim,
                });
            }
        }
        Err(HomeError::Full)
    }

    /// Whether an owner lives in that place.
    pub(super) fn lives(&self, slot: u32) -> bool {
        let path = self.path(OWNERS).join(slot.to_string());
        match lock_dir(&path, FlockArg::LockSharedNonblock) {
            Ok(_) => false,
            Err(e) => e.raw_os_error() == Some(libc::EWOULDBLOCK),
        }
    }
}

/// Directory of the owners.
pub(super) const OWNERS: &str = "owners";

/// A place of one's own, as long as this is held.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) slot: u32,
    path: PathBuf,
    _claim: Flock<File>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

fn not_locked(base: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = base.to_owned();
    |source| match source.kind() {
        io::ErrorKind::WouldBlock => HomeError::Busy { path },
        _ => FileError::at("lock", &path)(source).into(),
    }
}

/// The lock on a shared home. Whoever holds it for longer than it takes is stuck, and is not waited for.
fn lock_base(base: &Path) -> io::Result<Lock> {
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        match lock_dir(base, FlockArg::LockExclusiveNonblock) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// What this build's place is called.
fn own_name() -> String {
    // FNV-1a: enough to tell builds apart, and the same on every machine.
    let hash = memwatch_ebpf::OBJECT
        .iter()
        .fold(0x811c_9dc5_u32, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    format!("bpf-{ABI_VERSION}-{hash:08x}")
}

fn lock_dir(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let how_to_open = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let file = File::options()
        .read(true)
        .custom_flags(how_to_open.bits())
        .open(path)?;
    Flock::lock(file, how).map_err(|(_, errno)| errno.into())
}

fn check_ours(path: &Path) -> Result<(), HomeError> {
    let found = fs::symlink_metadata(path).map_err(FileError::at("look at", path))?;
    if found.is_dir() && found.uid() == 0 && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(HomeError::NotOurs {
        path: path.to_owned(),
    })
}

/// A BPF file system that is mounted nowhere (fsopen(2), 5.2).
fn mount_detached() -> io::Result<OwnedFd> {
    const FSCONFIG_SET_STRING: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    let context = call(
        libc::SYS_fsopen,
        [
            c"bpf".as_ptr() as usize,
            libc::FSOPEN_CLOEXEC as usize,
            0,
            0,
            0,
        ],
    )?;
    let fd = context.as_raw_fd() as usize;
    let set = |key: &CStr, value: &CStr| {
        let arguments = [
            fd,
            FSCONFIG_SET_STRING as usize,
            key.as_ptr() as usize,
            value.as_ptr() as usize,
            0,
        ];
        result(libc::SYS_fsconfig, arguments)
    };
    set(c"mode", c"0700")?;
    result(
        libc::SYS_fsconfig,
        [fd, FSCONFIG_CMD_CREATE as usize, 0, 0, 0],
    )?;
    call(
        libc::SYS_fsmount,
        [fd, libc::FSMOUNT_CLOEXEC as usize, 0, 0, 0],
    )
}

fn move_mount(mount: &OwnedFd, to: &Path) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: usize = 4;
    let to = std::ffi::CString::new(to.as_os_str().as_encoded_bytes())?;
    let from = mount.as_raw_fd() as usize;
    let arguments = [
        from,
        c"".as_ptr() as usize,
        libc::AT_FDCWD as usize,
        to.as_ptr() as usize,
        MOVE_MOUNT_F_EMPTY_PATH,
    ];
    result(libc::SYS_move_mount, arguments).map(drop)
}

/// A system call that gives a descriptor.
fn call(number: libc::c_long, arguments: [usize; 5]) -> io::Result<OwnedFd> {
    let fd = result(number, arguments)?;
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn result(number: libc::c_long, [a, b, c, d, e]: [usize; 5]) -> io::Result<libc::c_long> {
    // SAFETY: the callers pass numbers, and C strings that outlive the call.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[cfg(test)]
#[path = "home_tests.rs"]
mod tests;
