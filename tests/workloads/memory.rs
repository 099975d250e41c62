//! Mapped memory and the touching of it: the only unsafe code that the workloads share.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

pub(crate) const PAGE: usize = 4096;

/// A mapping that lives as long as its process, unless it is given back by hand.
pub(crate) struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping lives as long as this is there, and its bytes are only touched by single volatile
// accesses whose values nobody relies on.
unsafe impl Sync for Region {}

impl Region {
    /// Private anonymous memory, not populated yet.
    pub(crate) fn anonymous(len: usize) -> Result<Self, Errno> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start =
            unsafe { mmap_anonymous(None, nonzero(len)?, protection, MapFlags::MAP_PRIVATE) }?;
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    /// A shared mapping of the first `len` bytes of an open file that has at least that many.
    pub(crate) fn of_file(
        file: impl AsFd,
        len: usize,
        protection: ProtFlags,
    ) -> Result<Self, Errno> {
        // SAFETY: as above; the file is unlinked or a memfd of ours, so nobody truncates it.
        let start = unsafe {
            mmap(
                None,
                nonzero(len)?,
                protection,
                MapFlags::MAP_SHARED,
                file,
                0,
            )
        }?;
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    pub(crate) fn advise(&self, advice: MmapAdvise) -> Result<(), Errno> {
        // SAFETY: the range is this mapping, and nobody relies on its content.
        unsafe { madvise(self.start.cast(), self.len, advice) }
    }

    /// Takes it out of the process.
    pub(crate) fn give_back(self) -> Result<(), Errno> {
        // SAFETY: mapped with that length, and nobody else has it.
        unsafe { munmap(self.start.cast(), self.len) }
    }

    pub(crate) fn pages(&self) -> usize {
        self.len / PAGE
    }

    /// Writes one byte of a page, which makes it ours and dirty.
    pub(crate) fn write_page(&self, page: usize) {
        assert!(page < self.pages());
        // SAFETY: in bounds by the assertion; the mapping is writable and never unmapped.
        unsafe { self.start.add(page * PAGE).write_volatile(1) }
    }

    /// Reads one byte of a page, which faults it in.
    pub(crate) fn read_page(&self, page: usize) -> u8 {
        assert!(page < self.pages());
        // SAFETY: in bounds by the assertion; the mapping is readable and never unmapped.
        unsafe { self.start.add(page * PAGE).read_volatile() }
    }
}

fn nonzero(len: usize) -> Result<NonZeroUsize, Errno> {
    NonZeroUsize::new(len).ok_or(Errno::EINVAL)
}
