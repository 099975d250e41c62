//! An innocent that sleeps ten milliseconds at a time and writes down the longest that one of these sleeps has
//! kept it from running: what somebody at the machine would have felt.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::safety::Deadline;

const NAP: Duration = Duration::from_millis(10);

/// `gap` is the file that holds the longest gap so far, in milliseconds, from the first nap on.
pub(crate) fn run(deadline: Deadline, gap: &Path) -> Result<(), Failure> {
    let mut longest = Duration::ZERO;
    while !deadline.passed() {
        let lay_down = Instant::now();
        sleep(NAP);
        let gone = lay_down.elapsed();
        if gone > longest {
            longest = gone;
            fs::write(gap, format!("{}\n", longest.as_millis()))?;
        }
    }
    Ok(())
}
