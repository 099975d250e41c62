//! What this process may do: its user, capabilities, resource limits, and what `/proc` shows it.

use std::path::Path;

use serde::Serialize;

use crate::host::machine::{ReadError, read_if_there};
use crate::host::text;

/// A capability that memwatch has a use for, by its number in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum Capability {
    Kill = 5,
    IpcLock = 14,
    SysPtrace = 19,
    SysAdmin = 21,
    SysNice = 23,
    SysResource = 24,
    Perfmon = 38,
    Bpf = 39,
}

/// What `hidepid=` does to other users' processes (proc(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HidePid {
    /// All of `/proc` is visible.
    #[default]
    Off,
    /// Their directories are there, but closed (1, noaccess).
    NoAccess,
    /// Their directories are not there (2, invisible; 4, ptraceable).
    Invisible,
}

/// The rights of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Privileges {
    /// Effective user.
    pub euid: u32,
    /// Effective capabilities, bit n for capability n.
    pub capabilities: u64,
    /// Whether uid 0 is the machine's root, and not one that a user namespace made up.
    pub initial_user_namespace: bool,
    /// Soft RLIMIT_MEMLOCK in bytes; None is unlimited.
    pub memlock_bytes: Option<u64>,
    /// Soft RLIMIT_NOFILE; None is unlimited.
    pub nofile: Option<u64>,
    /// How `/proc` is mounted.
    pub hidepid: HidePid,
}

impl Privileges {
    /// Reads them from `/proc/self`.
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub fn read(root: &Path) -> Result<Self, ReadError> {
        let file = |name| Ok(read_if_there(root, name)?.unwrap_or_default());
        let status = file("proc/self/status")?;
        let limits = file("proc/self/limits")?;
        Ok(Self {
            euid: effective_uid(&status).unwrap_or(u32::MAX),
            capabilities: effective_capabilities(&status).unwrap_or(0),
            initial_user_namespace: maps_all_users(&file("proc/self/uid_map")?),
            memlock_bytes: soft_limit(&limits, b"Max locked memory"),
            nofile: soft_limit(&limits, b"Max open files"),
            hidepid: hidepid(&file("proc/self/mountinfo")?),
        })
    }

    /// Whether the kernel grants `capability`. CAP_SYS_ADMIN holds for the two that were split from it
    /// (5.8).
    pub fn can(&self, capability: Capability) -> bool {
        let has = |c: Capability| self.capabilities & (1 << c as u8) != 0;
        let split_off = matches!(capability, Capability::Bpf | Capability::Perfmon);
        has(capability) || (split_off && has(Capability::SysAdmin))
    }
}

fn line<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    text.split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(key))
}

/// `Uid:` holds the real, effective, saved and file system user.
fn effective_uid(status: &[u8]) -> Option<u32> {
    let mut ids = line(status, b"Uid:\t")?.split(|&b| b == b'\t');
    u32::try_from(text::number(ids.nth(1)?)?).ok()
}

fn effective_capabilities(status: &[u8]) -> Option<u64> {
    let hex = std::str::from_utf8(line(status, b"CapEff:\t")?).ok()?;
    u64::from_str_radix(hex.trim_ascii(), 16).ok()
}

/// The initial namespace is the only one that maps every id onto itself.
fn maps_all_users(uid_map: &[u8]) -> bool {
    let words: Vec<_> = uid_map
        .split(u8::is_ascii_whitespace)
        .filter(|w| !w.is_empty())
        .collect();
    words == [&b"0"[..], b"0", b"4294967295"]
}

/// The soft limit stands first after the name; "unlimited" is no number.
fn soft_limit(limits: &[u8], name: &[u8]) -> Option<u64> {
    text::number(line(limits, name)?)
}

/// From the last mount on `/proc`, which hides those under it.
fn hidepid(mountinfo: &[u8]) -> HidePid {
    let text = String::from_utf8_lossy(mountinfo);
    let proc = text
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = proc
        .and_then(|line| line.split(' ').next_back())
        .unwrap_or_default();
    let value = options
        .split(',')
        .find_map(|option| option.strip_prefix("hidepid="));
    match value {
        None | Some("0" | "off") => HidePid::Off,
        Some("1" | "noaccess") => HidePid::NoAccess,
        Some(_) => HidePid::Invisible,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_as_the_system_calls_see_it() {
        let privileges = Privileges::read(Path::new("/")).unwrap();
        assert_eq!(privileges.euid, nix::unistd::geteuid().as_raw());
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` is a valid rlimit to write to.
        let answer = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
        assert_eq!(answer, 0);
        let nofile = (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur);
        assert_eq!(privileges.nofile, nofile);
    }

    #[test]
    fn the_effective_user_and_not_the_real_one() {
        let status = b"Name:\tsudo\nUid:\t1000\t0\t0\t0\nCapEff:\t000001fffeffffff\n";
        assert_eq!(effective_uid(status), Some(0));
        let privileges = Privileges {
            capabilities: effective_capabilities(status).unwrap(),
            ..Default::default()
        };
        assert!(!privileges.can(Capability::SysResource));
        assert!(privileges.can(Capability::SysNice));
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_and_perfmon_only() {
        let admin = Privileges {
            capabilities: 1 << 21,
            ..Default::default()
        };
        assert!(admin.can(Capability::Bpf) && admin.can(Capability::Perfmon));
        assert!(!admin.can(Capability::Kill));
    }

    #[test]
    fn a_mapped_root_is_not_the_machines_root() {
        assert!(maps_all_users(b"         0          0 4294967295\n"));
        assert!(!maps_all_users(b"         0     100000      65536\n"));
        assert!(!maps_all_users(b""));
    }

    #[test]
    fn unlimited_is_no_number() {
        let limits = b"Max open files            1024                 524288               files\nMax locked memory         unlimited            unlimited            bytes\n";
        assert_eq!(soft_limit(limits, b"Max open files"), Some(1024));
        assert_eq!(soft_limit(limits, b"Max locked memory"), None);
    }

    #[test]
    fn hidepid_by_number_and_by_name() {
        let mounts =
            |options| format!("22 27 0:21 / /proc rw,relatime shared:1 - proc proc {options}\n");
        for (options, expected) in [
            ("rw", HidePid::Off),
            ("rw,hidepid=0", HidePid::Off),
            ("rw,gid=4,hidepid=1", HidePid::NoAccess),
            ("rw,hidepid=noaccess", HidePid::NoAccess),
            ("rw,hidepid=invisible", HidePid::Invisible),
            ("rw,hidepid=ptraceable", HidePid::Invisible),
        ] {
            assert_eq!(hidepid(mounts(options).as_bytes()), expected, "{options}");
        }
        let over = mounts("rw,hidepid=2") + &mounts("rw");
        assert_eq!(hidepid(over.as_bytes()), HidePid::Off);
    }
}
