//! A cgroup for one test: on v2, where the BPF programs find their targets, and in the v1 memory
//! hierarchy beside it, where its limit is.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

#[path = "cgroups.rs"]
mod cgroups;

use cgroups::Pair;

/// Far below what the machine has, far above what a shell needs.
const LIMIT: &str = "64M";

/// This process is in a sandbox.
pub(crate) struct Inside {
    before: PathBuf,
}

impl Drop for Inside {
    fn drop(&mut self) {
        fs::write(&self.before, "0").expect("moved back");
    }
}

/// One cgroup of the test's own.
pub(crate) struct Sandbox(Pair);

impl Sandbox {
    /// Below this process's own cgroups. Fails loudly where that cannot be.
    pub(crate) fn new() -> Self {
        Self(Pair::new("bpf", LIMIT))
    }

    /// The id by which the kernel knows the v2 cgroup: the inode of its directory.
    pub(crate) fn id(&self) -> u64 {
        fs::metadata(&self.0.v2)
            .expect("the sandbox is there")
            .ino()
    }

    /// Depth of the v2 cgroup below the root.
    pub(crate) fn level(&self) -> u32 {
        let below_mount = self.0.v2.strip_prefix("/sys/fs/cgroup/unified");
        let depth = below_mount.expect("where it was made").components().count();
        u32::try_from(depth).expect("few")
    }

    /// Another limit from now on.
    #[allow(dead_code, reason = "each test program uses a part of this")]
    pub(crate) fn limit(&self, limit: &str) {
        let file = self.0.memory.join("memory.limit_in_bytes");
        fs::write(file, limit).expect("a limit");
    }

    /// Moves this process into the v2 cgroup, until what is returned is dropped.
    #[allow(dead_code, reason = "each test program uses a part of this")]
    pub(crate) fn enter(&self) -> Inside {
        let own = fs::read_to_string("/proc/self/cgroup").expect("own groups");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let mount = Path::new("/sys/fs/cgroup/unified");
        let inside = Inside {
            before: mount.join(own.expect("v2")).join("cgroup.procs"),
        };
        fs::write(self.0.v2.join("cgroup.procs"), "0").expect("moved in");
        inside
    }

    /// Starts a shell script inside, before its first command.
    pub(crate) fn start(&self, script: &str) -> Child {
        self.start_in(&self.0.v2, script)
    }

    /// Starts a shell script in a cgroup below the sandbox, under the same limit.
    #[allow(dead_code, reason = "each test program uses a part of this")]
    pub(crate) fn start_nested(&self, script: &str) -> Child {
        let nested = self.0.v2.join("nested");
        fs::create_dir(&nested).expect("a cgroup below the sandbox");
        self.start_in(&nested, script)
    }

    fn start_in(&self, v2: &Path, script: &str) -> Child {
        let enter = |dir: &Path| format!("echo $$ > {}/cgroup.procs", dir.display());
        Command::new("sh")
            .arg("-ec")
            .arg(format!(
                "{}; {}; {script}",
                enter(v2),
                enter(&self.0.memory)
            ))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh")
    }
}
