//! What is said of small suites whose every figure is known. Noise and large ones are `simulated`'s.

use super::*;
use crate::incident::Record;
use crate::tests::simulated;

const MEMORY: Limit = Limit::Test(Figure::Memory, Excess::Permille(500));

/// A record of these tests, in MiB, after one that begins the process; changed by `change`.
fn run_with(tests: &[(&str, u64)], change: impl Fn(&mut Record)) -> Run {
    let mut record = simulated::record(&[&[("first", 50)], tests].concat());
    change(&mut record);
    Run::of(&record).expect("tests")
}

fn run(tests: &[(&str, u64)]) -> Run {
    run_with(tests, |_| ())
}

fn ending(id: &str, outcome: Outcome) -> Run {
    run_with(&[("a", 1), ("b", 1)], |record| {
        let tests = &mut record.suite.as_mut().expect("tests").tests;
        let test = tests.iter_mut().find(|test| test.id.as_str() == id);
        test.expect("a test of that name").outcome = outcome;
    })
}

fn timed(ms: u64, cpu_ms: u64) -> Run {
    run_with(&[("a", 1)], |record| {
        let test = &mut record.suite.as_mut().expect("tests").tests[1];
        (test.wall_us, test.cpu_us) = (ms * 1000, Some(cpu_ms * 1000));
    })
}

#[test]
fn a_doubling_is_told_with_both_figures_and_the_limit() {
    let found = compare(
        &[run(&[("a", 100), ("b", 30)])],
        &[run(&[("a", 200), ("b", 30)])],
        &[MEMORY],
    );
    let expected = Change {
        id: "a".into(),
        figure: Figure::Memory,
        base: 100 << 20,
        new: 200 << 20,
    };
    assert_eq!(found.regressions, [expected]);
    assert_eq!(found.crossed, ["+50% memory"]);
    let fails = |limit: &str| {
        let limits = [limit.parse().expect("a limit")];
        compare(&[run(&[("a", 100)])], &[run(&[("a", 200)])], &limits).is_regression()
    };
    assert!(fails("+100% memory") && fails("+100MiB memory"));
    assert!(!fails("+101% memory") && !fails("+101MiB memory") && !fails("+1% time"));
}

#[test]
fn a_few_mebibytes_are_nothing() {
    let found = compare(&[run(&[("a", 1)])], &[run(&[("a", 8)])], &[MEMORY]);
    assert!(!found.is_regression());
}

#[test]
fn the_first_test_of_a_process_is_compared_with_firsts_alone() {
    let base = run(&[("a", 1)]);
    let moved = run_with(&[("a", 1)], |record| {
        let tests = &mut record.suite.as_mut().expect("tests").tests;
        tests.reverse();
        tests[0] = simulated::test("a", 50 << 20, 100_000);
        tests[1] = simulated::test("first", 1 << 20, 100_000);
    });
    assert!(!compare(std::slice::from_ref(&base), &[moved], &[MEMORY]).is_regression());
    let grown = run_with(&[("a", 1)], |record| {
        record.suite.as_mut().expect("tests").tests[0] =
            simulated::test("first", 150 << 20, 100_000);
    });
    assert!(compare(&[base], &[grown], &[MEMORY]).is_regression());
}

#[test]
fn what_failed_half_way_is_named_and_not_measured() {
    let killed = run_with(&[("a", 900)], |record| {
        record.suite.as_mut().expect("tests").tests[1].outcome = Outcome::Killed;
    });
    let found = compare(&[run(&[("a", 100)])], &[killed], &Limit::DEFAULT);
    assert!(!found.is_regression());
    assert_eq!(found.ended_differently[0].new, Outcome::Killed);
}

