//! Suites that do what memwatch's plugin does too: run pytest, use its signal, run tests again, end them.

use super::lab::Lab;
use super::sides::{Sides, outcomes, program, run, write};

const NESTED: &str = include_str!("suites/test_nested.py");
const SIGNALS: &str = include_str!("suites/test_signals.py");
const PLUGINS: &str = include_str!("suites/test_plugins.py");

fn pytest(lab: &Lab, suite: &str, options: &[&str]) -> Sides {
    write(lab, "test_it.py", suite);
    let tested = program("plugins", "pytest");
    let settings = "[pytest]\nasyncio_default_fixture_loop_scope = function\n";
    write(lab, "pytest.ini", settings);
    let command = [&[&*tested, "-rA", "-p", "no:cacheprovider"], options].concat();
    run(lab, &command, &[])
}

#[test]
fn a_pytest_in_a_test_is_a_part_of_that_test() {
    let lab = Lab::new();
    pytest(&lab, NESTED, &["-q", "--tb=no"])
        .expect_code(0)
        .expect_same()
        .expect_tests(5);
}

#[test]
fn a_suite_that_uses_the_signal_has_it() {
    let lab = Lab::new();
    pytest(&lab, SIGNALS, &[])
        .expect_code(0)
        .expect_same()
        .expect_tests(6);
    let settings = "import signal\nsignal.signal(signal.SIGURG, lambda *_: None)\n";
    write(&lab, "conftest.py", settings);
    pytest(&lab, SIGNALS, &[])
        .expect_code(0)
        .expect_same()
        .expect_tests(6);
}

#[test]
fn asyncio_reruns_hypothesis_and_timeouts_are_what_they_are() {
    let lab = Lab::new();
    let both = pytest(&lab, PLUGINS, &[]).expect_code(1).expect_same();
    // Each run of a test that is run again is in the record, the last one last.
    let tests = both.watched.report["suite"]["tests"].as_array();
    assert_eq!(tests.map(Vec::len), Some(9 + 3));
    let found = outcomes(&both.watched.report);
    for (test, outcome) in [
        ("test_of_asyncio", "passed"),
        ("test_of_asyncio_fails", "failed"),
        ("test_of_reruns", "passed"),
        ("test_of_reruns_fails", "failed"),
        ("test_of_hypothesis_fails", "failed"),
        ("test_of_a_timeout", "failed"),
        ("test_of_a_timeout_of_the_call_alone", "failed"),
    ] {
        assert_eq!(found[&format!("test_it.py::{test}")], outcome, "{test}");
    }
}
