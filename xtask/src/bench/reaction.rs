//! Reaction: from the budget being used up to the victim's exit, for hogs that stall and hogs that leak.
//! What a used-up budget is stands in `budget`; the exit is seen from outside, by `victim`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::budget::{Look, StallRule, looks};
use super::statistics::{judge, percentile};
use super::table;
use super::victim::{GRAIN, Victim, now_us};
use crate::soak::CULPRIT_FILE;
use crate::workspace::Release;

const GOAL_MS: f64 = 50.0;

/// A hog and how its reaction is counted.
struct Hog {
    what: &'static str,
    limit: &'static str,
    /// What sh does before it becomes the workload.
    before: &'static str,
    workload: &'static str,
    /// It is run one time where others are run this often.
    one_in: usize,
    budget: Budget,
}

/// From when the reaction counts.
#[derive(Clone, Copy)]
enum Budget {
    /// When the stall rule first held, and what is given on purpose after that.
    Stall { grace: Duration },
    /// The last look before the one at which the rule held.
    Exhaustion,
}

const HOGS: [Hog; 3] = [
    Hog {
        what: "thrash",
        limit: "100M",
        // So that the window is whole before the stall begins, and its budget a matter of counters.
        before: "sleep 3",
        workload: "thrash",
        one_in: 1,
        budget: Budget::Stall {
            grace: Duration::ZERO,
        },
    },
    Hog {
        what: "thrash, deaf to SIGTERM",
        limit: "100M",
        before: "trap '' TERM; sleep 3",
        workload: "thrash",
        one_in: 5,
        budget: Budget::Stall {
            grace: Duration::from_secs(1),
        },
    },
    Hog {
        what: "leak",
        limit: "200M",
        before: ":",
        workload: "leak",
        one_in: 1,
        budget: Budget::Exhaustion,
    },
];

/// Measures and prints.
///
/// # Errors
/// If a run cannot be made or understood.
pub(crate) fn run(release: &Release, scratch: &Path, runs: usize) -> Result<()> {
    table::headline(
        "reaction",
        "ms from the budget being used up to the victim's exit",
    );
    println!(
        "{:<28} {:>5} {:>6} {:>8} {:>8} {:>8}  {:<12} verdict",
        "hog", "runs", "early", "p50", "p99", "max", "goal"
    );
    for hog in &HOGS {
        let count = runs.div_ceil(hog.one_in);
        let reactions = (0..count)
            .map(|_| run_once(release, scratch, hog))
            .collect::<Result<Vec<_>>>()?;
        let early = reactions.iter().filter(|ms| ms.is_none()).count();
        let reactions: Vec<_> = reactions.iter().map(|ms| ms.unwrap_or(0.0)).collect();
        let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(&reactions, percent));
        println!(
            "{:<28} {count:>5} {early:>6} {p50:>8.1} {p99:>8.1} {max:>8.1}  {:<12} {}",
            hog.what,
            format!("p99 <= {GOAL_MS}"),
            judge(p99, GOAL_MS)
        );
    }
    println!(
        "  A stall's budget is used up when the rule first held, window whole, by the counters that memwatch\n  \
         recorded; a hog that is deaf to SIGTERM is given one second on purpose, which is taken off. A leak's\n  \
         is used up at the last look before the one that led to the order. The exit is the first sight of\n  \
         PF_EXITING, 0.5 ms apart: all three are upper bounds of the time to the signal's delivery.\n  \
         Early: memwatch acted within the millisecond, or before; counted as 0."
    );
    Ok(())
}

/// One run's reaction in ms; `None` if memwatch acted before the budget was used up.
fn run_once(release: &Release, scratch: &Path, hog: &Hog) -> Result<Option<f64>> {
    let [culprit, report, recording] =
        ["culprit", "report.json", "looks.jsonl"].map(|name| scratch.join(name));
    for old in [&culprit, &report, &recording] {
        if old.exists() {
            fs::remove_file(old)?;
        }
    }
    let script = format!(
        "{}; exec {} {} --seconds 30 --dir {}",
        hog.before,
        release.workload.display(),
        hog.workload,
        scratch.display()
    );
    let mut memwatch = Command::new(&release.memwatch)
        .args(["attach", "--quiet", "--memory-max", hog.limit, "--record"])
        .arg(&recording)
        .arg("--report")
        .arg(&report)
        .args(["--", "sh", "-c", &script])
        .env(CULPRIT_FILE, &culprit)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let exit_us = wait_for_exit(&mut memwatch, &culprit);
    memwatch.wait()?;
    let exit_us = exit_us?;

    let report: Value = serde_json::from_slice(&fs::read(&report)?)?;
    let looks = looks(&fs::read_to_string(&recording)?)?;
    let used_up_us = used_up_us(hog, &report, &looks)
        .with_context(|| format!("{}: {}", hog.what, report["interventions"]))?;
    let reaction_us = used_up_us.and_then(|used_up_us| exit_us.checked_sub(used_up_us));
    Ok(reaction_us.map(|us| us as f64 / 1000.0))
}

/// Waits until the victim that `culprit` names exits. A hog ends by itself, and memwatch with it.
fn wait_for_exit(memwatch: &mut Child, culprit: &Path) -> Result<u64> {
    let mut victim = None;
    loop {
        // Before the look at the victim, which cannot come too late then.
        let ended = memwatch.try_wait()?.is_some();
        match &victim {
            None => victim = Victim::named_in(culprit)?,
            Some(victim) if victim.is_exiting() => return Ok(now_us()),
            Some(_) => {}
        }
        ensure!(!ended, "memwatch ended before its victim was seen to");
        sleep(GRAIN);
    }
}

/// When the budget was used up, by the looks.
fn used_up_us(hog: &Hog, report: &Value, looks: &[Look]) -> Result<Option<u64>> {
    let intervention = &report["interventions"][0];
    match hog.budget {
        Budget::Stall { grace } => {
            ensure!(intervention["rule"] == "stall", "another rule was met");
            let held_us = StallRule::of_report(report)?.first_held_us(looks);
            Ok(held_us.map(|us| us + grace.as_micros() as u64))
        }
        Budget::Exhaustion => {
            ensure!(intervention["rule"] == "exhaustion", "another rule was met");
            // A leak only grows, so its size tells the look.
            let size = intervention["memory_before_bytes"].as_f64();
            let ordered = looks
                .iter()
                .position(|look| Some(look.current_bytes) == size)
                .context("the look of the order was not recorded")?;
            Ok(Some(looks[ordered.saturating_sub(1)].at_us))
        }
    }
}
