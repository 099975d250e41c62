//! RAM, swap and the ZFS ARC.

use super::{Check, Group, MachineFacts, Severity, human};
use crate::host::swap::{Medium, SwapArea};

const GIB: u64 = 1 << 30;
/// The share of RAM from which the ARC's cap is a risk. ZFS's own default is half or more: what it holds
/// is given back more slowly than a hog takes.
const ARC_RISK: u64 = 4;
/// The share that the advice leaves it.
const ARC_ADVISED: u64 = 8;

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
    if arc.c_max_bytes <= ram / ARC_RISK {
        return Some(check("zfs_arc", found));
    }
    // Below the floor the kernel module would ignore the new cap.
    let cap = (ram / ARC_ADVISED / GIB * GIB)
        .max(GIB)
        .max(arc.c_min_bytes.next_multiple_of(GIB));
    Some(
        check("zfs_arc", found)
            .costs(
                Severity::Important,
                format!("up to {} when memory is short: a risk, as the ARC gives back more slowly than a hog takes", human(arc.c_max_bytes)),
            )
            .advise(
                "cap it, now and at every boot",
                [
                    format!("echo {cap} | sudo tee /sys/module/zfs/parameters/zfs_arc_max"),
                    format!("echo options zfs zfs_arc_max={cap} | sudo tee /etc/modprobe.d/zfs-arc-max.conf"),
                    "sudo update-initramfs -u".to_owned(),
                ],
            ),
    )
}
