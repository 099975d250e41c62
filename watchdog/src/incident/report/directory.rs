//! Opens the directory that a report goes to, without being led astray: on the way there a symbolic
//! link is followed only if root or the user made it. In `/tmp` anybody can put a link where a
//! report is expected, and `fs.protected_symlinks` may be off. What is written there is `super`'s.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat, readlinkat},
    sys::stat::{Mode, SFlag, fstat, mkdirat},
    unistd::{Uid, geteuid},
};

use crate::incident::Text;

/// As many as the kernel follows in one path.
const MAX_LINKS: u32 = 40;

/// Why a directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Somebody else's link stands on the way.
    #[error("`{link}` is a symbolic link that belongs to uid {owner}")]
    ForeignLink { link: Text, owner: Uid },
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// What becomes of a directory on the way that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is an error.
    Refuse,
    /// It is made, as mkdir(1) makes one.
    Make,
}

/// Opens `path`, seen from the working directory, with `O_PATH`.
///
/// # Errors
/// If it is no directory that this user can reach, or a foreign link stands on the way.
pub(super) fn open_directory(path: &Path, missing: Missing) -> Result<OwnedFd, OpenError> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut ahead = steps(path);
    let mut here = openat(AT_FDCWD, ".", flags | OFlag::O_DIRECTORY, Mode::empty())?;
    let mut links = 0;
    while let Some(step) = ahead.pop_front() {
        let open = || {
            let flags = flags | OFlag::O_DIRECTORY;
            openat(&here, step.as_os_str(), flags, Mode::empty())
        };
        let opened = match open() {
            Err(Errno::ENOENT) if missing == Missing::Make => {
                match mkdirat(&here, step.as_os_str(), Mode::from_bits_truncate(0o777)) {
                    // By somebody else meanwhile: as good.
                    Ok(()) | Err(Errno::EEXIST) => open(),
                    Err(errno) => Err(errno),
                }
            }
            opened => opened,
        };
        match opened {
            Ok(directory) => here = directory,
            Err(Errno::ENOTDIR) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                let link = openat(&here, step.as_os_str(), flags, Mode::empty())?;
                for step in steps(Path::new(&read_trusted_link(&link, &step)?))
                    .into_iter()
                    .rev()
                {
                    ahead.push_front(step);
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(here)
}

/// Where the open link `link` leads, if it is one and root or the user made it.
fn read_trusted_link(link: &OwnedFd, name: &OsString) -> Result<OsString, OpenError> {
    let stat = fstat(link)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFLNK.bits() {
        return Err(Errno::ENOTDIR.into());
    }
    let owner = Uid::from_raw(stat.st_uid);
    if !owner.is_root() && owner != geteuid() {
        return Err(OpenError::ForeignLink {
            link: Text::of_name(name.as_bytes()),
            owner,
        });
    }
    // The empty path means the very link that was looked at, whatever bears its name by now.
    Ok(readlinkat(link, "")?)
}

/// The components of `path`, `/` first if it is absolute.
fn steps(path: &Path) -> VecDeque<OsString> {
    path.components()
        .map(|component| component.as_os_str().to_owned())
        .collect()
}
