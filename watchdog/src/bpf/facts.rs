//! What this kernel, and these privileges, offer to BPF. Facts only; what is made of them is
//! [`super::plan`]'s.

use super::btf::Btf;
use aya::programs::{ProgramError, ProgramType};
use aya::sys::is_program_supported;
use serde::Serialize;

/// Where the kernel describes its own types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// From the kernel's BTF; `None` where there is none.
    pub types: Option<KernelTypes>,
    /// `BPF_PROG_TYPE_RAW_TRACEPOINT`: what everything here is built on (4.17).
    pub raw_tracepoint: Probe,
    /// `BPF_PROG_TYPE_PERF_EVENT`: fault samples (4.9).
    pub perf_event: Probe,
    /// `BPF_PROG_TYPE_TRACING`: fentry and its like, a bonus (5.5).
    pub tracing: Probe,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<u8>,
}

/// What the kernel's BTF says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelTypes {
    /// Offset of `task_struct.pid` (a thread's id), in bytes.
    pub task_pid: Option<u32>,
    /// Offset of `task_struct.tgid`.
    pub task_tgid: Option<u32>,
    /// Offset of `task_struct.comm`.
    pub task_comm: Option<u32>,
    /// Whether `oom:mark_victim` hands over a task (6.8) or a pid.
    pub mark_victim_is_task: Option<bool>,
    /// Functions that programs may call.
    pub kfuncs: Kfuncs,
}

/// Kernel functions that let a program reach a task other than the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kfuncs {
    /// `bpf_task_from_pid` (6.2).
    pub task_from_pid: bool,
    /// `bpf_task_under_cgroup` (6.5).
    pub task_under_cgroup: bool,
    /// `bpf_send_signal_task` (6.13).
    pub send_signal_task: bool,
}

/// What came of loading the smallest program of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// The kernel took it.
    Works,
    /// The kernel does not know the type, or not with these privileges.
    #[default]
    Missing,
    /// It refused for another reason.
    Refused {
        /// Why.
        errno: i32,
    },
}

impl Facts {
    /// Asks the running kernel. Takes a few milliseconds and, for a moment, the size of its BTF.
    pub fn read() -> Self {
        let btf = std::fs::read(KERNEL_BTF).ok();
        Self {
            types: btf
                .as_deref()
                .and_then(Btf::parse)
                .map(|btf| KernelTypes::of(&btf)),
            raw_tracepoint: probe(ProgramType::RawTracePoint),
            perf_event: probe(ProgramType::PerfEvent),
            tracing: probe(ProgramType::Tracing),
            unprivileged_bpf_disabled: std::fs::read_to_string(
                "/proc/sys/kernel/unprivileged_bpf_disabled",
            )
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        }
    }
}

impl KernelTypes {
    fn of(btf: &Btf<'_>) -> Self {
        let task = |member| btf.member_offset("task_struct", member);
        Self {
            task_pid: task("pid"),
            task_tgid: task("tgid"),
            task_comm: task("comm"),
            mark_victim_is_task: btf.tracepoint_argument_is_pointer("mark_victim", 0),
            kfuncs: Kfuncs {
                task_from_pid: btf.has_function("bpf_task_from_pid"),
                task_under_cgroup: btf.has_function("bpf_task_under_cgroup"),
                send_signal_task: btf.has_function("bpf_send_signal_task"),
            },
        }
    }
}

fn probe(program_type: ProgramType) -> Probe {
    match is_program_supported(program_type) {
        Ok(true) => Probe::Works,
        Ok(false) => Probe::Missing,
        Err(ProgramError::SyscallError(error)) => Probe::Refused {
            errno: error.io_error.raw_os_error().unwrap_or(0),
        },
        Err(_) => Probe::Missing,
    }
}
