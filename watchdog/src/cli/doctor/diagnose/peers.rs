//! Who else looks after this machine's memory.

use super::{Check, Group, MachineFacts, Severity};
use crate::host::oomd::Oomd;

fn check(id: &'static str, found: impl Into<String>) -> Check {
    Check::fine(id, Group::Peers, found)
}

pub(super) fn init(facts: &MachineFacts) -> Option<Check> {
    if facts.init.systemd {
        return Some(check("init", "systemd"));
    }
    let comm = facts.init.comm.as_deref().unwrap_or("unknown");
    Some(
        check("init", format!("{} (not systemd)", comm.escape_debug())).costs(
            Severity::Optional,
            "cgroups of their own for users, and units to attach to",
        ),
    )
}

pub(super) fn oomd(facts: &MachineFacts) -> Option<Check> {
    if !facts.init.systemd && facts.oomd == Oomd::NotInstalled {
        return None;
    }
    let check = |found: &str| check("systemd_oomd", found);
    let unguarded = "protection of what is not attached to memwatch";
    Some(match facts.oomd {
        Oomd::NotInstalled => check("not installed").costs(Severity::Optional, unguarded),
        Oomd::NotRunning => check("not running")
            .costs(Severity::Optional, unguarded)
            .advise("start it", ["sudo systemctl enable --now systemd-oomd"]),
        Oomd::Stopped { pid } => check("stopped by a signal or a debugger")
            .costs(Severity::Important, unguarded)
            .advise("let it go on", [format!("sudo kill -CONT {pid}")]),
        Oomd::Stalled { .. } => check("stalled: waits for the disk and does not run")
            .costs(Severity::Important, unguarded)
            .advise("restart it", ["sudo systemctl restart systemd-oomd"]),
        Oomd::Active { .. } if facts.swap.is_empty() => check("active, without swap")
            .costs(
                Severity::Optional,
                "most of systemd-oomd: without swap it hardly ever acts",
            )
            .advise("add swap", None::<String>),
        Oomd::Active { .. } => check("active"),
    })
}
