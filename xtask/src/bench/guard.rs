//! The guard in the kernel: how soon it kills in the place of a memwatch that is stopped or dead, that it
//! kills nobody while memwatch lives, and what it costs. A run is made by `thrash`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::maps::unread_kills;
use super::operations::{print_cost, require_free_paths};
use super::programs;
use super::statistics::{Verdict, percentile};
use super::table;
use super::thrash::{Ground, LIMIT, SECONDS, Thrash};
use super::watched::Talker;
use crate::machine::cgroups_named;
use crate::workspace::Release;

/// The defaults of `guard_stale_after` and `stall_window`, and the budget that `guard_stall_permille` makes
/// of them. Every report is held against them.
const STALE_AFTER: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(3);
const BUDGET: Duration = Duration::from_millis(300);
/// memwatch must have been silent for long enough, its budget must be used up, and one window is what a
/// stall may take to show.
const BOUND: Duration = STALE_AFTER.saturating_add(BUDGET).saturating_add(WINDOW);
/// The longest that memwatch may have been silent already when it was stopped.
const SILENT_BEFORE: Duration = Duration::from_millis(150);
/// A hog sleeps from so long before memwatch is silent for too long. Later the stall that it is killed for
/// would not be in the window any more.
const ASLEEP_BEFORE: Duration = Duration::from_millis(300);
/// Long enough for the guard to have killed, were there no sign of life.
const UNHARMED_SECONDS: u32 = 6;

/// What came of one run.
struct Run {
    /// What was measured, if it came to that.
    figure: Option<f64>,
    /// Empty if the run went as it must.
    wrong: Vec<String>,
}

impl Run {
    fn of(figure: f64) -> Self {
        Self {
            figure: Some(figure),
            wrong: Vec::new(),
        }
    }

    fn check(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(otherwise());
        }
    }
}

/// Measures and prints.
///
/// # Errors
/// If a run cannot be made.
pub(crate) fn run(release: &Release, scratch: &Path, runs: usize) -> Result<()> {
    programs::require_none()?;
    let ground = Ground::new(release, scratch)?;
    table::headline("guard", "a target that thrashes, and memwatch cannot act");
    let named = reaches_sleepers(&ground)?;
    println!(
        "{:<28} {:>5} {:>5} {:>7} {:>7} {:>7} {:>7} {:>7}  {:<18} verdict",
        "s until the kernel killed it", "runs", "ok", "min", "p50", "p90", "p99", "max", "goal"
    );
    deaths("memwatch stopped", runs, |phase| stopped(&ground, phase))?;
    deaths("memwatch killed", runs, |phase| killed(&ground, phase))?;
    if named {
        deaths("stopped, the hog asleep", runs, |phase| {
            beside_somebody_busy(|| asleep(&ground, phase))
        })?;
    } else {
        println!(
            "  A hog that sleeps: not reached here, this kernel has no functions for it (6.13)."
        );
    }
    println!(
        "  From the signal to memwatch until the first sight of PF_EXITING, 0.5 ms apart. The signal comes at\n  \
         another moment of the stall's first window in each run. Goal: memwatch silent for {STALE_AFTER:?}, the budget of\n  \
         {BUDGET:?}, and one window of {WINDOW:?}. Ok: the thrasher died, of SIGKILL, and is the one that the guard has\n  \
         written down; the shell beside it in the target lived; memwatch told it, or after its death the next one\n  \
         did, once, and nothing was left. A sleeper is reached from a tick that finds a CPU at work: a loop\n  \
         outside of the target sees to that."
    );

    table::headline("guard", "the same target, and memwatch lives");
    unharmed(&ground, runs)?;

    table::headline("guard", "what it costs");
    require_free_paths(release)?;
    costs(&ground)
}

/// Runs a scenario, `runs` times, and prints its row.
fn deaths(what: &str, runs: usize, scenario: impl Fn(Duration) -> Result<Run>) -> Result<()> {
    let runs = repeat(what, runs, scenario)?;
    let ok = count_ok(&runs);
    let took: Vec<_> = runs.iter().filter_map(|run| run.figure).collect();
    let goal = format!("all, <= {:.1}", BOUND.as_secs_f64());
    print!("{what:<28} {:>5} {ok:>5} ", runs.len());
    if took.is_empty() {
        print!("{:>39}", "none");
    } else {
        let shown = [0, 50, 90, 99, 100].map(|percent| percentile(&took, percent));
        print!("{}", shown.map(|s| format!("{s:>7.3}")).join(" "));
    }
    let in_time = took.iter().all(|&s| s <= BOUND.as_secs_f64());
    println!("  {goal:<18} {}", verdict(ok == runs.len() && in_time));
    print_wrong(&runs);
    Ok(())
}

fn count_ok(runs: &[Run]) -> usize {
    runs.iter().filter(|run| run.wrong.is_empty()).count()
}

