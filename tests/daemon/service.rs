//! The daemon in cgroups and a state directory of its own, and users with cgroups of theirs.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use memwatch::blackbox::{BlackBox, Frame, TEXT_BYTES, TopOf};
use memwatch::control::{Client, Status, status::Target};
use memwatch::host::psi::Psi;
use memwatch::incident::{Host, Machine};
use memwatch::watch::{MachineFacts, TargetFacts, replay::RecordedLook};
use serde_json::Value;

use super::lab::{Lab, MEMWATCH, Ran, Started, wait_for};
use super::users::block_on;

/// The real daemon.
pub(crate) struct Service {
    lab: Lab,
    started: Option<Started>,
}

impl Service {
    /// Starts it with this configuration, which says nothing of systemd-oomd.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_on(config, |_| ())
    }

    /// The same, with what is to be done first about its state directory, which is not there.
    pub(crate) fn start_on(config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let lab = Lab::new();
        prepare(&lab.file("state"));
        let mut service = Self { lab, started: None };
        service.configure(config);
        // Users must reach the socket, and nothing else in there.
        fs::set_permissions(service.dir(), Permissions::from_mode(0o711)).expect("ours");
        let mut command = service.lab.command(MEMWATCH);
        command
            .arg("daemon")
            .arg("--socket")
            .arg(service.socket())
            .arg("--config")
            .arg(service.lab.file("daemon.toml"))
            .env("STATE_DIRECTORY", service.lab.file("state"));
        service.started = Some(service.lab.start(command));
        wait_for("an answer", || service.ask());
        service
    }

    /// What its configuration says when it is read again.
    pub(crate) fn configure(&self, config: &str) {
        let whole = format!("{config}\n[oomd]\ntakeover = false\n");
        fs::write(self.lab.file("daemon.toml"), whole).expect("room");
    }

    fn dir(&self) -> PathBuf {
        let socket = self.socket();
        socket.parent().expect("a directory").to_owned()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.lab.file("memwatch.sock")
    }

    pub(crate) fn signal(&self, signal: i32) {
        self.started.as_ref().expect("it runs").signal(signal);
    }

    pub(crate) fn said(&self) -> String {
        self.started.as_ref().expect("it runs").stderr()
    }

    fn ask(&self) -> Option<Status> {
        block_on(async {
            let mut client = Client::connect(&self.socket()).await.ok()?;
            client.status().await.ok()
        })
    }

    /// What it guards, by its own account.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.ask().expect("it answers").targets
    }

    /// The one target of that user.
    pub(crate) fn target_of(&self, uid: u32) -> Target {
        wait_for("a user's target", || {
            let targets = self.targets().into_iter();
            targets.into_iter().find(|target| target.uid == Some(uid))
        })
    }

    /// What `memwatch status --json` prints.
    pub(crate) fn status(&self) -> Value {
        let mut command = self.lab.command(MEMWATCH);
        command.args(["status", "--json", "--socket"]);
        command.arg(self.socket());
        let said = command.output().expect("it runs").stdout;
        serde_json::from_slice(&said).expect("JSON")
    }

    /// Where it keeps incidents.
    pub(crate) fn state(&self) -> PathBuf {
        self.lab.file("state")
    }

    /// The incidents that it has kept.
    pub(crate) fn incidents(&self) -> Vec<Value> {
        let dir = self.lab.file("state").join("incidents");
        // It is made when there is time for it.
        let files = fs::read_dir(dir).into_iter().flatten().flatten();
        files
            .filter(|file| file.path().extension().is_some_and(|e| e == "json"))
            .map(|file| fs::read(file.path()).expect("kept"))
            .map(|text| serde_json::from_slice(&text).expect("an incident"))
            .collect()
    }

    /// Kills it as nobody should be; the next memwatch tidies up.
    pub(crate) fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        drop(self.started.take().map(Started::wait));
    }

    /// Ends it as the service manager does.
    pub(crate) fn stop(mut self) -> Ran {
        self.signal(libc::SIGTERM);
        let started = self.started.take().expect("it runs");
        started.wait().expect(0)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut started) = self.started.take() {
            let _ = started.child.kill();
            let _ = started.child.wait();
        }
    }
}

/// What a memwatch of another life of the machine has left below `state`, in the middle of pressure on a target of
/// that user's.
pub(crate) fn leave_black_box(state: &Path, uid: u32) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let look = |at_us: u64| RecordedLook {
        target: TargetFacts {
            current_bytes: 60 << 20,
            psi: Some(Psi {
                some_us: at_us / 2,
                full_us: at_us / 4,
            }),
            ..TargetFacts::default()
        },
        ..RecordedLook::of_machine(at_us, MachineFacts::default())
    };
    let frame = Frame {
        host: Host {
            boot_id: Some("0c5e1a1e-7d35-4d0e-9a43-6a8f3f0b5a11".into()),
            ..Host::default()
        },
        memwatch_version: "0.1.0".into(),
        wall_us: now.expect("after 1970").as_micros() as u64,
        at_us: 60_000_000,
        machine: Machine::default(),
        facts: None,
        targets: vec![TopOf {
            id: 7431,
            name: Some("/sys/fs/cgroup/user.slice/pytest.scope".into()),
            uid: Some(uid),
            looks: (50..60).map(|second| look(second * 1_000_000)).collect(),
        }],
        processes: Vec::new(),
        lost: 0,
    };
    let black_box = BlackBox::open(state, "another").expect("made");
    let text = frame.fitted(0, TEXT_BYTES);
    black_box.expect("one").write(&text).expect("room");
}

/// Cgroups of that user's, and memwatch in them as that user.
pub(crate) struct Home {
    pub(crate) lab: Lab,
    uid: u32,
}

impl Home {
    pub(crate) fn of(uid: u32) -> Self {
        let lab = Lab::new();
        let give = |path: &Path| chown(path, Some(uid), Some(uid)).expect("root");
        for group in [&lab.pair.v2, &lab.pair.memory] {
            give(group);
            for file in [
                "cgroup.procs",
                "cgroup.threads",
                "cgroup.subtree_control",
                "tasks",
            ] {
                let file = group.join(file);
                if file.exists() {
                    give(&file);
                }
            }
        }
        give(lab.file("report.json").parent().expect("a directory"));
        Self { lab, uid }
    }

    /// `memwatch attach` as this user, who has a daemon.
    pub(crate) fn attach(&self, service: &Service, arguments: &[&str]) -> Started {
        let mut command = self.lab.command(MEMWATCH);
        as_user(&mut command, self.uid);
        command
            .args(["attach", "--socket"])
            .arg(service.socket())
            .arg("--report")
            .arg(self.lab.file("report.json"))
            .args(arguments);
        self.lab.start(command)
    }

    /// What `memwatch incidents` prints to this user, and what it says beside.
    pub(crate) fn incidents(&self, service: &Service, arguments: &[&str]) -> (String, String) {
        let mut command = self.lab.command(MEMWATCH);
        as_user(&mut command, self.uid);
        command
            .arg("incidents")
            .args(arguments)
            .arg("--socket")
            .arg(service.socket());
        let output = command.output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (text(output.stdout), text(output.stderr))
    }

    /// A directory on the disk for what this user's programs write.
    pub(crate) fn scratch(&self) -> String {
        let dir = self.lab.file("scratch");
        fs::create_dir_all(&dir).expect("room");
        chown(&dir, Some(self.uid), Some(self.uid)).expect("root");
        dir.display().to_string()
    }
}

fn as_user(command: &mut Command, uid: u32) {
    command.uid(uid).gid(uid);
}
