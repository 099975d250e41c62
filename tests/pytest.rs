//! `memwatch attach` around real pytest: which test is failed, which process is killed, what the record says.
//! Which runners and versions there are is `pytest_matrix`'.

#[path = "support/lab.rs"]
mod lab;

#[path = "pytest/ending.rs"]
mod ending;
#[path = "pytest/guilty.rs"]
mod guilty;
#[path = "pytest/limits.rs"]
mod limits;
#[path = "pytest/sessions.rs"]
mod sessions;
#[path = "pytest/signals.rs"]
mod signals;

use lab::{Lab, Ran, python};
use serde_json::Value;
use std::fs;

/// Takes 1 MiB every 20 ms: slow enough for a test to be failed in time where everything else is slow, too.
const LEAK: &str = "
def leak(keep):
    while True:
        keep.append(bytearray(1 << 20))
        time.sleep(0.02)
";

/// Runs pytest on a suite of one file, with memwatch's options before and pytest's after.
fn suite(lab: &Lab, options: &[&str], text: &str, pytest: &[&str]) -> Ran {
    let dir = lab.file("suite");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(
        dir.join("test_it.py"),
        format!("import os, pytest, threading, time\n{LEAK}\n{text}"),
    )
    .expect("a file");
    let python = python();
    let dir = dir.display().to_string();
    let mut arguments = options.to_vec();
    arguments.extend([
        "--",
        &python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        &dir,
    ]);
    arguments.extend(pytest);
    lab.attach(&arguments)
}

/// How each test ended, by the end of its name.
fn outcomes(report: &Value) -> Vec<(String, String)> {
    let tests = report["suite"]["tests"].as_array().expect("a suite");
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    let mut found: Vec<_> = tests
        .iter()
        .map(|test| {
            let id = word(&test["id"]);
            let name = id.rsplit("::").next().unwrap_or(&id).to_owned();
            (name, word(&test["outcome"]))
        })
        .collect();
    found.sort();
    found
}

#[track_caller]
fn expect_outcomes(ran: &Ran, expected: &[(&str, &str)]) {
    let found = outcomes(&ran.report);
    let found: Vec<_> = found
        .iter()
        .map(|(name, how)| (name.as_str(), how.as_str()))
        .collect();
    assert_eq!(found, expected, "{ran:#?}");
}

fn rungs(it: &Value) -> Vec<&str> {
    let rungs = it["rungs"].as_array().expect("a list");
    rungs
        .iter()
        .map(|rung| rung["rung"].as_str().expect("a word"))
        .collect()
}

