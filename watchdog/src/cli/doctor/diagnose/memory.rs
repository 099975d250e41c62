//! RAM, swap and the ZFS ARC.

use super::{Check, Group, MachineFacts, Severity, human};
use crate::host::swap::{Medium, SwapArea};
use crate::incident::advice;

const GIB: u64 = 1 << 30;
fn check(id: &'static str, found: impl Into<String>) -> Check {
    Check::fine(id, Group::Memory, found)
}

pub(super) fn ram(facts: &MachineFacts) -> Option<Check> {
    Some(match facts.ram_bytes {
        Some(bytes) => check("ram", human(bytes)),
        None => check("ram", "/proc/meminfo is hidden")
            .costs(
                Severity::Fatal,
                "everything: nobody can tell when memory is short",
            )
            .advise("mount /proc without subset=pid", None::<String>),
    })
}

pub(super) fn swap(facts: &MachineFacts) -> Option<Check> {
    if facts.swap.is_empty() {
        let size_gib = (facts.ram_bytes.unwrap_or(0) / 4 / GIB).max(1);
        return Some(
            check("swap", "none")
                .costs(Severity::Optional, "time: memory that runs out does so at once, without a stall before it")
                .advise(
                    "add compressed swap in memory",
                    [
                        "sudo modprobe zram".to_owned(),
                        format!("dev=$(sudo zramctl --find --size {size_gib}G) && sudo mkswap $dev && sudo swapon -p 100 $dev"),
                    ],
                ),
        );
    }
    let describe = |area: &SwapArea| {
        let medium = match area.medium {
            Medium::Zram => " (zram)",
            Medium::Zvol => " (ZFS volume)",
            Medium::Disk => "",
        };
        format!("{}{medium} {}", area.path, human(area.size_bytes))
    };
    let zswap = if facts.settings.zswap == Some(true) {
        ", zswap on"
    } else {
        ""
    };
    let areas: Vec<_> = facts.swap.iter().map(describe).collect();
    Some(check("swap", areas.join(", ") + zswap))
}

/// ZFS allocates memory to write, so swapping to it can wait for itself (OpenZFS #7734).
pub(super) fn zvol_swap(facts: &MachineFacts) -> Option<Check> {
    let area = facts.swap.iter().find(|area| area.medium == Medium::Zvol)?;
    Some(
        check("zvol_swap", format!("{} is a ZFS volume", area.path))
            .costs(
                Severity::Important,
                "the machine, if it must swap to free memory: ZFS needs memory to write",
            )
            .advise(
                "swap to a partition or to zram instead",
                [format!("sudo swapoff {}", area.path)],
            ),
    )
}

pub(super) fn arc(facts: &MachineFacts) -> Option<Check> {
    let (arc, ram) = (facts.arc?, facts.ram_bytes?);
    let percent = arc.c_max_bytes.saturating_mul(100) / ram.max(1);
    let found = format!(
        "holds {}, may grow to {} ({percent} % of RAM)",
        human(arc.size_bytes),
        human(arc.c_max_bytes)
    );
    if !advice::is_arc_risk(arc.c_max_bytes, ram) {
        return Some(check("zfs_arc", found));
    }
    let now = if advice::is_arc_small(arc.size_bytes, ram) {
        "; as small as it is now, it is the cause of nothing"
    } else {
        ""
    };
    Some(
        check("zfs_arc", found)
            .costs(
                Severity::Important,
                format!("up to {} when memory is short: a risk, as the ARC gives back more slowly than a hog takes{now}", human(arc.c_max_bytes)),
            )
            .advise("cap it, now and at every boot", advice::cap_arc(arc.c_min_bytes, ram)),
    )
}
