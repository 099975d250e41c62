//! Limits of single tests: who says them, what they hold, and when there are none.

use super::lab::{Lab, Ran};
use super::{expect_outcomes, outcomes, rungs, suite};
use std::fs;

/// Writes a file beside the suite's.
fn beside(lab: &Lab, name: &str, text: &str) {
    fs::create_dir_all(lab.file("suite")).expect("a directory");
    fs::write(lab.file("suite").join(name), text).expect("a file");
}

/// The rules of all interventions, in order of their names.
fn rules(ran: &Ran) -> Vec<&str> {
    let interventions = ran.report["interventions"].as_array().expect("a list");
    let mut rules: Vec<_> = interventions
        .iter()
        .map(|it| it["rule"].as_str().unwrap_or_default())
        .collect();
    rules.sort_unstable();
    rules
}

#[test]
fn limits_of_single_tests_hold_also_inside_of_c() {
    let lab = Lab::new();
    let text = "
@pytest.mark.memwatch(memory='60M', timeout='20s')
def test_marked(): leak([])
def test_slow(): time.sleep(60)
@pytest.mark.memwatch(timeout='20s')
def test_may_be_slower(): time.sleep(2.5)
def test_in_c():
    import hashlib
    hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 28)
def test_z(): pass
";
    let options = ["--memory-max", "400M", "--test-timeout", "2s"];
    let ran = suite(&lab, &options, text, &["-n", "2"]).expect_verdict("finished_with_kills", 1);
    let found = outcomes(&ran.report);
    for (name, how) in [
        ("test_marked", "failed"),
        ("test_slow", "failed"),
        ("test_may_be_slower", "passed"),
        ("test_in_c", "killed"),
        ("test_z", "passed"),
    ] {
        assert!(
            found.contains(&(name.to_owned(), how.to_owned())),
            "{name}: {ran:#?}"
        );
    }
    let interventions = ran.report["interventions"].as_array().expect("a list");
    let rules: Vec<_> = interventions
        .iter()
        .map(|it| it["rule"].as_str().unwrap_or_default())
        .collect();
    assert!(
        rules.contains(&"test_memory") && rules.contains(&"test_timeout"),
        "{rules:?}"
    );
    let killed = interventions
        .iter()
        .find(|it| rungs(it).contains(&"sigkill"))
        .expect("test_in_c");
    assert_eq!(rungs(killed), ["abort", "sigkill"]);
    let stack = killed["python_stack"].to_string();
    assert!(
        stack.contains("in test_in_c"),
        "written though C code ran: {stack}"
    );
}

#[test]
fn the_project_says_limits_and_the_command_line_says_more() {
    let lab = Lab::new();
    let text = "def test_slow(): time.sleep(3)\n";
    fs::create_dir_all(lab.file("suite")).expect("a directory");
    fs::write(
        lab.file("suite/pyproject.toml"),
        "[tool.pytest.ini_options]\n[tool.memwatch]\ntest_timeout = '1s'\n",
    )
    .expect("a file");
    let ran = suite(&lab, &[], text, &[]).expect_verdict("finished", 1);
    expect_outcomes(&ran, &[("test_slow", "failed")]);
    let ran = suite(&lab, &["--test-timeout", "20s"], text, &[]).expect_verdict("finished", 0);
    expect_outcomes(&ran, &[("test_slow", "passed")]);
    // Safe mode is a cap on the command line's side, which the project may tighten.
    let ran = suite(&lab, &["--safe"], text, &[]).expect_verdict("finished", 1);
    expect_outcomes(&ran, &[("test_slow", "failed")]);
}

#[test]
fn the_command_lines_limit_of_memory_counts_what_children_hold() {
    let lab = Lab::new();
    let text = "
import subprocess, sys
def test_a(): x = bytearray(40 << 20)
def test_hog(): leak([])
def test_parent():
    code = 'import time\\nkeep = []\\nwhile True: keep.append(bytearray(1 << 20)); time.sleep(0.02)'
    subprocess.run([sys.executable, '-c', code])
def test_z(): pass
";
    let options = ["--memory-max", "500M", "--test-memory", "80M"];
    let ran = suite(&lab, &options, text, &[]).expect_verdict("finished", 1);
    expect_outcomes(
        &ran,
        &[
            ("test_a", "passed"),
            ("test_hog", "failed"),
            ("test_parent", "failed"),
            ("test_z", "passed"),
        ],
    );
    assert_eq!(rules(&ran), ["test_memory", "test_memory"]);
}

