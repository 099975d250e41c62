//! Writes the black box: a file that is made once, at its full size, and then only written over, a slot at a time,
//! past the page cache where that is possible: under pressure nothing has to be found, neither memory nor room on
//! the disk. Waits for the disk, so it is nothing for a thread that anything else waits for.

use super::frame::Page;
use super::recover::is_of_a_crash;
use super::slots::{self, FILE_BYTES, SLOT_BYTES, Slot};
use crate::host::file_error::FileError;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Memwatches that can have one at a time, in one place.
const AT_ONCE: usize = 8;
/// O_DIRECT asks for memory at a multiple of the disk's blocks.
const ALIGNED: usize = 4096;

/// A black box that is this process's alone while it is open.
#[derive(Debug)]
pub struct BlackBox {
    path: PathBuf,
    /// Held for the lock, and for reading.
    _lock: Flock<File>,
    out: File,
    number: u64,
    session: Uuid,
    /// Whether the last slot is a frame.
    unclean: bool,
    buffer: Vec<u8>,
}

/// The names of black boxes in a directory.
pub(super) fn names(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let dir = dir.to_owned();
    (0..AT_ONCE).map(move |number| match number {
        0 => dir.join("blackbox"),
        number => dir.join(format!("blackbox.{number}")),
    })
}

impl BlackBox {
    /// Opens the first one in `dir` that nobody else has, made if need be. One that still has a crash to tell is
    /// left alone, and so is one that cannot be had. `None` if others have all.
    ///
    /// # Errors
    /// The directory cannot be made, or none of the files; why not the first.
    pub fn open(dir: &Path, boot_id: &str) -> Result<Option<Self>, FileError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(dir);
        made.map_err(FileError::at("make", dir))?;
        let mut failed = None;
        for path in names(dir) {
            match Self::take(&path, boot_id) {
                Ok(None) => {}
                Ok(opened) => return Ok(opened),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    fn take(path: &Path, boot_id: &str) -> Result<Option<Self>, FileError> {
        let Some(lock) = lock(path, true).map_err(FileError::at("open", path))? else {
            return Ok(None);
        };
        let bytes = contents(&lock).map_err(FileError::at("read", path))?;
        if is_of_a_crash(&bytes, boot_id) {
            return Ok(None);
        }
        let opened = Self::over(path.to_owned(), lock, &bytes);
        let mut opened = opened.map_err(FileError::at("prepare", path))?;
        // What a memwatch that was killed has left here would be taken for the end of the machine.
        opened.settle().map_err(FileError::at("write", path))?;
        Ok(Some(opened))
    }

    /// The one at `path`, with what is in it.
    pub(super) fn over(path: PathBuf, lock: Flock<File>, bytes: &[u8]) -> io::Result<Self> {
        if bytes.len() != FILE_BYTES {
            lock.set_len(0)?;
            // Written and not only promised: what was never written to takes more than a write to the disk at first.
            let made = lock.write_all_at(&vec![0; FILE_BYTES], 0);
            if let Err(error) = made.and_then(|()| lock.sync_all()) {
                // What there is of it would take the room from others.
                let _ = lock.set_len(0);
                return Err(error);
            }
        }
        let (whole, _) = slots::read(bytes);
        let newest = whole.last();
        let unclean = newest.is_some_and(|slot| !is_clean(slot));
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        let out = match direct {
            Ok(out) if is_same(&out, &lock)? => out,
            // A file system without it.
            _ => lock.try_clone()?,
        };
        Ok(Self {
            path,
            number: newest.map_or(0, |slot| slot.number + 1),
            session: Uuid::now_v7(),
            out,
            _lock: lock,
            unclean,
            buffer: vec![0; SLOT_BYTES + ALIGNED],
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a slot, and waits until the disk has it.
    ///
    /// # Errors
    /// The disk's, or the text is too long.
    pub fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let slot = Slot {
            number: self.number,
            session: self.session,
            text,
        };
        let from = self.buffer.as_ptr().align_offset(ALIGNED);
        let bytes = &mut self.buffer[from..from + SLOT_BYTES];
        if !slot.encode(bytes) {
            return Err(io::Error::other("more than a slot holds"));
        }
        let at = slots::place(self.number) as u64;
        let mut written = self.out.write_all_at(bytes, at);
        if written
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
        {
            // Blocks larger than these, or O_DIRECT taken and not meant.
            self.out = self._lock.try_clone()?;
            written = self.out.write_all_at(bytes, at);
        }
        written?;
        self.out.sync_data()?;
        self.number += 1;
        self.unclean = true;
        Ok(())
    }

    /// Says that what stands in it is not the end of the machine. What comes next is another session.
    ///
    /// # Errors
    /// The disk's.
    pub fn settle(&mut self) -> io::Result<()> {
        if self.unclean {
            self.write(&serde_json::to_vec(&Page::Clean)?)?;
            self.unclean = false;
        }
        self.session = Uuid::now_v7();
        Ok(())
    }
}

pub(super) fn is_clean(slot: &Slot<'_>) -> bool {
    serde_json::from_slice::<Page>(slot.text).is_ok_and(|page| page == Page::Clean)
}

/// Opens a black box and locks it; `None` if somebody else has it, or it is not there and not to be made.
pub(super) fn lock(path: &Path, make: bool) -> io::Result<Option<Flock<File>>> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(make)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !make => return Ok(None),
        opened => opened?,
    };
    let about = file.metadata()?;
    if !about.is_file() || about.uid() != nix::unistd::geteuid().as_raw() || about.nlink() != 1 {
        return Err(io::Error::other(
            "it is not a file of this user's alone; remove it",
        ));
    }
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

/// What is in it, as far as it is of the right size.
pub(super) fn contents(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_same(a: &File, b: &File) -> io::Result<bool> {
    let (a, b) = (a.metadata()?, b.metadata()?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}
