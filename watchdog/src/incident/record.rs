//! The incident record, version 1: the one schema that `--report`, the spool and the exporters
//! carry, and docs/incident-v1.schema.json describes. `null` means not known, zero means zero.
//! Within a version fields are only added, so a reader takes what it knows and leaves the rest.
//! What was done to whom stands in `intervention`.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    BlockedTask, Flight, HungTask, Intervention, KernelLine, KernelOomVictim, KilledBy, Machine,
    NearMiss, ServiceLine, Signal, Suite, Takeover, Text, Timestamp, Victim,
};
use crate::watch::Rung;

/// The version that this program writes, and the newest that it reads.
pub const SCHEMA_VERSION: u32 = 1;

/// One run, or one intervention into it, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the schema.
    pub schema_version: u32,
    /// UUIDv7: names the record for good, and sorts by time.
    pub id: Uuid,
    /// What sort of thing happened.
    pub kind: Kind,
    /// Where.
    #[serde(default)]
    pub host: Host,
    /// The version of memwatch that wrote this.
    pub memwatch_version: String,
    /// Wall-clock time of the start.
    pub started_at: Timestamp,
    /// Wall-clock time of the end.
    pub ended_at: Timestamp,
    /// From start to end on the monotonic clock.
    pub duration_us: u64,
    /// What was run; `None` for a cgroup that was adopted.
    pub command: Option<Command>,
    /// What was guarded.
    #[serde(default)]
    pub target: Target,
    /// How it ended.
    pub verdict: Verdict,
    /// The exit code that memwatch answers with.
    pub exit_code: Option<i32>,
    /// The signal that ended the command's first process.
    pub leader_signal: Option<Signal>,
    /// How long memwatch took to kill a child of its own before it guarded; `None` if it could not, or
    /// had no time to.
    pub rehearsal_us: Option<u64>,
    /// The most memory that was charged to the target at once.
    pub peak_bytes: Option<u64>,
    /// Time in which at least one task of the target waited for memory (PSI `some`).
    pub stall_us: Option<u64>,
    /// Time in which all of its tasks did (PSI `full`).
    pub stall_full_us: Option<u64>,
    /// Page faults of the target.
    #[serde(default)]
    pub faults: Faults,
    /// Reclaim by and for the target.
    #[serde(default)]
    pub reclaim: Reclaim,
    /// Pages that were read back after they had been reclaimed.
    pub refaults_pages: Option<u64>,
    /// What memwatch did.
    #[serde(default)]
    pub interventions: Vec<Intervention>,
    /// How near the target came to where memwatch steps in, at the worst, and got away by itself.
    #[serde(default)]
    pub near_miss: Option<NearMiss>,
    /// Everybody who was ended for memory or for time, by whomever.
    #[serde(default)]
    pub victims: Vec<Victim>,
    /// Whom the kernel's OOM killer took, as far as it was told.
    #[serde(default)]
    pub kernel_oom: Vec<KernelOomVictim>,
    /// How many it took by the memory controller's count, named or not.
    pub kernel_oom_kills: Option<u64>,
    /// Tasks that the kernel reported as hung.
    #[serde(default)]
    pub hung_tasks: Vec<HungTask>,
    /// Tasks that were in uninterruptible sleep for long, as memwatch saw it.
    #[serde(default)]
    pub blocked_tasks: Vec<BlockedTask>,
    /// How it stands with systemd-oomd, if this is about what that was given to look after.
    pub takeover: Option<Takeover>,
    /// The tests, if pytest ran with memwatch's plugin.
    pub suite: Option<Suite>,
    /// What memwatch saw in the minutes before and while this happened.
    #[serde(default)]
    pub flight: Option<Flight>,
    /// The machine, when memwatch first stepped in, or else when the record was made.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// What the kernel's log said meanwhile about memory and blocked tasks.
    #[serde(default)]
    pub kernel_log: Vec<KernelLine>,
    /// What systemd's log said meanwhile about services that it ended since they gave no sign of life.
    #[serde(default)]
    pub service_log: Vec<ServiceLine>,
    /// What is missing from this record because it was lost.
    #[serde(default)]
    pub losses: Losses,
    /// What is missing because this machine or these privileges do not offer it.
    #[serde(default)]
    pub features_lost: Vec<FeatureLost>,
    /// What else a reader must know.
    #[serde(default)]
    pub notes: Vec<Text>,
    /// Whether memwatch was told to signal nobody.
    #[serde(default)]
    pub dry_run: bool,
    /// The settings in force, by their names in the configuration.
    #[serde(default)]
    pub settings: BTreeMap<String, serde_json::Value>,
}

