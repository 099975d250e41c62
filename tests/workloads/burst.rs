//! An innocent with many children that live for a millisecond each, as a configure script has.

use std::process::Command;

use crate::Failure;
use crate::safety::Deadline;

const AT_ONCE: u32 = 8;

pub(crate) fn run(deadline: Deadline, processes: u32) -> Result<(), Failure> {
    for _ in 0..processes.div_ceil(AT_ONCE) {
        if deadline.passed() {
            break;
        }
        let children = (0..AT_ONCE)
            .map(|_| Command::new("/bin/true").spawn())
            .collect::<Result<Vec<_>, _>>()?;
        for mut child in children {
            let status = child.wait()?;
            if !status.success() {
                return Err(Failure::BystanderDied(format!(
                    "a short process ({status})"
                )));
            }
        }
    }
    Ok(())
}
