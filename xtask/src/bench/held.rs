//! A thread of another process that hangs in the kernel, for as long as the bench wants it to.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::machine::CGROUPS;

/// Holds one thread of another process in the kernel, by v1's freezer: it neither runs nor takes signals.
/// Goes on when this is dropped.
pub(crate) struct Held {
    dir: PathBuf,
    thread: u32,
}

impl Held {
    /// `None` where there is no such freezer.
    ///
    /// # Errors
    /// If it cannot be held.
    pub(crate) fn thread(thread: u32) -> Result<Option<Self>> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let Some((_, path)) = own.lines().find_map(|line| line.split_once(":freezer:")) else {
            return Ok(None);
        };
        let above = Path::new(CGROUPS)
            .join("freezer")
            .join(path.trim_start_matches('/'));
        let dir = above.join(format!("memwatch-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let held = Self { dir, thread };
        held.write("tasks", &thread.to_string())?;
        held.write("freezer.state", "FROZEN")?;
        let patience = Instant::now() + Duration::from_secs(5);
        while !held.is_held()? && Instant::now() < patience {
            sleep(Duration::from_millis(1));
        }
        Ok(Some(held))
    }

    pub(crate) fn is_held(&self) -> Result<bool> {
        let state = fs::read_to_string(self.dir.join("freezer.state"))?;
        Ok(state.trim_end() == "FROZEN")
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.write("freezer.state", "THAWED");
        let _ = fs::write(self.dir.with_file_name("tasks"), self.thread.to_string());
        let _ = fs::remove_dir(&self.dir);
    }
}
