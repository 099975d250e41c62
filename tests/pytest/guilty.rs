//! Whose process is killed for time, by the kernel or while it tears down, and who is named for it.

use super::lab::{Lab, Ran};
use super::{expect_outcomes, outcomes, rungs, suite};
use serde_json::Value;

#[test]
fn who_has_failed_for_its_time_may_tear_down_and_a_teardown_that_hangs_ends() {
    let lab = Lab::new();
    let text = |teardown: &str| {
        format!(
            "
import hashlib
@pytest.fixture(scope='session')
def server():
    yield
    {teardown}
def test_slow(server): time.sleep(60)
"
        )
    };
    let options = ["--test-timeout", "4s"];
    let ran = suite(&lab, &options, &text("time.sleep(3)"), &[]).expect_verdict("finished", 1);
    expect_outcomes(&ran, &[("test_slow", "failed")]);
    assert_eq!(ran.report["victims"], serde_json::json!([]));
    let hangs = text("hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 28)");
    let ran = suite(&lab, &options, &hangs, &[]).expect_verdict("killed_by_memwatch", 137);
    let interventions = ran.report["interventions"].as_array().expect("a list");
    let rungs: Vec<_> = interventions.iter().map(rungs).collect();
    assert_eq!(rungs, [vec!["abort"], vec!["abort", "sigkill"]], "{ran:#?}");
}

/// Keeps some memory in the tests that come first in each worker, more than the one that dies will have taken.
const KEEPERS: &str = "
KEPT = []
@pytest.mark.parametrize('n', range(4))
def test_keeps(n):
    KEPT.append(bytearray(os.urandom(1) * (70 << 20)))
    time.sleep(0.3)
";

/// How a test ended that was not to be run again, and that the others ran.
#[track_caller]
fn expect_killed_once(ran: &Ran, name: &str) -> Value {
    let found = outcomes(&ran.report);
    let of_it: Vec<_> = found.iter().filter(|(test, _)| test == name).collect();
    assert_eq!(of_it.len(), 1, "{ran:#?}");
    assert_eq!(of_it[0].1, "killed", "{ran:#?}");
    for (test, how) in &found {
        assert!(test == name || how == "passed", "{test}: {ran:#?}");
    }
    let tests = ran.report["suite"]["tests"].as_array().expect("a list");
    let killed = tests.iter().find(|test| test["outcome"] == "killed");
    let killed = killed.expect("it was killed").clone();
    let why = killed["ended_by_memwatch"].as_str().unwrap_or_default();
    assert!(!why.contains("test_keeps"), "nobody else's: {why}");
    killed
}

#[test]
fn who_is_killed_for_its_time_is_no_bystander_whatever_others_kept() {
    let lab = Lab::new();
    let text = format!(
        "{KEEPERS}
def test_hangs():
    import hashlib
    hashlib.pbkdf2_hmac('sha256', b'', b'', 1 << 28)
def test_z(): pass
"
    );
    let options = ["--memory-max", "900M", "--test-timeout", "2s"];
    let pytest = ["-n", "2", "--dist", "load"];
    let ran = suite(&lab, &options, &text, &pytest).expect_verdict("finished_with_kills", 1);
    expect_killed_once(&ran, "test_hangs");
    assert!(ran.text().contains("this test took"), "{}", ran.text());
}

#[test]
fn who_ran_when_the_kernel_took_its_process_is_named_with_what_it_took() {
    let lab = Lab::new();
    let text = format!(
        "{KEEPERS}
def test_takes_all(): bytearray(os.urandom(1) * (900 << 20))
def test_z(): pass
"
    );
    let options = ["--memory-max", "600M", "--dry-run"];
    let pytest = ["-n", "2", "--dist", "load"];
    let ran = suite(&lab, &options, &text, &pytest).expect_verdict("finished_with_kills", 1);
    let killed = expect_killed_once(&ran, "test_takes_all");
    assert_eq!(
        ran.report["victims"][0]["killed_by"], "kernel_oom",
        "{ran:#?}"
    );
    let [before, peak] = ["rss_before_bytes", "peak_bytes"].map(|name| killed[name].as_u64());
    assert!(
        peak.expect("the kernel said it") > before.expect("told") + (100 << 20),
        "{killed:#}"
    );
}
