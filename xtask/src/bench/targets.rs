//! What the daemon takes with a thousand targets that do nothing: processor time and memory.
//!
//! Each target is a cgroup with a process that sleeps. Where the memory controller is on v1 the targets have none,
//! and usage is not among what is read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::agent::mib;
use super::statistics::judge;
use super::table;
use super::watched::cpu_ns;
use crate::machine::v2_mount;
use crate::workspace::Release;

const TARGETS: usize = 1000;
const GOAL_CPU_PERCENT: f64 = 1.0;
const GOAL_MIB: f64 = 32.0;
/// Each gets a row in the kernel and files of its own.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is touched at the start is there by then, and what is given back is gone.
const SETTLED: Duration = Duration::from_secs(15);

/// Measures and prints; `time` is how long the daemon is watched.
///
/// # Errors
/// If the daemon does not take all of them on, or `/proc` cannot be read.
pub(crate) fn run(release: &Release, scratch: &Path, time: Duration) -> Result<()> {
    table::headline(
        "targets",
        "what the daemon takes with a thousand idle targets",
    );
    let crowd = Crowd::make(TARGETS)?;
    let daemon = Daemon::start(release, scratch, &crowd)?;
    daemon.wait_for(TARGETS)?;
    sleep(SETTLED.min(time));
    let (before, began) = (cpu_ns(daemon.process.id())?, Instant::now());
    sleep(time);
    let used = cpu_ns(daemon.process.id())? - before;
    let percent = used as f64 / began.elapsed().as_nanos() as f64 * 100.0;
    table::figure(
        "processor time",
        &format!("{percent:.3} % of a core over {} s", time.as_secs()),
        &format!("<= {GOAL_CPU_PERCENT} %"),
        judge(percent, GOAL_CPU_PERCENT),
    );
    let proc = format!("/proc/{}", daemon.process.id());
    let status = fs::read_to_string(format!("{proc}/status"))?;
    let resident = mib(&status, "VmRSS:")?;
    let anonymous = mib(&status, "RssAnon:")?;
    table::figure(
        "resident memory",
        &format!("{resident:.1} MiB ({anonymous:.1} anonymous)"),
        &format!("<= {GOAL_MIB} MiB"),
        judge(resident, GOAL_MIB),
    );
    daemon.wait_for(TARGETS)
}

/// Cgroups with a sleeping process each. Gone when dropped.
struct Crowd {
    dir: PathBuf,
    sleepers: Vec<Child>,
}

impl Crowd {
    fn make(size: usize) -> Result<Self> {
        let dir = v2_mount()?.join(format!("memwatch-bench-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut crowd = Self {
            dir,
            sleepers: Vec::with_capacity(size),
        };
        for n in 0..size {
            let dir = crowd.dir.join(format!("t-{n}"));
            fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            let sleeper = Command::new("sleep").arg("3600").spawn();
            crowd.sleepers.push(sleeper.context("cannot start sleep")?);
            let pid = crowd.sleepers[n].id().to_string();
            fs::write(dir.join("cgroup.procs"), pid)
                .with_context(|| format!("cannot move a process into {}", dir.display()))?;
        }
        Ok(crowd)
    }

    /// By which the configuration names them.
    fn pattern(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        format!("/{name}/t-*")
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for sleeper in &mut self.sleepers {
            let _ = sleeper.kill();
        }
        for sleeper in &mut self.sleepers {
            let _ = sleeper.wait();
        }
        let cgroups = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for cgroup in cgroups.filter(|entry| entry.path().is_dir()) {
            let _ = fs::remove_dir(cgroup.path());
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

struct Daemon {
    process: Child,
    memwatch: PathBuf,
}

impl Daemon {
    fn start(release: &Release, scratch: &Path, crowd: &Crowd) -> Result<Self> {
        let config = scratch.join("targets.toml");
        let text = format!(
            "[[watch]]\ncgroups = [{:?}]\n[oomd]\ntakeover = false\n",
            crowd.pattern()
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let process = Command::new(&release.memwatch)
            .args(["daemon", "--quiet", "--config"])
            .arg(&config)
            .env("STATE_DIRECTORY", scratch.join("state"))
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the daemon")?;
        Ok(Self {
            process,
            memwatch: release.memwatch.clone(),
        })
    }

    /// Waits until it guards so many targets, the guard in the kernel with it.
    fn wait_for(&self, wanted: usize) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let guarded = self.guarded().unwrap_or(0);
            if guarded == wanted {
                return Ok(());
            }
            ensure!(
                Instant::now() < until,
                "the daemon guards {guarded} of {wanted} targets"
            );
            sleep(Duration::from_millis(200));
        }
    }

    fn guarded(&self) -> Result<usize> {
        let said = Command::new(&self.memwatch)
            .args(["status", "--json"])
            .output()?;
        let status: Value = serde_json::from_slice(&said.stdout)?;
        let targets = status["targets"].as_array().context("no targets")?;
        let both = |target: &&Value| target["guarded_by"] == "daemon_and_kernel_guard";
        Ok(targets.iter().filter(both).count())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It takes its programs with it only when it is asked.
        // SAFETY: a system call on numbers; the process is ours and not waited for yet.
        unsafe { libc::kill(self.process.id() as i32, libc::SIGTERM) };
        let _ = self.process.wait();
    }
}
