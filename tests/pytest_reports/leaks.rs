//! What tests leave behind, and what only looks so.

use super::{Suite, test};
use crate::lab::Ran;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

/// Fixtures of every scope hold one of everything, and give it back when their scope ends.
const FIXTURES: &str = r#"
import os, subprocess, tempfile, threading
from multiprocessing import shared_memory
import pytest

def everything():
    file = open("/dev/null")
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    child = subprocess.Popen(["sleep", "600"])
    block = bytearray(b"x") * (40 << 20)
    shared = shared_memory.SharedMemory(create=True, size=4096)
    fd, path = tempfile.mkstemp()
    os.close(fd)
    yield
    file.close()
    stop.set()
    thread.join()
    child.kill()
    child.wait()
    del block
    shared.close()
    shared.unlink()
    os.unlink(path)

for scope in ("session", "package", "module", "class", "function"):
    globals()["of_" + scope] = pytest.fixture(scope=scope, name="of_" + scope)(everything)
"#;

const CLEAN: &str = r#"
import multiprocessing, tempfile, threading, time

def test_nothing(): pass
def test_session(of_session): pass
def test_package(of_package): pass
def test_module(of_module): pass
class TestIt:
    def test_class(self, of_class): pass
    def test_all(self, of_session, of_package, of_module, of_class, of_function): pass
def test_function(of_function): pass
def test_tmp_path(tmp_path): (tmp_path / "file").write_text("x")
def test_closes():
    with tempfile.NamedTemporaryFile(): pass
def test_spawn():
    process = multiprocessing.get_context("spawn").Process(target=print)
    process.start(); process.join(); process.close()
def test_forkserver():
    process = multiprocessing.get_context("forkserver").Process(target=print)
    process.start(); process.join(); process.close()
def test_thread_that_ends_soon():
    threading.Thread(target=time.sleep, args=(0.02,)).start()
"#;

const LEAKING: &str = r#"
import os, subprocess, tempfile, threading, time
from multiprocessing import shared_memory

kept = []

def test_innocent_before(): pass
def test_descriptor():
    kept.append(os.open("/dev/null", os.O_RDONLY))
def test_thread():
    threading.Thread(target=threading.Event().wait, name="stays", daemon=True).start()
def test_child():
    kept.append(subprocess.Popen(["sleep", "3"]))
def test_shared_memory():
    fd = os.open("/dev/shm/memwatch-test-%d" % os.getpid(), os.O_CREAT | os.O_RDWR)
    os.close(fd)
def test_temporary_file():
    os.close(tempfile.mkstemp(prefix="stays-")[0])
def test_temporary_directory():
    tempfile.mkdtemp(prefix="stays-")
def test_memory():
    kept.append(bytearray(b"x") * (64 << 20))
def test_memory_that_comes_back():
    kept.append(bytearray(b"x") * (40 << 20))
def test_innocent_that_gives_back():
    kept.pop()
"#;

/// Tests that left something behind, by name, with the kinds.
fn leaking(ran: &Ran) -> BTreeMap<String, Vec<String>> {
    let tests = ran.report["suite"]["tests"].as_array().expect("tests");
    tests
        .iter()
        .filter_map(|test| {
            let kinds = test["leaks"].as_array()?.iter();
            let kinds: Vec<_> = kinds
                .map(|leak| leak["kind"].as_str().expect("a word").to_owned())
                .collect();
            let name = test["id"].as_str()?.rsplit("::").next()?.to_owned();
            (!kinds.is_empty()).then_some((name, kinds))
        })
        .collect()
}

fn expected() -> BTreeMap<String, Vec<String>> {
    [
        ("test_descriptor", "file_descriptors"),
        ("test_thread", "threads"),
        ("test_child", "children"),
        ("test_shared_memory", "shared_memory"),
        ("test_temporary_file", "temporary_files"),
        ("test_temporary_directory", "temporary_files"),
        ("test_memory", "memory"),
    ]
    .into_iter()
    .map(|(name, kind)| (name.to_owned(), vec![kind.to_owned()]))
    .collect()
}

