//! Several sessions of pytest in one run, and what is known of one whose workers die.

use super::lab::{Lab, python};
use super::{LEAK, expect_outcomes, suite};
use std::fs;

#[test]
fn a_session_knows_nothing_of_anothers_tests_and_workers() {
    let lab = Lab::new();
    for (project, text) in [
        (
            "a",
            "
def test_hog():
    keep = []
    while True:
        try: leak(keep)
        except BaseException: pass
",
        ),
        (
            "b",
            "
def test_hog(): pass
def test_dies():
    with open('died', 'a') as file: file.write('once ')
    os.kill(os.getpid(), 9)
def test_z(): pass
",
        ),
    ] {
        let dir = lab.file(project);
        fs::create_dir_all(&dir).expect("a directory");
        let text = format!("import os, time\n{LEAK}\n{text}");
        fs::write(dir.join("test_it.py"), text).expect("a file");
    }
    let pytest = format!(
        "{} -m pytest -n 1 -p no:cacheprovider --rootdir . --junitxml junit.xml",
        python()
    );
    let line = format!("cd a && {pytest}; cd ../b && {pytest}");
    let ran = lab
        .attach(&["--memory-max", "300M", "--cmd", &line])
        .expect_verdict("finished_with_kills", 1);
    let killed = lab.read("a/junit.xml");
    assert!(killed.contains("memwatch killed its process"), "{killed}");
    // The same id is another's test, and gw0 another's worker, which died of something else.
    let other = lab.read("b/junit.xml");
    assert!(!other.contains("memwatch:"), "{other}");
    assert_eq!(other.matches("<error").count(), 1, "{other}");
    assert!(
        other.contains("crashed while running 'test_it.py::test_dies'")
            || other.contains("crashed while running &#x27;test_it.py::test_dies&#x27;"),
        "{other}"
    );
    assert_eq!(lab.read("b/died"), "once ", "{ran:#?}");
}

#[test]
fn what_was_not_run_is_told_though_the_first_worker_died_collecting() {
    let lab = Lab::new();
    let text = "
if os.environ['PYTEST_XDIST_WORKER'] == 'gw0': os.kill(os.getpid(), 9)
@pytest.mark.parametrize('n', range(6))
def test_it(n): time.sleep(60)
";
    let ran = suite(&lab, &["--timeout", "15s"], text, &["-n", "2"]).expect_verdict("timeout", 124);
    let suite = &ran.report["suite"];
    let begun = suite["tests"].as_array().map_or(0, Vec::len);
    let not_run = suite["not_run"].as_array().map_or(0, Vec::len);
    assert_eq!((begun, not_run), (2, 4), "{ran:#?}");
    assert_eq!(suite["selected"], 6);
}

#[test]
fn a_bystander_that_nobody_runs_again_is_an_error_with_the_reason() {
    let lab = Lab::new();
    let text = "
kept = []
def go_on():
    until = time.monotonic() + 30
    while time.monotonic() < until:
        kept.append(bytearray(1 << 20))
        time.sleep(0.01 if len(kept) < 240 else 0.05)
def test_leaves():
    threading.Thread(target=go_on, daemon=True).start()
    while len(kept) < 240: time.sleep(0.01)
def test_waits():
    while True:
        try: time.sleep(1)
        except BaseException: pass
def test_z(): pass
";
    let junit = lab.file("junit.xml").display().to_string();
    let pytest = ["-n", "1", "--dist", "each", "--junitxml", &junit];
    let ran = suite(&lab, &["--memory-max", "330M"], text, &pytest)
        .expect_verdict("finished_with_kills", 1);
    let told = lab.read("junit.xml");
    let cases: Vec<_> = told.split("<testcase ").skip(1).collect();
    assert_eq!(cases.len(), 3, "{told}");
    for case in cases {
        let is_bystander = case.contains("name=\"test_waits\"");
        assert_eq!(case.contains("<error"), is_bystander, "{case}");
        if is_bystander {
            for part in [
                "the memory is that of",
                "::test_leaves",
                "it is not run again",
            ] {
                assert!(case.contains(part), "no {part}: {case}: {ran:#?}");
            }
        }
    }
}

#[test]
fn a_module_that_was_failed_is_told_alone_and_not_what_holds_it() {
    let lab = Lab::new();
    fs::create_dir_all(lab.file("suite")).expect("a directory");
    // Asked as memwatch asks, without the pressure; the last that is collected.
    let asked = "
import json, os, signal
run, pid = os.environ['MEMWATCH_RUN'], os.getpid()
with open('%s/slots/%d' % (run, pid), 'rb') as slot: serial = int.from_bytes(slot.read()[32:40], 'little')
with open('%s/abort/%d' % (run, pid), 'w') as file: json.dump({'serial': serial, 'at_ns': 0, 'why': 'asked'}, file)
os.kill(pid, signal.SIGURG)
";
    fs::write(lab.file("suite/test_zz.py"), asked).expect("a file");
    let text = "
def test_told():
    import json
    with open('%s/results/%d' % (os.environ['MEMWATCH_RUN'], os.getpid())) as file:
        told = [json.loads(line).get('collected') for line in file]
    told = [os.path.basename(name) for name in told if name is not None]
    assert told == ['test_zz.py'], told
";
    let ran = suite(&lab, &[], text, &["--continue-on-collection-errors"]).expect(1);
    expect_outcomes(&ran, &[("test_told", "passed")]);
}
