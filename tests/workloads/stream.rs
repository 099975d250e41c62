//! An innocent that looks busy: every page it reads pushes another out of the cache, and it needs
//! none of them again.

use std::io::{Read, Seek, SeekFrom};

use crate::safety::{Deadline, memory_limit};
use crate::scratch::{forget_cached, uncached_file};
use crate::{Common, Failure};

pub(crate) fn run(common: &Common, deadline: Deadline) -> Result<(), Failure> {
    let mut file = uncached_file(&common.dir, 4 * memory_limit()?)?;
    let mut buffer = vec![0; 1 << 20];
    for _pass in 0..2 {
        file.seek(SeekFrom::Start(0))?;
        while !deadline.passed() && file.read(&mut buffer)? > 0 {}
        forget_cached(&file)?;
    }
    Ok(())
}
