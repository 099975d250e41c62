//! A state directory, a configuration, and `memwatch export` with both. Incidents are kept by memwatch's own code.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::SystemTime,
};

use memwatch::{
    config::Incidents,
    export::{Queue, Spool},
    incident::{Kind, Record, Verdict},
};
use tempfile::TempDir;

use super::lab::MEMWATCH;

pub(crate) struct Desk {
    dir: TempDir,
    state: PathBuf,
}

impl Desk {
    pub(crate) fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = Self {
            state: dir.path().join("state"),
            dir,
        };
        desk.configure(config);
        desk
    }

    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.config(), config).expect("room");
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.file("memwatch.toml")
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Where there are as many incidents as the test likes.
    pub(crate) fn spool(&self) -> Spool {
        let bounds = Incidents {
            most: 100_000,
            ..Incidents::default()
        };
        Spool::open(&self.state, &bounds).expect("a spool")
    }

    /// The exporter's queue, from now on.
    pub(crate) fn queue(&self, name: &str) -> Queue {
        let queue = Queue::of(&self.state, name);
        queue.make().expect("a queue");
        queue
    }

    pub(crate) fn keep(&self) -> Record {
        let record = incident();
        self.spool().keep(&record).expect("room");
        record
    }

    /// `memwatch export` with these arguments.
    pub(crate) fn export(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(MEMWATCH);
        command
            .arg("export")
            .args(arguments)
            .env("MEMWATCH_STATE", &self.state)
            .env("MEMWATCH_CONFIG", self.config())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_lowercase();
            if text.starts_with("otel_") || text.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command
    }

    /// What it comes to: its code, and what it said on both.
    pub(crate) fn exported(&self, arguments: &[&str]) -> (Option<i32>, String) {
        said(self.export(arguments).output().expect("it runs"))
    }

    /// The process that delivers, under way; with its log in a file.
    pub(crate) fn deliver(&self) -> Delivering {
        let log = fs::File::options();
        let log = log.clone().create(true).append(true).open(self.file("log"));
        let mut command = self.export(&["run", "--socket"]);
        let child = command
            .arg(self.file("no.sock"))
            .stderr(log.expect("room"))
            .spawn();
        Delivering(child.expect("it runs"))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }
}

pub(crate) fn said(output: Output) -> (Option<i32>, String) {
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

/// Ends with the test.
pub(crate) struct Delivering(Child);

impl Delivering {
    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.0.id()).expect("a pid");
        // SAFETY: no pointers are passed; the child is ours and not reaped yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().expect("ours");
        self.0.wait().expect("ours");
    }

    /// Its code, after SIGTERM.
    pub(crate) fn end(mut self) -> Option<i32> {
        self.signal(libc::SIGTERM);
        self.0.wait().expect("ours").code()
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As one is: a kill.
pub(crate) fn incident() -> Record {
    let now = SystemTime::now();
    let mut record = Record::new(now, now, 1_500_000, Verdict::FinishedWithKills);
    record.kind = Kind::Kill;
    record.peak_bytes = Some(2 << 30);
    record.exit_code = Some(1);
    record.notes = vec!["made by a test".into()];
    record
}

/// One in which everything happened, to processes with hostile names: of the library's own tests, which hold the file
/// to be that.
pub(crate) fn grave() -> Record {
    let kept = include_bytes!("../fixtures/incidents/grave.json");
    Record::from_json(kept).expect("a record")
}
