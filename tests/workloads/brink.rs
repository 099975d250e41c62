//! An innocent at the brink, on cgroup v2: comes to a share of its limit in ever smaller steps, so that nothing
//! foretells its end, and then takes and gives back memory there. It fails if it does not get that done in time.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::Failure;
use crate::memory::{PAGE, Region};
use crate::safety::{Deadline, memory_limit, own_v2_cgroup};

/// What is taken and given back.
const ROUND: u64 = 2 << 20;
/// Between two steps nothing grows, for longer than memwatch holds a rise for one and the same.
const PAUSE: Duration = Duration::from_millis(1200);

pub(crate) fn run(deadline: Deadline, permille: u64, rounds: u32) -> Result<(), Failure> {
    let cgroup = own_v2_cgroup().ok_or_else(|| io::Error::other("there is no cgroup v2"))?;
    let goal = memory_limit()? / 1000 * permille - ROUND;
    let mut held = Vec::new();
    loop {
        let text = fs::read_to_string(cgroup.join("memory.current"))?;
        let charged: u64 = text.trim().parse().map_err(io::Error::other)?;
        let step = goal.saturating_sub(charged) / 3;
        if step < PAGE as u64 * 16 {
            break;
        }
        held.push(filled(step)?);
        sleep(PAUSE);
    }
    for _ in 0..rounds {
        if deadline.passed() {
            return Err(io::Error::other("there was not time enough").into());
        }
        filled(ROUND)?.give_back()?;
    }
    Ok(())
}

fn filled(bytes: u64) -> Result<Region, Failure> {
    let region = Region::anonymous(bytes as usize)?;
    (0..region.pages()).for_each(|page| region.write_page(page));
    Ok(region)
}
