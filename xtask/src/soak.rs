//! `cargo xtask soak`: every scenario under memwatch, many times, and a table of what came of it.
//! What is run stands in `scenario`, what must come of it in `judge`.

pub(crate) mod judge;
mod scenario;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::machine;
use crate::python::Python;
use crate::workspace::{Release, root, target_dir};
use judge::{Ending, Evidence, judge};
pub(crate) use scenario::CULPRIT_FILE;
use scenario::{Programs, Scenario};

/// Longer than any scenario takes if all is well.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often the recording of each run of an innocent is replayed, and how late looks then come: as
/// late as on a machine with every core busy.
const REPLAYS: u32 = 300;
const REPLAY_JITTER: &str = "30ms";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each scenario is run.
    #[arg(long, default_value_t = 20)]
    pub(crate) runs: usize,
    /// Only the scenarios whose name contains this.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// Leave out what takes minutes, and let innocents run for a shorter time.
    #[arg(long)]
    pub(crate) quick: bool,
}

/// Runs the scenarios asked for.
///
/// # Errors
/// If something is missing, or a single run did not end as it must.
pub(crate) fn run(args: &Args) -> Result<()> {
    machine::require()?;
    let release = Release::build()?;
    let python = Python::with_packages(&["pytest", "pytest-xdist", "numpy"])?;
    let scratch = target_dir().join("soak");
    fs::create_dir_all(&scratch)?;
    let programs = Programs {
        release: &release,
        python: &python,
        scratch: &scratch,
    };

    let mut scenarios = scenario::all(&programs, args.quick);
    if let Some(part) = &args.only {
        let names: Vec<_> = scenarios.iter().map(|scenario| scenario.name).collect();
        scenarios.retain(|scenario| scenario.name.contains(part.as_str()));
        ensure!(
            !scenarios.is_empty(),
            "no scenario `{part}`; there are {}",
            names.join(", ")
        );
    }
    println!(
        "\n{:<16} {:>6} {:>5} {:>4}  {:>8} {:>6}  failures",
        "scenario", "limit", "runs", "ok", "median s", "peak %"
    );
    let mut failed = 0;
    for scenario in &scenarios {
        let runs = (1..=args.runs)
            .map(|number| run_once(&programs, scenario, number))
            .collect::<Result<Vec<_>>>()?;
        failed += print_row(scenario, &runs);
    }
    if failed > 0 {
        bail!(
            "{failed} runs did not end as they must; their reports are in {}",
            scratch.display()
        );
    }
    Ok(())
}

/// What came of one run.
struct Run {
    seconds: f64,
    peak_percent: Option<u64>,
    /// Empty if the run ended as it must.
    failures: Vec<String>,
}

fn run_once(programs: &Programs<'_>, scenario: &Scenario, number: usize) -> Result<Run> {
    let dir = programs.scratch.join(format!("{}-{number}", scenario.name));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir(&dir)?;
    let report = dir.join("report.json");
    let culprit = dir.join("culprit");
    let output = File::create(dir.join("output.log"))?;

    let recording = dir.join("recording.jsonl");
    let oom_kills_before = machine::oom_kills()?;
    let started = Instant::now();
    let mut memwatch = Command::new(&programs.release.memwatch);
    memwatch
        .current_dir(root())
        .args(["attach", "--memory-max", scenario.limit, "--report"])
        .arg(&report);
    if matches!(scenario.ending, Ending::Untouched) {
        memwatch.arg("--record").arg(&recording);
    }
    let mut memwatch = memwatch
        .arg("--")
        .args(&scenario.command)
        .env(CULPRIT_FILE, &culprit)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot start {}", programs.release.memwatch.display()))?;
    let status = wait(&mut memwatch)?;
    let seconds = started.elapsed().as_secs_f64();

    let exit_code = status.and_then(|status| status.code());
    let evidence = Evidence::gather(exit_code, &report, &culprit, oom_kills_before)?;
    let mut failures = judge(scenario.ending, &evidence);
    if status.is_none() {
        failures.insert(0, format!("had not ended after {} s", PATIENCE.as_secs()));
    }
    if matches!(scenario.ending, Ending::Untouched) && failures.is_empty() {
        failures.extend(replay(programs, &recording)?);
    }
    if failures.is_empty() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(Run {
        seconds,
        peak_percent: evidence.peak_percent(),
        failures,
    })
}

/// What the policy orders when the looks at an innocent come late, differently each time: nothing.
fn replay(programs: &Programs<'_>, recording: &Path) -> Result<Option<String>> {
    let replay = Command::new(&programs.release.memwatch)
        .args(["replay", "--jitter", REPLAY_JITTER, "--times"])
        .arg(REPLAYS.to_string())
        .arg(recording)
        .output()?;
    let said = String::from_utf8_lossy(&replay.stdout);
    let last = said.lines().last().unwrap_or_default();
    Ok((!replay.status.success()).then(|| format!("replays ({}): {last}", replay.status)))
}

/// Waits for memwatch; `None` if it had to be killed, which leaves its target to the next run.
fn wait(memwatch: &mut Child) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(status) = memwatch.try_wait()? {
            return Ok(Some(status));
        }
        sleep(Duration::from_millis(5));
    }
    memwatch.kill()?;
    memwatch.wait()?;
    Ok(None)
}

/// Prints a scenario's row and answers how many of its runs failed.
fn print_row(scenario: &Scenario, runs: &[Run]) -> usize {
    let failed: Vec<_> = runs.iter().filter(|run| !run.failures.is_empty()).collect();
    let mut seconds: Vec<_> = runs.iter().map(|run| run.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or_default();
    let peak = runs.iter().filter_map(|run| run.peak_percent).max();
    print!(
        "{:<16} {:>6} {:>5} {:>4}  {median:>8.1} {:>6}",
        scenario.name,
        scenario.limit,
        runs.len(),
        runs.len() - failed.len(),
        peak.map_or("-".to_owned(), |percent| percent.to_string()),
    );
    match failed.first() {
        None => println!(),
        Some(first) => println!("  {}", first.failures.join("; ")),
    }
    for run in failed.iter().skip(1) {
        println!("{:<53}{}", "", run.failures.join("; "));
    }
    failed.len()
}

/// Keeps a path's text for a command line.
fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}
