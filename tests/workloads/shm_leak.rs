//! A leak of shared memory. It is charged to the cgroup like any other, cannot be reclaimed without
//! swap, and by write(2) it shows in no process's RSS.

use std::fs::File;
use std::io::Write;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::ProtFlags;

use crate::memory::Region;
use crate::safety::{Deadline, memory_limit};
use crate::{Common, Failure};

const STEP: usize = 1 << 20;

pub(crate) fn run(common: &Common, deadline: Deadline, mapped: bool) -> Result<(), Failure> {
    let limit = memory_limit()? as usize;
    // A memfd has no name in any mount, so it goes with the process.
    let mut file = File::from(memfd_create(c"workload-shm", MFdFlags::MFD_CLOEXEC)?);
    common.announce_culprit()?;
    if mapped {
        // More than the limit holds, so that it does not end by itself.
        let len = 2 * limit;
        file.set_len(len as u64)?;
        let region = Region::of_file(&file, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        for page in 0..region.pages() {
            region.write_page(page);
            if deadline.passed() {
                break;
            }
        }
        return Ok(());
    }
    let block = vec![1; STEP];
    while !deadline.passed() {
        file.write_all(&block)?;
    }
    Ok(())
}
