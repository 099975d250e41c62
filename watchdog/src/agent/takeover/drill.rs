//! The drill of a takeover: systemd-oomd is gone, a unit of its is over its limit, and the only cgroup below that is
//! ended, with files and time that are made up and a child of memwatch's own. What for is told in
//! [`crate::agent::drill`].

use super::channel::{Change, Notice};
use super::{Channel, Takeover};
use crate::act::{Mode, Outcome};
use crate::agent::drill::{file, reread, write};
use crate::agent::rehearsal::Child;
use crate::host::clock;
use crate::host::meminfo::MemInfo;
use crate::host::oomd::files::{CandidateFiles, UnitFiles};
use crate::host::oomd::{Limits, Preference, PressureLimit};
use crate::watch::oomd_rule::{Candidate, Under, Unit};
use crate::watch::{MachineFacts, Settings};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const UNIT: u64 = 1;
const CANDIDATE: u64 = 2;
const STEP: Duration = Duration::from_millis(500);
/// More turns than it takes.
const MOST_STEPS: u32 = 100;

/// Goes through it; whether the child was signalled and seen to be gone.
///
/// # Errors
/// No child, or no file in memory, could be made.
pub(in crate::agent) fn run() -> io::Result<bool> {
    let child = Child::start()?;
    let channel = Arc::new(Channel::new()?);
    let mut takeover = Takeover::new(Settings::default(), Mode::Real, Arc::clone(&channel));
    let stat = file("")?;
    hand_over(&channel, child.pid(), &stat)?;
    let machine = MachineFacts {
        meminfo: MemInfo {
            total_bytes: 16 << 30,
            available_bytes: 1 << 30,
            ..MemInfo::default()
        },
        psi: None,
        arc: None,
    };
    let began = clock::now();
    let mut killed = false;
    for step in 0..MOST_STEPS {
        // Reclaim goes on.
        write(&stat, &format!("inactive_file 4096\npgscan {step:<20}\n"))?;
        takeover.once(began + STEP * step, Some(&machine));
        while let Some(notice) = channel.next() {
            match notice {
                // Time that is made up does not pass for the child.
                Notice::Hit { outcome, .. } => {
                    killed = outcome == Outcome::Delivered && child.is_dead();
                }
                Notice::Recovered { .. } => return Ok(killed),
                _ => {}
            }
        }
    }
    Ok(false)
}

fn hand_over(channel: &Channel, pid: u32, stat: &File) -> io::Result<()> {
    let limits = Limits {
        pressure: Some(PressureLimit {
            permyriad: 1_000,
            duration: Duration::from_secs(1),
        }),
        swap: false,
    };
    let pressure = file("some avg10=99.00 total=1\nfull avg10=80.00 total=1\n")?;
    let unit = UnitFiles::of(reread(&pressure)?, Some(reread(stat)?));
    let candidate = CandidateFiles::of(
        reread(&file("1048576\n")?)?,
        reread(stat)?,
        reread(&file(&format!("{pid}\n"))?)?,
    );
    let under = Under {
        unit: UNIT,
        swap: false,
        preference: Preference::None,
    };
    let changes = [
        Change::Peer(None),
        Change::Unit(Unit::new(UNIT, limits), unit),
        Change::Candidate {
            candidate: Candidate::new(CANDIDATE, [Some(under), None, None, None], Preference::None),
            files: candidate,
            is_new: false,
        },
    ];
    for change in changes {
        // There is room for more than these.
        let _ = channel.hand_over(change);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_takes_over_and_goes_through_to_the_return_of_the_memory() {
        assert!(run().expect("memory and a child"));
    }
}
