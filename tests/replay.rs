//! `--record` and `memwatch replay` as a user meets them: what was decided live is decided again from
//! the recording. Needs root for the run that is recorded, and fails without.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use memwatch::incident::{Record, Verdict};
use tempfile::TempDir;

fn memwatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memwatch"))
        .args(arguments)
        .output()
        .expect("memwatch runs")
}

fn replay(recording: &Path, more: &[&str]) -> (Option<i32>, String) {
    let recording = recording.to_str().expect("a path of ours");
    let output = memwatch(&[&["replay", recording], more].concat());
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    (output.status.code(), said)
}

fn workload_program() -> String {
    std::env::var("MEMWATCH_TEST_WORKLOAD")
        .expect("MEMWATCH_TEST_WORKLOAD is not set: run these tests with `cargo xtask test`")
}

/// Runs a workload under 200 MiB; its recording and the exit code.
fn record(
    directory: &TempDir,
    attach: &[&str],
    workload: &[&str],
) -> (std::path::PathBuf, Option<i32>) {
    let program = workload_program();
    let recording = directory.path().join("recording.jsonl");
    let file = recording.to_str().expect("a path of ours");
    let before = ["attach", "--memory-max", "200M", "--record", file];
    let output = memwatch(&[&before, attach, &["--", &program], workload].concat());
    (recording, output.status.code())
}

#[test]
fn what_was_decided_is_decided_again() {
    let directory = TempDir::new().expect("a directory");
    let (recording, code) = record(&directory, &[], &["leak", "--rate", "100M"]);
    assert_eq!(code, Some(137));
    let (code, said) = replay(&recording, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("SIGTERM to workload"), "{said}");
    assert!(
        said.ends_with("1 replays, 1 of them with orders\n"),
        "{said}"
    );
}

/// The record of a run that was killed, and the file that it is in.
fn incident(directory: &TempDir, workload: &[&str]) -> (std::path::PathBuf, serde_json::Value) {
    let report = directory.path().join("incident.json");
    let file = report.to_str().expect("a path of ours");
    let program = workload_program();
    let before = [
        "attach",
        "--memory-max",
        "200M",
        "--report",
        file,
        "--",
        &program,
    ];
    memwatch(&[&before, workload].concat());
    let record = fs::read(&report).expect("a report");
    (report, serde_json::from_slice(&record).expect("JSON"))
}

#[test]
fn an_incident_is_decided_again_from_its_own_looks() {
    for workload in [
        &["leak", "--rate", "100M"][..],
        &["fork-tree", "--rate", "80M"],
    ] {
        let directory = TempDir::new().expect("a directory");
        let (report, record) = incident(&directory, workload);
        let flight = record["flight"]["looks"].as_array().expect("looks");
        assert!((20..=240).contains(&flight.len()), "{}", flight.len());
        let killed = &record["interventions"][0];
        let pid = &killed["victim"]["pid"];

        let (code, said) = replay(&report, &[]);
        assert_eq!(code, Some(1), "{said}");
        let rung = killed["rungs"][0]["rung"].as_str().expect("a rung");
        let order = format!("{} to workload ({pid})", rung.to_uppercase());
        assert!(said.contains(&order), "{order} in {said}");

        // Who foresees nothing asks nobody, and at SIGTERM there was still time.
        let patient = ["--set", "foresight=1000000", "--set", "reaction=1ms"];
        let (_, said) = replay(&report, &patient);
        assert!(said.ends_with("0 of them with orders\n"), "{said}");
        let (code, said) = replay(&report, &["--set", "foresigt=2"]);
        assert_eq!(code, Some(125));
        assert!(said.contains("did you mean `foresight`"), "{said}");
    }
}

#[test]
fn a_recording_alone_touches_nobody() {
    let directory = TempDir::new().expect("a directory");
    let recording = directory.path().join("looks.jsonl");
    let file = recording.to_str().expect("a path of ours");
    let workload = ["--", "sleep", "2"];
    // Whatever the configuration says.
    let config = directory.path().join("strict.toml");
    fs::write(&config, "[attach]\nmemory_max = \"4M\"\ntimeout = \"1s\"\n").expect("written");
    let config = config.to_str().expect("a path of ours");
    let before = ["record", "--config", config, file];
    let output = memwatch(&[&before[..], &workload[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let looks = fs::read_to_string(&recording).expect("a recording");
    assert!(looks.lines().count() > 1, "{looks}");
    assert!(
        looks
            .lines()
            .all(|line| line.contains("\"limit_bytes\":null"))
    );
    let (code, said) = replay(&recording, &[]);
    assert_eq!(code, Some(0), "{said}");

    let again = memwatch(&[&before[..], &workload[..]].concat());
    assert_eq!(again.status.code(), Some(125), "what is there stays");
    assert_eq!(memwatch(&["record", file]).status.code(), Some(125));
}

#[test]
fn an_incident_is_found_by_the_beginning_of_its_id() {
    let state = TempDir::new().expect("a directory");
    let spool = state.path().join("incidents");
    fs::create_dir(&spool).expect("a directory");
    let now = std::time::SystemTime::now();
    let record = Record::new(now, now, 0, Verdict::Ongoing);
    let file = spool.join(format!("{}.json", record.id));
    fs::write(file, record.to_json()).expect("written");
    let replay = |id: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memwatch"));
        let command = command.args(["replay", id]);
        let output = command.env("MEMWATCH_STATE", state.path()).output();
        String::from_utf8(output.expect("memwatch runs").stderr).expect("text")
    };
    let beginning = record.id.to_string()[..13].to_owned();
    for typed in [&beginning, &beginning.to_uppercase(), "last"] {
        let said = replay(typed);
        assert!(said.contains("no looks of the flight recorder"), "{said}");
    }
    assert!(replay("ffff").contains("no incident begins with `ffff`"));
    assert!(replay("none.json").contains("none.json: No such file"));
}

#[test]
fn other_settings_decide_otherwise() {
    let directory = TempDir::new().expect("a directory");
    let seconds = ["--seconds", "5"];
    let (recording, code) = record(&directory, &[], &[&["steady"], &seconds[..]].concat());
    assert_eq!(code, Some(0));
    let (code, said) = replay(&recording, &["--times", "50", "--jitter", "30ms"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.ends_with("50 replays, 0 of them with orders\n"),
        "{said}"
    );

    // Foreseeing five times as far, nine tenths are too many.
    let config = directory.path().join("nervous.toml");
    fs::write(&config, "[policy]\nforesight = 3\n").expect("written");
    let config = config.to_str().expect("a path of ours");
    let (code, said) = replay(&recording, &["--config", config]);
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn what_is_no_recording_is_refused_with_its_line() {
    let directory = TempDir::new().expect("a directory");
    let (code, said) = replay(&directory.path().join("missing"), &[]);
    assert_eq!(code, Some(125));
    assert!(
        said.contains("missing: No such file or directory"),
        "{said}"
    );

    let broken = directory.path().join("broken");
    fs::write(&broken, "\x1b[2Jnot json\n").expect("written");
    let (code, said) = replay(&broken, &[]);
    assert_eq!(code, Some(125));
    assert!(
        said.contains("broken:1:") && said.contains("memwatch record FILE"),
        "{said}"
    );
    assert!(!said.contains('\x1b'), "{said:?}");
}
