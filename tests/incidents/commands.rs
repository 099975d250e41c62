//! `memwatch incidents` as a user meets it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memwatch::incident::Record;
use tempfile::TempDir;

use super::storm::storm;

/// A home with incidents in it.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let home = Self { directory };
        fs::create_dir_all(home.incidents()).expect("made");
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn incidents(&self) -> PathBuf {
        self.path().join("state/memwatch/incidents")
    }

    fn keep(&self, record: &Record) {
        let file = self.incidents().join(format!("{}.json", record.id));
        fs::write(file, record.to_json()).expect("room");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memwatch"));
        command
            .arg("incidents")
            .args(arguments)
            .current_dir(self.path())
            .env("MEMWATCH_STATE", self.path().join("state/memwatch"))
            .env("XDG_CACHE_HOME", self.path().join("cache"))
            .env_remove("STATE_DIRECTORY");
        command
    }

    /// The exit code, what was printed, and what was said beside it.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(arguments).output().expect("memwatch runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

#[test]
fn incidents_are_listed_the_newest_last_and_found_by_a_few_letters() {
    let home = Home::new();
    let (code, said, _) = home.run(&["list"]);
    assert_eq!((code, said.as_str()), (Some(0), "No incidents.\n"));
    let mut records = [storm(3, 5), storm(3, 5), storm(3, 5)];
    for (n, record) in records.iter_mut().enumerate() {
        record.id = uuid::Uuid::from_u128((n as u128 + 1) << 120);
        home.keep(record);
    }
    fs::write(
        home.incidents()
            .join(format!("{}.json", uuid::Uuid::from_u128(9))),
        "{\"sche",
    )
    .expect("room");
    let (code, list, beside) = home.run(&["list"]);
    assert_eq!(code, Some(0));
    let lines: Vec<_> = list.lines().collect();
    assert_eq!(lines.len(), 4, "{list}");
    assert!(
        lines[1].starts_with("01000000") && lines[3].starts_with("03000000"),
        "{list}"
    );
    assert!(lines[1].contains("python3 (4250)"), "{list}");
    assert!(
        beside.contains("passed over") && beside.contains("holds no incident"),
        "{beside}"
    );

    assert_eq!(home.run(&[]).1, list);

    let (_, json, _) = home.run(&["list", "--json", "--since", "2026-03-01"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json.as_array().expect("a list").len(), 3);
    let (_, none, _) = home.run(&["list", "--since", "1h"]);
    assert_eq!(none, "No incidents.\n");

    let (code, shown, _) = home.run(&["show", "02"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.starts_with("incident 02000000-0000-0000-0000-000000000000: kill, "),
        "{shown}"
    );
    assert!(
        shown.contains("why      exhaustion at") && shown.contains("memory   "),
        "{shown}"
    );
    assert!(
        shown.contains('█') && shown.contains("K SIGKILL"),
        "{shown}"
    );
    let (_, last, _) = home.run(&["show"]);
    assert!(last.contains("incident 03000000"), "{last}");
    let (_, json, _) = home.run(&["show", "last", "--json"]);
    assert_eq!(
        Record::from_json(json.as_bytes()).expect("a record"),
        records[2]
    );

    let (code, _, beside) = home.run(&["show", "0"]);
    assert_eq!(code, Some(125));
    assert!(beside.contains("give more of it"), "{beside}");
    let (code, _, beside) = home.run(&["show", "ff"]);
    assert_eq!(code, Some(125));
    assert!(beside.contains("no incident begins with `ff`"), "{beside}");
}

#[test]
fn a_report_is_shown_and_drawn_by_its_path() {
    let home = Home::new();
    let report = home.path().join("report.json");
    let record = storm(3, 5);
    fs::write(&report, record.to_json()).expect("room");
    let (code, shown, beside) = home.run(&["show", "report.json"]);
    assert_eq!(code, Some(0), "{beside}");
    assert!(shown.contains(&record.id.to_string()), "{shown}");
    let (code, printed, beside) = home.run(&["html", "report.json"]);
    assert_eq!(code, Some(0), "{beside}");
    let files: Vec<&Path> = printed.lines().map(Path::new).collect();
    assert_eq!(
        files[0],
        home.path()
            .join(format!("cache/memwatch/{}.html", record.id))
    );
    assert!(
        fs::read_to_string(files[0])
            .expect("there")
            .starts_with("<!DOCTYPE html>")
    );
    let trace = fs::read(files[1]).expect("there");
    let trace: serde_json::Value = serde_json::from_slice(&trace).expect("JSON");
    assert!(
        trace["traceEvents"]
            .as_array()
            .is_some_and(|events| events.len() > 50)
    );
    let (_, printed, _) = home.run(&["html", "./report.json", "-o", "out.html"]);
    assert_eq!(printed, "out.html\nout.trace.json\n");
    assert!(home.path().join("out.trace.json").exists());
    for (file, content) in [
        ("notes.txt", "hello"),
        ("later.json", r#"{"schema_version":99}"#),
    ] {
        fs::write(home.path().join(file), content).expect("room");
        let (code, _, beside) = home.run(&["show", file]);
        assert_eq!(code, Some(125));
        assert!(beside.contains("holds no incident"), "{beside}");
    }
}

#[test]
fn without_anything_to_open_it_the_path_is_said() {
    let home = Home::new();
    home.keep(&storm(3, 5));
    let mut open = home.command(&["open"]);
    let output = open
        .env("PATH", home.path())
        .output()
        .expect("memwatch runs");
    let (printed, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}");
    assert!(Path::new(printed.trim()).exists(), "{printed}");
    assert!(
        said.contains("there is no xdg-open here; open this file in a browser yourself"),
        "{said}"
    );

    // Where there is one, it gets the page and nothing else.
    let opener = home.path().join("xdg-open");
    fs::write(&opener, "#!/bin/sh\nprintf '%s\\n' \"$#\" \"$1\" >opened\n").expect("room");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&opener, executable).expect("ours");
    let mut open = home.command(&["open", "last"]);
    let output = open
        .env("PATH", home.path())
        .output()
        .expect("memwatch runs");
    let opened = fs::read_to_string(home.path().join("opened")).expect("it ran");
    assert_eq!(
        opened,
        format!("1\n{}", String::from_utf8_lossy(&output.stdout))
    );
}

/// The machine whose freezes memwatch was made for, as an operator meets it.
#[test]
fn the_third_freeze_is_shown_with_its_onset_its_cause_and_what_to_do() {
    let home = Home::new();
    let json = include_bytes!("../fixtures/incidents/third-freeze.json");
    let record = Record::from_json(json).expect("a record");
    home.keep(&record);
    let (code, list, beside) = home.run(&["list"]);
    assert_eq!((code, beside.as_str()), (Some(0), ""));
    assert!(
        list.contains("hard reset") && list.contains("pytest"),
        "{list}"
    );
    let (code, shown, _) = home.run(&["show", &record.short_id()]);
    assert_eq!(code, Some(0), "{shown}");
    // Lines are broken where they end: words tell.
    let told = shown.replace("memwatch:", "");
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "onset at or before 2026-03-01T09:09:16Z",
        "sign systemd-oomd lost: it gave no sign of life since 2026-03-01T09:09:16Z or before; systemd's watchdog of \
         3m 00s ended it at 2026-03-01T09:12:16Z",
        "sign tasks blocked since about 2026-03-01T09:10:32Z: txg_sync, gnome-shell,",
        "sign the machine ended without being shut down",
        "cause pytest ran with no memory limit",
        "risk the ZFS ARC may grow to 16 GiB (50% of memory);",
        "so it is a risk, and not a cause that was seen",
        "c_max 16687497216",
    ] {
        assert!(told.contains(words), "{words}: {shown}");
    }
    let heads = |word: &str| {
        let head = |line: &&str| {
            line.trim_start_matches("memwatch:")
                .trim_start()
                .starts_with(word)
        };
        shown.lines().filter(head).count()
    };
    assert_eq!((heads("cause"), heads("risk")), (1, 1), "{shown}");
    // To be typed as they stand there: each is a line of its own.
    let lines: Vec<&str> = shown
        .lines()
        .map(|line| line.trim_start_matches("memwatch:").trim())
        .collect();
    for command in [
        "memwatch attach --safe -- pytest ...",
        "memwatch attach --memory-max 16G -- pytest ...",
        "sudo systemctl enable --now memwatch",
        "echo 3221225472 | sudo tee /sys/module/zfs/parameters/zfs_arc_max",
        "sudo sysctl kernel.sysrq=244",
    ] {
        assert!(lines.contains(&command), "{command}: {shown}");
    }
    assert_eq!(home.run(&["show", "last"]).1, shown);
}
