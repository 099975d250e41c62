//! The real memwatch in cgroups of the test's own: started, waited for with an end to it, its report held
//! against the schema. When the lab goes, everything that memwatch made there must be gone already. Where
//! the cgroups are is `cgroups`'.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use boon::{Compiler, Schemas};
use serde_json::Value;
use tempfile::TempDir;

#[path = "cgroups.rs"]
mod cgroups;

pub(crate) use cgroups::Pair;

/// For what takes milliseconds on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// What all of a test may use; its targets get less.
const LIMIT: &str = "1G";

/// The program under test.
pub(crate) const MEMWATCH: &str = env!("CARGO_BIN_EXE_memwatch");

/// The hogs and innocents.
pub(crate) fn workload() -> String {
    provided("MEMWATCH_TEST_WORKLOAD")
}

/// A Python for scripts that no shell can do.
pub(crate) fn python() -> String {
    provided("MEMWATCH_TEST_PYTHON")
}

fn provided(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run these tests with `cargo xtask test`")
    })
}

/// Cgroups, a directory for files, and memwatch in them.
pub(crate) struct Lab {
    pub(crate) pair: Pair,
    scratch: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self {
            pair: Pair::new("cli", LIMIT),
            scratch: tempfile::tempdir().expect("a directory for files"),
        };
        fs::write(lab.file("no.toml"), "").expect("a file");
        lab
    }

    /// A path for a file of this test.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// Any program, in the lab's cgroups, with no input and no configuration of this machine's.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.scratch.path())
            .env("MEMWATCH_CONFIG", self.file("no.toml"))
            .env("MEMWATCH_STATE", self.file("state"))
            .env("SHELL", "/bin/sh")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        self.pair.confine(&mut command);
        command
    }

    /// memwatch with these arguments after `attach`.
    pub(crate) fn memwatch(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.command(MEMWATCH);
        command.arg("attach").args(arguments);
        command
    }

    /// The same with a report, run to its end.
    pub(crate) fn attach(&self, arguments: &[impl AsRef<OsStr>]) -> Ran {
        self.start(self.reporting(arguments)).wait()
    }

    pub(crate) fn reporting(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let report: OsString = self.file("report.json").into();
        let mut all = vec!["--report".into(), report];
        all.extend(
            arguments
                .iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self.memwatch(&all)
    }

    /// Starts it with its output in files, which background processes may hold open without harm.
    pub(crate) fn start(&self, mut command: Command) -> Started {
        let report = self.file("report.json");
        let _ = fs::remove_file(&report);
        let [out, err] = ["out", "err"].map(|name| self.file(name));
        let open = |path: &Path| File::create(path).expect("a file for output");
        let child = command.stdout(open(&out)).stderr(open(&err)).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Started {
            child,
            out,
            err,
            report,
        }
    }

    pub(crate) fn run(&self, command: Command) -> Ran {
        self.start(command).wait()
    }

    /// What memwatch has made here and not removed.
    pub(crate) fn targets(&self) -> Vec<PathBuf> {
        [&self.pair.v2, &self.pair.memory]
            .into_iter()
            .flat_map(|dir| memwatch::host::cgroup::descendants(dir))
            .filter(|dir| is_target(dir))
            .collect()
    }

    /// The one target on v2, as soon as it is there.
    pub(crate) fn target(&self) -> PathBuf {
        let here = || {
            self.targets()
                .into_iter()
                .find(|dir| dir.starts_with(&self.pair.v2))
        };
        wait_for("a target", here)
    }

    /// Waits until the guard in the kernel stands over the one target, as `memwatch`, of whatever build, says.
    pub(crate) fn wait_for_guard(&self, memwatch: &Path) {
        let line = format!("{}: armed, its memwatch lives", self.target().display());
        wait_until("the guard", || {
            let mut list = self.command(memwatch);
            let list = list.args(["guard", "list"]).output().expect("it runs");
            String::from_utf8_lossy(&list.stdout).contains(&line)
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(
                self.targets(),
                [] as [&Path; 0],
                "memwatch left these behind"
            );
        }
    }
}

fn is_target(dir: &Path) -> bool {
    let name = dir.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.len() == "memwatch-".len() + 8 && name.starts_with("memwatch-")
}

/// A program under way.
pub(crate) struct Started {
    pub(crate) child: Child,
    out: PathBuf,
    err: PathBuf,
    report: PathBuf,
}

impl Started {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: no pointers are passed; the child is ours and not reaped yet.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// What it came to.
    pub(crate) fn wait(mut self) -> Ran {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                panic!("it did not end within {PATIENCE:?}: {}", self.stderr());
            }
            thread::sleep(Duration::from_millis(3));
        };
        let report = fs::read(&self.report).ok();
        Ran {
            status,
            out: fs::read(&self.out).expect("its output"),
            err: self.stderr(),
            report: report.map_or(Value::Null, |text| valid_report(&text)),
        }
    }
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
    /// `null` if it wrote none.
    pub(crate) report: Value,
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Fails, with all that is known, unless it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self
    }

    /// Fails unless the report, and memwatch's exit code with it, ends like this.
    #[track_caller]
    pub(crate) fn expect_verdict(self, verdict: &str, code: i32) -> Self {
        let ran = self.expect(code);
        assert_eq!(ran.report["verdict"], verdict, "{ran:#?}");
        assert_eq!(ran.report["exit_code"], code, "{ran:#?}");
        ran
    }

    /// Fails unless memwatch said no in one line that has all of `parts`, and left no report.
    #[track_caller]
    pub(crate) fn expect_refusal(self, parts: &[&str]) -> Self {
        let ran = self.expect(125);
        let said = ran.err.trim_end();
        assert!(
            said.starts_with("memwatch: ") && !said.contains(['\n', '\x1b']),
            "{said:?}"
        );
        for part in parts {
            assert!(said.contains(part), "no `{part}` in: {said}");
        }
        assert_eq!(ran.report, Value::Null);
        ran
    }
}

/// Parses a report that is what the schema says.
fn valid_report(text: &[u8]) -> Value {
    let report: Value = serde_json::from_slice(text).expect("a report is JSON");
    let schema = serde_json::from_str(include_str!("../../docs/incident-v1.schema.json"));
    let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
    compiler
        .add_resource("memory:schema", schema.expect("the schema is JSON"))
        .expect("the schema is a resource");
    let root = compiler
        .compile("memory:schema", &mut schemas)
        .expect("the schema is one");
    if let Err(error) = schemas.validate(&report, root) {
        panic!("{error:#}\n{report:#}");
    }
    report
}

/// What `look` finds, as soon as it finds something.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "no {what} within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(3));
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// Whether a process runs: not gone, and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .starts_with(" Z")
    })
}
