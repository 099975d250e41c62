//! The file behind `--report`. It is opened before the command is started, by the user's own
//! rights, so that a path that cannot work is refused before any work is lost; it appears under its
//! name only when it is whole. How its directory is reached is `directory`'s; what stands in it is
//! `record`'s.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
    unistd::{Uid, UnlinkatFlags, geteuid, linkat, unlinkat},
};
use uuid::Uuid;

use self::directory::{Missing, OpenError, open_directory};
use super::{Record, Text};

mod directory;
#[cfg(test)]
mod tests;

/// Mode of a report before the umask: not secret, since arguments stand in it only on request.
const MODE: Mode = Mode::from_bits_truncate(0o644);

/// A place for one report. Leaves nothing behind if it is dropped unwritten.
#[derive(Debug)]
pub struct ReportFile {
    path: PathBuf,
    name: OsString,
    unfinished: Unfinished,
}

/// Why a report cannot be, or was not, written. Each says what the user can do.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The path names a directory, or nothing.
    #[error(
        "report `{}`: this names a directory; add a file name, such as report.json",
        shown(path)
    )]
    NoFileName {
        /// As the user gave it.
        path: PathBuf,
    },
    /// The directory cannot be reached.
    #[error(
        "report `{}`: cannot open its directory: {source}; create it, or name another",
        shown(path)
    )]
    Directory {
        /// As the user gave it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A link of somebody else stands on the way to the directory.
    #[error(
        "report `{}`: {link}, which may lead anywhere; give the directory's real path",
        shown(path)
    )]
    ForeignLink {
        /// As the user gave it.
        path: PathBuf,
        /// Which link, and whose.
        link: String,
    },
    /// Something that is no file stands there.
    #[error(
        "report `{}`: {what} stands there, and a report replaces only a regular file; remove it, or name another file",
        shown(path)
    )]
    NotAFile {
        /// As the user gave it.
        path: PathBuf,
        /// What stands there.
        what: &'static str,
    },
    /// A file of somebody else stands there, in a directory where only its owner may replace it.
    #[error(
        "report `{}`: the file there belongs to uid {owner}, and its directory lets only the owner replace it; name another file",
        shown(path)
    )]
    ForeignFile {
        /// As the user gave it.
        path: PathBuf,
        /// Whose it is.
        owner: Uid,
    },
    /// The directory takes no file from this user.
    #[error(
        "report `{}`: cannot create a file in its directory: {source}; name a directory that you can write to",
        shown(path)
    )]
    Create {
        /// As the user gave it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The record did not get to the disk.
    #[error(
        "report `{}`: not written: {source}; what was there before is untouched",
        shown(path)
    )]
    Write {
        /// As the user gave it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ReportFile {
    /// Finds out, before anything is started, whether a report can be written to `path`, and
    /// holds a file in its directory ready.
    ///
    /// # Errors
    /// If it cannot; see [`ReportError`].
    pub fn open(path: &Path) -> Result<Self, ReportError> {
        Self::open_in(path, Missing::Refuse)
    }

    /// The same where whoever named the path expects its directories to be made.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_making_directories(path: &Path) -> Result<Self, ReportError> {
        Self::open_in(path, Missing::Make)
    }

    fn open_in(path: &Path, missing: Missing) -> Result<Self, ReportError> {
        let path = path.to_owned();
        let Some(name) = file_name(&path) else {
            return Err(ReportError::NoFileName { path });
        };
        let directory = match open_directory(path.parent().unwrap_or(Path::new("")), missing) {
            Ok(directory) => directory,
            Err(OpenError::Io(source)) => return Err(ReportError::Directory { path, source }),
            Err(link @ OpenError::ForeignLink { .. }) => {
                return Err(ReportError::ForeignLink {
                    path,
                    link: link.to_string(),
                });
            }
        };
        let name = name.to_owned();
        match fstatat(&directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(there) => may_replace(&path, &there, &directory)?,
            Err(Errno::ENOENT) => {}
            Err(errno) => {
                return Err(ReportError::Create {
                    path,
                    source: errno.into(),
                });
            }
        }
        match Unfinished::create(directory) {
            Ok(unfinished) => Ok(Self {
                path,
                name,
                unfinished,
            }),
            Err(errno) => Err(ReportError::Create {
                path,
                source: errno.into(),
            }),
        }
    }

    /// Writes `record` to the disk and puts it under its name, in place of what was there.
    ///
    /// # Errors
    /// If the disk is full or fails. Nothing is left behind then, and what was there stays.
    pub fn write(self, record: &Record) -> Result<(), ReportError> {
        self.write_bytes(&record.to_json())
    }

    /// The same with any other content: what is made of records is written as they are.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_bytes(self, content: &[u8]) -> Result<(), ReportError> {
        let Self {
            path,
            name,
            unfinished,
        } = self;
        unfinished
            .finish(&name, content)
            .map_err(|source| ReportError::Write { path, source })
    }
}

