//! Maps of the programs that memwatches share, read where they are pinned and without memwatch: whether
//! the guard in the kernel stands, what it has written down, and memwatch's signs of life. Their layout is
//! `watchdog-ebpf`'s; the programs themselves are `programs`'.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};

use super::programs::{home, open_pinned};

/// Whether the guard stands over a target.
///
/// # Errors
/// If no memwatch has been here, or the kernel refuses.
pub(crate) fn is_armed() -> Result<bool> {
    const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
    let armed = map("ARMED")?;
    // Targets take the first place that is free, and there is one target.
    let (place, mut row) = (0_u32, 0_u32);
    // SAFETY: key and value of `ARMED` are 32 bits each.
    unsafe { ask(&armed, BPF_MAP_LOOKUP_ELEM, &raw const place, &raw mut row) }
        .context("cannot read which targets are armed")?;
    Ok(row != 0)
}

/// The processes that the guard has killed and of which no memwatch has read yet.
///
/// # Errors
/// If no memwatch has been here, or the kernel refuses.
pub(crate) fn unread_kills() -> Result<Vec<u32>> {
    let kills = map("KILLS")?;
    let mut killed = Vec::new();
    let mut last = None;
    while let Some(name) = next_key(&kills, last)? {
        killed.push(name.tgid);
        last = Some(name);
    }
    Ok(killed)
}

/// Where a memwatch says that it is alive.
pub(crate) struct Heart {
    beat_ns: NonNull<AtomicU64>,
}

// SAFETY: the mapping lives as long as this process, and is only read, by an atomic.
unsafe impl Send for Heart {}

impl Heart {
    /// Of the one memwatch that runs.
    ///
    /// # Errors
    /// If there is none, or another one beside it.
    pub(crate) fn of_the_only_memwatch() -> Result<Self> {
        const PAGE: usize = 4096;
        const SLOT: usize = 64;
        let owners = home().context("no memwatch runs")?.join("owners");
        let names: Vec<_> = fs::read_dir(&owners)?.flatten().collect();
        ensure!(
            names.len() == 1,
            "{} memwatches run, and this is about one",
            names.len()
        );
        let slot: usize = names[0].file_name().to_string_lossy().parse()?;
        ensure!(slot * SLOT < PAGE, "there is no slot {slot}");
        let map = map("HEARTBEATS")?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        ensure!(
            page != libc::MAP_FAILED,
            "cannot map the heartbeats: {}",
            io::Error::last_os_error()
        );
        // SAFETY: inside the page by the check above, and aligned to its 64 bytes.
        let beat = unsafe { page.byte_add(slot * SLOT) };
        Ok(Self {
            beat_ns: NonNull::new(beat.cast()).context("mapped at zero")?,
        })
    }

    /// When a pass of the deciding thread last ended, in µs of the monotonic clock.
    pub(crate) fn last_beat_us(&self) -> u64 {
        // SAFETY: mapped for good, aligned, and written by whole numbers only.
        unsafe { self.beat_ns.as_ref() }.load(Ordering::Relaxed) / 1_000
    }
}

fn map(name: &str) -> Result<OwnedFd> {
    open_pinned(&home().context("no memwatch runs")?.join("maps").join(name))
}

/// A key of `KILLS`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Name {
    tgid: u32,
    start_ticks: u32,
}

/// The key after `last`, or the first one.
fn next_key(map: &OwnedFd, last: Option<Name>) -> Result<Option<Name>> {
    const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
    let mut next = Name::default();
    let last = last.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both are keys of `KILLS`.
    match unsafe { ask(map, BPF_MAP_GET_NEXT_KEY, last, &raw mut next) } {
        Ok(()) => Ok(Some(next)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error).context("cannot read the guard's kills"),
    }
}

/// A command about one element of a map.
///
/// # Safety
/// `key`, if it is not null, and `answer` must have the sizes that the map and the command ask for.
unsafe fn ask<K, A>(
    map: &OwnedFd,
    command: libc::c_int,
    key: *const K,
    answer: *mut A,
) -> io::Result<()> {
    /// `union bpf_attr` of such commands.
    #[repr(C)]
    struct Element {
        map_fd: u32,
        reserved: u32,
        key: u64,
        answer: u64,
        flags: u64,
    }
    let element = Element {
        map_fd: map.as_raw_fd() as u32,
        reserved: 0,
        key: key as u64,
        answer: answer as u64,
        flags: 0,
    };
    // SAFETY: by the caller; the size is that of the struct.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const element,
            size_of::<Element>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
