//! systemd-oomd: its process as `/proc` shows it, and what it was given to look after.
//!
//! [`presence`] is one look for the doctor; [`files`] are what a deciding thread re-reads; [`units`] asks
//! systemd which units are managed and by what limits, [`defaults`] reads oomd.conf for what a unit leaves open,
//! and [`tree`] finds the cgroups below a unit that systemd-oomd would choose among. What all that means is
//! `watch::peer`'s and `watch::oomd_rule`'s.

pub mod defaults;
pub mod files;
mod presence;
pub mod tree;
pub mod units;

pub use presence::{Glance, Oomd, glance, read};

use crate::host::process;
use std::time::Duration;

/// One look at its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot: with the pid, the process's identity.
    pub start_ticks: u64,
    /// One of `RSDTtZXI`, as proc(5) lists them.
    pub state: u8,
    /// Context switches so far, voluntary or not.
    pub switches: u64,
    /// Major faults so far.
    pub major_faults: u64,
}

const COMM: &[u8] = b"systemd-oomd\0";

/// Reads the texts of `/proc/PID/stat` and `/proc/PID/status`; `None` if the process has another name.
pub(in crate::host) fn parse_look(pid: u32, stat: &[u8], status: &[u8]) -> Option<Look> {
    let stat = process::parse_stat(stat)?;
    if !stat.comm.starts_with(COMM) {
        return None;
    }
    Some(Look {
        pid,
        start_ticks: stat.start_ticks,
        state: stat.state,
        switches: process::parse_switches(status),
        major_faults: stat.major_faults,
    })
}

/// A wish of who owns a cgroup (`user.oomd_avoid`, `user.oomd_omit`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    /// None was made, or it was made by somebody whose wish does not count.
    #[default]
    None,
    /// Only if there is nobody else.
    Avoid,
    /// Never.
    Omit,
}

/// What a unit was given to systemd-oomd with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `ManagedOOMMemoryPressure=kill`.
    pub pressure: Option<PressureLimit>,
    /// `ManagedOOMSwap=kill`.
    pub swap: bool,
}

/// How much pressure for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureLimit {
    /// `full avg10` above which the unit is in trouble, in hundredths of a percent.
    pub permyriad: u32,
    /// For how long.
    pub duration: Duration,
}
