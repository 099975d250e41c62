//! How soon a test fails when it is asked to: calm, and while its cgroup reclaims all the time. Each kind of test
//! is asked by a time limit of its own; one that has not answered after two seconds loses its process.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::table;
use crate::python::Python;
use crate::workspace::Release;

/// Enough for Python, numpy and a thrasher, and half of what the thrasher would have.
const LIMIT: &str = "200M";

const CONFTEST: &str = r#"
import os, subprocess, pytest
@pytest.fixture(scope="session", autouse=True)
def pressure():
    workload = os.environ.get("PRESSURE")
    if not workload:
        yield
        return
    hog = subprocess.Popen([workload, "thrash", "--seconds", "300", "--dir", os.environ["SCRATCH"]])
    yield
    hog.kill()
    hog.wait()
"#;

const SUITE: &str = r#"
import asyncio, hashlib, subprocess, threading, time, pytest, numpy
pytestmark = pytest.mark.memwatch(timeout="1500ms")
def test_loop():
    while True: pass
def test_dicts():
    while True: {n: str(n) for n in range(1000)}
def test_sleep(): time.sleep(60)
def test_asyncio(): asyncio.run(asyncio.sleep(60))
def test_lock():
    lock = threading.Lock(); lock.acquire(); lock.acquire()
def test_join():
    thread = threading.Thread(target=time.sleep, args=(60,), daemon=True); thread.start(); thread.join()
def test_subprocess(): subprocess.run(["sleep", "60"])
@pytest.fixture
def stuck(): time.sleep(60)
def test_fixture(stuck): pass
def test_numpy_fill():
    while True: numpy.empty(4_000_000).fill(1.0)
def test_numpy_sort():
    numbers = numpy.random.default_rng(1).random(3_000_000)
    while True: numpy.sort(numbers)
def test_one_long_call(): hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 28)
def test_swallows():
    while True:
        try: time.sleep(60)
        except BaseException: pass
"#;

/// Measures and prints.
///
/// # Errors
/// If pytest cannot be had, or a run does not end as it should.
pub(crate) fn run(release: &Release, scratch: &Path, rounds: usize) -> Result<()> {
    let python = Python::with_packages(&["pytest", "pytest-xdist", "numpy"])?.program("python");
    let suite = scratch.join("abort");
    fs::create_dir_all(&suite)?;
    fs::write(suite.join("conftest.py"), CONFTEST)?;
    fs::write(suite.join("test_abort.py"), SUITE)?;
    table::headline(
        "abort",
        "from asking a test to fail until it does, in ms: median (most), or the kills",
    );
    println!(
        "{:<28} {:>20} {:>20}",
        "the test is in", "calm", "in reclaim"
    );
    let mut calm = Vec::new();
    let mut pressed = Vec::new();
    for _ in 0..rounds {
        calm.push(answers(release, &python, &suite, scratch, false)?);
        pressed.push(answers(release, &python, &suite, scratch, true)?);
    }
    for (at, (name, _)) in calm[0].iter().enumerate() {
        let column = |rounds: &[Vec<(String, Option<u64>)>]| {
            told(rounds.iter().map(|round| round[at].1).collect())
        };
        println!("{name:<28} {:>20} {:>20}", column(&calm), column(&pressed));
    }
    Ok(())
}

/// What each test of one run took to answer, in µs; `None` if its process had to be killed.
fn answers(
    release: &Release,
    python: &Path,
    suite: &Path,
    scratch: &Path,
    pressed: bool,
) -> Result<Vec<(String, Option<u64>)>> {
    let report = scratch.join("abort.json");
    let _ = fs::remove_file(&report);
    let mut command = Command::new(&release.memwatch);
    command
        .args([
            "attach",
            "--quiet",
            "--on-pressure",
            "warn",
            "--memory-max",
            LIMIT,
            "--report",
        ])
        .arg(&report)
        .arg("--")
        .arg(python)
        .args(["-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider"])
        .arg(suite)
        .env("SCRATCH", scratch);
    if pressed {
        command.env("PRESSURE", &release.workload);
    }
    let ran = command.output().context("cannot run memwatch")?;
    let record = fs::read(&report)
        .with_context(|| format!("no record: {}", String::from_utf8_lossy(&ran.stderr)))?;
    let record: serde_json::Value = serde_json::from_slice(&record)?;
    let tests = record["suite"]["tests"]
        .as_array()
        .context("no tests in the record")?;
    let names = SUITE
        .lines()
        .filter_map(|line| line.strip_prefix("def test_"));
    let names = names.filter_map(|line| Some(line.split_once('(')?.0.replace('_', " ")));
    let answers = names.map(|name| {
        let wanted = format!("::test_{}", name.replace(' ', "_"));
        let its =
            |test: &&serde_json::Value| test["id"].as_str().is_some_and(|id| id.ends_with(&wanted));
        let test = tests
            .iter()
            .find(its)
            .with_context(|| format!("{name} did not run"))?;
        Ok((name, test["answered_us"].as_u64()))
    });
    let answers: Vec<_> = answers.collect::<Result<_>>()?;
    ensure!(
        answers.iter().any(|(_, answer)| answer.is_some()),
        "no test answered"
    );
    Ok(answers)
}

fn told(mut answers: Vec<Option<u64>>) -> String {
    let killed = answers.iter().filter(|answer| answer.is_none()).count();
    if killed > 0 {
        return format!("killed {killed} of {}", answers.len());
    }
    answers.sort_unstable();
    let ms = |us: Option<u64>| us.unwrap_or(0) as f64 / 1000.0;
    let (median, most) = (answers[answers.len() / 2], answers[answers.len() - 1]);
    format!("{:.1} ({:.1})", ms(median), ms(most))
}