/// A path as it may stand in a message: whoever made its directories may have named them to harm.
fn shown(path: &Path) -> Text {
    Text::of_name(path.as_os_str().as_bytes())
}

/// The last part of `path`, unless the path says that it is a directory.
fn file_name(path: &Path) -> Option<&OsStr> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
        return None;
    }
    path.file_name()
}

/// Refuses what a rename would not replace, or should not.
fn may_replace(path: &Path, there: &FileStat, directory: &OwnedFd) -> Result<(), ReportError> {
    let what = match SFlag::from_bits_truncate(there.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => return may_replace_file(path, there, directory),
        SFlag::S_IFDIR => {
            return Err(ReportError::NoFileName {
                path: path.to_owned(),
            });
        }
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a fifo",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    };
    Err(ReportError::NotAFile {
        path: path.to_owned(),
        what,
    })
}

/// In a directory with the sticky bit a file is replaced only by its owner, the directory's owner
/// or root. A rename cannot be tried out, so the kernel's rule (`__check_sticky` in fs/namei.c) is
/// asked for here.
fn may_replace_file(path: &Path, there: &FileStat, directory: &OwnedFd) -> Result<(), ReportError> {
    let directory = fstat(directory).map_err(|errno| ReportError::Directory {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let user = geteuid();
    let sticky = directory.st_mode & libc::S_ISVTX != 0;
    let may = [there.st_uid, directory.st_uid].contains(&user.as_raw()) || user.is_root();
    if sticky && !may {
        let owner = Uid::from_raw(there.st_uid);
        return Err(ReportError::ForeignFile {
            path: path.to_owned(),
            owner,
        });
    }
    Ok(())
}

/// A file on its way: without a name where the file system can do that (so that nothing stays behind
/// even if memwatch is killed), else under a passing one, which goes when this is dropped.
#[derive(Debug)]
struct Unfinished {
    directory: OwnedFd,
    file: File,
    name: String,
    is_named: bool,
}

impl Unfinished {
    fn create(directory: OwnedFd) -> nix::Result<Self> {
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        match openat(&directory, ".", flags, MODE) {
            // NFS and FAT have no nameless files (open(2)).
            Err(Errno::EOPNOTSUPP) => Self::create_named(directory),
            file => Ok(Self {
                file: file?.into(),
                directory,
                name: passing_name(),
                is_named: false,
            }),
        }
    }

    fn create_named(directory: OwnedFd) -> nix::Result<Self> {
        let name = passing_name();
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let flags = flags | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = openat(&directory, name.as_str(), flags, MODE)?.into();
        Ok(Self {
            directory,
            file,
            name,
            is_named: true,
        })
    }

    /// Fills the file and gives it its `name`.
    fn finish(mut self, name: &OsStr, content: &[u8]) -> io::Result<()> {
        self.file.write_all(content)?;
        self.file.sync_all()?;
        if !self.is_named {
            // Only a rename can replace, and only what has a name can be renamed. This is how
            // open(2) names a nameless file without a capability.
            let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            linkat(
                AT_FDCWD,
                file.as_str(),
                &self.directory,
                self.name.as_str(),
                follow,
            )?;
            self.is_named = true;
        }
        renameat(&self.directory, self.name.as_str(), &self.directory, name)?;
        self.is_named = false;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_named {
            // If this fails a small file stays, and there is nobody to tell.
            let _ = unlinkat(
                &self.directory,
                self.name.as_str(),
                UnlinkatFlags::NoRemoveDir,
            );
        }
    }
}

fn passing_name() -> String {
    format!(".memwatch-{}.tmp", Uuid::now_v7())
}
