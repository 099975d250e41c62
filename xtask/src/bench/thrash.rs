//! A target that thrashes under the guard's eyes, with a memwatch over it that never acts by itself:
//! started, memwatch struck by a signal, and what became of both. What must come of it is `guard`'s.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::maps::is_armed;
use super::programs;
use super::victim::{GRAIN, Victim};
use crate::machine::v2_mount;
use crate::soak::CULPRIT_FILE;
use crate::workspace::Release;

pub(crate) const LIMIT: &str = "64M";
/// It ends by itself then, counted from its start, so that one that nobody kills ends the run too.
pub(crate) const SECONDS: u32 = 20;
/// For loading the programs, and for a file of twice the limit.
const PATIENCE: Duration = Duration::from_secs(20);

/// With this no stall is too much for memwatch itself. The guard's settings are the defaults.
const NEVER_ACTS: &str = "[policy]\nrefault_pages_per_s = 1000000\nhang_full_permille = 1000\n";

/// Programs and files of the runs.
pub(crate) struct Ground<'a> {
    pub(crate) release: &'a Release,
    pub(crate) scratch: &'a Path,
    /// Of a memwatch that never acts.
    pub(crate) config: PathBuf,
}

impl<'a> Ground<'a> {
    pub(crate) fn new(release: &'a Release, scratch: &'a Path) -> Result<Self> {
        let config = scratch.join("never-acts.toml");
        fs::write(&config, NEVER_ACTS)?;
        Ok(Self {
            release,
            scratch,
            config,
        })
    }

    /// `memwatch attach` with that configuration.
    pub(crate) fn attach(&self) -> Command {
        let mut command = Command::new(&self.release.memwatch);
        command
            .args(["attach", "--quiet", "--config"])
            .arg(&self.config);
        command
    }

    /// The file `name` of these runs, which an earlier one may have left.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        if path.exists() {
            fs::remove_file(&path)?;
        }
        Ok(path)
    }
}

/// memwatch, which a signal may have stopped: gone when this is dropped, with its target. That ends by
/// itself.
struct Memwatch(Child);

impl Memwatch {
    fn signal(&self, signal: i32) {
        // SAFETY: no pointers; a child that was not waited for keeps its pid.
        unsafe { libc::kill(self.0.id() as i32, signal) };
    }
}

impl Drop for Memwatch {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.signal(libc::SIGCONT);
            let _ = self.0.wait();
        }
    }
}

/// A shell in a target, which waits for its child that thrashes and then says how it ended.
pub(crate) struct Thrash {
    /// While it is held, the shell stays.
    stay: ChildStdin,
    words: BufReader<ChildStdout>,
    memwatch: Memwatch,
    report: PathBuf,
    /// Since when it thrashes, and the guard stands.
    since: Instant,
    /// The process that thrashes.
    pub(crate) thrasher: Victim,
    /// The target.
    pub(crate) cgroup: PathBuf,
}

impl Thrash {
    /// Starts one that thrashes for `seconds`, its file included, and waits until it does and the guard
    /// stands over it.
    ///
    /// # Errors
    /// If it does not come to that.
    pub(crate) fn start(ground: &Ground<'_>, seconds: u32, options: &str) -> Result<Self> {
        let [culprit, report] = [ground.fresh("culprit")?, ground.fresh("report.json")?];
        let script = format!(
            "{} thrash --seconds {seconds} --dir {} {options}; echo $?; read end",
            ground.release.workload.display(),
            ground.scratch.display(),
        );
        let mut memwatch = Memwatch(
            ground
                .attach()
                .args(["--memory-max", LIMIT, "--report"])
                .arg(&report)
                .args(["--", "sh", "-c", &script])
                .env(CULPRIT_FILE, &culprit)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?,
        );
        // Declared after it, and so dropped before: memwatch is only waited for when nothing holds it.
        let stay = memwatch.0.stdin.take().expect("piped");
        let words = memwatch.0.stdout.take().expect("piped");
        programs::wait_for_links(memwatch.0.id(), PATIENCE)?;
        wait_for("the guard does not stand", || Ok(is_armed()?.then_some(())))?;
        // It says who it is before it reads its first page.
        let thrasher = wait_for("the target does not thrash", || Victim::named_in(&culprit))?;
        Ok(Self {
            stay,
            words: BufReader::new(words),
            memwatch,
            report,
            since: Instant::now(),
            cgroup: cgroup_of(thrasher.pid)?,
            thrasher,
        })
    }

    /// Lets it thrash until it has for so long.
    pub(crate) fn go_on_for(&self, time: Duration) {
        sleep(time.saturating_sub(self.since.elapsed()));
    }

    /// Strikes memwatch.
    pub(crate) fn signal(&self, signal: i32) {
        self.memwatch.signal(signal);
    }

    /// Waits for the thrasher's death, or for its end if nobody kills it; whether it was asleep before.
    pub(crate) fn outlive(&self) -> bool {
        let mut slept = false;
        while !self.thrasher.is_exiting() {
            slept |= self.thrasher.is_asleep();
            sleep(GRAIN);
        }
        slept
    }

    /// How the thrasher ended, as the shell beside it saw it. memwatch must be able to run, or be dead.
    pub(crate) fn last_words(&mut self) -> Result<String> {
        let mut status = String::new();
        self.words.read_line(&mut status)?;
        Ok(status.trim_end().to_owned())
    }

    /// Lets the shell go too, and waits for the last of the target and for memwatch; what that reports,
    /// unless it is dead.
    pub(crate) fn end(mut self) -> Result<Option<Value>> {
        drop(self.stay);
        wait_for("the target does not end", || {
            // Gone: memwatch has removed it.
            let events = fs::read_to_string(self.cgroup.join("cgroup.events"));
            let is_empty = events.map_or(true, |events| events.contains("populated 0"));
            Ok(is_empty.then_some(()))
        })?;
        let status = self.memwatch.0.wait()?;
        let told = status.code().is_some();
        let report = told.then(|| fs::read(&self.report)).transpose()?;
        Ok(report
            .map(|text| serde_json::from_slice(&text))
            .transpose()?)
    }
}

fn wait_for<T>(otherwise: &'static str, look: impl Fn() -> Result<Option<T>>) -> Result<T> {
    let patience = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(Instant::now() < patience, otherwise);
        sleep(GRAIN);
    }
}

/// The v2 cgroup that a process is in.
fn cgroup_of(pid: u32) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.with_context(|| format!("process {pid} is in no cgroup v2"))?;
    Ok(v2_mount()?.join(path))
}
