//! The part of a record that tells what was done to whom, and why: interventions with their rungs,
//! the processes they chose between, and what the kernel did by itself. The run around them is
//! `record`'s; choosing is `watch`'s and doing is `act`'s.

use serde::{Deserialize, Serialize};

use super::{Comm, Signal, Text};
use crate::act::Outcome;
use crate::watch::{
    self, Rung,
    victim::{Ground, Scope},
};

/// One time that memwatch, or its guard in the kernel, stepped in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intervention {
    /// When the rule was met, since the start of the run.
    pub at_us: u64,
    /// The rule that was met.
    pub rule: Rule,
    /// What was measured.
    pub observed: Quantity,
    /// What it was measured against.
    pub threshold: Quantity,
    /// How long the rule had held when memwatch stepped in.
    pub duration_us: Option<u64>,
    /// The steps that were taken, in order.
    #[serde(default)]
    pub rungs: Vec<RungTaken>,
    /// Who was chosen; `None` where the rung is for the target as a whole.
    pub victim: Option<Process>,
    /// What made it this one.
    pub ground: Option<Ground>,
    /// What was to end with it.
    pub scope: Option<Scope>,
    /// Who else could have been chosen.
    #[serde(default)]
    pub rivals: Vec<Rival>,
    /// Which cgroups else could have been ended, where a whole one is.
    #[serde(default)]
    pub rival_cgroups: Vec<RivalCgroup>,
    /// The target's memory when the rule was met.
    pub memory_before_bytes: Option<u64>,
    /// The target's memory when the victim's had come back, or the run was over.
    pub memory_after_bytes: Option<u64>,
    /// From the last rung until the memory was back.
    pub recovery_us: Option<u64>,
    /// The test of pytest that the victim ran, or that a victim's parent ran, and the one to blame.
    pub test: Option<BlamedTest>,
    /// Where the victim's Python was, all threads, innermost call first.
    #[serde(default)]
    pub python_stack: Vec<Text>,
}

impl Intervention {
    /// One of which nothing is known yet but when and why.
    pub fn new(at_us: u64, rule: Rule, observed: Quantity, threshold: Quantity) -> Self {
        Self {
            at_us,
            rule,
            observed,
            threshold,
            duration_us: None,
            rungs: Vec::new(),
            victim: None,
            ground: None,
            scope: None,
            rivals: Vec::new(),
            rival_cgroups: Vec::new(),
            memory_before_bytes: None,
            memory_after_bytes: None,
            recovery_us: None,
            test: None,
            python_stack: Vec::new(),
        }
    }
}

/// One time that the target came near to where memwatch steps in, and got away by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearMiss {
    /// When it was nearest, since the start of the run.
    pub at_us: u64,
    /// The rule that it came near to.
    pub rule: Rule,
    /// What was measured then.
    pub observed: Quantity,
    /// At what memwatch would have stepped in.
    pub threshold: Quantity,
    /// How long it was near.
    pub lasted_us: u64,
}

/// A test whose process memwatch stepped in on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlamedTest {
    /// Node id of the test that ran.
    pub id: Text,
    /// Its worker of pytest-xdist.
    pub worker: Option<Text>,
    /// Where it was.
    pub phase: TestPhase,
    /// How long it had run.
    pub elapsed_us: Option<u64>,
    /// By how much its process had grown in it.
    pub growth_bytes: Option<u64>,
    /// The test in which the process grew the most; `None` if it grew in none.
    pub culprit: Option<Culprit>,
}

/// The test that is to blame, by growth. It need not be the one that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Culprit {
    /// Its node id.
    pub id: Text,
    /// By how much the process grew in it.
    pub growth_bytes: u64,
    /// What share that is of all that the process grew in its tests: how sure this is.
    pub sure_permille: u32,
}

/// Where a test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestPhase {
    /// Its module is being imported.
    Collect,
    /// In fixtures, before the test.
    Setup,
    /// In the test itself.
    Call,
    /// In fixtures, after it.
    Teardown,
}

/// Why memwatch steps in: the policy's rules, and those that need no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// At the measured fill rate the target's headroom is gone before another look would come.
    Exhaustion,
    /// The same for the machine's memory, which the target is what uses up.
    MachineExhaustion,
    /// The target stalls at its limit.
    Stall,
    /// The target stalls, and the machine is short of memory.
    MachineStall,
    /// The run took longer than it was given.
    Timeout,
    /// A test grew by more than it may.
    TestMemory,
    /// A test took longer than it may.
    TestTimeout,
    /// The run made no progress any more after one of its processes had been killed.
    NoProgress,
    /// The agent had gone silent, and the kernel side acted on its stall budget.
    Guard,
    /// systemd-oomd's rule for the pressure of a unit, in its place.
    OomdPressure,
    /// systemd-oomd's rule for memory and swap, in its place.
    OomdSwap,
}

