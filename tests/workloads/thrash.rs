//! The hog that never runs out of memory and never gets anywhere: a mapped file of twice the limit,
//! read again and again at random. Half of the reads wait for the disk, and the kernel's read-around
//! evicts with each of them what another will need: ten seconds bring a few thousand bytes.
//! (With MADV_RANDOM there is no read-around, and it takes half a minute until anything refaults.)

use std::time::{Duration, Instant};

use nix::sys::mman::ProtFlags;

use crate::memory::Region;
use crate::random::XorShift;
use crate::safety::{Deadline, memory_limit};
use crate::scratch::uncached_file;
use crate::{Common, Failure};

/// `asleep_after`: how long it keeps that up before it only sleeps.
pub(crate) fn run(
    common: &Common,
    deadline: Deadline,
    threads: u32,
    asleep_after: Option<Duration>,
) -> Result<(), Failure> {
    let len = 2 * memory_limit()?;
    let file = uncached_file(&common.dir, len)?;
    let region = Region::of_file(&file, len as usize, ProtFlags::PROT_READ)?;
    common.announce_culprit()?;

    let bedtime = asleep_after.map(|time| Instant::now() + time);
    std::thread::scope(|scope| {
        for thread in 1..threads {
            scope.spawn({
                let region = &region;
                move || read_at_random(region, deadline, bedtime, thread)
            });
        }
        read_at_random(&region, deadline, bedtime, 0);
    });
    deadline.wait();
    Ok(())
}

fn read_at_random(region: &Region, deadline: Deadline, bedtime: Option<Instant>, thread: u32) {
    let mut random = XorShift::new(thread);
    while !deadline.passed() && bedtime.is_none_or(|bedtime| Instant::now() < bedtime) {
        region.read_page(random.next() as usize % region.pages());
    }
}