#[test]
fn the_test_that_takes_the_memory_fails_and_the_suite_goes_on() {
    let lab = Lab::new();
    let text = "
def test_a(): pass
def test_hog(): leak([])
def test_z(): pass
";
    let ran = suite(&lab, &["--memory-max", "300M"], text, &[]).expect_verdict("finished", 1);
    expect_outcomes(
        &ran,
        &[
            ("test_a", "passed"),
            ("test_hog", "failed"),
            ("test_z", "passed"),
        ],
    );
    assert_eq!(ran.report["kind"], "abort");
    assert_eq!(ran.report["victims"], serde_json::json!([]));
    let it = &ran.report["interventions"][0];
    assert_eq!(rungs(it), ["abort"]);
    assert!(
        it["test"]["id"]
            .as_str()
            .is_some_and(|id| id.ends_with("test_it.py::test_hog")),
        "{it:#}"
    );
    assert_eq!(it["test"]["culprit"]["id"], it["test"]["id"]);
    let stack = it["python_stack"].to_string();
    assert!(
        stack.contains("in leak") && stack.contains("in test_hog"),
        "{stack}"
    );
    let [before, after] =
        ["memory_before_bytes", "memory_after_bytes"].map(|field| it[field].as_u64());
    assert!(
        after.expect("it is back") < before.expect("it was there") / 2,
        "{it:#}"
    );
    let report = lab.file("report.json").display().to_string();
    for part in [
        "memwatch failed this test: limit full in",
        "). It grew by 2",
        ", and its process holds 2",
        " MiB. The limit is 300 MiB. ",
        &format!("The report is in {report}."),
    ] {
        let text = ran.text();
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(ran.err.contains("memwatch:   test     "), "{}", ran.err);
}

#[test]
fn a_test_that_does_not_heed_it_loses_its_worker_and_nobody_tries_it_again() {
    let lab = Lab::new();
    let text = "
@pytest.mark.parametrize('n', range(6))
def test_other(n): time.sleep(0.05)
def test_hog():
    keep = []
    while True:
        try: leak(keep)
        except BaseException: pass
def test_z(): pass
";
    for dist in ["load", "loadscope"] {
        let pytest = ["-n", "2", "--dist", dist];
        let ran = suite(&lab, &["--memory-max", "400M"], text, &pytest)
            .expect_verdict("finished_with_kills", 1);
        let found = outcomes(&ran.report);
        let hog = found.iter().filter(|(name, _)| name == "test_hog");
        let hog: Vec<_> = hog.map(|(_, how)| how.as_str()).collect();
        // A scheduler that hands it out again gets it refused.
        let refused = hog.iter().filter(|&&how| how == "error").count();
        assert!(
            hog.contains(&"killed") && hog.len() == refused + 1,
            "{dist}: {ran:#?}"
        );
        for name in (0..6)
            .map(|n| format!("test_other[{n}]"))
            .chain(["test_z".to_owned()])
        {
            assert!(
                found.contains(&(name.clone(), "passed".to_owned())),
                "{dist}: {name}: {ran:#?}"
            );
        }
        let it = &ran.report["interventions"][0];
        assert_eq!(rungs(it), ["abort", "sigkill"], "{dist}: {it:#}");
        assert!(
            ran.text().contains("memwatch killed its process"),
            "{dist}: {}",
            ran.text()
        );
        assert_eq!(
            ran.report["victims"].as_array().map(Vec::len),
            Some(1),
            "{dist}"
        );
    }
}

#[test]
fn a_child_that_hogs_is_its_tests_and_is_killed_alone() {
    let lab = Lab::new();
    let text = "
import subprocess, sys
def test_a(): pass
def test_parent():
    code = 'import time\\nkeep = []\\nwhile True: keep.append(bytearray(1 << 20)); time.sleep(0.01)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
def test_z(): pass
";
    let ran =
        suite(&lab, &["--memory-max", "300M"], text, &[]).expect_verdict("finished_with_kills", 1);
    expect_outcomes(
        &ran,
        &[
            ("test_a", "passed"),
            ("test_parent", "failed"),
            ("test_z", "passed"),
        ],
    );
    let it = &ran.report["interventions"][0];
    assert!(
        it["test"]["id"]
            .as_str()
            .is_some_and(|id| id.ends_with("::test_parent")),
        "{it:#}"
    );
    let tests = ran.report["suite"]["tests"].as_array().expect("a list");
    let parent = tests
        .iter()
        .find(|test| test["outcome"] == "failed")
        .expect("test_parent");
    assert!(
        parent["children_peak_bytes"].as_u64() > Some(100 << 20),
        "{parent:#}"
    );
}

#[test]
fn a_child_that_outlives_its_test_is_still_that_tests() {
    let lab = Lab::new();
    let text = "
import subprocess, sys
hogs = []
def test_starts():
    code = 'import time\\nkeep = []\\nwhile True: keep.append(bytearray(1 << 20)); time.sleep(0.02)'
    hogs.append(subprocess.Popen([sys.executable, '-c', code]))
def test_innocent():
    while hogs[0].poll() is None: time.sleep(0.05)
";
    let ran =
        suite(&lab, &["--memory-max", "200M"], text, &[]).expect_verdict("finished_with_kills", 0);
    expect_outcomes(
        &ran,
        &[("test_innocent", "passed"), ("test_starts", "passed")],
    );
    let it = &ran.report["interventions"][0];
    assert!(
        it["test"]["id"]
            .as_str()
            .is_some_and(|id| id.ends_with("::test_starts")),
        "{it:#}"
    );
}

#[test]
fn safe_mode_gives_no_more_workers_than_have_room() {
    let lab = Lab::new();
    let text = "
@pytest.mark.parametrize('n', range(8))
def test_it(n): time.sleep(0.1)
";
    let options = ["--safe", "--memory-max", "600M"];
    for n in ["4", "auto"] {
        let ran = suite(&lab, &options, text, &["-n", n]).expect_verdict("finished", 0);
        assert_eq!(ran.report["suite"]["workers"], 1, "-n {n}: {ran:#?}");
    }
}

#[test]
fn without_the_plugin_pytest_is_a_command_like_any_other() {
    let lab = Lab::new();
    let text = "
def test_env():
    assert 'MEMWATCH_RUN' not in os.environ and 'PYTHONPATH' not in os.environ
def test_hog(): leak([])
";
    let ran = suite(&lab, &["--no-pytest", "--memory-max", "300M"], text, &[])
        .expect_verdict("killed_by_memwatch", 137);
    assert_eq!(ran.report["suite"], Value::Null);
    assert!(!rungs(&ran.report["interventions"][0]).contains(&"abort"));
}

#[test]
fn a_run_whose_time_is_up_says_where_it_was() {
    let lab = Lab::new();
    let text = "def test_stuck(): time.sleep(60)\n";
    let ran = suite(&lab, &["--timeout", "6s"], text, &[]).expect_verdict("timeout", 124);
    let it = &ran.report["interventions"][0];
    assert!(
        it["python_stack"].to_string().contains("in test_stuck"),
        "{it:#}"
    );
}

/// pytest-xdist of this version waits for ever in some cases; here its own controller is what never goes on.
/// The plugin as a project has it: installed, and no run of memwatch's.
fn installed(lab: &Lab) -> std::path::PathBuf {
    let dir = lab.file("installed");
    let info = dir.join("pytest_memwatch-0.dist-info");
    fs::create_dir_all(&info).expect("a directory");
    fs::write(dir.join("memwatch_pytest.py"), memwatch::pytest::PLUGIN).expect("a file");
    fs::write(
        info.join("METADATA"),
        "Metadata-Version: 2.1\nName: pytest-memwatch\nVersion: 0\n",
    )
    .expect("a file");
    fs::write(
        info.join("entry_points.txt"),
        memwatch::pytest::ENTRY_POINTS,
    )
    .expect("a file");
    dir
}

#[test]
fn a_bare_pytest_is_sent_to_memwatch_where_the_project_wants_it() {
    let lab = Lab::new();
    let suite = lab.file("suite");
    fs::create_dir_all(&suite).expect("a directory");
    fs::write(
        suite.join("test_it.py"),
        "import os\ndef test_it(): assert 'MEMWATCH_ATTACHED' in os.environ\n",
    )
    .expect("a file");
    let bin = lab.file("bin");
    fs::create_dir_all(&bin).expect("a directory");
    std::os::unix::fs::symlink(lab::MEMWATCH, bin.join("memwatch")).expect("a link");
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let installed = installed(&lab);
    let pytest = |config: &str, path: &str| {
        fs::write(suite.join("pytest.ini"), format!("[pytest]\n{config}\n")).expect("a file");
        let mut command = lab.command(python());
        command
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
            .arg(&suite)
            .env("PYTHONPATH", &installed)
            .env("PATH", path);
        command
    };
    let ran = lab.run(pytest("memwatch = require", &path)).expect(4);
    assert!(
        ran.err.contains("run: memwatch attach -- pytest"),
        "{ran:#?}"
    );
    let ran = lab.run(pytest("memwatch = sometimes", &path)).expect(4);
    assert!(ran.err.contains("write off, require or reexec"), "{ran:#?}");
    let mut chosen = pytest("memwatch = require", &path);
    chosen.args(["-k", "it or that"]);
    let ran = lab.run(chosen).expect(4);
    assert!(ran.err.contains(" -k 'it or that'\n"), "{ran:#?}");
    lab.run(pytest("memwatch = off", &path)).expect(1);
    // The same said for all of a project's tools at one place.
    let project = suite.join("pyproject.toml");
    fs::write(&project, "[tool.memwatch]\npytest = 'require'\n").expect("a file");
    lab.run(pytest("", &path)).expect(4);
    lab.run(pytest("memwatch = off", &path)).expect(1);
    fs::remove_file(&project).expect("it is there");
    let ran = lab.run(pytest("memwatch = reexec", &path)).expect(0);
    assert!(ran.err.contains("memwatch: "), "its summary: {ran:#?}");
    let ran = lab.run(pytest("memwatch = reexec", "/nowhere")).expect(4);
    assert!(ran.err.contains("install memwatch"), "{ran:#?}");
    // Under memwatch it is what it is elsewhere, with the plugin twice.
    let python = python();
    let line = format!(
        "PYTHONPATH=$PYTHONPATH:{} {python} -m pytest -q {}",
        installed.display(),
        suite.display()
    );
    fs::write(suite.join("pytest.ini"), "[pytest]\nmemwatch = require\n").expect("a file");
    let ran = lab.attach(&["--cmd", &line]).expect_verdict("finished", 0);
    expect_outcomes(&ran, &[("test_it", "passed")]);
}

#[test]
fn tests_are_chosen_by_what_they_took_in_an_earlier_run() {
    let lab = Lab::new();
    let text = "
def test_large():
    x = bytearray(150 << 20)
def test_small(): pass
";
    suite(&lab, &[], text, &[]).expect_verdict("finished", 0);
    let suite_dir = lab.file("suite");
    fs::write(
        suite_dir.join("pytest.ini"),
        "[pytest]\nmemwatch_markers = markers.json\n",
    )
    .expect("a file");
    // The ids of that run are from where it was started.
    let classify = |report: &str| {
        let mut command = lab.command(lab::MEMWATCH);
        command
            .args(["tests", "classify", report, "--write"])
            .arg(suite_dir.join("markers.json"));
        lab.run(command).expect(0);
    };
    fs::write(
        suite_dir.join("markers.json"),
        r#"{"version":1,"markers":{}}"#,
    )
    .expect("a file");
    let ran = suite(&lab, &[], text, &[]).expect_verdict("finished", 0);
    fs::write(lab.file("run.json"), ran.report.to_string()).expect("a file");
    classify(&lab.file("run.json").display().to_string());
    let ran = suite(
        &lab,
        &[],
        text,
        &["-m", "not memory_intensive", "--strict-markers"],
    )
    .expect_verdict("finished", 0);
    expect_outcomes(&ran, &[("test_small", "passed")]);
    fs::write(suite_dir.join("markers.json"), "junk").expect("a file");
    let ran = suite(&lab, &[], text, &[]).expect(4);
    assert!(
        ran.err.contains("memwatch tests classify --write"),
        "{ran:#?}"
    );
}

#[test]
fn what_a_test_spent_in_reclaim_is_told() {
    let lab = Lab::new();
    let big = lab.file("big");
    let text = format!(
        "
import mmap, random
def test_calm(): time.sleep(1)
def test_thrashes():
    with open({big:?}, 'w+b') as file:
        file.truncate(256 << 20)
        for _ in range(256): file.write(os.urandom(1 << 20))
        pages = mmap.mmap(file.fileno(), 0)
        until = time.monotonic() + 2.5
        while time.monotonic() < until: pages[random.randrange(len(pages))]
"
    );
    let options = ["--memory-max", "128M", "--on-pressure", "warn"];
    let ran = suite(&lab, &options, &text, &[]).expect_verdict("finished", 0);
    let tests = ran.report["suite"]["tests"].as_array().expect("a list");
    let reclaim = |at: usize| tests[at]["reclaim_us"].as_u64();
    assert_eq!(reclaim(0).unwrap_or(0), 0, "{ran:#?}");
    assert!(reclaim(1) > Some(1000), "{ran:#?}");
}
