//! What this kernel, and these privileges, offer to BPF. Facts only; what is made of them is
//! [`super::plan`]'s.

use super::btf::Btf;
use aya::programs::{ProgramError, ProgramType};
use aya::sys::is_program_supported;
use memwatch_ebpf::KFUNCS;
use serde::Serialize;

/// Where the kernel describes its own types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
const PRESSURE: &str = "/proc/pressure/memory";

/// The guard's programs for tasks that wait for memory, each with the kernel's function that it is put before
/// (kernel/sched/psi.c).
pub(super) const MEMSTALL: [(&str, &str); 2] = [
    ("memstall_leave", "psi_memstall_leave"),
    ("memstall_enter", "psi_memstall_enter"),
];

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// From the kernel's BTF; `None` where there is none.
    pub types: Option<KernelTypes>,
    /// `BPF_PROG_TYPE_RAW_TRACEPOINT`: what everything here is built on (4.17).
    pub raw_tracepoint: Probe,
    /// `BPF_PROG_TYPE_PERF_EVENT`: fault samples, and the guard's clock (4.9).
    pub perf_event: Probe,
    /// `BPF_PROG_TYPE_TRACING`: fentry, by which the guard sees more than reclaim (5.5).
    pub tracing: Probe,
    /// Whether the kernel keeps pressure stall information: without, its functions for that do nothing.
    pub pressure: bool,
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
    /// Offset of `task_struct.group_leader`, the main thread.
    pub task_group_leader: Option<u32>,
    /// Offset of `task_struct.start_boottime` (5.5).
    pub task_start_boottime: Option<u32>,
    /// Whether `oom:mark_victim` hands over a task (6.8) or a pid.
    pub mark_victim_is_task: Option<bool>,
    /// Functions that programs may call.
    pub kfuncs: Kfuncs,
    /// Whether the functions of `MEMSTALL` are there.
    pub memstall: bool,
}

/// Kernel functions that let a program reach a task other than the current one: the numbers of
/// [`KFUNCS`] in the kernel's BTF, in that order. All are there since 6.13.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kfuncs(pub [Option<u32>; KFUNCS.len()]);

impl Kfuncs {
    /// The names of those that are missing.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        let names = KFUNCS.iter().zip(self.0);
        names.filter_map(|((name, _), number)| number.is_none().then_some(*name))
    }
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
            // Where it is off the file may be there all the same, and refuses to be read.
            pressure: std::fs::read(PRESSURE).is_ok(),
            unprivileged_bpf_disabled: std::fs::read_to_string(
                "/proc/sys/kernel/unprivileged_bpf_disabled",
            )
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        }
    }
}

impl KernelTypes {
    pub(super) fn of(btf: &Btf<'_>) -> Self {
        let task = |member| btf.member_offset("task_struct", member);
        Self {
            task_pid: task("pid"),
            task_tgid: task("tgid"),
            task_comm: task("comm"),
            task_group_leader: task("group_leader"),
            task_start_boottime: task("start_boottime"),
            mark_victim_is_task: btf.tracepoint_argument_is_pointer("mark_victim", 0),
            kfuncs: Kfuncs(KFUNCS.map(|(name, _)| btf.function(name))),
            memstall: MEMSTALL
                .iter()
                .all(|(_, name)| btf.function(name).is_some()),
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
