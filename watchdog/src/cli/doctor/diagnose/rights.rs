//! What this process may do.

use super::{Check, Group, MachineFacts, Severity, human};
use crate::cli::doctor::probe::Feature;
use crate::host::privileges::{Capability, HidePid};

/// mlockall counts the address space, thread stacks and all, not what is resident.
const MEMLOCK_ENOUGH_BYTES: u64 = 512 << 20;
/// A target takes about ten files, and a pidfd per process that is watched closely.
const OPEN_FILES_ENOUGH: u64 = 1024;

/// What each capability is for. What can be tried without harm has a check of its own, which tries.
const USES: &[(Capability, &str, &str)] = &[
    (
        Capability::SysAdmin,
        "SYS_ADMIN",
        "a guard that outlives memwatch (pins)",
    ),
    (Capability::Perfmon, "PERFMON", "page faults per process"),
    (Capability::Bpf, "BPF", "programs in the kernel"),
    (
        Capability::Kill,
        "KILL",
        "ending other users' processes inside a target",
    ),
    (
        Capability::IpcLock,
        "IPC_LOCK",
        "locked memory beyond RLIMIT_MEMLOCK",
    ),
    (
        Capability::SysPtrace,
        "SYS_PTRACE",
        "details of other users' processes",
    ),
];

fn check(id: &'static str, found: impl Into<String>) -> Check {
    Check::fine(id, Group::Rights, found)
}

pub(super) fn user(facts: &MachineFacts) -> Option<Check> {
    let rights = &facts.privileges;
    Some(match (rights.euid, rights.initial_user_namespace) {
        (0, true) => check("user", "root"),
        (0, false) => check("user", "root of a user namespace").costs(
            Severity::Optional,
            "rights that only look like root's: they end at the namespace",
        ),
        (uid, _) => check("user", format!("uid {uid}"))
            .costs(
                Severity::Optional,
                "what needs root; the checks here say which",
            )
            .advise("see what root would have", ["sudo memwatch doctor"]),
    })
}

pub(super) fn capabilities(facts: &MachineFacts) -> Option<Check> {
    let missing: Vec<_> = USES
        .iter()
        .filter(|(capability, ..)| !facts.privileges.can(*capability))
        .collect();
    if missing.is_empty() {
        return Some(check("capabilities", "all that memwatch uses"));
    }
    let join = |pick: fn(&(Capability, &'static str, &'static str)) -> &'static str, by: &str| {
        missing
            .iter()
            .map(|entry| pick(entry))
            .collect::<Vec<_>>()
            .join(by)
    };
    let found = if missing.len() == USES.len() {
        "none".into()
    } else {
        format!("without {}", join(|e| e.1, ", "))
    };
    Some(check("capabilities", found).costs(Severity::Optional, join(|e| e.2, "; ")))
}

pub(super) fn kill(facts: &MachineFacts) -> Option<Check> {
    Some(match &facts.probes.own.kill {
        Feature::Works => check("kill", "rehearsed on a child"),
        Feature::Missing(why) => check("kill", why.as_str())
            .costs(
                Severity::Important,
                "the kill: only the guard in the kernel and the limit are left",
            )
            .advise(
                "start memwatch outside of the sandbox, or raise the limit on processes",
                None::<String>,
            ),
    })
}

pub(super) fn memlock(facts: &MachineFacts) -> Option<Check> {
    let rights = &facts.privileges;
    let enough = rights
        .memlock_bytes
        .is_none_or(|bytes| bytes >= MEMLOCK_ENOUGH_BYTES);
    let limit = rights.memlock_bytes.map_or("unlimited".into(), human);
    let found = match &facts.probes.own.memory_lock {
        Feature::Missing(why) => why.clone(),
        Feature::Works if rights.can(Capability::IpcLock) => {
            return Some(check("memlock", "any amount (IPC_LOCK)"));
        }
        Feature::Works if enough => return Some(check("memlock", limit)),
        Feature::Works => limit,
    };
    Some(
        check("memlock", found)
            .costs(Severity::Important, "its own memory kept resident: memwatch can be paged out when it is needed")
            .advise(
                "raise the limit, then log in again",
                [r#"echo "$USER - memlock unlimited" | sudo tee /etc/security/limits.d/memwatch.conf"#],
            ),
    )
}

pub(super) fn realtime(facts: &MachineFacts) -> Option<Check> {
    Some(match &facts.probes.own.realtime {
        Feature::Works => check("realtime", "allowed"),
        Feature::Missing(why) => check("realtime", why.as_str())
            .costs(
                Severity::Optional,
                "the first turn on the CPU: memwatch competes for it with what it watches",
            )
            .advise(
                "allow it, then log in again",
                [r#"echo "$USER - rtprio 10" | sudo tee /etc/security/limits.d/memwatch-rt.conf"#],
            ),
    })
}

pub(super) fn oom_score(facts: &MachineFacts) -> Option<Check> {
    Some(match &facts.probes.own.oom_score {
        Feature::Works => check("oom_score", "can be lowered"),
        Feature::Missing(why) => check("oom_score", why.as_str())
            .costs(
                Severity::Optional,
                "protection from the kernel's OOM killer, which may choose memwatch",
            )
            .advise("run memwatch as root, with SYS_RESOURCE", None::<String>),
    })
}

pub(super) fn kernel_log(facts: &MachineFacts) -> Option<Check> {
    Some(match &facts.probes.kernel_log {
        Feature::Works => check("kernel_log", "can be read"),
        Feature::Missing(why) => check("kernel_log", why.as_str())
            .costs(
                Severity::Optional,
                "the kernel's own reports of OOM kills and hung tasks in incidents",
            )
            .advise("run memwatch as root, with SYSLOG", None::<String>),
    })
}

pub(super) fn open_files(facts: &MachineFacts) -> Option<Check> {
    let limit = facts.privileges.nofile;
    let check = check(
        "open_files",
        limit.map_or("unlimited".into(), |files| files.to_string()),
    );
    Some(if limit.is_none_or(|files| files >= OPEN_FILES_ENOUGH) {
        check
    } else {
        check
            .costs(
                Severity::Optional,
                "large targets: each watched process takes a file",
            )
            .advise(
                "raise the limit",
                [format!("ulimit -n {OPEN_FILES_ENOUGH}")],
            )
    })
}

pub(super) fn hidepid(facts: &MachineFacts) -> Option<Check> {
    let found = match facts.privileges.hidepid {
        HidePid::Off => return Some(check("hidepid", "off")),
        HidePid::NoAccess => "other users' processes are closed",
        HidePid::Invisible => "other users' processes are hidden",
    };
    let check = check("hidepid", found);
    Some(if facts.privileges.can(Capability::SysPtrace) {
        check
    } else {
        check.costs(
            Severity::Optional,
            "sight of other users' processes, systemd-oomd among them",
        )
    })
}

pub(super) fn unread(facts: &MachineFacts) -> Option<Check> {
    let first = facts.unread.first()?;
    let more = match facts.unread.len() - 1 {
        0 => String::new(),
        n => format!("; and {n} more"),
    };
    Some(check("unread_files", format!("{first}{more}")).costs(
        Severity::Important,
        "what these files say; their checks may be wrong",
    ))
}