#[test]
fn what_an_earlier_test_has_started_is_not_laid_to_a_later_one() {
    let lab = Lab::new();
    let text = "
import subprocess, sys
@pytest.fixture(scope='module')
def server():
    code = 'keep = b\\'x\\' * (100 << 20); print(flush=True); import time; time.sleep(300)'
    server = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    server.stdout.readline()
    yield
    server.kill()
    server.wait()
def test_first(server): time.sleep(0.3)
def test_second(server):
    keep = b'x' * (100 << 20)
    time.sleep(0.5)
";
    let options = ["--memory-max", "600M", "--test-memory", "160M"];
    let ran = suite(&lab, &options, text, &[]).expect_verdict("finished", 0);
    let tests = ran.report["suite"]["tests"].as_array().expect("a list");
    let of_children: Vec<_> = tests
        .iter()
        .map(|test| test["children_peak_bytes"].as_u64() > Some(100 << 20))
        .collect();
    assert_eq!(of_children, [true, false], "{tests:#?}");
}

#[test]
fn the_project_says_each_limit_in_either_of_two_places() {
    for (file, before) in [
        ("pytest.ini", "[pytest]\nmemwatch_"),
        (
            "pyproject.toml",
            "[tool.pytest.ini_options]\n[tool.memwatch]\n",
        ),
    ] {
        for (limit, rule) in [
            ("test_memory = 60M", "test_memory"),
            ("test_timeout = 1s", "test_timeout"),
        ] {
            let lab = Lab::new();
            let limit = if file == "pytest.ini" {
                limit.to_owned()
            } else {
                format!("{}\"", limit.replace("= ", "= \""))
            };
            beside(&lab, file, &format!("{before}{limit}\n"));
            let text = "
def test_it():
    keep = []
    for _ in range(150): keep.append(bytearray(1 << 20)); time.sleep(0.02)
";
            let ran = suite(&lab, &[], text, &[]).expect_verdict("finished", 1);
            expect_outcomes(&ran, &[("test_it", "failed")]);
            assert_eq!(rules(&ran), [rule], "{file}: {limit}");
        }
    }
}

#[test]
fn the_project_says_in_its_toml_file_how_tests_are_marked() {
    let lab = Lab::new();
    beside(
        &lab,
        "pyproject.toml",
        "[tool.pytest.ini_options]\n[tool.memwatch]\nmarkers = 'markers.json'\n",
    );
    let markers = r#"{"version":1,"markers":{"test_it.py::test_slow":["slow"]}}"#;
    beside(&lab, "markers.json", markers);
    let text = "def test_slow(): pass\ndef test_fast(): pass\n";
    let ran = suite(&lab, &[], text, &["-m", "not slow", "--strict-markers"])
        .expect_verdict("finished", 0);
    expect_outcomes(&ran, &[("test_fast", "passed")]);
}

#[test]
fn a_marker_that_makes_no_sense_fails_its_test_and_no_other() {
    let lab = Lab::new();
    let text = "
@pytest.mark.memwatch(memory='lots')
def test_typo(): pass
@pytest.mark.memwatch(timeout='9' * 400)
def test_endless(): pass
@pytest.mark.memwatch('60M')
def test_positional(): pass
@pytest.mark.memwatch(memroy='60M')
def test_misspelt(): pass
@pytest.mark.memwatch(memory='60M')
def test_right(): pass
def test_z(): pass
";
    for workers in [&[][..], &["-n", "2"]] {
        let ran = suite(&lab, &[], text, workers).expect_verdict("finished", 1);
        expect_outcomes(
            &ran,
            &[
                ("test_endless", "error"),
                ("test_misspelt", "error"),
                ("test_positional", "error"),
                ("test_right", "passed"),
                ("test_typo", "error"),
                ("test_z", "passed"),
            ],
        );
        for said in [
            "'lots' is not a size; write it like 500M",
            "is not a time; write it like 30s",
            "by name, and not '60M'; write it like memwatch(memory='500M', timeout='30s')",
            "by name, and not memroy; write it like",
        ] {
            assert!(ran.text().contains(said), "no {said}: {}", ran.text());
        }
    }
}

