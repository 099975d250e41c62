//! What memwatch costs single operations: of processes that it does not watch, and of those that it
//! does. The operations themselves are the workload's (`measure`).

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::place::Place;
use super::programs::{self, Cost};
use super::rounds::{Side, interleave};
use super::table;
use super::watched::Talker;
use crate::workspace::Release;

/// The workload's names for them, and ours.
const OPERATIONS: [(&str, &str); 3] = [
    ("fault", "first-touch page fault, ns"),
    ("spawn", "fork, exec and exit, ns"),
    ("switch", "switch of cgroups, ns"),
];
/// An equality can only be shown to within something; a change of 2 % is what nobody notices.
const GOAL_OUTSIDE: f64 = 1.02;
const GOAL_INSIDE: f64 = 1.03;
/// For what was started just before, on whichever side of a round.
const SETTLED: Duration = Duration::from_millis(100);
/// For whatever is measured, far more than it takes.
const LIMIT: &str = "512M";
const LIMIT_BYTES: u64 = 512 << 20;

/// Measures and prints what memwatch costs others, and that it is not in their way.
///
/// # Errors
/// If a program is where it must not be, or a measurement cannot be made.
pub(crate) fn outside(release: &Release, rounds: usize) -> Result<()> {
    table::headline(
        "non-target",
        "a process that memwatch does not watch, while it watches an idle one",
    );
    require_free_paths(release)?;
    table::ratio_columns("operation");
    let measured = interleave(rounds, |side| {
        let memwatch = match side {
            Side::With => Some(watch_idle(release)?),
            Side::Without | Side::Again => None,
        };
        let figures = measure_in_place(release)?;
        memwatch.map_or(Ok(()), Talker::end)?;
        Ok(figures)
    })?;
    for ((_, what), rounds) in OPERATIONS.iter().zip(&measured) {
        table::ratio(what, rounds, GOAL_OUTSIDE);
    }
    println!(
        "  The goal is 1.00 within the noise; {GOAL_OUTSIDE} is the difference that is looked for."
    );
    Ok(())
}

/// Measures and prints what memwatch costs its target.
///
/// # Errors
/// If a measurement cannot be made.
pub(crate) fn inside(release: &Release, scratch: &Path, rounds: usize) -> Result<()> {
    table::headline(
        "target",
        "a process that memwatch watches, and one in a cgroup just like that without memwatch",
    );
    table::ratio_columns("operation");
    let measured = interleave(rounds, |side| match side {
        Side::With => {
            let mut target = start_in_target(release)?;
            let figures = ask_all(&mut target)?;
            target.end()?;
            Ok(figures)
        }
        Side::Without | Side::Again => measure_in_place(release),
    })?;
    for ((_, what), rounds) in OPERATIONS.iter().zip(&measured) {
        table::ratio(what, rounds, GOAL_INSIDE);
    }
    print_costs(release, scratch)
}

/// The hard promise to everybody else: while nothing is wrong no program of ours is run by a page fault
/// or by a switch.
///
/// # Errors
/// If it is not kept.
pub(crate) fn require_free_paths(release: &Release) -> Result<()> {
    let memwatch = watch_idle(release)?;
    let (links, perf_events) = programs::links(memwatch.pid())?;
    let places: Vec<_> = links.iter().map(programs::Link::place).collect();
    println!("attached while idle: {}", places.join(", "));
    let hot: Vec<_> = links
        .iter()
        .filter(|link| link.is_on_a_hot_path())
        .collect();
    ensure!(
        hot.is_empty() && perf_events == 0,
        "on the path of every fault or switch while nothing is wrong: {hot:?}, {perf_events} perf events"
    );
    println!("on the path of page faults or switches: none");
    memwatch.end()
}

/// memwatch with a target that waits.
fn watch_idle(release: &Release) -> Result<Talker> {
    Talker::start_watched(&release.memwatch, &[], &[Path::new("cat")])
}

fn start_in_target(release: &Release) -> Result<Talker> {
    Talker::start_watched(
        &release.memwatch,
        &["--memory-max", LIMIT],
        &[&release.workload, Path::new("measure")],
    )
}

/// The operations' figures in a cgroup that nobody watches.
fn measure_in_place(release: &Release) -> Result<[f64; 3]> {
    let place = Place::new(LIMIT_BYTES)?;
    let mut workload = Talker::start(Command::new(&release.workload).arg("measure"))?;
    place.take(workload.pid())?;
    let figures = ask_all(&mut workload)?;
    workload.end()?;
    Ok(figures)
}

fn ask_all(workload: &mut Talker) -> Result<[f64; 3]> {
    sleep(SETTLED);
    let mut figures = [0.0; 3];
    for ((operation, _), figure) in OPERATIONS.iter().zip(&mut figures) {
        *figure = workload.ask(operation)?.parse()?;
    }
    Ok(figures)
}

/// Prints what the programs themselves take of their target's time, by the kernel's own count.
fn print_costs(release: &Release, scratch: &Path) -> Result<()> {
    let _counting = programs::count_costs()?;
    println!(
        "\nwhat memwatch does meanwhile, by the kernel's count (ns x runs = share of the time that passed):"
    );
    let mut target = start_in_target(release)?;
    for (operation, what) in OPERATIONS {
        print_cost(what, &mut target, |target| target.ask(operation).map(drop))?;
    }
    target.end()?;

    let dir = format!("--dir={}", scratch.display());
    // As a dry run, since it would not last otherwise.
    let mut thrasher = Talker::start_watched(
        &release.memwatch,
        &["--memory-max", "100M", "--dry-run"],
        &[
            &release.workload,
            Path::new("thrash"),
            Path::new("--seconds=10"),
            Path::new(&dir),
        ],
    )?;
    // Its file is made by then, and it thrashes.
    sleep(Duration::from_secs(4));
    print_cost("thrashing", &mut thrasher, |_| {
        sleep(Duration::from_secs(3));
        Ok(())
    })?;
    thrasher.end()
}

/// Prints what each program, and memwatch beside them, took during `work`.
///
/// # Errors
/// If there are no programs, or the work fails.
pub(crate) fn print_cost(
    what: &str,
    memwatch: &mut Talker,
    work: impl FnOnce(&mut Talker) -> Result<()>,
) -> Result<()> {
    let (before, cpu_before) = (programs::costs()?, memwatch.cpu_ns()?);
    let started = Instant::now();
    work(memwatch)?;
    let passed_ns = started.elapsed().as_nanos() as f64;
    let cpu_ns = memwatch.cpu_ns()? - cpu_before;
    let share = |ns: u64| format!("{:.3} %", ns as f64 / passed_ns * 100.0);
    let mut together_ns = 0;
    for (place, after) in programs::costs()? {
        let known = before.iter().find(|(name, _)| *name == place);
        let before = known.map_or(Cost::default(), |(_, cost)| *cost);
        let (runs, ns) = (after.runs - before.runs, after.ns - before.ns);
        if let Some(each) = ns.checked_div(runs) {
            let share = share(ns);
            println!("{what:<28} {place:<32} {each:>6} x {runs:>8} = {share:>9}");
        }
        together_ns += ns;
    }
    println!(
        "{what:<28} {:<32} {:>26}",
        "programs together",
        share(together_ns)
    );
    println!(
        "{what:<28} {:<32} {:>26}",
        "memwatch's threads, beside",
        share(cpu_ns)
    );
    Ok(())
}