/// The sort of a record: the gravest thing in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A run in which nothing happened.
    Run,
    /// A record that was made to see whether records arrive: nothing happened.
    Test,
    /// The target was close to where memwatch steps in, and got away from there by itself.
    NearMiss,
    /// Somebody was warned.
    Warn,
    /// The kernel reported a hung task, or memwatch saw one that was blocked for long.
    Hang,
    /// The target was frozen.
    Freeze,
    /// A test was failed.
    Abort,
    /// The kernel's OOM killer ended somebody.
    KernelOom,
    /// memwatch or its guard ended somebody.
    Kill,
    /// The run's time was up.
    Timeout,
    /// memwatch has begun to look after the units of systemd-oomd.
    Takeover,
    /// systemd-oomd looks after them again.
    HandBack,
    /// The machine ended without being shut down: these are the last seconds before.
    HardReset,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// By itself, and nobody was killed.
    Finished,
    /// By itself, after a part of it had been killed for memory.
    FinishedWithKills,
    /// Its time was up.
    Timeout,
    /// memwatch ended it for memory.
    KilledByMemwatch,
    /// The guard in the kernel ended it for memory.
    KilledByGuard,
    /// The kernel's OOM killer ended it.
    KilledByKernelOom,
    /// A signal from elsewhere ended it.
    Signalled,
    /// It has not: the record tells of a moment.
    Ongoing,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub hostname: Option<Text>,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<Text>,
    /// As `uname -r` says.
    pub kernel_release: Option<Text>,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program's name.
    pub program: Text,
    /// Its arguments, only if the user asked for them: arguments carry secrets.
    pub arguments: Option<Vec<Text>>,
}

/// The cgroup that was guarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its directory, escaped.
    pub cgroup_path: Option<Text>,
    /// Its id in the kernel.
    pub cgroup_id: Option<u64>,
    /// Where its memory is accounted.
    pub memory_layout: Option<MemoryLayout>,
    /// Who holds it to its limit; `None` without a limit.
    pub limit_enforcer: Option<LimitEnforcer>,
    /// The limit.
    pub memory_max_bytes: Option<u64>,
    /// The point from which it is slowed down.
    pub memory_high_bytes: Option<u64>,
    /// The user who had the daemon guard it; `None` for what the configuration names, and for a run's own.
    pub uid: Option<u32>,
}

/// Where a target's memory is accounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryLayout {
    /// By the memory controller of cgroup v2.
    V2,
    /// By a v1 memory group beside the v2 group.
    V1BesideV2,
    /// By the agent, from what the processes say of themselves.
    Agent,
}

/// Who holds a target to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitEnforcer {
    /// The kernel's memory controller.
    Kernel,
    /// memwatch, which looks and kills.
    Agent,
}

/// Page faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Those answered from memory.
    pub minor: Option<u64>,
    /// Those that waited for a disk.
    pub major: Option<u64>,
    /// Minor faults while the target was under pressure, estimated from samples (one in 256).
    pub pressed_minor: Option<u64>,
    /// Major faults while the target was under pressure, estimated from samples (one in 16).
    pub pressed_major: Option<u64>,
}

/// Reclaim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaim {
    /// Times that a task of the target had to free memory because the machine was short.
    pub direct: Option<u64>,
    /// Times that one had to because of the target's own limit.
    pub memcg: Option<u64>,
    /// Time spent in both.
    pub stall_us: Option<u64>,
    /// Pages looked at.
    pub scanned_pages: Option<u64>,
    /// Pages freed.
    pub reclaimed_pages: Option<u64>,
    /// Times that the target woke the kernel's background reclaim.
    pub kswapd_wakeups: Option<u64>,
}

/// Counts of what was lost while the record was gathered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// Events that did not fit the ring buffer.
    pub ring_drops: u64,
    /// Processes that found no place in the table.
    pub untracked_processes: u64,
    /// Looks at the target that came later than they were due.
    pub missed_looks: u64,
    /// The longest that a look came after it was due.
    pub longest_delay_us: u64,
    /// Files that could not be read, and looks that failed for that.
    pub unreadable_files: u64,
    /// Strings that were cut.
    pub truncated_strings: u64,
    /// Threads of memwatch, not the deciding one, that hung for seconds in a call to the kernel.
    pub hung_helpers: u64,
    /// Work for such threads that was given up since none was free: memory that was not released early,
    /// lines that were not written.
    pub dropped_jobs: u64,
    /// Tasks in long uninterruptible sleep, or their ends, that found no room to be told.
    pub blocked_tasks: u64,
    /// Lines of the kernel's log that were overwritten before they could be read, or for which there was no
    /// room in the record.
    pub kernel_lines: u64,
}

