//! Files that others read a run of tests by.

use super::{Suite, test};
use boon::{Compiler, Schemas};
use serde_json::Value;
use std::fs;
use std::time::{Duration, SystemTime};

const MIXED: &str = r#"
import os, signal
import pytest
def test_passes(): pass
def test_fails(): assert 1 == 2
@pytest.mark.skip
def test_is_skipped(): pass
@pytest.mark.xfail
def test_is_expected_to_fail(): assert False
@pytest.fixture
def broken(): raise ValueError
def test_error(broken): pass
class TestIt:
    @pytest.mark.parametrize("text", ["a::b", "<&>\x1b"])
    def test_in_class(self, text): pass
"#;

const DEADLY: &str = r#"
import os, signal
def test_passes(): pass
def test_fails(): assert 1 == 2
def test_kills_itself(): os.kill(os.getpid(), signal.SIGKILL)
def test_never(): pass
"#;

#[test]
fn python_compiles_the_plugin_once() {
    let suite = Suite::of(&[("test_mixed.py", "def test_passes(): pass")]);
    let compiled: Vec<bool> = (0..2)
        .map(|_| {
            let mut command = suite.command(&[], &[]);
            command
                .env("XDG_CACHE_HOME", suite.lab.file("cache"))
                .env("PYTHONVERBOSE", "1")
                .env_remove("PYTHONDONTWRITEBYTECODE");
            let ran = suite.lab.run(command).expect(0);
            let is_ours = |line: &&str| line.contains("memwatch_pytest");
            let ours = ran.err.lines().filter(is_ours);
            ours.filter(|line| line.starts_with("# created")).count() == 1
        })
        .collect();
    assert_eq!(compiled, [true, false]);
}

#[test]
fn junit_has_the_figures_also_through_xdist() {
    for xdist in [&[][..], &["-n2"]] {
        let suite = Suite::of(&[("test_mixed.py", MIXED)]);
        let pytest = [xdist, &["--junit-xml", "junit.xml"]].concat();
        suite.run(&[], &pytest).expect(1);
        let xml = suite.lab.read("junit.xml");
        for name in ["wall_us", "cpu_us", "growth_bytes", "retained_bytes"] {
            let property = format!("name=\"memwatch_{name}\"");
            assert_eq!(xml.matches(&property).count(), 7, "{xdist:?}: {xml}");
        }
    }
}

#[test]
fn ctrf_is_valid_and_counts_what_pytest_counts() {
    let suite = Suite::of(&[("test_mixed.py", MIXED)]);
    let ctrf = suite.lab.file("ctrf.json").display().to_string();
    suite.run(&["--ctrf", &ctrf], &["-n2"]).expect(1);
    let report: Value = serde_json::from_str(&suite.lab.read("ctrf.json")).expect("JSON");
    let schema = serde_json::from_str(include_str!("../fixtures/ctrf.schema.json"));
    let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
    let added = compiler.add_resource("memory:ctrf", schema.expect("JSON"));
    added.expect("a resource");
    let root = compiler
        .compile("memory:ctrf", &mut schemas)
        .expect("a schema");
    if let Err(error) = schemas.validate(&report, root) {
        panic!("{error:#}\n{report:#}");
    }
    let summary = &report["results"]["summary"];
    let counts = ["tests", "passed", "failed", "skipped"].map(|name| summary[name].as_u64());
    assert_eq!(counts, [7, 3, 2, 2].map(Some), "{report:#}");
    let tests = report["results"]["tests"].as_array().expect("a list");
    let in_class = tests
        .iter()
        .find(|test| test["name"] == "test_in_class[a::b]");
    let suites = &in_class.expect("it ran")["suite"];
    assert_eq!(suites[1], "TestIt");
    for test in tests {
        assert!(test["extra"]["memwatch"]["cpu_us"].is_u64(), "{test:#}");
    }
}

