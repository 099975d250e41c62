//! The kernel, its BPF subsystem and its settings.

use super::{Check, Group, MachineFacts, Severity};
use crate::cli::doctor::probe::Feature;
use crate::host::machine::kernel_version;

/// `process_mrelease`, by which memory comes back from a victim that does not die, is of 5.15.
const FLOOR: (u32, u32) = (5, 15);
/// SysRq's bit for term, kill and oom-kill (Documentation/admin-guide/sysrq.rst).
const SYSRQ_SIGNALS: u64 = 64;
const ASK_AS_ROOT: &str = "BPF is for root here; see what the daemon would have";

fn check(id: &'static str, found: impl Into<String>) -> Check {
    Check::fine(id, Group::Kernel, found)
}

pub(super) fn release(facts: &MachineFacts) -> Option<Check> {
    let Some(release) = &facts.kernel_release else {
        return Some(
            check("kernel", "unknown")
                .costs(Severity::Optional, "certainty: the release is hidden"),
        );
    };
    let check = check("kernel", release);
    Some(match kernel_version(release) {
        Some(version) if version < FLOOR => check
            .costs(
                Severity::Fatal,
                "everything: memwatch needs Linux 5.15 or later",
            )
            .advise("boot a newer kernel of your distribution", None::<String>),
        Some(_) => check,
        None => check.costs(Severity::Optional, "certainty: this is no release number"),
    })
}

pub(super) fn btf(facts: &MachineFacts) -> Option<Check> {
    Some(match &facts.probes.bpf.btf {
        Feature::Works => check("btf", "yes"),
        Feature::Missing(why) => check("btf", format!("no: {why}"))
            .costs(
                Severity::Optional,
                "the kernel's end of sleeping processes, which takes kfuncs",
            )
            .advise("use a kernel with CONFIG_DEBUG_INFO_BTF=y", None::<String>),
    })
}

/// The two program types that the guard is made of.
pub(super) fn programs(facts: &MachineFacts) -> Option<Check> {
    let bpf = &facts.probes.bpf;
    let refused: Vec<_> = [
        ("raw_tracepoint", &bpf.raw_tracepoint),
        ("perf_event", &bpf.perf_event),
    ]
    .into_iter()
    .filter_map(|(name, feature)| match feature {
        Feature::Works => None,
        Feature::Missing(why) => Some(format!("{name} refused: {why}")),
    })
    .collect();
    if refused.is_empty() {
        return Some(check("bpf_programs", "raw_tracepoint and perf_event load"));
    }
    let check = check("bpf_programs", refused.join("; "));
    let costs = if bpf.raw_tracepoint.works() {
        "the kernel's own kill of a target that is stuck without reclaiming"
    } else {
        "the last line in the kernel if memwatch itself is stuck, and reclaim per process"
    };
    let check = check.costs(Severity::Important, costs);
    Some(if facts.privileges.euid == 0 {
        check
    } else {
        check.advise(ASK_AS_ROOT, ["sudo memwatch doctor"])
    })
}

pub(super) fn kfuncs(facts: &MachineFacts) -> Option<Check> {
    Some(match &facts.probes.bpf.kill_kfuncs {
        Feature::Works => check("kfuncs", "BTF names those that end sleeping processes"),
        Feature::Missing(why) => check("kfuncs", why)
            .costs(
                Severity::Optional,
                "the kernel's end of sleeping processes (running ones it reaches)",
            )
            .advise("Linux 6.13 or later has them", None::<String>),
    })
}

pub(super) fn fentry(facts: &MachineFacts) -> Option<Check> {
    Some(match &facts.probes.bpf.fentry {
        Feature::Works => check("fentry", "loads"),
        Feature::Missing(why) => check("fentry", format!("refused: {why}")).costs(
            Severity::Optional,
            "the kernel's sight of refaults, swap-in and memory.high if memwatch itself is stuck (reclaim it sees)",
        ),
    })
}

pub(super) fn mglru(facts: &MachineFacts) -> Option<Check> {
    let lost = "reclaim that keeps the working set better; the machine stalls earlier";
    Some(match facts.settings.mglru_bits {
        Some(bits) if bits & 1 != 0 => check("mglru", "on"),
        Some(_) => check("mglru", "off")
            .costs(Severity::Optional, lost)
            .advise(
                "turn it on",
                ["echo y | sudo tee /sys/kernel/mm/lru_gen/enabled"],
            ),
        None => check("mglru", "not in this kernel").costs(Severity::Optional, lost),
    })
}

pub(super) fn hung_task(facts: &MachineFacts) -> Option<Check> {
    let lost = "the kernel's reports of blocked tasks in incidents";
    Some(match facts.settings.hung_task_timeout_s {
        Some(0) => check("hung_task", "off")
            .costs(Severity::Optional, lost)
            .advise(
                "turn them on",
                ["sudo sysctl kernel.hung_task_timeout_secs=120"],
            ),
        Some(seconds) => check("hung_task", format!("reported after {seconds} s")),
        None => check("hung_task", "not in this kernel").costs(Severity::Optional, lost),
    })
}

pub(super) fn sysrq(facts: &MachineFacts) -> Option<Check> {
    let lost = "your own last resort, Alt+SysRq+F, which ends the largest process";
    Some(match facts.settings.sysrq_bits {
        Some(bits) if bits == 1 || bits & SYSRQ_SIGNALS != 0 => check("sysrq", "may end processes"),
        Some(bits) => check("sysrq", format!("{bits}: may not end processes"))
            .costs(Severity::Optional, lost)
            .advise(
                "allow it",
                [format!("sudo sysctl kernel.sysrq={}", bits | SYSRQ_SIGNALS)],
            ),
        None => check("sysrq", "not in this kernel").costs(Severity::Optional, lost),
    })
}
