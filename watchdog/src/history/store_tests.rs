//! Histories on a real disk, with several at one file.

use std::thread;

use tempfile::TempDir;

use super::*;
use crate::incident::suite::Outcome;
use crate::tests::simulated;

fn scratch() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state/memwatch/history.db");
    (dir, file)
}

/// A run of that day.
fn run(day: u64) -> Run {
    let mut record = simulated::record(&[("t.py::a", day), ("t.py::b", 5)]);
    let began = std::time::UNIX_EPOCH + Duration::from_secs(day * 86_400);
    record.started_at = began.into();
    let suite = record.suite.as_mut().expect("tests");
    suite.tests[1].outcome = Outcome::Killed;
    suite.tests[1].cpu_us = None;
    Run::of(&record).expect("tests")
}

#[test]
fn a_run_is_kept_once_and_read_back_as_it_was() {
    let (_dir, file) = scratch();
    let project = Text::from("/p");
    let mut history = History::open_or_create(&file).expect("made");
    let runs = [run(3), run(1), run(2)];
    for run in &runs {
        assert!(history.add(run, &project).expect("kept"));
        assert!(!history.add(run, &project).expect("known"));
    }
    assert!(history.add(&run(9), &"/other".into()).expect("kept"));

    let history = History::open(&file).expect("there");
    let days = history.last(&project, 2, &[]).expect("read");
    assert_eq!(
        days,
        [runs[2].clone(), runs[0].clone()],
        "the last two, the older first"
    );
    let without = history.last(&project, 2, &[runs[0].id]).expect("read");
    assert_eq!(without, [runs[1].clone(), runs[2].clone()]);
    let listed = history.list(Some(&project)).expect("read");
    let listed: Vec<_> = listed
        .iter()
        .map(|it| (it.id, it.tests, it.failed, it.total_us))
        .collect();
    assert_eq!(
        listed,
        [1, 2, 0].map(|n: usize| (runs[n].id, 2, 1, 200_000))
    );
    assert_eq!(history.list(None).expect("read").len(), 4);
}

#[test]
fn all_but_the_latest_of_a_project_are_forgotten_with_all_that_was_theirs() {
    let (_dir, file) = scratch();
    let [project, other] = ["/p", "/other"].map(Text::from);
    let mut history = History::open_or_create(&file).expect("made");
    let mut old = run(1);
    old.tests.insert(
        "t.py::gone".into(),
        run(1).tests[&Text::from("t.py::a")].clone(),
    );
    for run in [&run(3), &old, &run(2)] {
        history.add(run, &project).expect("kept");
    }
    history.add(&run(0), &other).expect("kept");

    assert_eq!(history.forget(&project, 2).expect("done"), 1);
    assert_eq!(history.forget(&project, 2).expect("done"), 0, "again");
    let days = |history: &History, project| {
        let kept = history.list(Some(project)).expect("read");
        kept.iter()
            .map(|it| it.started_at.to_string()[8..10].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(days(&history, &project), ["03", "04"], "the latest");
    assert_eq!(days(&history, &other), ["01"], "another project's");
    let count = |table| {
        let sql = format!("SELECT count(*) FROM {table}");
        history
            .connection
            .query_row(&sql, [], |row| row.get::<_, i64>(0))
            .expect("read")
    };
    assert_eq!(
        [count("name"), count("test")],
        [2, 6],
        "nothing of it is left"
    );
}

#[test]
fn several_processes_may_begin_and_fill_one_history_at_once() {
    let (_dir, file) = scratch();
    let known = run(1);
    let added: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (file, known) = (&file, &known);
                scope.spawn(move || {
                    let mut history = History::open_or_create(file).expect("opened");
                    let added = history.add(known, &"/p".into()).expect("kept or known");
                    assert!(history.add(&run(n + 2), &"/p".into()).expect("kept"));
                    usize::from(added)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    assert_eq!(added, 1, "the run that all of them add is kept once");
    let history = History::open(&file).expect("there");
    assert_eq!(history.list(None).expect("read").len(), 9);
}

#[test]
fn what_is_no_history_is_refused_and_left_as_it_is() {
    let (dir, _) = scratch();
    let file = dir.path().join("file");
    let refusal = |file: &Path| {
        History::open_or_create(file)
            .expect_err("refused")
            .to_string()
    };

    std::fs::write(
        &file,
        "a text that is longer than the header of a database, which has 100 bytes ".repeat(9),
    )
    .expect("written");
    assert!(
        refusal(&file).contains("is no history of memwatch's"),
        "{}",
        refusal(&file)
    );
    assert!(
        std::fs::read_to_string(&file)
            .expect("still text")
            .starts_with("a text")
    );

    let other = dir.path().join("other.db");
    let connection = Connection::open(&other).expect("made");
    connection
        .execute_batch("CREATE TABLE mine (x)")
        .expect("made");
    assert!(refusal(&other).contains("is no history of memwatch's"));

    let later = dir.path().join("later.db");
    drop(History::open_or_create(&later).expect("made"));
    let connection = Connection::open(&later).expect("there");
    connection
        .pragma_update(None, "user_version", 2)
        .expect("changed");
    assert!(refusal(&later).contains("has version 2, this memwatch reads up to 1"));

    let missing = History::open(&dir.path().join("missing.db")).expect_err("refused");
    assert!(
        missing
            .to_string()
            .contains("memwatch tests history add RUN")
    );
    assert!(!dir.path().join("missing.db").exists());
    assert!(
        refusal(dir.path()).contains("cannot open the history"),
        "{}",
        refusal(dir.path())
    );
    assert!(refusal(&file.join("below/history.db")).contains("cannot make the directory"));
}
