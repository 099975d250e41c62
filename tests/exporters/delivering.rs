//! `memwatch export run` beside the real daemon: what its configuration says Prometheus and the journal get.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use super::journal::Journald;
use super::lab::{Lab, MEMWATCH, wait_for, wait_until};
use super::prometheus::Prometheus;
use super::receiver::{Running, free_address, get, succeed};
use super::service::Service;

/// A state directory and a configuration, for root's `memwatch export`.
pub(crate) struct Exporting {
    lab: Lab,
}

impl Exporting {
    pub(crate) fn new(config: &str) -> Self {
        let lab = Lab::new();
        let file = lab.file("export.toml");
        fs::write(&file, config).expect("room");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("ours");
        fs::create_dir(lab.file("state")).expect("room");
        Self { lab }
    }

    /// `memwatch export` with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(MEMWATCH);
        self.prepare(&mut command);
        command.arg("export").args(arguments);
        command
    }

    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.lab.file(name)
    }

    fn prepare(&self, command: &mut Command) {
        command
            .env("MEMWATCH_CONFIG", self.lab.file("export.toml"))
            // What cargo sets for all tests comes before what a service is given.
            .env_remove("MEMWATCH_STATE")
            .env("STATE_DIRECTORY", self.lab.file("state"))
            .current_dir("/");
    }
}

#[test]
fn prometheus_finds_the_daemon_where_the_configuration_says() {
    let service = Service::start("");
    let (at, dir) = (free_address(), tempfile::tempdir().expect("a directory"));
    let exporting = Exporting::new(&format!(
        "[prometheus]\nlisten = \"{at}\"\ntextfile = \"{}\"\n[export.journal]\n",
        dir.path().display()
    ));
    let mut run = exporting.command(&["run", "--socket"]);
    let running = Running::start(run.arg(service.socket()));
    let prometheus = Prometheus::scraping(at, None);
    let one = |query: &str| prometheus.query(query).into_values().next();
    wait_until("a scrape", || one("memwatch_daemon_up") == Some(1.0));
    assert_eq!(
        one("memwatch_exporter_waiting{exporter=\"journal\"}"),
        Some(0.0)
    );
    assert_eq!(one("memwatch_incidents_kept"), Some(0.0));
    let page = wait_for("the file", || {
        fs::read_to_string(dir.path().join("memwatch.prom")).ok()
    });
    assert!(page.contains("memwatch_daemon_up 1\n"), "{page}");

    // Read again, it listens elsewhere; the file is not written any more, and goes.
    let there = free_address();
    let config = exporting.lab.file("export.toml");
    fs::write(config, format!("[prometheus]\nlisten = \"{there}\"\n")).expect("room");
    running.signal(libc::SIGHUP);
    wait_until("the page there", || get(there, "/metrics").is_some());
    wait_until("nothing here", || get(at, "/metrics").is_none());
    assert!(!dir.path().join("memwatch.prom").exists());
    running.signal(libc::SIGTERM);
    service.stop();
}

#[test]
fn a_test_of_the_exporters_is_in_the_journal() {
    let journald = Journald::start();
    let exporting = Exporting::new("[export.journal]\n");
    // journald listens where memwatch looks for it, in a view of memwatch's own.
    let place = Path::new("/run/systemd/journal");
    let made = fs::create_dir(place).is_ok();
    let socket = journald.socket();
    let script = format!(
        "mount --bind {} {} && exec {MEMWATCH} export test journal",
        socket.parent().expect("a directory").display(),
        place.display()
    );
    let mut command = Command::new("unshare");
    exporting.prepare(&mut command);
    let said = succeed(command.args(["--mount", "sh", "-c", &script]));
    if made {
        fs::remove_dir(place).expect("empty");
    }
    let id = "MESSAGE_ID=5e2ae2b117834be9a91f5619247af87b";
    assert!(said.contains(id), "{said}");
    wait_until("the entry", || !journald.entries(id).is_empty());
    let entry = &journald.entries(id)[0];
    assert_eq!(entry["MEMWATCH_KIND"], "test");
    assert_eq!(entry["PRIORITY"], "6");
}
