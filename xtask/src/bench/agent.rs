//! What memwatch itself takes while nothing happens: processor time and memory.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::statistics::judge;
use super::table;
use super::watched::Talker;
use crate::workspace::Release;

const GOAL_CPU_PERCENT: f64 = 0.2;
const GOAL_MIB: f64 = 12.0;
/// What is touched at the start is there by then, and what is given back is gone.
const SETTLED: Duration = Duration::from_secs(10);

/// Measures and prints; `time` is how long the idle memwatch is watched.
///
/// # Errors
/// If memwatch does not run, or `/proc` cannot be read.
pub(crate) fn run(release: &Release, time: Duration) -> Result<()> {
    table::headline("agent", "what memwatch takes, attached to an idle command");
    let memwatch = Talker::start_watched(&release.memwatch, &[], &[Path::new("cat")])?;
    sleep(SETTLED.min(time));
    let before = memwatch.cpu_ns()?;
    sleep(time);
    let used = memwatch.cpu_ns()? - before;
    let percent = used as f64 / time.as_nanos() as f64 * 100.0;
    table::figure(
        "processor time",
        &format!("{percent:.3} % of a core over {} s", time.as_secs()),
        &format!("<= {GOAL_CPU_PERCENT} %"),
        judge(percent, GOAL_CPU_PERCENT),
    );

    let proc = format!("/proc/{}", memwatch.pid());
    let status = fs::read_to_string(format!("{proc}/status"))?;
    let rollup = fs::read_to_string(format!("{proc}/smaps_rollup"))?;
    let resident = mib(&status, "VmRSS:")?;
    let measured = format!(
        "{resident:.1} MiB ({:.1} anonymous, {:.1} Pss)",
        mib(&status, "RssAnon:")?,
        mib(&rollup, "Pss:")?,
    );
    table::figure(
        "resident memory",
        &measured,
        &format!("<= {GOAL_MIB} MiB"),
        judge(resident, GOAL_MIB),
    );
    memwatch.end()
}

/// A line `name: N kB`.
pub(super) fn mib(text: &str, name: &str) -> Result<f64> {
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    let kib: f64 = kib.with_context(|| format!("no {name}"))?.parse()?;
    Ok(kib / 1024.0)
}
