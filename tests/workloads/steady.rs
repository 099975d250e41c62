//! An innocent that is big: most of its limit, taken within five seconds and then used all the time.
//! It is close to the edge and not on its way over it.

use std::thread::sleep;
use std::time::Duration;

use crate::Failure;
use crate::memory::{PAGE, Region};
use crate::safety::{Deadline, memory_limit};

const FILL_SECONDS: u64 = 5;
const STEPS_PER_SECOND: u64 = 100;

pub(crate) fn run(deadline: Deadline, percent: u64) -> Result<(), Failure> {
    let bytes = memory_limit()? / 100 * percent;
    let region = Region::anonymous(bytes as usize)?;
    let step = (bytes / (FILL_SECONDS * STEPS_PER_SECOND)) as usize / PAGE;
    for page in 0..region.pages() {
        region.write_page(page);
        if page % step.max(1) == 0 {
            sleep(Duration::from_millis(1000 / STEPS_PER_SECOND));
        }
    }
    while !deadline.passed() {
        (0..region.pages()).for_each(|page| region.write_page(page));
        sleep(Duration::from_millis(10));
    }
    Ok(())
}
