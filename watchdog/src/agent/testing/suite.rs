//! The tests of a run for its record: what every process told, and what memwatch knows of those that could not
//! tell any more. Pure.

use super::EndedTest;
use super::eye::Seen;
use crate::incident::Text;
use crate::incident::suite::{
    Leak, LeakKind, LeakOfSeveral, NotRun, Outcome, Suite, Test, TestProcess,
};
use crate::pytest::results::{LeakLine, Results, TestLine};
use crate::pytest::{Phase, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// The most tests that a record holds: some 600 bytes each. As many that did not run.
const TESTS: usize = 50_000;
/// The most names that a leak keeps.
const NAMES: usize = 5;
/// The most processes that a record holds.
const PROCESSES: usize = 100;
/// The most files of several that a record holds.
const OF_SEVERAL: usize = 100;

/// Puts the processes' tellings together. `seen` is what was seen of tests from outside, by pid
/// and serial.
pub(super) fn gather(
    processes: Vec<(u32, Results, Option<Slot>)>,
    ended: &[EndedTest],
    seen: &BTreeMap<(u32, u64), Seen>,
    began: Duration,
) -> Option<Suite> {
    let mut suite = Suite::default();
    let of_several = of_several(&processes);
    let mut has_session = false;
    let mut chosen = BTreeMap::new();
    let mut controllers = BTreeMap::new();
    for (pid, results, slot) in processes {
        let session = results.session.unwrap_or_default();
        has_session |= !session.session.is_empty();
        let worker = (!session.worker.is_empty()).then(|| Text::of_name(session.worker.as_bytes()));
        suite.workers += u32::from(worker.is_some());
        let controller = worker.as_ref().map_or(pid, |_| session.parent);
        controllers.insert(pid, controller);
        if !results.names.is_empty() {
            chosen.insert(controller, results.names);
        }
        if suite.pytest_version.is_none() && !session.session.is_empty() {
            suite.root = Some(Text::of_name(session.root.as_bytes()));
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
            let mut test = told(pid, &line, worker.clone(), began);
            test.leaks = own(leaks, &of_several);
            if let Some(seen) = seen.get(&(pid, line.serial)) {
                let seen_bytes = Some(seen.children_bytes).filter(|&bytes| bytes > 0);
                test.children_peak_bytes = test.children_peak_bytes.max(seen_bytes);
                test.reclaim_us = seen
                    .stall_ns
                    .map(|(first, last)| last.saturating_sub(first) / 1000);
            }
            suite.tests.push(test);
        }
    }
    suite.not_run = not_run(&chosen, &controllers, &suite.tests);
    suite.tests.sort_by_key(|test| test.at_us);
    suite.processes = over_their_tests(&suite.tests);
    suite.grown_bytes = suite.processes.iter().map(TestProcess::grown_bytes).sum();
    suite.processes.truncate(PROCESSES);
    let over = suite.tests.len().saturating_sub(TESTS) + suite.not_run.len().saturating_sub(TESTS);
    suite.tests.truncate(TESTS);
    suite.not_run.truncate(TESTS);
    suite.lost += over as u64;
    suite.leaks_of_several = of_several.into_values().take(OF_SEVERAL).collect();
    has_session.then_some(suite)
}

/// The processes over all their tests, given in the order in which they began; those that grew the most first.
fn over_their_tests(tests: &[Test]) -> Vec<TestProcess> {
    let mut processes: BTreeMap<u32, TestProcess> = BTreeMap::new();
    for test in tests {
        let process = processes.entry(test.pid).or_insert_with(|| TestProcess {
            pid: test.pid,
            worker: test.worker.clone(),
            tests: 0,
            rss_before_bytes: test.rss_before_bytes,
            rss_after_bytes: None,
        });
        process.tests += 1;
        process.rss_after_bytes = test.rss_after_bytes.or(process.rss_after_bytes);
    }
    let mut processes: Vec<_> = processes.into_values().collect();
    processes.sort_by_key(|process| std::cmp::Reverse(process.grown_bytes()));
    processes
}

/// What sessions, by their first process, have chosen and no process of theirs has begun.
fn not_run(
    chosen: &BTreeMap<u32, Vec<String>>,
    controllers: &BTreeMap<u32, u32>,
    tests: &[Test],
) -> Vec<NotRun> {
    let begun: BTreeSet<(u32, &Text)> = tests
        .iter()
        .filter_map(|test| Some((*controllers.get(&test.pid)?, &test.id)))
        .collect();
    let chosen = chosen
        .iter()
        .flat_map(|(pid, names)| names.iter().map(move |name| (*pid, name)));
    chosen
        .map(|(pid, name)| NotRun {
            id: Text::of_name(name.as_bytes()),
            pid,
        })
        .filter(|one| !begun.contains(&(one.pid, &one.id)))
        .collect()
}

fn since(began: Duration, ns: u64) -> u64 {
    Duration::from_nanos(ns).saturating_sub(began).as_micros() as u64
}

fn told(pid: u32, line: &TestLine, worker: Option<Text>, began: Duration) -> Test {
    Test {
        id: Text::of_name(line.test.as_bytes()),
        line: Some(line.line).filter(|&line| line > 0),
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
        children_peak_bytes: line.children_retained_bytes,
        children_retained_bytes: line.children_retained_bytes,
        minor_faults: line.minor_faults,
        major_faults: line.major_faults,
        reclaim_us: None,
        leaks: Vec::new(),
        answered_us: line.answered_us,
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

/// A session that did not write its file of JUnit's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Unwritten {
    /// The file, as the process named it.
    pub(in crate::agent) path: PathBuf,
    /// Its processes: its own, or those of its workers.
    pub(in crate::agent) pids: Vec<u32>,
}

/// Sessions that were to write such a file, and did not come to their end. A worker writes none.
pub(super) fn unwritten(processes: &[(u32, Results)]) -> Vec<Unwritten> {
    let workers_of = |controller: u32| {
        let all = processes.iter();
        all.filter(move |(_, results)| {
            let session = results.session.as_ref();
            session.is_some_and(|s| s.parent == controller && !s.worker.is_empty())
        })
        .map(|(pid, _)| *pid)
    };
    processes
        .iter()
        .filter_map(|(pid, results)| {
            let session = results.session.as_ref()?;
            let path = PathBuf::from(session.junit.as_ref()?);
            (session.worker.is_empty() && results.exit.is_none()).then(|| Unwritten {
                path,
                pids: std::iter::once(*pid).chain(workers_of(*pid)).collect(),
            })
        })
        .collect()
}

/// Files that tests of more than one process have seen appear, by kind and name: without the kernel's word
/// for who made them every process claims what came while it ran a test.
fn of_several(
    processes: &[(u32, Results, Option<Slot>)],
) -> BTreeMap<(LeakKind, String), LeakOfSeveral> {
    let mut claims: BTreeMap<(LeakKind, String), BTreeSet<(u32, u64)>> = BTreeMap::new();
    for (pid, results, _) in processes {
        for (serial, line) in results
            .leaks
            .iter()
            .flat_map(|(serial, lines)| lines.iter().map(move |line| (*serial, line)))
        {
            let Some(kind) = LeakKind::named(&line.kind).filter(|kind| is_file(*kind)) else {
                continue;
            };
            for name in &line.names {
                let claim = claims.entry((kind, name.clone())).or_default();
                claim.insert((*pid, serial));
            }
        }
    }
    let id = |pid: u32, serial: u64| {
        let (_, results, _) = processes.iter().find(|(of, ..)| *of == pid)?;
        let test = results.tests.iter().find(|test| test.serial == serial)?;
        Some(Text::of_name(test.test.as_bytes()))
    };
    claims
        .into_iter()
        .filter(|(_, by)| by.iter().map(|(pid, _)| pid).collect::<BTreeSet<_>>().len() > 1)
        .map(|((kind, name), by)| {
            let tests = by.into_iter().take(NAMES);
            let leak = LeakOfSeveral {
                kind,
                name: Text::of_name(name.as_bytes()),
                tests: tests.filter_map(|(pid, serial)| id(pid, serial)).collect(),
            };
            ((kind, name), leak)
        })
        .collect()
}

fn is_file(kind: LeakKind) -> bool {
    matches!(kind, LeakKind::SharedMemory | LeakKind::TemporaryFiles)
}

/// What is this test's alone.
fn own(leaks: &[LeakLine], of_several: &BTreeMap<(LeakKind, String), LeakOfSeveral>) -> Vec<Leak> {
    leaks
        .iter()
        .filter_map(|line| {
            let kind = LeakKind::named(&line.kind)?;
            let names = line.names.iter();
            let own: Vec<_> = names
                .filter(|name| !of_several.contains_key(&(kind, (*name).clone())))
                .collect();
            let count = line.count - ((line.names.len() - own.len()) as u64).min(line.count);
            (count > 0).then(|| Leak {
                kind,
                count,
                names: own
                    .iter()
                    .take(NAMES)
                    .map(|name| Text::of_name(name.as_bytes()))
                    .collect(),
            })
        })
        .collect()
}

fn unfinished(slot: &Slot, worker: Option<Text>, began: Duration) -> Test {
    Test {
        id: Text::of_name(&slot.id),
        line: slot.line,
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
        children_retained_bytes: None,
        minor_faults: None,
        major_faults: None,
        reclaim_us: None,
        leaks: Vec::new(),
        answered_us: None,
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
        peak_bytes: ended.peak_bytes,
        ended_by_memwatch: Some(Text::of_name(ended.why.as_bytes())),
        ..unfinished(&ended.slot, worker, began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, name: &str, files: &[&str]) -> (u32, Results, Option<Slot>) {
        let names: Vec<_> = files.iter().map(|file| format!("\"{file}\"")).collect();
        let text = format!(
            r#"{{"session":"9.2.0","worker":"gw{pid}"}}
{{"test":"{name}","serial":1,"began_ns":{pid},"wall_us":5,"outcome":"passed"}}
{{"leaks":[{{"kind":"temporary_files","count":{},"names":[{}]}},{{"kind":"threads","count":1,"names":["a"]}}],"serial":1}}
"#,
            files.len(),
            names.join(","),
        );
        (pid, Results::parse(text.as_bytes()), None)
    }

    #[test]
    fn what_no_process_of_a_session_has_begun_was_not_run() {
        let process = |pid: u32, worker: &str, names: &[&str], ran: &str| {
            let names = serde_json::to_string(names).expect("text");
            let text = format!(
                r#"{{"session":"9.2.0","worker":"{worker}","parent":7}}
{{"selected":3,"names":{names}}}
{{"test":"{ran}","serial":1,"began_ns":{pid},"outcome":"passed"}}
"#
            );
            (pid, Results::parse(text.as_bytes()), None)
        };
        let processes = vec![
            process(1, "", &["a", "b"], "a"),
            process(8, "gw0", &["a", "b", "c"], "b"),
            process(9, "gw1", &[], "a"),
        ];
        let suite = gather(processes, &[], &BTreeMap::new(), Duration::ZERO).expect("sessions");
        let not_run = suite.not_run.iter().map(|one| (one.pid, one.id.as_str()));
        assert_eq!(not_run.collect::<Vec<_>>(), [(1, "b"), (7, "c")]);
    }

    #[test]
    fn a_process_is_told_over_all_its_tests_and_who_grew_the_most_first() {
        let process = |pid: u32, sizes: &[u64]| {
            let tests = sizes.windows(2).enumerate().map(|(n, ends)| {
                format!(
                    r#"{{"test":"t{n}","serial":{n},"began_ns":{n},"rss_before_bytes":{},"rss_after_bytes":{}}}"#,
                    ends[0], ends[1]
                )
            });
            let head = format!(r#"{{"session":"9.2.0","worker":"gw{pid}","parent":7}}"#);
            let lines: Vec<_> = std::iter::once(head).chain(tests).collect();
            (pid, Results::parse(lines.join("\n").as_bytes()), None)
        };
        let processes = vec![process(1, &[10, 30, 20]), process(2, &[10, 40, 70, 100])];
        let suite = gather(processes, &[], &BTreeMap::new(), Duration::ZERO).expect("sessions");
        let told: Vec<_> = suite
            .processes
            .iter()
            .map(|process| (process.pid, process.tests, process.grown_bytes()))
            .collect();
        assert_eq!(told, [(2, 3, 90), (1, 2, 10)]);
        assert_eq!(suite.grown_bytes, 100);
    }

    #[test]
    fn a_file_that_two_processes_claim_is_neithers_and_is_told_of() {
        let processes = vec![
            process(1, "t.py::a", &["/tmp/both", "/tmp/mine"]),
            process(2, "t.py::b", &["/tmp/both"]),
        ];
        let suite =
            gather(processes, &[], &BTreeMap::new(), Duration::ZERO).expect("there was a session");
        let [a, b] = &suite.tests[..] else {
            panic!("{suite:?}")
        };
        let kinds = |test: &Test| -> Vec<_> {
            let leaks = test.leaks.iter();
            leaks
                .map(|leak| (leak.kind, leak.count, leak.names[0].as_str().to_owned()))
                .collect()
        };
        assert_eq!(
            kinds(a),
            [
                (LeakKind::TemporaryFiles, 1, "/tmp/mine".to_owned()),
                (LeakKind::Threads, 1, "a".to_owned())
            ]
        );
        assert_eq!(kinds(b), [(LeakKind::Threads, 1, "a".to_owned())]);
        let [both] = &suite.leaks_of_several[..] else {
            panic!("{suite:?}")
        };
        assert_eq!(both.name.as_str(), "/tmp/both");
        assert_eq!(both.tests, ["t.py::a".into(), "t.py::b".into()]);
    }
}
