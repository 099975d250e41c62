//! Cgroups of a test's own: one on v2 and one in the v1 memory hierarchy beside it, where the limit is.
//! Removed when dropped, with whatever still runs in them and whatever was made below. What is done with
//! them is `sandbox`'s and `lab`'s.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A cgroup on v2 and its memory group.
pub(crate) struct Pair {
    pub(crate) v2: PathBuf,
    pub(crate) memory: PathBuf,
}

impl Pair {
    /// Below this process's own cgroups. Fails loudly where that cannot be.
    pub(crate) fn new(kind: &str, limit: &str) -> Self {
        // SAFETY: reads one number of this process.
        assert_eq!(unsafe { libc::geteuid() }, 0, "these tests need root");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("memwatch-test-{kind}-{}-{number}", std::process::id());
        let mount = Path::new("/sys/fs/cgroup");
        Self::make(
            mount.join("unified").join(own("0::")).join(&name),
            mount.join("memory").join(own(":memory:")).join(&name),
            limit,
        )
    }

    /// A pair below this one.
    pub(crate) fn below(&self, name: &str, limit: &str) -> Self {
        Self::make(self.v2.join(name), self.memory.join(name), limit)
    }

    fn make(v2: PathBuf, memory: PathBuf, limit: &str) -> Self {
        let pair = Self { v2, memory };
        for dir in [&pair.v2, &pair.memory] {
            fs::create_dir(dir).unwrap_or_else(|error| {
                panic!("{}: {error}: these tests need cgroups", dir.display())
            });
        }
        pair.limit(limit);
        pair
    }

    /// Sets another limit.
    pub(crate) fn limit(&self, limit: &str) {
        let file = self.memory.join("memory.limit_in_bytes");
        fs::write(&file, limit).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// Has `command` move here before its first instruction.
    pub(crate) fn confine(&self, command: &mut Command) {
        let mut doors = [&self.v2, &self.memory].map(|dir| {
            let options = File::options().write(true).clone();
            options.open(dir.join("cgroup.procs")).expect("our cgroup")
        });
        // SAFETY: two writes; 0 is the writer itself.
        unsafe {
            command.pre_exec(move || doors.iter_mut().try_for_each(|door| door.write_all(b"0")))
        };
    }

    /// The processes in it and below.
    pub(crate) fn pids(&self) -> Vec<u32> {
        memwatch::host::cgroup::pids(&self.v2)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Signals nobody but its members: the pair is the test's alone.
        let _ = fs::write(self.v2.join("cgroup.kill"), "1");
        remove(&self.v2);
        remove(&self.memory);
    }
}

/// This process's cgroup in the hierarchy whose line in `/proc/self/cgroup` has `prefix`.
fn own(prefix: &str) -> String {
    let own = fs::read_to_string("/proc/self/cgroup").expect("/proc/self/cgroup");
    let path = own
        .lines()
        .find_map(|line| line.split_once(prefix).map(|(_, path)| path));
    path.unwrap_or_else(|| panic!("no `{prefix}` in {own:?}: these tests need the hybrid layout"))
        .trim_matches('/')
        .to_owned()
}

/// Waits, with an end to it, for those who are just dying.
fn remove(dir: &Path) {
    for below in memwatch::host::cgroup::nested(dir) {
        remove(&below);
    }
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = fs::remove_dir(dir) {
        if error.kind() == io::ErrorKind::NotFound || thread::panicking() && Instant::now() > until
        {
            break;
        }
        assert!(Instant::now() < until, "{}: {error}", dir.display());
        thread::sleep(Duration::from_millis(10));
    }
}