#[test]
fn each_limit_is_that_of_the_closest_marker_that_has_it() {
    let lab = Lab::new();
    let text = "
@pytest.mark.memwatch(memory='60M', timeout='3s')
class TestIt:
    @pytest.mark.memwatch(timeout='60s')
    def test_grows(self): leak([])
    @pytest.mark.memwatch(memory='400M')
    def test_waits(self): time.sleep(60)
    @pytest.mark.memwatch(timeout='60s')
    def test_may_wait(self): time.sleep(4)
";
    let ran = suite(&lab, &["--memory-max", "500M"], text, &[]).expect_verdict("finished", 1);
    expect_outcomes(
        &ran,
        &[
            ("test_grows", "failed"),
            ("test_may_wait", "passed"),
            ("test_waits", "failed"),
        ],
    );
    assert_eq!(rules(&ran), ["test_memory", "test_timeout"]);
}

#[test]
fn in_safe_mode_a_marker_counts_more_than_the_command_line_up_to_the_cap() {
    let lab = Lab::new();
    // What a slot has at 72 is what memwatch holds the test to.
    let text = "
def timeout_us():
    with open('%s/slots/%d' % (os.environ['MEMWATCH_RUN'], os.getpid()), 'rb') as slot:
        return int.from_bytes(slot.read()[72:80], 'little')
def test_unmarked(): assert timeout_us() == 10_000_000
@pytest.mark.memwatch(timeout='5s')
def test_less(): assert timeout_us() == 5_000_000
@pytest.mark.memwatch(timeout='60s')
def test_more(): assert timeout_us() == 60_000_000
@pytest.mark.memwatch(timeout='10m')
def test_too_much(): assert timeout_us() == 120_000_000
@pytest.mark.memwatch(memory='60M')
def test_other(): assert timeout_us() == 10_000_000
";
    // The command line counts more than the project where it says something.
    beside(&lab, "pytest.ini", "[pytest]\nmemwatch_test_timeout = 2s\n");
    suite(&lab, &["--safe", "--test-timeout", "10s"], text, &[]).expect_verdict("finished", 0);
}

/// A suite whose pytest reads what this command of the shell prints.
fn debugged(lab: &Lab, typing: &str, pytest: &str, text: &str) -> Ran {
    beside(
        lab,
        "test_it.py",
        &format!("import os, pytest, threading, time\n{text}"),
    );
    let line = format!(
        "({typing}) | {} -m pytest -p no:cacheprovider {pytest} {}",
        super::python(),
        lab.file("suite").display()
    );
    lab.attach(&["--test-timeout", "3s", "--cmd", &line])
}

#[test]
fn while_somebody_looks_at_a_test_in_a_debugger_its_time_stands_still() {
    let lab = Lab::new();
    let text = "
def test_looked_at():
    time.sleep(1.6)
    breakpoint()
    time.sleep(1.7)
def test_slow(): time.sleep(60)
def test_slow_after():
    breakpoint()
    time.sleep(60)
";
    let typing = "sleep 8; printf 'c\\nc\\n'";
    let ran = debugged(&lab, typing, "", text).expect_verdict("finished", 1);
    expect_outcomes(
        &ran,
        &[
            ("test_looked_at", "passed"),
            ("test_slow", "failed"),
            ("test_slow_after", "failed"),
        ],
    );
}

#[test]
fn with_a_debugger_asked_for_no_test_has_a_limit_of_time() {
    let lab = Lab::new();
    let text = "
@pytest.mark.memwatch(timeout='500ms')
def test_slow(): time.sleep(3)
";
    let ran = debugged(&lab, "true", "--pdb", text).expect_verdict("finished", 0);
    expect_outcomes(&ran, &[("test_slow", "passed")]);
    let ran = debugged(&lab, "sleep 4; echo c", "--trace", text).expect_verdict("finished", 0);
    expect_outcomes(&ran, &[("test_slow", "passed")]);
}

#[test]
fn in_a_dry_run_no_test_is_failed_and_none_is_even_asked() {
    let lab = Lab::new();
    let text = "def test_slow(): time.sleep(3)\ndef test_z(): pass\n";
    let options = ["--dry-run", "--test-timeout", "1s", "--timeout", "2s"];
    let ran = suite(&lab, &options, text, &[]).expect_verdict("finished", 0);
    expect_outcomes(&ran, &[("test_slow", "passed"), ("test_z", "passed")]);
    let interventions = ran.report["interventions"].as_array().expect("a list");
    let results: Vec<_> = interventions
        .iter()
        .flat_map(|it| it["rungs"].as_array().expect("a list"))
        .map(|rung| rung["result"].as_str())
        .collect();
    assert!(
        !results.is_empty() && results.iter().all(|&it| it == Some("dry_run")),
        "{ran:#?}"
    );
    assert_eq!(ran.report["victims"], serde_json::json!([]));
}
