//! What only trying tells: which PSI triggers and which BPF programs the kernel accepts from us.
//! What can be read from files is `facts`'.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aya::programs::ProgramType;
use aya::sys::is_program_supported;
use serde::{Deserialize, Serialize};

/// What was tried on the running kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// Whether `/proc/pressure/memory` can be read.
    pub psi: Feature,
    /// The trigger windows that were tried, short to long.
    pub psi_triggers: Vec<TriggerProbe>,
    /// What the BPF subsystem accepts.
    pub bpf: BpfFacts,
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
    /// Reclaim, OOM and exit are seen through tracepoints, raw or not.
    pub tracepoint: Feature,
    /// The slow tick by which the kernel reaches a target that does not reclaim.
    pub perf_event: Feature,
    /// fentry: cheaper hooks.
    pub fentry: Feature,
    /// The kfuncs by which the kernel can end a sleeping process (6.13).
    pub kill_kfuncs: Feature,
}

impl Feature {
    /// Whether it was tried and worked.
    pub fn works(&self) -> bool {
        *self == Self::Works
    }

    fn of<T, E: ToString>(outcome: Result<T, E>) -> Self {
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
            bpf: BpfFacts::probe(),
        }
    }
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

impl BpfFacts {
    fn probe() -> Self {
        let btf = std::fs::read("/sys/kernel/btf/vmlinux");
        let loads = |kind| match is_program_supported(kind) {
            Ok(true) => Feature::Works,
            Ok(false) => Feature::Missing("the kernel does not know this program type".into()),
            Err(error) => Feature::Missing(innermost(&error)),
        };
        let tracepoint = match loads(ProgramType::RawTracePoint) {
            Feature::Works => Feature::Works,
            Feature::Missing(_) => loads(ProgramType::TracePoint),
        };
        Self {
            tracepoint,
            perf_event: loads(ProgramType::PerfEvent),
            fentry: loads(ProgramType::Tracing),
            kill_kfuncs: btf
                .as_deref()
                .map_or_else(|error| Feature::Missing(error.to_string()), kill_kfuncs),
            btf: Feature::of(btf),
        }
    }
}

/// The kernel's own word at the end of a chain of errors.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Whether BTF names all the kfuncs that a kill of a sleeping process takes.
fn kill_kfuncs(btf: &[u8]) -> Feature {
    let mut missing = vec![
        "bpf_task_from_pid",
        "bpf_task_under_cgroup",
        "bpf_send_signal_task",
    ];
    for name in btf.split(|&b| b == 0) {
        missing.retain(|kfunc| kfunc.as_bytes() != name);
    }
    match missing.as_slice() {
        [] => Feature::Works,
        _ => Feature::Missing(format!("no {}", missing.join(", "))),
    }
}
