//! What only trying tells: which PSI triggers and which BPF programs the kernel accepts from us, and what
//! memwatch may do to stay awake and to kill.
//! What can be read from files is `facts`'.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::agent::{awake, rehearsal};
use crate::bpf;
use crate::host::clock;
use crate::host::kmsg::Kmsg;

/// What was tried on the running kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// Whether `/proc/pressure/memory` can be read.
    pub psi: Feature,
    /// The trigger windows that were tried, short to long.
    pub psi_triggers: Vec<TriggerProbe>,
    /// What the BPF subsystem accepts.
    pub bpf: BpfFacts,
    /// What memwatch does for itself.
    pub own: OwnFacts,
    /// Whether the kernel's log can be read: records have its reports of OOM kills and hung tasks.
    pub kernel_log: Feature,
}

/// What memwatch does to stay awake, and to kill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnFacts {
    /// Locking its memory.
    pub memory_lock: Feature,
    /// Realtime scheduling of the deciding thread.
    pub realtime: Feature,
    /// The lowest `oom_score_adj`.
    pub oom_score: Feature,
    /// Killing a child of its own as it would kill a victim.
    pub kill: Feature,
}

/// Whether the kernel lets us use something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// It was tried and worked.
    Works,
    /// It was refused, or is not there; why, in the kernel's words.
    Missing(String),
}

/// One PSI trigger that was set and removed at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerProbe {
    /// The window that was asked for.
    pub window_ms: u32,
    /// What the kernel said.
    pub outcome: Feature,
}

/// The doctor's view of the BPF subsystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfFacts {
    /// `/sys/kernel/btf/vmlinux`.
    pub btf: Feature,
    /// Reclaim, OOM and exit are seen through raw tracepoints.
    pub raw_tracepoint: Feature,
    /// The slow tick by which the kernel reaches a target that does not reclaim.
    pub perf_event: Feature,
    /// fentry at the functions by which a task waits for memory: what the kernel sees beside reclaim when
    /// memwatch itself is stuck.
    pub fentry: Feature,
    /// The kfuncs by which the kernel can end a sleeping process (6.13).
    pub kill_kfuncs: Feature,
}

impl Feature {
    /// Whether it was tried and worked.
    pub fn works(&self) -> bool {
        *self == Self::Works
    }

    pub(super) fn of<T, E: ToString>(outcome: Result<T, E>) -> Self {
        outcome.map_or_else(|error| Self::Missing(error.to_string()), |_| Self::Works)
    }
}

const WINDOWS_MS: [u32; 3] = [500, 1000, 2000];
const PRESSURE: &str = "/proc/pressure/memory";

impl Probes {
    /// Tries everything, as the calling user. Leaves nothing behind.
    pub fn run() -> Self {
        let pressure = Path::new(PRESSURE);
        let try_window = |window_ms| TriggerProbe {
            window_ms,
            outcome: Feature::of(set_trigger(pressure, window_ms)),
        };
        Self {
            psi: Feature::of(std::fs::read(pressure)),
            psi_triggers: WINDOWS_MS.map(try_window).to_vec(),
            bpf: bpf::Facts::read().into(),
            own: OwnFacts::find_out(),
            kernel_log: Feature::of(Kmsg::open(clock::now())),
        }
    }
}

impl OwnFacts {
    fn find_out() -> Self {
        // A thread's own, and it ends with the thread.
        let realtime = std::thread::scope(|scope| scope.spawn(awake::become_realtime).join());
        Self {
            memory_lock: Feature::of(awake::lock_memory().map(|()| awake::unlock_memory())),
            realtime: Feature::of(realtime.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))),
            oom_score: Feature::of(lower_oom_score()),
            kill: Feature::of(rehearsal::rehearse()),
        }
    }
}

/// Lowers it as memwatch does, and puts it back, which is always allowed.
fn lower_oom_score() -> io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let before = std::fs::read(FILE)?;
    awake::lower_oom_score()?;
    std::fs::write(FILE, before)
}

/// Asks for an event after 10 % of the window; closing the file removes the trigger.
fn set_trigger(file: &Path, window_ms: u32) -> io::Result<()> {
    let window_us = window_ms * 1000;
    let mut trigger = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(file)?;
    trigger.write_all(format!("some {} {window_us}\0", window_us / 10).as_bytes())
}

impl From<bpf::Facts> for BpfFacts {
    fn from(facts: bpf::Facts) -> Self {
        let no_btf = || Feature::Missing("no usable /sys/kernel/btf/vmlinux".into());
        Self {
            btf: facts.types.map_or_else(no_btf, |_| Feature::Works),
            raw_tracepoint: facts.raw_tracepoint.into(),
            perf_event: facts.perf_event.into(),
            fentry: match facts.types {
                Some(types) if !types.memstall => {
                    Feature::Missing("no psi_memstall_enter and psi_memstall_leave in BTF".into())
                }
                _ => facts.tracing.into(),
            },
            kill_kfuncs: facts
                .types
                .map_or_else(no_btf, |types| kill_kfuncs(types.kfuncs)),
        }
    }
}

impl From<bpf::Probe> for Feature {
    fn from(probe: bpf::Probe) -> Self {
        match probe {
            bpf::Probe::Works => Self::Works,
            bpf::Probe::Missing => Self::Missing("unknown to this kernel".into()),
            bpf::Probe::Refused { errno } => {
                Self::Missing(io::Error::from_raw_os_error(errno).to_string())
            }
        }
    }
}

/// A kill of a sleeping process takes all of them.
fn kill_kfuncs(kfuncs: bpf::Kfuncs) -> Feature {
    let missing: Vec<_> = kfuncs.missing().collect();
    match missing.as_slice() {
        [] => Feature::Works,
        _ => Feature::Missing(format!("no {}", missing.join(", "))),
    }
}
