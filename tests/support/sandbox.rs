//! A cgroup for one test: on v2, where the BPF programs find their targets, and in the v1 memory
//! hierarchy beside it, where its limit is. Removed when dropped, with whatever still runs in it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Far below what the machine has, far above what a shell needs.
const LIMIT: &str = "64M";

/// One cgroup of the test's own.
pub(crate) struct Sandbox {
    v2: PathBuf,
    memory: PathBuf,
    level: u32,
}

impl Sandbox {
    /// Below this process's own cgroups. Fails loudly where that cannot be.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("memwatch-test-bpf-{}-{number}", std::process::id());
        let own = fs::read_to_string("/proc/self/cgroup").expect("/proc/self/cgroup");
        let own_path = |prefix: &str| {
            let line = own
                .lines()
                .find_map(|line| line.split_once(prefix).map(|(_, path)| path));
            line.unwrap_or_else(|| {
                panic!("no `{prefix}` in {own:?}: these tests need the hybrid layout")
            })
            .trim_matches('/')
            .to_owned()
        };
        let unified = own_path("0::");
        let sandbox = Self {
            v2: Path::new("/sys/fs/cgroup/unified")
                .join(&unified)
                .join(&name),
            memory: Path::new("/sys/fs/cgroup/memory")
                .join(own_path(":memory:"))
                .join(&name),
            level: 1 + depth(&unified),
        };
        for dir in [&sandbox.v2, &sandbox.memory] {
            fs::create_dir(dir).unwrap_or_else(|error| {
                panic!(
                    "{}: {error}: these tests need root and cgroups",
                    dir.display()
                )
            });
        }
        write(&sandbox.memory.join("memory.limit_in_bytes"), LIMIT);
        sandbox
    }

    /// The id by which the kernel knows the v2 cgroup: the inode of its directory.
    pub(crate) fn id(&self) -> u64 {
        fs::metadata(&self.v2).expect("the sandbox is there").ino()
    }

    /// Depth of the v2 cgroup below the root.
    pub(crate) fn level(&self) -> u32 {
        self.level
    }

    /// Starts a shell script inside, before its first command.
    pub(crate) fn start(&self, script: &str) -> Child {
        self.start_in(&self.v2, script)
    }

    /// Starts a shell script in a cgroup below the sandbox, under the same limit.
    pub(crate) fn start_nested(&self, script: &str) -> Child {
        let nested = self.v2.join("nested");
        fs::create_dir(&nested).expect("a cgroup below the sandbox");
        self.start_in(&nested, script)
    }

    fn start_in(&self, v2: &Path, script: &str) -> Child {
        let enter = |dir: &Path| format!("echo $$ > {}/cgroup.procs", dir.display());
        Command::new("sh")
            .arg("-ec")
            .arg(format!("{}; {}; {script}", enter(v2), enter(&self.memory)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Signals nobody but its members: the sandbox is ours alone.
        let _ = fs::write(self.v2.join("cgroup.kill"), "1");
        for dir in [self.v2.join("nested"), self.v2.clone(), self.memory.clone()] {
            let until = Instant::now() + Duration::from_secs(10);
            while let Err(error) = fs::remove_dir(&dir) {
                if error.kind() == io::ErrorKind::NotFound {
                    break;
                }
                assert!(
                    Instant::now() < until || thread::panicking(),
                    "{}: {error}",
                    dir.display()
                );
                if Instant::now() >= until {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn depth(path: &str) -> u32 {
    let parts = path.split('/').filter(|part| !part.is_empty()).count();
    u32::try_from(parts).expect("few")
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
