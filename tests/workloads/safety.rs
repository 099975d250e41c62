//! What keeps a workload from harming the machine: its own memory limit, read back from the kernel,
//! and a deadline that holds even if the workload no longer gets to look at the clock.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::unistd::alarm;

use crate::Failure;

/// The moment at which a workload stops by itself.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
}

impl Deadline {
    /// Counts from now, and has the kernel end this process if it overruns by ten seconds: a hog that
    /// is stuck in reclaim reads no clock, but SIGALRM reaches it.
    pub(crate) fn after_seconds(seconds: u32) -> Self {
        let deadline = Self {
            at: Instant::now() + Duration::from_secs(seconds.into()),
        };
        deadline.arm_backstop();
        deadline
    }

    /// For a forked child, which inherits no alarm.
    pub(crate) fn arm_backstop(self) {
        let left = self.at.saturating_duration_since(Instant::now()).as_secs() as u32;
        alarm::set(left + 10);
    }

    /// Sleeps until then.
    pub(crate) fn wait(self) {
        std::thread::sleep(self.at.saturating_duration_since(Instant::now()));
    }

    pub(crate) fn passed(self) -> bool {
        Instant::now() >= self.at
    }
}

/// The limit, in bytes, that this process's memory is really under.
///
/// # Errors
/// [`Failure::NoLimit`] when there is none, or one above half of the machine.
pub(crate) fn memory_limit() -> Result<u64, Failure> {
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let v1 = cgroup_dir(&cgroups, &mounts, "memory").and_then(|(dir, _)| limit_v1(&dir));
    let v2 = cgroup_dir(&cgroups, &mounts, "").and_then(|(dir, root)| limit_v2(&dir, &root));
    let limit = v1.into_iter().chain(v2).min().ok_or(Failure::NoLimit)?;
    if limit <= memory_of_machine()? / 2 {
        Ok(limit)
    } else {
        Err(Failure::NoLimit)
    }
}

/// The directory of this process's cgroup in the v2 hierarchy.
pub(crate) fn own_v2_cgroup() -> Option<PathBuf> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    cgroup_dir(&cgroups, &mounts, "").map(|(dir, _)| dir)
}

/// This process's directory in the hierarchy of a v1 controller, or of v2 for the empty name, and
/// where that hierarchy is mounted.
fn cgroup_dir(cgroups: &str, mounts: &str, controller: &str) -> Option<(PathBuf, PathBuf)> {
    let path = cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        controllers
            .split(',')
            .any(|name| name == controller)
            .then(|| fields.next())?
    })?;
    // mountinfo: id parent dev root MOUNT options... - TYPE source SUPER_OPTIONS
    let root = mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let wanted = match filesystem.next()? {
            "cgroup2" => controller.is_empty(),
            "cgroup" => filesystem
                .nth(1)?
                .split(',')
                .any(|option| option == controller),
            _ => false,
        };
        wanted.then(|| mount.split(' ').nth(4))?
    })?;
    let root = PathBuf::from(root);
    Some((root.join(path.trim_start_matches('/')), root))
}

/// `hierarchical_memory_limit` has the ancestors' limits in it.
fn limit_v1(dir: &Path) -> Option<u64> {
    let stat = fs::read_to_string(dir.join("memory.stat")).ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("hierarchical_memory_limit "))?
        .parse()
        .ok()
}

/// The lowest `memory.max` from `dir` up to the mount; "max" is no number and so no limit.
fn limit_v2(dir: &Path, root: &Path) -> Option<u64> {
    dir.ancestors()
        .take_while(|ancestor| ancestor.starts_with(root))
        .filter_map(|ancestor| fs::read_to_string(ancestor.join("memory.max")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .min()
}

fn memory_of_machine() -> io::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = meminfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))?;
    Ok(kib * 1024)
}
