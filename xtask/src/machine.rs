//! What chores need of the machine and read from it, without memwatch's help: they judge memwatch.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

/// Refuses early and clearly where a run could only fail late and darkly.
///
/// # Errors
/// If a test could not do its work here, with what to do about it.
pub(crate) fn require() -> Result<()> {
    // SAFETY: takes nothing, cannot fail.
    let uid = unsafe { libc::geteuid() };
    ensure!(
        uid == 0,
        "this makes cgroups and loads BPF programs: run it as root"
    );
    fs::read_to_string("/proc/pressure/memory")
        .context("no pressure information: boot a kernel that has PSI, with psi=1")?;
    let v2 = v2_mount()?;
    let probe = v2.join(format!("memwatch-xtask-{}", std::process::id()));
    fs::create_dir(&probe)
        .and_then(|()| fs::remove_dir(&probe))
        .with_context(|| {
            format!(
                "cannot make a cgroup in {}: mount it writable",
                v2.display()
            )
        })?;
    let limits_memory = Path::new(CGROUPS)
        .join("memory/memory.limit_in_bytes")
        .exists()
        || fs::read_to_string(v2.join("cgroup.controllers"))?
            .split(' ')
            .any(|c| c == "memory");
    ensure!(
        limits_memory,
        "neither cgroup v2 nor v1 offers a memory controller here"
    );
    Ok(())
}

/// Where cgroup v2 is mounted.
///
/// # Errors
/// If it is not.
pub(crate) fn v2_mount() -> Result<PathBuf> {
    let candidates = [
        Path::new(CGROUPS).to_owned(),
        Path::new(CGROUPS).join("unified"),
    ];
    match candidates
        .into_iter()
        .find(|dir| dir.join("cgroup.controllers").exists())
    {
        Some(mount) => Ok(mount),
        None => bail!("cgroup v2 is not mounted at {CGROUPS} or {CGROUPS}/unified"),
    }
}

/// How many processes the kernel's OOM killer has ended on this machine, limits of cgroups included.
///
/// # Errors
/// If `/proc/vmstat` cannot be read or has no such counter (Linux before 4.13).
pub(crate) fn oom_kills() -> Result<u64> {
    let vmstat = fs::read_to_string("/proc/vmstat")?;
    let count = vmstat
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    count
        .context("/proc/vmstat has no oom_kill")?
        .parse()
        .context("/proc/vmstat: oom_kill")
}

/// Directories of the cgroup called `name`, in whatever hierarchy, that are still there two seconds
/// from now: the kernel lets go of a cgroup a moment after its last process.
pub(crate) fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let patience = Instant::now() + Duration::from_secs(2);
    loop {
        let mut found = Vec::new();
        find_directories(Path::new(CGROUPS), name, &mut found);
        if found.is_empty() || Instant::now() > patience {
            return found;
        }
        sleep(Duration::from_millis(50));
    }
}

fn find_directories(dir: &Path, name: &str, found: &mut Vec<PathBuf>) {
    // A cgroup that goes away while this walks is none that is left over.
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        if entry.file_name() == name {
            found.push(entry.path());
        }
        find_directories(&entry.path(), name, found);
    }
}
