//! How a run of pytest ends that does not go on, has no room, or is a part of something larger.

use super::lab::{Lab, MEMWATCH, python, wait_until};
use super::{LEAK, outcomes, rungs, suite};
use std::{fs, panic, thread};

#[test]
fn a_session_that_stands_still_is_ended_with_its_reports_and_nothing_else_is() {
    // Half a minute each: at the same time.
    let all: [fn(); 3] = [
        a_run_that_does_not_go_on_after_a_death_is_ended_with_its_reports,
        a_session_that_ignores_the_interrupt_is_ended_alone,
        what_follows_a_pytest_that_has_died_goes_on,
    ];
    for one in all.map(thread::spawn) {
        if let Err(why) = one.join() {
            panic::resume_unwind(why);
        }
    }
}

fn a_run_that_does_not_go_on_after_a_death_is_ended_with_its_reports() {
    let lab = Lab::new();
    let text = "
def test_a(): pass
def test_dies():
    time.sleep(2)
    os.kill(os.getpid(), 9)
";
    fs::create_dir_all(lab.file("suite")).expect("a directory");
    // As with a scheduler that hands out nothing more: the crash is never told.
    let conftest = "
import pytest
@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_testnodedown(node, error):
    import time
    if error: time.sleep(3600)
";
    fs::write(lab.file("suite/conftest.py"), conftest).expect("a file");
    let xml = lab.file("junit.xml").display().to_string();
    let ran = suite(&lab, &[], text, &["-n", "2", "--junitxml", &xml]);
    let it = &ran.report["interventions"][0];
    assert_eq!(it["rule"], "no_progress", "{ran:#?}");
    assert_eq!(rungs(it)[0], "sigint");
    assert_eq!(
        ran.status.code(),
        Some(2),
        "pytest's own code for an interrupted run: {ran:#?}"
    );
    assert!(
        lab.read("junit.xml").contains("test_a"),
        "{}",
        lab.read("junit.xml")
    );
}

/// A line for a shell: pytest with these arguments, in the lab's suite, which has these files.
fn line(lab: &Lab, files: &[(&str, &str)], pytest: &str) -> String {
    let dir = lab.file("suite");
    fs::create_dir_all(&dir).expect("a directory");
    for (name, text) in files {
        fs::write(dir.join(name), text).expect("a file");
    }
    let (python, dir) = (python(), dir.display());
    format!("{python} -m pytest -q -p no:cacheprovider {dir} {pytest}")
}

#[test]
fn on_a_full_disk_the_tests_run_without_the_plugin() {
    let lab = Lab::new();
    let memory = lab.file("memory");
    fs::create_dir(&memory).expect("a directory");
    let files = [("test_it.py", "def test_a(): pass\ndef test_b(): pass\n")];
    let fill = format!("cat /dev/zero > {}/rest; ", memory.display());
    let alone = format!("{fill}{}", line(&lab, &files, ""));
    let workers = format!("{fill}{}", line(&lab, &files, "-n 2"));
    for command in [alone, workers] {
        // memwatch's directory is on a disk of the test's own, which goes with its mount namespace.
        let mut own = lab.command("unshare");
        own.args(["--mount", "sh", "-c"])
            .arg("mount -t tmpfs -o size=1m,mode=700 none $XDG_RUNTIME_DIR && exec \"$@\"")
            .args(["sh", MEMWATCH, "attach", "--report"])
            .arg(lab.file("report.json"))
            .args(["--cmd", &command])
            .env("XDG_RUNTIME_DIR", &memory);
        let ran = lab.run(own).expect_verdict("finished", 0);
        assert!(ran.text().contains("2 passed"), "{ran:#?}");
        assert!(ran.err.contains("No space left"), "it was full: {ran:#?}");
    }
}

#[test]
fn a_worker_on_no_board_in_a_group_of_its_own_ends_with_its_children_and_nobody_else() {
    let lab = Lab::new();
    // With a handler of the suite's own no test is asked to fail.
    let conftest = "import signal\nsignal.signal(signal.SIGURG, lambda *_: None)\n";
    let child = lab.file("child");
    let text = format!(
        "
import os, pytest, subprocess, time
{LEAK}
def runs(pid):
    try: return open('/proc/%s/stat' % pid).read().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError: return False
@pytest.mark.parametrize('n', range(4))
def test_other(n): time.sleep(0.2)
def test_hog():
    started = subprocess.Popen(['sleep', '600'])
    with open({child:?} + '.new', 'w') as file: file.write(str(started.pid))
    os.rename({child:?} + '.new', {child:?})
    leak([])
def test_child_is_dead():
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if os.path.exists({child:?}) and not runs(open({child:?}).read()): return
        time.sleep(0.05)
    assert False
"
    );
    let files = [("conftest.py", conftest), ("test_it.py", text.as_str())];
    let pytest = line(&lab, &files, "-n 2 --dist load");
    let command = format!("timeout 600 {pytest}; echo went on");
    let options = ["--memory-max", "400M", "--cmd", &command];
    let ran = lab
        .attach(&options)
        .expect_verdict("finished_with_kills", 0);
    assert!(ran.text().ends_with("went on\n"), "{ran:#?}");
    let found = outcomes(&ran.report);
    for (name, how) in &found {
        let expected = if name == "test_hog" {
            "killed"
        } else {
            "passed"
        };
        assert_eq!(how, expected, "{name}: {ran:#?}");
    }
    assert_eq!(found.len(), 6, "{ran:#?}");
    assert_eq!(ran.report["interventions"][0]["scope"], "process");
}

fn what_follows_a_pytest_that_has_died_goes_on() {
    let lab = Lab::new();
    let files = [(
        "test_it.py",
        "
import os, time
def test_a(): pass
def test_dies():
    time.sleep(0.5)  # until it is known of
    os._exit(9)
def test_z(): pass
",
    )];
    let [alone, workers] = ["", "-n 2"].map(|pytest| line(&lab, &files, pytest));
    // Longer than a session may stand still.
    let command = format!("{workers}; {alone}; sleep 31; echo went on");
    let ran = lab
        .attach(&["--cmd", &command])
        .expect_verdict("finished", 0);
    assert!(ran.text().ends_with("went on\n"), "{ran:#?}");
    let found = outcomes(&ran.report);
    let died = found.iter().filter(|(_, how)| how == "unknown").count();
    assert_eq!(died, 2, "{ran:#?}");
    assert_eq!(ran.report["interventions"], serde_json::json!([]));
}

fn a_session_that_ignores_the_interrupt_is_ended_alone() {
    let lab = Lab::new();
    let interrupted = lab.file("interrupted");
    let conftest = format!(
        "
import pytest, signal, time
@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_testnodedown(node, error):
    signal.signal(signal.SIGINT, lambda *_: open({interrupted:?}, 'w').close())
    while error: time.sleep(60)
"
    );
    let dies = "
import os, time
def test_a(): pass
def test_dies():
    time.sleep(1)
    os.kill(os.getpid(), 9)
";
    let files = [("conftest.py", conftest.as_str()), ("test_it.py", dies)];
    let command = format!("{}; echo went on", line(&lab, &files, "-n 2"));
    let started = lab.start(lab.reporting(&["--cmd", &command]));
    wait_until("the interrupt", || interrupted.exists());
    let ran = started.wait().expect_verdict("finished_with_kills", 0);
    assert!(ran.text().ends_with("went on\n"), "{ran:#?}");
    let it = &ran.report["interventions"][0];
    assert_eq!(it["rule"], "no_progress", "{ran:#?}");
    assert_eq!(&rungs(it)[..2], ["sigint", "sigkill"], "{ran:#?}");
}
