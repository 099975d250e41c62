//! A kernel file that is opened once and read again at every look.
//!
//! The deciding thread must not walk paths or allocate, so it holds the descriptor and `pread`s into a
//! buffer of its own. One-off reads by slower threads go through `std::fs`.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file of procfs or cgroupfs, held open.
#[derive(Debug)]
pub struct Reread {
    file: File,
}

impl AsFd for Reread {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opening failed: which file, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {}: {source}", path.display())]
pub struct OpenError {
    /// The file that could not be opened.
    pub path: PathBuf,
    /// Why, with its errno.
    pub source: io::Error,
}

impl Reread {
    /// Takes a file that is open.
    #[must_use]
    pub fn of(file: File) -> Self {
        Self { file }
    }

    /// Opens `path` for reading, close-on-exec.
    ///
    /// # Errors
    /// Whatever open(2) says, with the path.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        match File::open(path) {
            Ok(file) => Ok(Self { file }),
            Err(source) => Err(OpenError {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Opens a path that needs no allocation to name: for the deciding thread.
    ///
    /// # Errors
    /// Whatever open(2) says; no path is kept, as keeping it would allocate.
    pub fn open_c(path: &CStr) -> io::Result<Self> {
        // SAFETY: `path` is a valid C string; open does not keep it.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nobody else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        Ok(Self { file })
    }

    /// Reads the file anew from its start, up to the size of `buf`.
    ///
    /// A seq_file hands out at most a page a call (fs/seq_file.c, `seq_read_iter`), so this goes on
    /// until the end or a full buffer. A full buffer may mean a truncated text.
    ///
    /// # Errors
    /// Whatever read(2) says: ENODEV for a removed cgroup, ESRCH for a process that is gone,
    /// EOPNOTSUPP where pressure accounting is off.
    pub fn read<'b>(&self, buf: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.file.read_at(&mut buf[filled..], filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(&buf[..filled])
    }

    /// Reads a file that holds a single short value: one system call.
    ///
    /// # Errors
    /// As [`Reread::read`].
    pub fn read_short<'b>(&self, buf: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let n = self.file.read_at(buf, 0)?;
        Ok(&buf[..n])
    }

    /// Reads on at `offset`: one system call.
    ///
    /// # Errors
    /// As [`Reread::read`].
    pub fn read_on<'b>(&self, buf: &'b mut [u8], offset: u64) -> io::Result<&'b [u8]> {
        let n = self.file.read_at(buf, offset)?;
        Ok(&buf[..n])
    }

    /// How many lines there are from `offset` on: those that a buffer had no room for.
    ///
    /// # Errors
    /// As [`Reread::read`].
    pub fn lines_from(&self, mut offset: u64, buf: &mut [u8]) -> io::Result<u64> {
        let mut lines = 0;
        loop {
            match self.file.read_at(buf, offset) {
                Ok(0) => return Ok(lines),
                Ok(n) => {
                    lines += buf[..n].iter().filter(|&&b| b == b'\n').count() as u64;
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
