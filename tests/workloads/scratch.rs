//! Files without a name: nothing is left of them whatever ends the process.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// An empty file in `dir` that never has a name.
pub(crate) fn unnamed_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(dir)
}

/// A file of `len` bytes in `dir` that is on disk and not in the page cache: cached pages stay
/// charged to whoever read them first, and a reader that finds them there never has to reclaim.
pub(crate) fn uncached_file(dir: &Path, len: u64) -> io::Result<File> {
    let mut file = unnamed_file(dir)?;
    let block = vec![0x5a; 1 << 20];
    for _ in 0..len.div_ceil(block.len() as u64) {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    forget_cached(&file)?;
    Ok(file)
}

/// Drops the file's clean pages from the page cache.
pub(crate) fn forget_cached(file: &File) -> io::Result<()> {
    Ok(posix_fadvise(
        file,
        0,
        0,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )?)
}
