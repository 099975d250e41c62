//! An innocent that stalls, but for the disk: small synchronous writes and a cache dropped under its
//! reads, with nearly all of its memory free.

use std::os::unix::fs::FileExt;

use crate::safety::Deadline;
use crate::scratch::{forget_cached, uncached_file};
use crate::{Common, Failure};

const LEN: u64 = 32 << 20;
const BLOCK: u64 = 64 << 10;

pub(crate) fn run(common: &Common, deadline: Deadline) -> Result<(), Failure> {
    let file = uncached_file(&common.dir, LEN)?;
    let mut block = vec![0; BLOCK as usize];
    for step in 0_u64.. {
        if deadline.passed() {
            break;
        }
        // A stride that is prime to the number of blocks visits them all and in no order that
        // read-ahead can follow.
        let offset = step * 37 % (LEN / BLOCK) * BLOCK;
        file.read_exact_at(&mut block, offset)?;
        file.write_all_at(&block, offset)?;
        file.sync_all()?;
        forget_cached(&file)?;
    }
    Ok(())
}