impl From<watch::Rule> for Rule {
    fn from(rule: watch::Rule) -> Self {
        match rule {
            watch::Rule::Exhaustion => Self::Exhaustion,
            watch::Rule::MachineExhaustion => Self::MachineExhaustion,
            watch::Rule::Stall => Self::Stall,
            watch::Rule::MachineStall => Self::MachineStall,
        }
    }
}

/// A measured value, and the same for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantity {
    /// The value, in `unit`.
    pub value: u64,
    /// What `value` counts.
    pub unit: Unit,
    /// The phrase that the summary shows: `stalled for 41% of 3.0s`.
    pub text: Text,
}

/// Units of a [`Quantity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Microseconds.
    Us,
    /// Thousandths.
    Permille,
}

/// A step of the ladder that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungTaken {
    /// Which step.
    pub rung: Rung,
    /// When, since the start of the run.
    pub at_us: u64,
    /// Whom it was for; `None` for the target as a whole.
    pub pid: Option<u32>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A process of the target, as it was when it was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The process id, in memwatch's pid namespace.
    pub pid: u32,
    /// Its name, escaped.
    pub comm: Comm,
    /// When it started, in clock ticks since boot: with `pid` this names one process for good.
    pub start_time_ticks: Option<u64>,
    /// Its parent.
    pub ppid: Option<u32>,
    /// Its process group.
    pub pgid: Option<u32>,
    /// Resident memory.
    pub rss_bytes: Option<u64>,
    /// The part of `rss_bytes` that only swap could take away.
    pub anon_bytes: Option<u64>,
    /// By how much it grew within the policy's window.
    pub growth_bytes: Option<u64>,
    /// How long it stood in reclaim within that window.
    pub stall_us: Option<u64>,
    /// How many page faults it took within that window that waited for a disk.
    #[serde(default)]
    pub major_faults: Option<u64>,
    /// How many that were answered from memory.
    #[serde(default)]
    pub minor_faults: Option<u64>,
    /// CPU time that it spent in the kernel within that window.
    #[serde(default)]
    pub system_us: Option<u64>,
    /// What it had in swap, when memwatch stepped in.
    #[serde(default)]
    pub swap_bytes: Option<u64>,
}

/// A process that was not chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rival {
    /// The process.
    #[serde(flatten)]
    pub process: Process,
    /// Why not it.
    pub why_not: Text,
}

/// A cgroup that was not chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RivalCgroup {
    /// Its directory.
    pub cgroup_path: Text,
    /// What it held, as the rule counts: without what can be reclaimed, with swap.
    pub memory_bytes: u64,
    /// By how much it had grown lately.
    pub growth_bytes: u64,
}

/// A process that was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// The process.
    #[serde(flatten)]
    pub process: Process,
    /// The signal that ended it.
    pub signal: Signal,
    /// Why it was ended, in a phrase.
    pub reason: Text,
    /// Who ended it.
    pub killed_by: KilledBy,
    /// When, since the start of the run.
    pub at_us: Option<u64>,
}

/// Who ended a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KilledBy {
    /// The agent.
    Memwatch,
    /// memwatch's last line in the kernel.
    Guard,
    /// The kernel's OOM killer.
    KernelOom,
}

/// A process of the target that the kernel's OOM killer marked (`oom:mark_victim`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelOomVictim {
    /// The process id.
    pub pid: u32,
    /// Its name, escaped.
    pub comm: Comm,
    /// When, since the start of the run.
    pub at_us: Option<u64>,
}

/// A task that the kernel reported as blocked for too long (`sched:sched_process_hang`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HungTask {
    /// The thread id.
    pub tid: u32,
    /// Its name, escaped.
    pub comm: Comm,
    /// When it was reported, since the start of the run.
    pub at_us: Option<u64>,
}

/// A task of the machine that memwatch saw in one uninterruptible sleep for longer than 10 s, which the
/// kernel reports after two minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedTask {
    /// The process id.
    pub pid: u32,
    /// The thread id.
    pub tid: u32,
    /// Its name, escaped.
    pub comm: Comm,
    /// When it was first seen in it, since the start of the run.
    pub at_us: Option<u64>,
    /// How long it was in it; `None` if it still was at the end.
    pub lasted_us: Option<u64>,
    /// The kernel's function that it waited in, if that may be seen.
    pub function: Option<Text>,
    /// The functions that led there, innermost first: root's to see.
    #[serde(default)]
    pub stack: Vec<Text>,
}