/// Something that this machine or these privileges do not offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureLost {
    /// What is missing.
    pub feature: Text,
    /// What is used in its place.
    pub fallback: Text,
    /// What that costs the user.
    pub cost: Text,
}

/// Why bytes are no record for this program.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They are no JSON, or JSON of another shape.
    #[error("not an incident record: {0}")]
    Shape(#[from] serde_json::Error),
    /// They were written by a later memwatch.
    #[error(
        "the record has schema version {found}, this memwatch reads up to {SCHEMA_VERSION}; \
         read it with the memwatch that wrote it, or a newer one"
    )]
    Version {
        /// The version they state.
        found: u32,
    },
}

impl Record {
    /// A record of a run from `started` to `ended`, in which nothing is known yet but how it ended.
    #[must_use]
    pub fn new(started: SystemTime, ended: SystemTime, duration_us: u64, verdict: Verdict) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            id: Uuid::now_v7(),
            kind: Kind::Run,
            host: Host::default(),
            memwatch_version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: started.into(),
            ended_at: ended.into(),
            duration_us,
            command: None,
            target: Target::default(),
            verdict,
            exit_code: None,
            leader_signal: None,
            rehearsal_us: None,
            peak_bytes: None,
            stall_us: None,
            stall_full_us: None,
            faults: Faults::default(),
            reclaim: Reclaim::default(),
            refaults_pages: None,
            interventions: Vec::new(),
            near_miss: None,
            victims: Vec::new(),
            kernel_oom: Vec::new(),
            kernel_oom_kills: None,
            hung_tasks: Vec::new(),
            blocked_tasks: Vec::new(),
            takeover: None,
            suite: None,
            flight: None,
            machine: None,
            kernel_log: Vec::new(),
            service_log: Vec::new(),
            losses: Losses::default(),
            features_lost: Vec::new(),
            notes: Vec::new(),
            dry_run: false,
            settings: BTreeMap::new(),
        }
    }

    /// Reads a record of this version or an older one.
    ///
    /// # Errors
    /// If `json` is no record, or one of a later version.
    pub fn from_json(json: &[u8]) -> Result<Self, ReadError> {
        check_version(json)?;
        Ok(serde_json::from_slice(json)?)
    }

    /// The record as it stands in a file: indented, with a newline at its end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self)
            .expect("every map in a record has strings for keys, and none of its types refuses");
        json.push(b'\n');
        json
    }

    /// As much of its id as tells it from those of other milliseconds: the time, which an id begins with.
    #[must_use]
    pub fn short_id(&self) -> String {
        self.id.to_string()[..13].to_owned()
    }

    /// How many processes of the target the kernel killed without anybody having seen whom.
    #[must_use]
    pub fn unnamed_kills(&self) -> u64 {
        unnamed_kills(self.kernel_oom_kills, &self.kernel_oom)
    }

    /// The gravest thing that the record tells of, which `kind` should say. A dry run counts as
    /// what it would have done.
    #[must_use]
    pub fn gravest(&self) -> Kind {
        let took = |rung: Rung| {
            let mut rungs = self.interventions.iter().flat_map(|it| &it.rungs);
            rungs.any(|taken| taken.rung == rung)
        };
        let ours = |victim: &Victim| victim.killed_by != KilledBy::KernelOom;
        if self.verdict == Verdict::Timeout {
            Kind::Timeout
        } else if took(Rung::Sigkill) || took(Rung::Sigterm) || self.victims.iter().any(ours) {
            Kind::Kill
        } else if !self.kernel_oom.is_empty() || self.unnamed_kills() > 0 {
            Kind::KernelOom
        } else if took(Rung::Abort) {
            Kind::Abort
        } else if took(Rung::Freeze) {
            Kind::Freeze
        } else if !self.hung_tasks.is_empty() || !self.blocked_tasks.is_empty() {
            Kind::Hang
        } else if took(Rung::Warn) {
            Kind::Warn
        } else if self.near_miss.is_some() {
            Kind::NearMiss
        } else {
            Kind::Run
        }
    }
}

/// Whether this program can read the record in `json`, by its version.
pub(super) fn check_version(json: &[u8]) -> Result<(), ReadError> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u32,
    }
    let Version {
        schema_version: found,
    } = serde_json::from_slice(json)?;
    if found > SCHEMA_VERSION {
        return Err(ReadError::Version { found });
    }
    Ok(())
}

/// What a controller's count of kills has beyond those that are named.
#[must_use]
pub fn unnamed_kills(counted: Option<u64>, named: &[KernelOomVictim]) -> u64 {
    counted.unwrap_or(0).saturating_sub(named.len() as u64)
}