#[test]
fn new_gone_and_failing_tests_are_named_and_failures_counted() {
    let base = ending("b", Outcome::Failed);
    let failed = |count| {
        compare(
            std::slice::from_ref(&base),
            &[ending("a", Outcome::Failed)],
            &[Limit::Failed(count)],
        )
    };
    let ended = &failed(1).ended_differently;
    let ended: Vec<_> = ended
        .iter()
        .map(|it| (it.id.as_str(), it.base, it.new))
        .collect();
    let (passed, bad) = (Outcome::Passed, Outcome::Failed);
    assert_eq!(ended, [("a", Some(passed), bad), ("b", Some(bad), passed)]);
    assert!(
        failed(1).is_regression() && !failed(2).is_regression(),
        "one that passes now is no excuse"
    );

    let found = compare(
        &[run(&[("old", 1)])],
        &[run(&[("new", 1)])],
        &Limit::DEFAULT,
    );
    assert_eq!(
        (found.new_tests, found.gone_tests),
        (vec!["new".into()], vec!["old".into()])
    );
    let new = run_with(&[("new", 1)], |record| {
        record.suite.as_mut().expect("tests").tests[1].outcome = Outcome::Error;
    });
    assert!(compare(&[run(&[])], &[new], &[Limit::Failed(1)]).is_regression());
}

#[test]
fn a_flaky_test_ends_as_it_mostly_does() {
    let [passed, failed] = [Outcome::Passed, Outcome::Failed].map(|it| ending("a", it));
    let base = [passed.clone(), passed.clone(), failed.clone()];
    let found = compare(
        &base,
        &[failed.clone(), passed.clone(), passed],
        &[Limit::Failed(1)],
    );
    assert_eq!(found.ended_differently, []);
    assert!(compare(&base, &[failed], &[Limit::Failed(1)]).is_regression());
}

#[test]
fn what_one_run_waited_is_unsure_and_what_three_waited_is_not() {
    let limits = Limit::DEFAULT;
    let found = compare(&[timed(500, 450)], &[timed(1500, 460)], &limits);
    assert!(!found.is_regression());
    assert_eq!((found.time_is, found.unsure.len()), (Basis::Cpu, 1));
    assert!(compare(&[timed(500, 450)], &[timed(1000, 900)], &limits).is_regression());

    let base = [timed(500, 50), timed(510, 50), timed(505, 50)];
    let new = [timed(1500, 50), timed(1490, 50), timed(1520, 50)];
    let found = compare(&base, &new, &limits);
    assert_eq!((found.time_is, found.regressions.len()), (Basis::Wall, 1));
    let once = [timed(1500, 50), timed(510, 50), timed(505, 50)];
    assert!(!compare(&base, &once, &limits).is_regression());
}

#[test]
fn of_several_runs_a_total_is_worse_if_all_are() {
    let total = [Limit::Total(Figure::Memory, Excess::Permille(200))];
    let peak = |gib: u64| run_with(&[], |record| record.peak_bytes = Some(gib << 30));
    let fails = |base: [u64; 2], new: [u64; 2]| {
        compare(&base.map(peak), &new.map(peak), &total).is_regression()
    };
    assert!(fails([10, 11], [13, 14]));
    assert!(!fails([10, 14], [13, 14]), "one of the base had as much");
    assert!(!fails([10, 10], [11, 11]));
}

#[test]
fn with_several_processes_what_was_set_up_for_others_is_not_compared_with_what_found_it_ready() {
    let run = |kept: u64, is_parallel: bool| {
        run_with(&[("a", if kept > 0 { 120 } else { 0 })], |record| {
            let tests = &mut record.suite.as_mut().expect("tests").tests;
            tests[1].rss_after_bytes = tests[1]
                .rss_before_bytes
                .map(|before| before + (kept << 20));
            tests.push(simulated::test("other", 50 << 20, 100_000));
            tests[2].pid += u32::from(is_parallel);
        })
    };
    let compare = |base: [u64; 2], new: [u64; 2], is_parallel| {
        let [base, new] = [base, new].map(|side| side.map(|kept| run(kept, is_parallel)));
        compare(&base, &new, &[MEMORY])
    };
    let found = compare([0, 0], [60, 60], true);
    assert!(!found.is_regression());
    assert_eq!(found.unsure[0].why, Doubt::SetUp);
    assert!(
        compare([0, 0], [60, 60], false).is_regression(),
        "one process is always the same"
    );
    let found = compare([0, 60], [60, 0], true);
    assert!(
        !found.is_regression() && found.unsure.is_empty(),
        "there are runs of one kind"
    );
}
