//! `memwatch tests` as a user meets it: records in, words, files and exit codes out. The judging itself is
//! tested beside its code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use memwatch::incident::suite::{Outcome, Suite, Test};
use memwatch::incident::{Record, Verdict};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A directory with records, and a state directory of its own.
struct Bench {
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The record of a run on that day; `t.py::test_big` takes so many MiB.
    fn record(&self, day: u64, big: u64) -> PathBuf {
        self.record_with(
            day,
            &[
                ("t.py::test_first", 1),
                ("t.py::test_big", big),
                ("t.py::test_b", 2),
            ],
        )
    }

    fn record_with(&self, day: u64, tests: &[(&str, u64)]) -> PathBuf {
        let began = UNIX_EPOCH + Duration::from_secs(day * 86_400);
        let mut record = Record::new(began, began, 1_000_000, Verdict::Finished);
        record.suite = Some(Suite {
            tests: tests.iter().map(|(id, mib)| test(id, *mib)).collect(),
            ..Suite::default()
        });
        let file = self.path().join(format!("{day}.json"));
        fs::write(&file, record.to_json()).expect("written");
        file
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memwatch"));
        command
            .arg("tests")
            .args(arguments)
            .current_dir(self.path())
            .env("XDG_STATE_HOME", self.path().join("state"));
        command
    }

    /// The exit code, and what was said on both streams.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).output().expect("memwatch runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("text"))
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command
            .stdout(Stdio::null())
            .spawn()
            .expect("memwatch runs")
    }
}

fn test(id: &str, mib: u64) -> Test {
    let resident = 60 * MIB;
    Test {
        line: None,
        id: id.into(),
        outcome: Outcome::Passed,
        worker: None,
        pid: 1,
        at_us: 0,
        wall_us: 200_000,
        cpu_us: Some(190_000),
        setup_us: None,
        call_us: None,
        teardown_us: None,
        rss_before_bytes: Some(resident),
        rss_after_bytes: Some(resident),
        peak_bytes: Some(resident + mib * MIB),
        children_peak_bytes: None,
        children_retained_bytes: None,
        minor_faults: None,
        major_faults: None,
        reclaim_us: None,
        leaks: Vec::new(),
        answered_us: None,
        ended_by_memwatch: None,
    }
}

