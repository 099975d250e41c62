//! `--record` and `memwatch replay` as a user meets them: what was decided live is decided again from
//! the recording. Needs root for the run that is recorded, and fails without.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

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

/// Runs a workload under 200 MiB; its recording and the exit code.
fn record(
    directory: &TempDir,
    attach: &[&str],
    workload: &[&str],
) -> (std::path::PathBuf, Option<i32>) {
    let program = std::env::var("MEMWATCH_TEST_WORKLOAD")
        .expect("MEMWATCH_TEST_WORKLOAD is not set: run these tests with `cargo xtask test`");
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
        said.contains("broken:1:") && said.contains("--record FILE"),
        "{said}"
    );
    assert!(!said.contains('\x1b'), "{said:?}");
}
