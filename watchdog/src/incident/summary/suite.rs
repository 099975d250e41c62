//! The tests of a run in its summary: one line for how they ended, and one for each that matters: that was
//! failed or killed by memwatch, grew much, took long, or left something behind. Pure.

use super::super::paragraph::{Paragraph, columns};
use super::super::suite::{Leak, Outcome, Suite, Test};
use super::super::{Record, Text, human};
use super::TOLD;
use std::collections::BTreeMap;

/// As many of those that grew the most, and of those that took the longest, are told.
const MOST: usize = 5;
/// A process that grew less over all its tests is not worth a word.
const CREEP_BYTES: u64 = 128 << 20;
/// Less growth than this matters to nobody.
const GROWTH_BYTES: u64 = 32 << 20;
/// Nor does less time.
const WALL_US: u64 = 1_000_000;
/// Columns of a figure.
const FIGURE: usize = 8;
/// Stands for the beginning of a name.
const CUT: &str = "...";

/// Adds the rows.
pub(super) fn tell(page: &mut Paragraph, record: &Record) {
    let Some(suite) = &record.suite else {
        return;
    };
    page.row("tests", &outcomes(suite));
    tell_ended(page, record, suite);
    let growth = |test: &Test| test.growth_bytes().unwrap_or(0);
    rank(page, suite, "grew", GROWTH_BYTES, growth, human::bytes);
    tell_creep(page, suite);
    rank(
        page,
        suite,
        "took",
        WALL_US,
        |test| test.wall_us,
        human::duration,
    );
    tell_leaks(page, suite);
}

/// `589 of 612: 580 passed, 2 failed, 1 killed; 3 left something behind`
fn outcomes(suite: &Suite) -> String {
    const ORDER: [Outcome; 8] = [
        Outcome::Passed,
        Outcome::Failed,
        Outcome::Error,
        Outcome::Killed,
        Outcome::Skipped,
        Outcome::Xfailed,
        Outcome::Xpassed,
        Outcome::Unknown,
    ];
    // Of one that ran several times the last one counts.
    let last: BTreeMap<&Text, Outcome> = suite
        .tests
        .iter()
        .map(|test| (&test.id, test.outcome))
        .collect();
    let ran = last.len() as u64;
    let all = match suite.selected {
        Some(selected) if selected != ran => format!("{ran} of {selected}"),
        _ => ran.to_string(),
    };
    let parts: Vec<String> = ORDER
        .into_iter()
        .filter_map(|outcome| {
            let times = last.values().filter(|&&how| how == outcome).count();
            (times > 0).then(|| format!("{times} {}", outcome.name()))
        })
        .collect();
    let leaking = suite.tests.iter().filter(|t| !t.leaks.is_empty()).count();
    let left = match leaking {
        0 => String::new(),
        _ => format!("; {leaking} left something behind"),
    };
    let parts = if parts.is_empty() {
        "none ran".to_owned()
    } else {
        parts.join(", ")
    };
    let again = match suite.tests.len() as u64 - ran {
        0 => String::new(),
        1 => "; 1 rerun".to_owned(),
        more => format!("; {more} reruns"),
    };
    format!("{all}: {parts}{again}{left}")
}

/// Those that memwatch failed or whose process it killed, unless an intervention that is told names them.
fn tell_ended(page: &mut Paragraph, record: &Record, suite: &Suite) {
    let told = |id: &Text| {
        let mut tests = record.interventions.iter().take(TOLD);
        tests.any(|it| it.test.as_ref().is_some_and(|test| test.id == *id))
    };
    let ended: Vec<_> = suite
        .tests
        .iter()
        .filter(|test| test.ended_by_memwatch.is_some() && !told(&test.id))
        .collect();
    for (n, test) in ended.iter().take(TOLD).enumerate() {
        let label = if n == 0 { "ended" } else { "" };
        let how = if test.outcome == Outcome::Killed {
            "killed"
        } else {
            "failed"
        };
        let line = line(page, how, &test.id);
        page.row(label, &line);
    }
    more(page, ended.len(), TOLD);
}