#[test]
fn where_pytest_was_killed_memwatch_writes_its_junit() {
    let suite = Suite::of(&[("test_deadly.py", DEADLY)]);
    // That of an earlier run is replaced.
    let path = suite.lab.file("junit.xml");
    fs::write(&path, "<?xml version=\"1.0\"?><testsuites/>").expect("room");
    let old = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_modified(old))
        .expect("ours");
    let ran = suite.run(&[], &["--junit-xml", "junit.xml"]).expect(137);
    assert_eq!(test(&ran, "test_kills_itself")["outcome"], "unknown");
    let xml = suite.lab.read("junit.xml");
    for part in [
        "tests=\"4\"",
        "<skipped message=\"not run: pytest ended before it could write its results\"/>",
        "<testcase name=\"test_passes\" classname=\"suite.test_deadly\"",
        "<testcase name=\"test_kills_itself\"",
        "<error message=\"its process ended under it\"",
        "memwatch_growth_bytes",
    ] {
        let rooted = part.replace("suite.test_deadly", "test_deadly");
        assert!(
            xml.contains(part) || xml.contains(&rooted),
            "no {part} in {xml}"
        );
    }
    assert!(
        ran.err
            .contains("was written by memwatch, with the 3 tests that ran and the 1 that did not"),
        "{}",
        ran.err
    );
}

#[test]
fn memwatchs_junit_is_where_pytests_would_be() {
    let deadly = [("test_deadly.py", DEADLY)];
    let alive = [("test_alive.py", "def test_passes(): pass")];
    for path in [
        "reports/of/it/junit.xml",
        "$SOMEWHERE/junit.xml",
        "~/reports/junit.xml",
    ] {
        for files in [&deadly, &alive] {
            let suite = Suite::of(files);
            let home = suite.lab.file("home");
            fs::create_dir(&home).expect("room");
            let mut command = suite.command(&[], &["--junitxml", path]);
            command
                .env("HOME", &home)
                .env("SOMEWHERE", suite.lab.file("some/where"));
            suite.lab.run(command);
            let expected = match path.split_once('/').expect("a path") {
                ("$SOMEWHERE", file) => suite.lab.file("some/where").join(file),
                ("~", file) => home.join(file),
                _ => suite.lab.file(path),
            };
            let xml = fs::read_to_string(&expected);
            let xml = xml.unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(xml.contains("test_passes"), "{path}: {xml}");
        }
    }
}

#[test]
fn a_file_that_is_no_junit_is_left_as_it_is() {
    let suite = Suite::of(&[("test_deadly.py", DEADLY)]);
    let path = suite.lab.file("junit.xml");
    fs::write(&path, "dear diary").expect("room");
    suite.run(&[], &["--junit-xml", "junit.xml"]).expect(137);
    assert_eq!(suite.lab.read("junit.xml"), "dear diary");
}

#[test]
fn github_is_told_of_the_tests_that_memwatch_failed() {
    let limited = r#"
import pytest, time

@pytest.mark.memwatch(memory="40M")
def test_limited():
    kept = []
    while True:
        kept.append(bytearray(1 << 20)); time.sleep(0.02)
"#;
    let suite = Suite::of(&[("test_limited.py", limited)]);
    let mut command = suite.command(&[], &["--rootdir", "."]);
    command
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_WORKSPACE", suite.lab.file(""))
        .env("GITHUB_STEP_SUMMARY", suite.lab.file("summary.md"));
    let ran = suite.lab.run(command).expect(1);
    let line = ran.err.lines().find(|line| line.starts_with("::error "));
    let line = line.unwrap_or_else(|| panic!("no annotation in {}", ran.err));
    assert!(
        line.starts_with("::error file=suite/test_limited.py,line=4,title=memwatch%3A failed::"),
        "{line}"
    );
    let page = suite.lab.read("summary.md");
    assert!(
        page.starts_with("### memwatch\n") && page.contains("failed or killed by memwatch"),
        "{page}"
    );
}

#[test]
fn a_test_that_is_run_again_is_there_as_often() {
    let flaky = r#"
tries = []
def test_flaky():
    tries.append(1)
    assert len(tries) == 3
def test_steady(): pass
"#;
    let suite = Suite::of(&[("test_flaky.py", flaky)]);
    let ctrf = suite.lab.file("ctrf.json").display().to_string();
    let ran = suite.run(&["--ctrf", &ctrf], &["--reruns", "3"]).expect(0);
    let tests = ran.report["suite"]["tests"].as_array().expect("a list");
    let outcomes: Vec<_> = tests.iter().map(|test| &test["outcome"]).collect();
    assert_eq!(outcomes, ["failed", "failed", "passed", "passed"]);
    assert!(ran.err.contains("2: 2 passed; 2 reruns"), "{}", ran.err);
    let report: Value = serde_json::from_str(&suite.lab.read("ctrf.json")).expect("JSON");
    let test = &report["results"]["tests"][0];
    assert_eq!(
        (&test["flaky"], &test["retries"]),
        (&true.into(), &2.into())
    );
}