fn remove_shared_memory() {
    let entries = fs::read_dir("/dev/shm").expect("it is there").flatten();
    for entry in entries {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(b"memwatch-test-")
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn whole() -> Suite {
    Suite::of(&[
        ("conftest.py", FIXTURES),
        ("test_clean.py", CLEAN),
        ("test_leaking.py", LEAKING),
    ])
}

#[test]
fn what_is_left_is_laid_to_its_test_and_what_fixtures_hold_to_nobody() {
    for xdist in [&[][..], &["-n2", "--dist", "loadfile"]] {
        let suite = whole();
        let ran = suite.run(&[], xdist).expect(0);
        remove_shared_memory();
        assert_eq!(leaking(&ran), expected(), "{xdist:?}: {ran:#?}");
        let leak = &test(&ran, "test_memory")["leaks"][0];
        let held = leak["count"].as_u64().expect("bytes");
        assert!((63 << 20..66 << 20).contains(&held), "{held}");
        let name = test(&ran, "test_thread")["leaks"][0]["names"][0].clone();
        assert_eq!(name, "stays");
        assert_eq!(
            ran.report["suite"]["leaks_of_several"],
            Value::Array(vec![])
        );
        assert!(ran.err.contains("7 left something behind"), "{}", ran.err);
    }
}

#[test]
fn the_run_fails_for_the_kinds_that_are_named_and_says_which_tests() {
    for xdist in [&[][..], &["-n2", "--dist", "loadfile"]] {
        let suite = whole();
        let kinds = [
            "--fail-on-leak",
            "threads,memory",
            "--fail-on-leak",
            "children",
        ];
        let ran = suite.run(&kinds, xdist).expect(1);
        remove_shared_memory();
        let out = ran.text();
        let told: Vec<_> = out
            .lines()
            .filter(|line| line.starts_with("LEAK "))
            .collect();
        assert_eq!(told.len(), 3, "{out}");
        for part in [
            "::test_thread - 1 thread (stays)",
            "::test_child - ",
            "::test_memory - 6",
        ] {
            assert!(told.iter().any(|line| line.contains(part)), "{out}");
        }
    }
}

#[test]
fn a_run_in_which_only_other_things_are_left_does_not_fail() {
    let suite = Suite::of(&[("test_leaking.py", LEAKING)]);
    let deselect = ["--deselect", "suite/test_leaking.py::test_thread"];
    let pytest = [&deselect[..], &["--rootdir", "."]].concat();
    let ran = suite.run(&["--fail-on-leak", "threads"], &pytest).expect(0);
    remove_shared_memory();
    assert!(!ran.text().contains("LEAK"), "{}", ran.text());
}

#[test]
fn a_file_of_somebody_else_is_not_the_tests() {
    // It comes while the test runs, in the same directory, by another process.
    let suite = Suite::of(&[(
        "test_beside.py",
        r#"
import subprocess, tempfile
def test_beside():
    subprocess.run(["mktemp", "-p", tempfile.gettempdir()], check=True)
"#,
    )]);
    let ran = suite.run(&["--fail-on-leak", "any"], &[]).expect(0);
    assert!(leaking(&ran).is_empty(), "{ran:#?}");
}

#[test]
fn where_the_kernel_does_not_say_whose_a_file_is_those_of_several_are_told_as_such() {
    let conftest = r#"
import memwatch_pytest, os, pytest, time

def refuse(*_):
    raise OSError(1, "not in this container")
memwatch_pytest.Made.__init__ = refuse

DIRECTORY = os.path.dirname(os.environ["TMPDIR"])
def wait(name):
    while not os.path.exists(os.path.join(DIRECTORY, name)):
        time.sleep(0.005)
def mark(name):
    open(os.path.join(DIRECTORY, name), "w").close()

@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    if item.name == "test_other":
        wait("alone-is-over")
    yield
"#;
    let maker = r#"
import os
from conftest import mark, wait
def test_alone():
    open(os.path.join(os.environ["TMPDIR"], "of-one"), "w").close()
def test_maker():
    mark("alone-is-over")
    wait("other-runs")
    open(os.path.join(os.environ["TMPDIR"], "of-several"), "w").close()
    mark("made")
"#;
    let other = r#"
from conftest import mark, wait
def test_other():
    mark("other-runs")
    wait("made")
"#;
    let suite = Suite::of(&[
        ("conftest.py", conftest),
        ("test_a.py", maker),
        ("test_b.py", other),
    ]);
    let ran = suite.run(&[], &["-n2", "--dist", "loadfile"]).expect(0);
    let alone = [("test_alone".to_owned(), vec!["temporary_files".to_owned()])];
    assert_eq!(leaking(&ran), BTreeMap::from(alone), "{ran:#?}");
    let [leak] = &ran.report["suite"]["leaks_of_several"]
        .as_array()
        .expect("a list")[..]
    else {
        panic!("{ran:#?}")
    };
    assert!(
        leak["name"]
            .as_str()
            .is_some_and(|name| name.ends_with("/of-several"))
    );
    let tests = leak["tests"].as_array().expect("a list");
    assert_eq!(tests.len(), 2, "{leak:#}");
}
