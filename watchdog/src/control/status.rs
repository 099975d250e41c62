//! How things are: what the daemon answers to [`super::Request::Status`], and what `memwatch status` shows
//! or prints as JSON. Data alone; the daemon fills it, `cli::status` draws it.
//!
//! Within a schema version fields may be added; what is there keeps its name and meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::incident::{FeatureLost, Kind, Record, Rule, Text, Timestamp};
use crate::watch::Rung;

/// Of [`Status`].
pub const SCHEMA_VERSION: u32 = 1;

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The daemon's version, which need not be that of who asks.
    pub memwatch: Text,
    /// The daemon's process.
    pub pid: u32,
    /// When it began.
    pub since: Timestamp,
    /// The machine.
    pub machine: Machine,
    /// What is guarded.
    pub targets: Vec<Target>,
    /// systemd-oomd.
    pub oomd: Oomd,
    /// What has happened.
    #[serde(default)]
    pub counts: Counts,
    /// Where incidents go.
    pub exporters: Vec<Exporter>,
    /// What was not seen or not told.
    pub losses: Losses,
    /// What this machine does not offer.
    pub features_lost: Vec<FeatureLost>,
}

/// The whole machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Memory that is free or could be freed, what ZFS would give back included.
    pub available_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
    /// All swap, 0 without swap; `None` from a daemon that does not tell.
    #[serde(default)]
    pub swap_total_bytes: Option<u64>,
    /// Swap that is free.
    #[serde(default)]
    pub swap_free_bytes: Option<u64>,
    /// Share of the last seconds in which some task waited for memory; `None` if the kernel does not tell.
    pub some_permille: Option<u32>,
    /// The same, all tasks at once.
    pub full_permille: Option<u32>,
}

/// One guarded cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The cgroup's id (kernfs), which no other ever has.
    pub id: u64,
    /// Its directory.
    pub cgroup: Text,
    /// Who attached it; `None` if the configuration names it.
    pub uid: Option<u32>,
    /// Since when it is guarded.
    pub since: Timestamp,
    /// Memory that it uses; `None` if nobody counts it.
    pub current_bytes: Option<u64>,
    /// Its limit; `None` without one.
    pub limit_bytes: Option<u64>,
    /// As [`Machine::some_permille`], of this cgroup.
    pub some_permille: Option<u32>,
    /// As [`Machine::full_permille`], of this cgroup.
    pub full_permille: Option<u32>,
    /// Processes in it and below.
    pub processes: u64,
    /// How often memwatch has stepped in.
    pub interventions: u64,
    /// Who acts on it.
    pub guarded_by: GuardedBy,
}

/// Who acts on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardedBy {
    /// The daemon alone: if it is stuck or dead, nobody.
    Daemon,
    /// The daemon, and the guard in the kernel if the daemon is stuck or dead.
    DaemonAndKernelGuard,
}

/// systemd-oomd, and who does its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oomd {
    /// One word or two: `not installed`, `well`, `stopped`, `stalled`.
    pub state: Text,
    /// How that was seen.
    pub reason: Option<Text>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Units that it is told to manage.
    pub managed_units: u64,
    /// Whether memwatch looks after them in its place.
    pub taken_over: bool,
    /// How many cgroups memwatch has ended in them since it began, in its place or for the machine's sake.
    pub kills: u64,
}

/// What the daemon's incidents tell, counted since it began; those of targets that are gone are among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Incidents, by their kind.
    pub incidents: BTreeMap<Kind, u64>,
    /// Interventions, by the rule that was met.
    pub interventions: BTreeMap<Rule, u64>,
    /// Steps that were taken in them; in a dry run those that would have been.
    pub rungs: BTreeMap<Rung, u64>,
}

impl Counts {
    /// Adds an incident.
    pub fn add(&mut self, record: &Record) {
        *self.incidents.entry(record.kind).or_default() += 1;
        for intervention in &record.interventions {
            *self.interventions.entry(intervention.rule).or_default() += 1;
            for taken in &intervention.rungs {
                *self.rungs.entry(taken.rung).or_default() += 1;
            }
        }
    }
}

/// One way that incidents take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exporter {
    /// What it is called in the configuration.
    pub name: Text,
    /// How it does.
    pub state: Text,
}

/// Counted since the daemon began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Looks that came later than they were due.
    pub late_looks: u64,
    /// The latest of them, by how much, in microseconds.
    pub longest_delay_us: u64,
    /// Notices that the deciding thread could not leave.
    pub dropped_notices: u64,
    /// Events that the kernel's ring buffer had no room for.
    pub ring_drops: u64,
    /// Threads that hang.
    pub hung_helpers: u64,
    /// Work that was given up, since no thread was free for it.
    #[serde(default)]
    pub dropped_jobs: u64,
    /// Incidents that did not get to the disk.
    #[serde(default)]
    pub lost_incidents: u64,
    /// Processes that there is no room to track, now.
    pub untracked_processes: u64,
    /// Events that clients of the control socket did not read in time.
    pub dropped_events: u64,
}
