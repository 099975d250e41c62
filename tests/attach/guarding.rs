//! memwatch stopped in its tracks while its target thrashes: the kernel acts, and memwatch tells of it
//! when it is back. The guard's own rules are `tests/guard.rs`'s.

use std::{thread, time::Duration};

use super::lab::{Lab, is_alive, wait_for, wait_until, workload};

/// The BPF programs are ready when this is in the heart of the run: they load beside the command.
const LOADED: Duration = Duration::from_secs(2);

#[test]
fn a_thrasher_is_killed_though_memwatch_is_stopped() {
    let lab = Lab::new();
    let culprit = lab.file("culprit").display().to_string();
    let dir = env!("CARGO_TARGET_TMPDIR");
    let hog = format!(
        "sleep 3; exec {} thrash --culprit {culprit} --dir {dir}",
        workload()
    );
    let started = lab.start(lab.reporting(&["--memory-max", "64M", "--cmd", &hog]));
    wait_until("a target", || !lab.targets().is_empty());
    thread::sleep(LOADED);
    started.signal(libc::SIGSTOP);
    let hog: u32 = wait_for("the hog", || lab.read("culprit").parse().ok());
    wait_until("the guard's kill", || !is_alive(hog));
    started.signal(libc::SIGCONT);
    let ran = started.wait().expect_verdict("killed_by_guard", 137);
    let victims = ran.report["victims"].as_array().expect("a list");
    assert_eq!(victims.len(), 1, "{ran:#?}");
    assert_eq!(victims[0]["pid"], hog);
    assert_eq!(victims[0]["killed_by"], "guard");
    assert_eq!(ran.report["interventions"][0]["rule"], "guard");
    assert!(ran.err.contains("guard in the kernel"), "{}", ran.err);
}

#[test]
fn a_stopped_memwatch_is_no_reason_by_itself() {
    let lab = Lab::new();
    let started = lab.start(lab.reporting(&["--memory-max", "64M", "--", "sleep", "9"]));
    wait_until("a target", || !lab.targets().is_empty());
    thread::sleep(LOADED);
    started.signal(libc::SIGSTOP);
    thread::sleep(Duration::from_secs(5));
    started.signal(libc::SIGCONT);
    started.wait().expect_verdict("finished", 0);
}
