//! A cgroup of the bench's own, as memwatch makes them for its targets: in the v2 hierarchy, and beside
//! it in v1's if the memory controller lives there. Removed when dropped, with whatever runs in it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::machine::{CGROUPS, v2_mount};

pub(crate) struct Place {
    v2: PathBuf,
    v1_memory: Option<PathBuf>,
}

impl Place {
    /// A cgroup that may hold `limit_bytes`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn new(limit_bytes: u64) -> Result<Self> {
        let name = format!("memwatch-bench-{}", std::process::id());
        let own = Groups::of("self")?;
        let place = match own.v1_memory {
            Some(memory) => Self {
                v2: own.v2.join(&name),
                v1_memory: Some(memory.join(&name)),
            },
            // The root hands the controller down where an own cgroup with processes in it cannot.
            None => Self {
                v2: v2_mount()?.join(&name),
                v1_memory: None,
            },
        };
        for dir in place.dirs() {
            fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let limit = match &place.v1_memory {
            Some(dir) => dir.join("memory.limit_in_bytes"),
            None => place.v2.join("memory.max"),
        };
        fs::write(&limit, limit_bytes.to_string())
            .with_context(|| format!("cannot write {}", limit.display()))?;
        Ok(place)
    }

    /// Moves a process in, whose memory counts here from now on.
    pub(crate) fn take(&self, pid: u32) -> Result<()> {
        self.dirs().try_for_each(|dir| move_into(dir, pid))
    }

    /// How much it holds.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.v1_memory.as_ref().unwrap_or(&self.v2))
    }

    /// Has only a process's memory count here from now on, and leaves it where it is otherwise; `false` where
    /// memory has no hierarchy of its own.
    pub(crate) fn charge(&self, pid: u32) -> Result<bool> {
        match &self.v1_memory {
            Some(dir) => move_into(dir, pid).map(|()| true),
            None => Ok(false),
        }
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        let v1 = self.v1_memory.as_deref();
        std::iter::once(self.v2.as_path()).chain(v1)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Signals nobody but those in it: it is ours alone.
        let _ = fs::write(self.v2.join("cgroup.kill"), "1");
        let patience = Instant::now() + Duration::from_secs(10);
        for dir in self.dirs() {
            while dir.exists() && Instant::now() < patience {
                let nested = fs::read_dir(dir).into_iter().flatten().flatten();
                for entry in nested.filter(|entry| entry.path().is_dir()) {
                    let _ = fs::remove_dir(entry.path());
                }
                if fs::remove_dir(dir).is_err() {
                    sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

fn move_into(dir: &Path, pid: u32) -> Result<()> {
    fs::write(dir.join("cgroup.procs"), pid.to_string())
        .with_context(|| format!("cannot move {pid} into {}", dir.display()))
}

/// The time that any process of the v2 cgroup that a process is in, and of those below, waited for memory so
/// far, and that all of them did; in µs.
pub(crate) fn stalled_us(pid: u32) -> Result<(u64, u64)> {
    let path = Groups::of(&pid.to_string())?.v2.join("memory.pressure");
    let text = fs::read_to_string(&path)?;
    let total = |kind: &str| -> Result<u64> {
        let line = text.lines().find(|line| line.starts_with(kind));
        let total = line.and_then(|line| line.split_once("total="));
        let (_, us) = total.with_context(|| format!("{} has no {kind}", path.display()))?;
        Ok(us.parse()?)
    };
    Ok((total("some")?, total("full")?))
}

/// Where a process is.
struct Groups {
    v2: PathBuf,
    v1_memory: Option<PathBuf>,
}

impl Groups {
    /// Of the process with this name in `/proc`.
    fn of(process: &str) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
        let below = |mount: &Path, key: &str| {
            let (_, path) = text.lines().find_map(|line| line.split_once(key))?;
            Some(mount.join(path.trim_start_matches('/')))
        };
        let v1_mount = Path::new(CGROUPS).join("memory");
        Ok(Self {
            v2: below(&v2_mount()?, "0::").context("no cgroup v2 in /proc/PID/cgroup")?,
            v1_memory: below(&v1_mount, ":memory:"),
        })
    }
}

/// How much a cgroup holds, page cache included.
pub(crate) struct Usage(File);

impl Usage {
    /// Of the cgroup that a process is in.
    pub(crate) fn of_process(pid: u32) -> Result<Self> {
        let groups = Groups::of(&pid.to_string())?;
        Self::of(&groups.v1_memory.unwrap_or(groups.v2))
    }

    /// Of a cgroup in whichever hierarchy has the memory controller.
    fn of(dir: &Path) -> Result<Self> {
        let v1 = File::open(dir.join("memory.usage_in_bytes"));
        let file = v1.or_else(|_| File::open(dir.join("memory.current")));
        Ok(Self(file.with_context(|| {
            format!("{} does not tell its usage", dir.display())
        })?))
    }

    /// Bytes; `None` once the cgroup is gone.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let mut text = [0; 32];
        let len = self.0.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..len]).ok()?.trim().parse().ok()
    }
}