/// Processes that grew over all their tests and not by one of them, which is told by itself.
fn tell_creep(page: &mut Paragraph, suite: &Suite) {
    let most_by_one = |pid: u32| {
        let of_it = suite.tests.iter().filter(|test| test.pid == pid);
        of_it.filter_map(Test::retained_bytes).max().unwrap_or(0)
    };
    let creeping = suite.processes.iter().filter(|process| {
        let grown = process.grown_bytes();
        grown >= CREEP_BYTES && most_by_one(process.pid) < grown / 4
    });
    for (n, process) in creeping.take(TOLD).enumerate() {
        let label = if n == 0 { "crept" } else { "" };
        let who = match &process.worker {
            Some(worker) => format!("{worker}, "),
            None => String::new(),
        };
        let figure = human::bytes(process.grown_bytes());
        let most = human::bytes(most_by_one(process.pid));
        page.row(
            label,
            &format!(
                "{figure:<FIGURE$} {who}over {} tests, {most} at most in one",
                process.tests
            ),
        );
    }
}

/// The first few by a figure, one line each.
fn rank(
    page: &mut Paragraph,
    suite: &Suite,
    label: &str,
    least: u64,
    figure: impl Fn(&Test) -> u64,
    shown: impl Fn(u64) -> String,
) {
    let mut first: Vec<_> = suite
        .tests
        .iter()
        .filter(|test| figure(test) >= least)
        .collect();
    first.sort_by_key(|test| std::cmp::Reverse(figure(test)));
    for (n, test) in first.into_iter().take(MOST).enumerate() {
        let label = if n == 0 { label } else { "" };
        let line = line(page, &shown(figure(test)), &test.id);
        page.row(label, &line);
    }
}

fn tell_leaks(page: &mut Paragraph, suite: &Suite) {
    let leaking: Vec<_> = suite
        .tests
        .iter()
        .filter(|test| !test.leaks.is_empty())
        .collect();
    for (n, test) in leaking.iter().take(TOLD).enumerate() {
        let label = if n == 0 { "left" } else { "" };
        let mut what = test.leaks.first().map(Leak::phrase).unwrap_or_default();
        what.push_str(if test.leaks.len() > 1 {
            " and more by"
        } else {
            " by"
        });
        let line = line(page, &what, &test.id);
        page.row(label, &line);
    }
    more(page, leaking.len(), TOLD);
    if let Some(first) = suite.leaks_of_several.first() {
        let count = suite.leaks_of_several.len();
        let what = if count == 1 { "file" } else { "files" };
        page.row(
            if leaking.is_empty() { "left" } else { "" },
            &format!(
                "{count} {what} by one of the tests that ran together, such as {}",
                first.name
            ),
        );
    }
}

/// A figure and whose it is: of a name that is too long for the line its end, which tells more than its
/// beginning.
fn line(page: &Paragraph, figure: &str, id: &Text) -> String {
    let figure = format!("{figure:<FIGURE$}");
    let id = id.as_str();
    let room = match page.row_columns() {
        Some(all) => all.saturating_sub(columns(&figure) + 1),
        None => usize::MAX,
    };
    if columns(id) <= room {
        return format!("{figure} {id}");
    }
    let mut used = CUT.len();
    let mut from = id.len();
    for (at, character) in id.char_indices().rev() {
        used += if character.is_ascii() { 1 } else { 2 };
        if used > room.max(CUT.len() + 1) {
            break;
        }
        from = at;
    }
    format!("{figure} {CUT}{}", &id[from..])
}

