//! An innocent that looks busy: every page it reads pushes another out of the cache, and it needs
//! none of them again. It goes on to the deadline, since a stall must last to be judged.

use std::io::{Read, Seek, SeekFrom};

use crate::safety::{Deadline, memory_limit};
use crate::scratch::{forget_cached, uncached_file};
use crate::{Common, Failure};

pub(crate) fn run(common: &Common, deadline: Deadline) -> Result<(), Failure> {
    let mut file = uncached_file(&common.dir, 4 * memory_limit()?)?;
    let mut buffer = vec![0; 1 << 20];
    while !deadline.passed() {
        file.seek(SeekFrom::Start(0))?;
        while !deadline.passed() && file.read(&mut buffer)? > 0 {}
        // The next pass is as a first one: what was evicted is forgotten too, so nothing refaults.
        forget_cached(&file)?;
    }
    Ok(())
}
