//! What helps against a machine that can freeze, as commands: one telling for `memwatch doctor` and for the
//! diagnosis of an incident. Pure.

const GIB: u64 = 1 << 30;
/// The share of RAM from which the ARC's cap is a risk. ZFS's own default is half or more: what it holds
/// is given back more slowly than a hog takes.
const ARC_RISK: u64 = 4;
/// The share that the advice leaves it.
const ARC_ADVISED: u64 = 8;

/// Whether an ARC that may grow to `c_max_bytes` is a risk for a machine with so much RAM.
#[must_use]
pub fn is_arc_risk(c_max_bytes: u64, ram_bytes: u64) -> bool {
    c_max_bytes > ram_bytes / ARC_RISK
}

/// Whether the ARC holds as little as the advice would leave it.
#[must_use]
pub fn is_arc_small(size_bytes: u64, ram_bytes: u64) -> bool {
    size_bytes <= ram_bytes / ARC_ADVISED
}

/// Commands that cap the ARC, now and at every boot.
#[must_use]
pub fn cap_arc(c_min_bytes: u64, ram_bytes: u64) -> [String; 3] {
    // Below the floor the kernel module would ignore the new cap.
    let floor = c_min_bytes.checked_next_multiple_of(GIB).unwrap_or(0);
    let cap = (ram_bytes / ARC_ADVISED / GIB * GIB).max(GIB).max(floor);
    [
        format!("echo {cap} | sudo tee /sys/module/zfs/parameters/zfs_arc_max"),
        format!("echo options zfs zfs_arc_max={cap} | sudo tee /etc/modprobe.d/zfs-arc-max.conf"),
        "sudo update-initramfs -u".to_owned(),
    ]
}

/// Commands that run `program` with a limit: in safe mode, and with half of the machine's memory.
#[must_use]
pub fn limit_run(program: Option<&str>, ram_bytes: Option<u64>) -> Vec<String> {
    // A name that a shell would read otherwise is left to the reader.
    let plain = |name: &&str| {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._/+-".contains(&byte);
        !name.is_empty() && !name.starts_with('-') && name.bytes().all(word)
    };
    let what = match program.filter(plain) {
        Some(name) => format!("{name} ..."),
        None => "COMMAND".to_owned(),
    };
    let mut commands = vec![format!("memwatch attach --safe -- {what}")];
    if let Some(half @ 1..) = ram_bytes.map(|ram| ram.div_ceil(GIB) / 2) {
        commands.push(format!("memwatch attach --memory-max {half}G -- {what}"));
    }
    commands
}

/// Commands that have memwatch look after what systemd-oomd does not, and show how that is.
#[must_use]
pub fn replace_oomd() -> [String; 3] {
    [
        "sudo systemctl enable --now memwatch",
        "memwatch status",
        "systemctl status systemd-oomd",
    ]
    .map(str::to_owned)
}

/// The command that allows a person at the keyboard to sync, to remount and to reboot a machine that is frozen, and
/// to have the kernel kill.
#[must_use]
pub fn allow_sysrq() -> String {
    "sudo sysctl kernel.sysrq=244".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_shell_would_read_otherwise_is_not_put_into_a_command() {
        let first = |name| limit_run(Some(name), None).remove(0);
        assert_eq!(first("pytest"), "memwatch attach --safe -- pytest ...");
        for name in ["$(reboot)", "a b", "", "-rf", "x;y", "\\x1b"] {
            assert_eq!(first(name), "memwatch attach --safe -- COMMAND", "{name}");
        }
    }

    #[test]
    fn no_machine_is_too_small_or_too_large_for_advice() {
        for ram in [0, 1, GIB, u64::MAX] {
            for floor in [0, GIB + 1, u64::MAX] {
                assert!(cap_arc(floor, ram)[0].starts_with("echo "));
            }
            assert!(!limit_run(None, Some(ram)).is_empty());
        }
        assert!(!limit_run(None, Some(GIB)).concat().contains("0G"));
    }
}