fn more(page: &mut Paragraph, all: usize, told: usize) {
    if let Some(more @ 1..) = all.checked_sub(told) {
        page.row("", &format!("and {more} more, which `--report FILE` keeps"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Style, summary};
    use super::*;
    use crate::incident::sample;
    use crate::incident::suite::TestProcess;

    fn shown(suite: Suite, width: Option<usize>) -> String {
        let mut record = sample::quiet();
        record.suite = Some(suite);
        summary(
            &record,
            Style {
                color: false,
                width,
            },
        )
    }

    fn quiet(id: &str) -> Test {
        Test {
            id: id.into(),
            outcome: Outcome::Passed,
            leaks: Vec::new(),
            peak_bytes: None,
            wall_us: 500,
            answered_us: None,
            ended_by_memwatch: None,
            ..sample::tested().tests[0].clone()
        }
    }

    #[test]
    fn a_quiet_suite_takes_one_line() {
        let suite = Suite {
            selected: Some(3),
            tests: vec![quiet("a"), quiet("b"), quiet("c")],
            ..Suite::default()
        };
        let expected = "\
memwatch: pytest finished in 2m 14s (exit code 0)
memwatch:   tests    3: 3 passed
memwatch:   memory   peak 1.2 GiB of 2.0 GiB (60%); stalled for 412ms (0.3%)
memwatch:   faults   1.2M minor, 312 major; reclaimed 14 times in 38ms
";
        assert_eq!(shown(suite, Some(80)), expected);
    }

    #[test]
    fn of_600_that_matter_ten_are_told() {
        let tests = (0..600).map(|n| Test {
            wall_us: 60_000_000 + n,
            peak_bytes: Some((1 << 30) + (n << 20)),
            ..quiet(&format!("test_{n}"))
        });
        let suite = Suite {
            tests: tests.collect(),
            ..Suite::default()
        };
        let shown = shown(suite, None);
        let named = |line: &&str| line.contains(" test_");
        assert_eq!(shown.lines().filter(named).count(), 10, "{shown}");
        let first = |row: &str| {
            shown
                .lines()
                .find(|line| line.contains(row))
                .map(str::to_owned)
        };
        for row in ["grew", "took"] {
            assert!(
                first(row).is_some_and(|line| line.ends_with(" test_599")),
                "{shown}"
            );
        }
    }

    #[test]
    fn what_grew_in_all_tests_and_in_none_is_told_by_its_process() {
        const MIB: u64 = 1 << 20;
        let process = |pid: u32, worker: &str, grown: u64| TestProcess {
            pid,
            worker: Some(worker.into()),
            tests: 200,
            rss_before_bytes: Some(MIB),
            rss_after_bytes: Some(MIB + grown),
        };
        let kept = |pid: u32, mib: u64| Test {
            pid,
            rss_before_bytes: Some(MIB),
            rss_after_bytes: Some(MIB + mib * MIB),
            ..quiet("a")
        };
        let suite = Suite {
            tests: vec![kept(1, 12), kept(2, 700)],
            processes: vec![
                process(1, "gw0", 812 * MIB),
                process(2, "gw1", 800 * MIB),
                process(3, "gw2", 5 * MIB),
            ],
            ..Suite::default()
        };
        let shown = shown(suite, Some(80));
        let crept: Vec<_> = shown.lines().filter(|line| line.contains(" gw")).collect();
        let line = "memwatch:   crept    812 MiB  gw0, over 200 tests, 12 MiB at most in one";
        assert_eq!(crept, [line], "{shown}");
    }

    #[test]
    fn those_that_matter_have_a_line_each_that_fits() {
        let mut suite = sample::tested();
        suite.tests[1].wall_us = 4_200_000;
        let long = format!(
            "tests/{}test_c.py::TestIndex::test_search[1536]",
            "deep/".repeat(9)
        );
        suite.tests.push(Test {
            wall_us: 65_000_000,
            ..quiet(&long)
        });
        let expected = "\
memwatch: pytest finished in 2m 14s (exit code 0)
memwatch:   tests    3 of 589: 2 passed, 1 killed; 1 left something behind
memwatch:   ended    killed   tests/test_b.py::test_index
memwatch:   grew     1.2 GiB  tests/test_b.py::test_index
memwatch:   took     1m 05s   ...ep/deep/test_c.py::TestIndex::test_search[1536]
memwatch:            4.2s     tests/test_b.py::test_index
memwatch:   left     1 open file descriptor by ...test_a.py::test_open[\\x1b[31m]
memwatch:            1 file by one of the tests that ran together, such as
memwatch:            /tmp/b.txt
memwatch:   memory   peak 1.2 GiB of 2.0 GiB (60%); stalled for 412ms (0.3%)
memwatch:   faults   1.2M minor, 312 major; reclaimed 14 times in 38ms
";
        let shown = shown(suite, Some(80));
        assert_eq!(shown, expected);
        assert!(shown.lines().all(|line| line.len() <= 80));
    }
}