fn verdict(reached: bool) -> Verdict {
    if reached {
        Verdict::Reached
    } else {
        Verdict::NotReached
    }
}

/// Runs a scenario with memwatch struck at moments that are spread over a window.
fn repeat(what: &str, runs: usize, scenario: impl Fn(Duration) -> Result<Run>) -> Result<Vec<Run>> {
    let mut done = Vec::new();
    for number in 0..runs {
        done.push(scenario(WINDOW * number as u32 / runs as u32)?);
        if done.len().is_multiple_of(10) && done.len() < runs {
            eprintln!("  ({what}: {} of {runs})", done.len());
        }
    }
    Ok(done)
}

fn print_wrong(runs: &[Run]) {
    for (number, run) in runs
        .iter()
        .enumerate()
        .filter(|(_, run)| !run.wrong.is_empty())
    {
        println!("    run {}: {}", number + 1, run.wrong.join("; "));
    }
}

/// memwatch is stopped, and goes on when its target has been killed.
fn stopped(ground: &Ground<'_>, phase: Duration) -> Result<Run> {
    let thrash = Thrash::start(ground, SECONDS, "")?;
    thrash.go_on_for(phase);
    let (run, _) = strike(&thrash, libc::SIGSTOP)?;
    goes_on(run, thrash)
}

/// memwatch is killed, and another one comes when its target has been killed too.
fn killed(ground: &Ground<'_>, phase: Duration) -> Result<Run> {
    let mut thrash = Thrash::start(ground, SECONDS, "")?;
    thrash.go_on_for(phase);
    let (mut run, _) = strike(&thrash, libc::SIGKILL)?;
    died_by_sigkill(&mut run, &mut thrash)?;
    let (pid, cgroup) = (thrash.thrasher.pid, thrash.cgroup.clone());
    thrash.end()?;
    let kills = unread_kills()?;
    run.check(kills.len() == 1, || {
        format!("in the end it had killed {kills:?}")
    });
    // One that looks when it comes, and one that does not stay for long enough and looks when it goes.
    let next = if phase < WINDOW / 2 {
        "sleep 1"
    } else {
        "true"
    };
    for (which, expected) in [("next", 1), ("one after that", 0)] {
        let told = times_told(ground, next, pid)?;
        run.check(told == expected, || {
            format!("the {which} told the kill {told} times")
        });
        if expected == 1 {
            let gone = programs::all_gone(Duration::from_secs(2));
            run.check(gone, || "the programs outlived the next one".to_owned());
            let name = cgroup.file_name().unwrap_or_default().to_string_lossy();
            let left = cgroups_named(&name);
            run.check(left.is_empty(), || format!("left over: {left:?}"));
        }
    }
    Ok(run)
}

/// memwatch is stopped, and the hog falls asleep before its silence has been too long.
fn asleep(ground: &Ground<'_>, phase: Duration) -> Result<Run> {
    // At least one look at who stalls the most.
    let phase = phase / 2 + Duration::from_secs(1);
    let bedtime = phase + STALE_AFTER - ASLEEP_BEFORE;
    let options = format!("--asleep-after-ms {}", bedtime.as_millis());
    let thrash = Thrash::start(ground, SECONDS, &options)?;
    thrash.go_on_for(phase);
    let (mut run, slept) = strike(&thrash, libc::SIGSTOP)?;
    run.check(slept, || "it was not seen asleep".to_owned());
    goes_on(run, thrash)
}

/// Strikes memwatch and waits for the thrasher's death; also, whether the thrasher slept before.
fn strike(thrash: &Thrash, signal: i32) -> Result<(Run, bool)> {
    let struck = Instant::now();
    thrash.signal(signal);
    let slept = thrash.outlive();
    let took = struck.elapsed();
    let mut run = Run::of(took.as_secs_f64());
    run.check(took >= STALE_AFTER - SILENT_BEFORE, || {
        format!("dead after {took:.1?}, which is too early")
    });
    let kills = unread_kills()?;
    run.check(kills == [thrash.thrasher.pid], || {
        format!("the guard killed {kills:?} and not {}", thrash.thrasher.pid)
    });
    if !kills.contains(&thrash.thrasher.pid) {
        run.figure = None;
    }
    Ok((run, slept))
}

fn died_by_sigkill(run: &mut Run, thrash: &mut Thrash) -> Result<()> {
    const KILLED: &str = "137";
    let words = thrash.last_words()?;
    run.check(words == KILLED, || {
        format!("the shell in the target said `{words}`")
    });
    Ok(())
}