fn name(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

#[test]
fn a_regression_ends_with_1_and_its_name_and_none_with_0() {
    let bench = Bench::new();
    let (base, same, double) = (
        bench.record(1, 100),
        bench.record(2, 101),
        bench.record(3, 200),
    );
    let [base, same, double] = [&base, &same, &double].map(|file| name(file));
    let (code, said) = bench.run(&["compare", base, same]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("no limit crossed\n"), "{said}");

    let (code, said) = bench.run(&["compare", base, double]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("100 MiB -> 200 MiB     +100%  t.py::test_big"),
        "{said}"
    );
    assert!(said.ends_with("limits crossed: +50% memory\n"), "{said}");

    let (code, said) = bench.run(&[
        "compare",
        "--fail-on",
        "+150MiB memory",
        "--base",
        base,
        double,
    ]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = bench.run(&["compare", "--json", "--base", base, "--base", same, double]);
    assert_eq!(code, Some(1), "{said}");
    let found: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(found["base_runs"], 2);
    assert_eq!(found["regressions"][0]["id"], "t.py::test_big");
}

#[test]
fn what_makes_no_sense_ends_with_125_and_says_what_to_write() {
    let bench = Bench::new();
    let record = bench.record(1, 1);
    let record = name(&record);
    let empty = bench.record_with(2, &[]);
    fs::write(bench.path().join("junk.json"), "{").expect("written");
    for (arguments, words) in [
        (&["compare"][..], "Usage: memwatch tests compare"),
        (&["compare", record], "name the base first"),
        (&["compare", record, record], "is on both sides"),
        (
            &["compare", record, "missing.json"],
            "cannot read missing.json",
        ),
        (&["compare", record, "junk.json"], "cannot use junk.json"),
        (
            &["compare", record, name(&empty)],
            "the record has no tests",
        ),
        (
            &["compare", "--fail-on", "much", record, record],
            "is no limit; write for example",
        ),
        (
            &["compare", "--base-history", "3", record],
            "there is no history at",
        ),
        (
            &["compare", "--base-history", "3", "--base", record, record],
            "cannot be used with",
        ),
        (&["classify"], "Usage: memwatch tests classify"),
        (
            &["classify", "--slow", "1 hour", record],
            "is not a duration",
        ),
        (&["classify", "--write", "/", record], "names a directory"),
        (&["history", "list"], "there is no history at"),
        (
            &["history", "add", "--db", record, record],
            "is no history of memwatch's",
        ),
    ] {
        let (code, said) = bench.run(arguments);
        assert_eq!(code, Some(125), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn tests_are_sorted_and_their_markers_written() {
    let bench = Bench::new();
    let record = bench.record(1, 300);
    let (code, said) = bench.run(&["classify", "--write", "markers.json", name(&record)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("300 MiB  200ms  memory_intensive  t.py::test_big\n"),
        "{said}"
    );
    assert!(
        said.contains(
            "3 tests in 1 run: 0 slow (1s or more), 1 memory-intensive (100 MiB or more), 2 fast\n"
        ),
        "{said}"
    );
    let markers = fs::read(bench.path().join("markers.json")).expect("written");
    let markers: serde_json::Value = serde_json::from_slice(&markers).expect("JSON");
    let expected =
        serde_json::json!({ "version": 1, "markers": { "t.py::test_big": ["memory_intensive"] } });
    assert_eq!(markers, expected);

    let (_, said) = bench.run(&[
        "classify",
        "--slow",
        "200ms",
        "--memory",
        "301M",
        "--json",
        name(&record),
    ]);
    let tests: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(tests[0]["markers"], serde_json::json!(["slow"]));
}

#[test]
fn runs_are_kept_once_listed_drawn_and_taken_for_a_base() {
    let bench = Bench::new();
    let records: Vec<_> = (1..=5).map(|day| bench.record(day, 100 + day)).collect();
    let records: Vec<&str> = records.iter().map(|file| name(file)).collect();
    let add = [&["history", "add"], &records[..]].concat();
    let (code, said) = bench.run(&add);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("5 runs added to /"), "{said}");
    let (_, said) = bench.run(&add);
    assert!(
        said.starts_with("0 runs added to /") && said.contains(", 5 known already"),
        "{said}"
    );
    assert!(bench.path().join("state/memwatch/history.db").exists());

    let (_, said) = bench.run(&["history", "list"]);
    assert_eq!(said.lines().count(), 6, "{said}");
    let (_, said) = bench.run(&["history", "list", "--project", "another"]);
    assert!(said.starts_with("no runs of another"), "{said}");

    let worse = bench.record(6, 400);
    let (code, said) = bench.run(&["compare", "--base-history", "3", name(&worse)]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 run with 3 runs of the base"), "{said}");
    assert!(said.contains("104 MiB -> 400 MiB"), "{said}");
    let (code, said) = bench.run(&["compare", "--base-history", "9", records[4]]);
    assert_eq!(code, Some(0), "a run is no base of itself: {said}");
    assert!(said.contains("1 run with 4 runs of the base"), "{said}");

    bench.run(&["history", "add", name(&worse)]);
    let (code, said) = bench.run(&["history", "html", "page.html"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let page = fs::read_to_string(bench.path().join("page.html")).expect("written");
    assert!(
        page.contains("Regressions (1)") && page.contains("t.py::test_big"),
        "{page}"
    );
}

#[test]
fn processes_that_add_at_once_all_do() {
    let bench = Bench::new();
    let records: Vec<_> = (1..=6).map(|day| bench.record(day, 10)).collect();
    let started: Vec<_> = records
        .iter()
        .map(|record| bench.start(&["history", "add", "--db", "h.db", name(record)]))
        .collect();
    for mut child in started {
        assert!(child.wait().expect("ended").success());
    }
    let (_, said) = bench.run(&["history", "list", "--db", "h.db"]);
    assert_eq!(said.lines().count(), 7, "{said}");
}
