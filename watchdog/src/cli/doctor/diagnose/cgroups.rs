//! Where targets live and what bounds them.

use super::{Check, Group, MachineFacts, Severity, human};
use crate::cli::doctor::facts::{Limits, OwnLimit};
use crate::cli::doctor::probe::Feature;
use crate::incident::advice;

/// What a command has to do without that gets no cgroup.
const WITHOUT: &str = "sight of stalls, the kernel's limit and the guard in the kernel: a command's processes are \
                       found one by one, and only their sum is limited";

fn check(id: &'static str, found: impl Into<String>) -> Check {
    Check::fine(id, Group::Cgroups, found)
}

pub(super) fn unified(facts: &MachineFacts) -> Option<Check> {
    let layout = &facts.cgroups.layout;
    let Some(v2) = &layout.v2 else {
        let found = if layout.v1_memory.is_some() {
            "v1 only"
        } else {
            "none in view"
        };
        return Some(
            check("cgroup_v2", found)
                .costs(Severity::Important, WITHOUT)
                .advise(
                    "boot with systemd.unified_cgroup_hierarchy=1, or mount one",
                    [
                        "sudo mkdir -p /run/cgroup2",
                        "sudo mount -t cgroup2 none /run/cgroup2",
                    ],
                ),
        );
    };
    let kind = if layout.v1_memory.is_some() {
        "hybrid, memory on v1"
    } else {
        "unified"
    };
    let controllers = match layout.v2_controllers.as_slice() {
        [] => "no controllers".into(),
        names => names.join(" "),
    };
    Some(check(
        "cgroup_v2",
        format!("{kind}; {} offers {controllers}", v2.mount.display()),
    ))
}

pub(super) fn place(facts: &MachineFacts) -> Option<Check> {
    facts.cgroups.layout.v2.as_ref()?;
    if facts.cgroups.scope {
        let whose = match facts.privileges.euid {
            0 => "the system's",
            _ => "your own",
        };
        return Some(check("target_place", format!("a scope of {whose} systemd")));
    }
    if let Some(parent) = &facts.cgroups.target_parent {
        return Some(check("target_place", format!("below {}", parent.display())));
    }
    let check =
        check("target_place", "no cgroup here may be written").costs(Severity::Important, WITHOUT);
    Some(if facts.init.systemd && facts.privileges.euid != 0 {
        check.advise(
            "start from a cgroup that is yours",
            ["systemd-run --user --scope -p Delegate=yes memwatch doctor"],
        )
    } else {
        check.advise(
            "a container needs its /sys/fs/cgroup writable; better: run on the host",
            None::<String>,
        )
    })
}

pub(super) fn limits(facts: &MachineFacts) -> Option<Check> {
    if !facts.cgroups.scope {
        facts.cgroups.target_parent.as_ref()?;
    }
    Some(match facts.cgroups.limits {
        Limits::V2 => check("memory_limits", "memory.max and memory.high"),
        Limits::V1 => {
            let check = check("memory_limits", "memory.limit_in_bytes (v1)")
                .costs(Severity::Optional, "the brake before the kill, memory.high");
            if facts.init.systemd {
                check.advise(
                    "boot with systemd.unified_cgroup_hierarchy=1",
                    None::<String>,
                )
            } else {
                check
            }
        }
        Limits::None => {
            let check = check("memory_limits", "no memory controller").costs(
                Severity::Important,
                "limits by the kernel: memwatch adds up the processes itself",
            );
            if facts.init.systemd && facts.cgroups.layout.v2_has_memory() {
                check.advise(
                    "start from a cgroup with the controller",
                    ["systemd-run --user --scope -p Delegate=yes memwatch doctor"],
                )
            } else {
                check
            }
        }
    })
}

/// What a command may take that is started without memwatch.
pub(super) fn own_limit(facts: &MachineFacts) -> Option<Check> {
    Some(match facts.cgroups.own_limit? {
        OwnLimit::Bytes(bytes) => check("own_limit", format!("{} for what is started here", human(bytes))),
        OwnLimit::None => check("own_limit", "none for what is started here")
            .costs(
                Severity::Optional,
                "the machine, when something that is started without memwatch takes all of its memory: a risk",
            )
            .advise("start it with a limit", advice::limit_run(None, facts.ram_bytes)),
    })
}

pub(super) fn own_group(facts: &MachineFacts) -> Option<Check> {
    facts.cgroups.layout.v2.as_ref()?;
    let why = match &facts.cgroups.own_group {
        Feature::Works => return Some(check("own_group", "at the top, with memory.min")),
        Feature::Missing(why) => why,
    };
    let check = check("own_group", why.as_str()).costs(
        Severity::Optional,
        "memwatch its distance: limits and brakes of the cgroup that it is started in are its own, and its \
         unlocked memory can be reclaimed",
    );
    let hybrid = facts.cgroups.layout.v1_memory.is_some();
    Some(if facts.init.systemd && hybrid {
        check.advise(
            "boot with systemd.unified_cgroup_hierarchy=1",
            None::<String>,
        )
    } else if facts.privileges.euid != 0 {
        check.advise("run memwatch as root", None::<String>)
    } else {
        check
    })
}
