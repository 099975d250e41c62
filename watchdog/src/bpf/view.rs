//! Whether others see what is mounted in a place. In a service's sandbox they may not: it sees what the machine
//! mounts, and the machine does not see what it mounts.

use procfs::FromRead;
use procfs::process::{MountInfo, MountInfos, MountOptFields};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Whether what is mounted at `path` would be seen in this process's own view alone, while what others mount there
/// is seen here too.
///
/// # Errors
/// `path` cannot be opened, or `/proc` is not what it should be.
pub(super) fn is_one_sided(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    // A thread can have a view of its own.
    let about = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", file.as_raw_fd()))?;
    let id = about
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<i32>().ok());
    let mounts = MountInfos::from_file("/proc/thread-self/mountinfo").map_err(io::Error::other)?;
    let mount = mounts.0.iter().find(|mount| Some(mount.mnt_id) == id);
    Ok(mount.is_some_and(has_master))
}

/// Whether mounts come in there from elsewhere and do not go back (mount_namespaces(7)).
fn has_master(mount: &MountInfo) -> bool {
    let is_master = |field: &MountOptFields| matches!(field, MountOptFields::Master(_));
    mount.opt_fields.iter().any(is_master)
}
