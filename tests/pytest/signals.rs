//! Tests that use the signal by which memwatch asks: what comes after them is asked all the same.

use super::lab::Lab;
use super::{expect_outcomes, rungs, suite};

/// The hog of a suite whose first test does this with the signal, in all, and the rungs for it.
fn hog_after(test: &str, outcome: &str, expected: &[&str]) {
    let lab = Lab::new();
    let text = format!(
        "
import asyncio, signal
def test_first():
{test}
def test_hog(): leak([])
def test_z(): pass
"
    );
    let options = ["--memory-max", "300M", "--test-memory", "60M"];
    let ran = suite(&lab, &options, &text, &[]);
    let it = &ran.report["interventions"][0];
    assert_eq!(rungs(it), expected, "{ran:#?}");
    if outcome == "failed" {
        expect_outcomes(
            &ran,
            &[
                ("test_first", "passed"),
                ("test_hog", "failed"),
                ("test_z", "passed"),
            ],
        );
        let stack = it["python_stack"].to_string();
        assert!(stack.contains("in test_hog"), "{stack}");
    } else {
        expect_outcomes(&ran, &[("test_first", "passed"), ("test_hog", outcome)]);
    }
}

#[test]
fn a_handler_that_was_given_back_is_asked() {
    let test = "    signal.signal(signal.SIGURG, signal.signal(signal.SIGURG, lambda *_: None))";
    hog_after(test, "failed", &["abort"]);
}

#[test]
fn where_a_test_left_no_handler_memwatch_has_its_own_again() {
    hog_after(
        "    signal.signal(signal.SIGURG, signal.SIG_DFL)",
        "failed",
        &["abort"],
    );
    let of_asyncio = "
    async def main(): asyncio.get_running_loop().add_signal_handler(signal.SIGURG, print)
    asyncio.run(main())";
    hog_after(of_asyncio, "failed", &["abort"]);
}

#[test]
fn where_a_test_left_its_own_handler_nobody_is_asked_in_vain() {
    hog_after(
        "    signal.signal(signal.SIGURG, lambda *_: None)",
        "killed",
        &["sigkill"],
    );
}
