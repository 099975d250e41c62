//! What the configuration names.

use std::process::{Child, Stdio};
use std::time::SystemTime;

use memwatch::config::Incidents;
use memwatch::control::status::GuardedBy;
use memwatch::export::Spool;
use memwatch::host::cgroup;
use memwatch::incident::{Record, Verdict};

use super::lab::{Lab, MEMWATCH, Pair, wait_for, wait_until};
use super::service::Service;

/// A cgroup with a sleeper in it. What it is called in the configuration.
struct Watched {
    sleeper: Child,
    cgroup: Pair,
    watching: String,
    lab: Lab,
}

impl Watched {
    fn new() -> Self {
        let lab = Lab::new();
        let cgroup = lab.pair.below("watched", "64M");
        let name = lab.pair.v2.file_name().expect("a name").to_string_lossy();
        let watching = format!("[[watch]]\ncgroups = [\"/**/{name}/watched\"]\n");
        let mut sleep = std::process::Command::new("sleep");
        cgroup.confine(&mut sleep);
        let sleeper = sleep.arg("600").stdin(Stdio::null()).spawn();
        Self {
            sleeper: sleeper.expect("sleep"),
            cgroup,
            watching,
            lab,
        }
    }

    fn path(&self) -> String {
        self.cgroup.v2.display().to_string()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

#[test]
fn what_the_configuration_names_is_guarded_until_a_right_one_does_not_name_it() {
    let watched = Watched::new();
    let service = Service::start(&watched.watching);
    let target = wait_for("the target", || service.targets().pop());
    let told = service.status();
    assert_eq!(
        told["targets"].as_array().map(Vec::len),
        Some(1),
        "{told:#}"
    );
    let told = &told["targets"][0];
    assert_eq!(told["id"], target.id);
    assert_eq!(told["cgroup"], watched.path());
    assert_eq!(told["uid"], serde_json::Value::Null);
    assert_eq!(told["processes"], 1);

    service.configure("[[watch]]\ncgroups = [7]\n");
    service.signal(libc::SIGHUP);
    wait_until("a refusal", || {
        service
            .said()
            .contains("the configuration before stays in force")
    });
    assert_eq!(service.targets().len(), 1, "{}", service.said());

    service.configure("");
    service.signal(libc::SIGHUP);
    wait_until("no target", || service.targets().is_empty());
    service.stop();
}

#[test]
fn three_runs_and_a_daemon_share_one_set_of_programs_and_outlive_each_other() {
    let watched = Watched::new();
    let lab = &watched.lab;
    let service = Service::start(&watched.watching);
    let target = wait_for("the target", || service.targets().pop());
    let runs = [(); 3].map(|()| lab.start(lab.memwatch(&["--", "sleep", "600"])));
    let armed = || {
        let rows = memwatch::bpf::standing(memwatch::bpf::SHARED.as_ref()).unwrap_or_default();
        let armed = rows.iter().filter(|row| row.armed && row.owner_lives);
        armed.map(|row| row.cgroup_id).collect::<Vec<_>>()
    };
    // Below the lab are the v1 groups of the runs, too, which no program counts.
    let runs_armed = || {
        let ids = lab.targets();
        let ids = ids.iter().filter_map(|dir| cgroup::id(dir).ok());
        ids.filter(|id| armed().contains(id)).count()
    };
    let is_daemons_armed = || armed().contains(&target.id);
    wait_until("three runs and the daemon", || {
        runs_armed() == 3 && is_daemons_armed()
    });

    service.stop();
    wait_until("an end of the daemon's", || !is_daemons_armed());
    for (ended, run) in runs.into_iter().enumerate() {
        assert_eq!(runs_armed(), 3 - ended, "who runs needs it still");
        run.signal(libc::SIGTERM);
        run.wait();
    }
    assert_eq!(runs_armed(), 0);
}

#[test]
fn the_daemon_after_one_that_died_takes_its_targets_over_from_the_guard_of_the_dead() {
    let watched = Watched::new();
    let guarded = |service: &Service| {
        wait_until("the guard", || {
            let targets = service.targets();
            targets
                .iter()
                .any(|target| target.guarded_by == GuardedBy::DaemonAndKernelGuard)
        });
    };
    let mut first = Service::start(&watched.watching);
    guarded(&first);
    first.kill();
    let second = Service::start(&watched.watching);
    guarded(&second);
    let list = watched
        .lab
        .command(MEMWATCH)
        .args(["guard", "list"])
        .output();
    let list = String::from_utf8(list.expect("it runs").stdout).expect("text");
    // A row of the dead beside it would have the kernel kill, whatever signs of life the living give.
    let lines: Vec<&str> = list
        .lines()
        .filter(|line| line.contains(&watched.path()))
        .collect();
    assert_eq!(lines.len(), 1, "{list}");
    assert!(lines[0].ends_with("armed, its memwatch lives"), "{list}");
    second.stop();
}

#[test]
fn how_exporters_do_is_in_the_status() {
    let config = "[export.hook]\ntype = 'webhook'\nurl = 'http://127.0.0.1:1/'\n";
    let service = Service::start(config);
    let told = |state: &str| {
        let status = service.status();
        let told = status["exporters"][0].clone();
        told["name"] == "hook"
            && told["state"]
                .as_str()
                .is_some_and(|said| said.starts_with(state))
    };
    wait_until("a queue", || told("up to date"));
    let spool = Spool::open(&service.state(), &Incidents::default()).expect("its own");
    let now = SystemTime::now();
    let record = Record::new(now, now, 0, Verdict::Ongoing);
    spool.keep(&record).expect("room");
    wait_until("what waits", || told("1 wait"));
    service.stop();
}