/// Lets a stopped memwatch go on and end, and looks into its report for the one kill.
fn goes_on(mut run: Run, mut thrash: Thrash) -> Result<Run> {
    thrash.signal(libc::SIGCONT);
    died_by_sigkill(&mut run, &mut thrash)?;
    let pid = thrash.thrasher.pid;
    let report = report_of(thrash)?;
    let victims = &report["victims"];
    let once = victims.as_array().is_some_and(|victims| victims.len() == 1);
    let told = once && victims[0]["pid"] == pid && victims[0]["killed_by"] == "guard";
    run.check(told, || format!("memwatch told of {victims}"));
    Ok(run)
}

/// The report of a memwatch that lives, by the settings that the goal is made of.
fn report_of(thrash: Thrash) -> Result<Value> {
    let report = thrash.end()?.context("memwatch was ended by a signal")?;
    let settings = &report["settings"];
    ensure!(
        settings["guard_stale_after"] == "3s"
            && settings["stall_window"] == "3s"
            && settings["guard_stall_permille"] == 100,
        "the defaults have changed, and with them the bound that this is held against"
    );
    Ok(report)
}

/// How often a new memwatch tells of a kill.
fn times_told(ground: &Ground<'_>, command: &str, pid: u32) -> Result<usize> {
    let output = ground.attach().args(["--", "sh", "-c", command]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(said.matches(&format!("(pid {pid})")).count())
}

/// Runs something while a process outside of all targets keeps a CPU at work.
fn beside_somebody_busy<T>(work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        done
    })
}

/// Whether the guard's clock here is the one that reaches those who sleep.
fn reaches_sleepers(ground: &Ground<'_>) -> Result<bool> {
    let idle = Talker::start_watched(&ground.release.memwatch, &[], &[Path::new("cat")])?;
    let attached = programs::is_attached("guard_tick_named")?;
    idle.end()?;
    Ok(attached)
}

/// memwatch lives, and prints that nobody was killed.
fn unharmed(ground: &Ground<'_>, runs: usize) -> Result<()> {
    let runs = repeat("memwatch lives", runs, |_| unharmed_once(ground))?;
    let ok = count_ok(&runs);
    let stalls = runs.iter().filter_map(|run| run.figure);
    let least = stalls.fold(f64::INFINITY, f64::min) * 100.0;
    table::figure(
        "never killed",
        &format!("{ok} of {}, each >= {least:.0} % in reclaim", runs.len()),
        "all",
        verdict(ok == runs.len()),
    );
    println!(
        "  {UNHARMED_SECONDS} s each, by settings with which memwatch itself never acts. Were there no sign of life, a tenth of\n  \
         the time in reclaim would be enough for the guard."
    );
    print_wrong(&runs);
    Ok(())
}

/// The figure is the share of the time that was spent in reclaim.
fn unharmed_once(ground: &Ground<'_>) -> Result<Run> {
    let mut thrash = Thrash::start(ground, UNHARMED_SECONDS, "")?;
    thrash.outlive();
    let kills = unread_kills()?;
    let words = thrash.last_words()?;
    let report = report_of(thrash)?;
    let figure = |value: &Value| value.as_f64().context("the report has no such figure");
    let stall = figure(&report["reclaim"]["stall_us"])? / figure(&report["duration_us"])?;

    let mut run = Run::of(stall);
    run.check(kills.is_empty(), || format!("the guard killed {kills:?}"));
    run.check(words == "0", || {
        format!("the shell in the target said `{words}`")
    });
    let verdict = &report["verdict"];
    run.check(verdict == "finished", || format!("verdict {verdict}"));
    // Else there was no reason for the guard to act, and nothing is shown.
    let reason = BUDGET.as_secs_f64() / WINDOW.as_secs_f64();
    run.check(stall >= reason, || {
        format!("in reclaim for {:.0} % of the time only", stall * 100.0)
    });
    Ok(run)
}

/// What the guard takes of everybody's time, idle and in its target's reclaim.
fn costs(ground: &Ground<'_>) -> Result<()> {
    let _counting = programs::count_costs()?;
    println!("by the kernel's count (ns x runs = share of the time that passed):");
    let memwatch = &ground.release.memwatch;
    let look_on = |_: &mut Talker| {
        sleep(Duration::from_secs(5));
        Ok(())
    };
    let mut idle = Talker::start_watched(memwatch, &[], &[Path::new("cat")])?;
    print_cost("armed and idle, 5 s", &mut idle, look_on)?;
    idle.end()?;

    let config = ground.config.to_string_lossy();
    let dir = format!("--dir={}", ground.scratch.display());
    let mut thrash = Talker::start_watched(
        memwatch,
        &["--config", &config, "--memory-max", LIMIT],
        &[
            &ground.release.workload,
            Path::new("thrash"),
            Path::new("--seconds=12"),
            Path::new(&dir),
        ],
    )?;
    // Its file is made by then, and it thrashes.
    sleep(Duration::from_secs(3));
    print_cost("armed, thrashing, 5 s", &mut thrash, look_on)?;
    thrash.end()
}
