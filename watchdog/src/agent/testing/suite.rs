//! The tests of a run for its record: what every process told, and what memwatch knows of those that could not
//! tell any more. Pure.

use super::EndedTest;
use crate::incident::Text;
use crate::incident::suite::{Leak, LeakKind, Outcome, Suite, Test};
use crate::pytest::results::{LeakLine, Results, TestLine};
use crate::pytest::{Phase, Slot};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most tests that a record holds: some 600 bytes each.
const TESTS: usize = 50_000;

/// Puts the processes' tellings together. `children` is the most that what a test started held, by pid and
/// serial.
pub(super) fn gather(
    processes: Vec<(u32, Results, Option<Slot>)>,
    ended: &[EndedTest],
    children: &BTreeMap<(u32, u64), u64>,
    began: Duration,
) -> Option<Suite> {
    let mut suite = Suite::default();
    let mut has_session = false;
    for (pid, results, slot) in processes {
        let session = results.session.unwrap_or_default();
        has_session |= !session.session.is_empty();
        let worker = (!session.worker.is_empty()).then(|| Text::of_name(session.worker.as_bytes()));
        suite.workers += u32::from(worker.is_some());
        if suite.pytest_version.is_none() && !session.session.is_empty() {
            suite.pytest_version = Some(Text::of_name(session.session.as_bytes()));
            suite.python_version = Some(Text::of_name(session.python.as_bytes()));
        }
        suite.selected = suite.selected.max(results.selected);
        suite.lost += results.unreadable;
        let of_process = ended.iter().filter(|ended| ended.slot.pid == pid);
        // What is collected is no test; the intervention names it.
        let killed_tests = of_process
            .clone()
            .filter(|ended| ended.slot.phase != Phase::Collect);
        for ended in killed_tests {
            suite.tests.push(killed(ended, worker.clone(), began));
        }
        // What ran when its process died of something else.
        let cut = slot.filter(|slot| {
            let told = results.tests.iter().any(|test| test.serial == slot.serial)
                || of_process
                    .clone()
                    .any(|ended| ended.slot.serial == slot.serial);
            slot.runs() && slot.phase != Phase::Collect && !told
        });
        suite
            .tests
            .extend(cut.map(|slot| unfinished(&slot, worker.clone(), began)));
        for line in results.tests {
            let leaks = results
                .leaks
                .get(&line.serial)
                .map_or(&[][..], Vec::as_slice);
            let mut test = told(pid, &line, leaks, worker.clone(), began);
            test.children_peak_bytes = children.get(&(pid, line.serial)).copied();
            suite.tests.push(test);
        }
    }
    suite.tests.sort_by_key(|test| test.at_us);
    let over = suite.tests.len().saturating_sub(TESTS);
    suite.tests.truncate(TESTS);
    suite.lost += over as u64;
    has_session.then_some(suite)
}

fn since(began: Duration, ns: u64) -> u64 {
    Duration::from_nanos(ns).saturating_sub(began).as_micros() as u64
}

fn told(
    pid: u32,
    line: &TestLine,
    leaks: &[LeakLine],
    worker: Option<Text>,
    began: Duration,
) -> Test {
    Test {
        id: Text::of_name(line.test.as_bytes()),
        outcome: line.outcome.as_deref().map_or(Outcome::Unknown, outcome),
        worker,
        pid,
        at_us: since(began, line.began_ns),
        wall_us: line.wall_us,
        cpu_us: line.cpu_us,
        setup_us: line.setup_us,
        call_us: line.call_us,
        teardown_us: line.teardown_us,
        rss_before_bytes: line.rss_before_bytes,
        rss_after_bytes: line.rss_after_bytes,
        peak_bytes: line.peak_bytes,
        children_peak_bytes: None,
        minor_faults: line.minor_faults,
        major_faults: line.major_faults,
        reclaim_us: None,
        leaks: leaks.iter().filter_map(leak).collect(),
        ended_by_memwatch: line
            .failed_by_memwatch
            .as_deref()
            .map(|why| Text::of_name(why.as_bytes())),
    }
}

fn outcome(word: &str) -> Outcome {
    match word {
        "passed" => Outcome::Passed,
        "failed" => Outcome::Failed,
        "error" => Outcome::Error,
        "skipped" => Outcome::Skipped,
        "xfailed" => Outcome::Xfailed,
        "xpassed" => Outcome::Xpassed,
        _ => Outcome::Unknown,
    }
}

fn leak(line: &LeakLine) -> Option<Leak> {
    let kind = match line.kind.as_str() {
        "file_descriptors" => LeakKind::FileDescriptors,
        "threads" => LeakKind::Threads,
        "children" => LeakKind::Children,
        "shared_memory" => LeakKind::SharedMemory,
        "temporary_files" => LeakKind::TemporaryFiles,
        "memory" => LeakKind::Memory,
        _ => return None,
    };
    Some(Leak {
        kind,
        count: line.count,
        names: line
            .names
            .iter()
            .map(|name| Text::of_name(name.as_bytes()))
            .collect(),
    })
}

fn unfinished(slot: &Slot, worker: Option<Text>, began: Duration) -> Test {
    Test {
        id: Text::of_name(&slot.id),
        outcome: Outcome::Unknown,
        worker,
        pid: slot.pid,
        at_us: since(began, slot.began_ns),
        wall_us: 0,
        cpu_us: None,
        setup_us: None,
        call_us: None,
        teardown_us: None,
        rss_before_bytes: Some(slot.rss_bytes),
        rss_after_bytes: None,
        peak_bytes: None,
        children_peak_bytes: None,
        minor_faults: None,
        major_faults: None,
        reclaim_us: None,
        leaks: Vec::new(),
        ended_by_memwatch: None,
    }
}

fn killed(ended: &EndedTest, worker: Option<Text>, began: Duration) -> Test {
    Test {
        outcome: Outcome::Killed,
        wall_us: since(
            Duration::from_nanos(ended.slot.began_ns),
            ended.at.as_nanos() as u64,
        ),
        peak_bytes: Some(ended.rss_bytes),
        ended_by_memwatch: Some(Text::of_name(ended.why.as_bytes())),
        ..unfinished(&ended.slot, worker, began)
    }
}
