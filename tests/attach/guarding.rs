//! memwatch stopped in its tracks while its target thrashes: the kernel acts, and memwatch tells of it
//! when it is back. The guard's own rules are `tests/guard.rs`'s.

use std::{os::unix::process::CommandExt, path::Path, thread, time::Duration};

use super::lab::{Lab, MEMWATCH, is_alive, wait_for, wait_until, workload};
use super::refuse::refuse;

/// A shell line that begins to thrash when it is told to [`go`], and says who does: before it writes what it will
/// read, since where writing stalls it may be killed at that.
pub(super) fn late_thrasher(lab: &Lab) -> String {
    let culprit = lab.file("culprit").display().to_string();
    let dir = env!("CARGO_TARGET_TMPDIR");
    format!(
        "until [ -e {} ]; do sleep 0.1; done; printf %s $$ > {culprit}; exec {} thrash --dir {dir}",
        lab.file("go").display(),
        workload()
    )
}

/// Tells it.
pub(super) fn go(lab: &Lab) {
    std::fs::write(lab.file("go"), "").expect("room");
}

#[test]
fn a_thrasher_is_killed_though_memwatch_is_stopped() {
    let lab = Lab::new();
    let hog = late_thrasher(&lab);
    let started = lab.start(lab.reporting(&["--memory-max", "64M", "--cmd", &hog]));
    lab.wait_for_guard(Path::new(MEMWATCH));
    started.signal(libc::SIGSTOP);
    go(&lab);
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
fn it_says_that_it_guards_when_the_kill_was_rehearsed() {
    let lab = Lab::new();
    let ran = lab.attach(&["-v", "--", "sleep", "0.3"]);
    let ran = ran.expect_verdict("finished", 0);
    assert!(ran.report["rehearsal_us"].as_u64() > Some(0), "{ran:#?}");
    assert!(ran.err.contains("memwatch: guarding /"), "{}", ran.err);
}

#[test]
fn a_thrasher_is_killed_by_the_guard_though_memwatch_may_kill_nobody() {
    let lab = Lab::new();
    let hog = late_thrasher(&lab);
    let mut command = lab.reporting(&["--memory-max", "64M", "--cmd", &hog]);
    // SAFETY: system calls.
    unsafe { command.pre_exec(|| refuse(libc::SYS_pidfd_send_signal)) };
    let started = lab.start(command);
    lab.wait_for_guard(Path::new(MEMWATCH));
    go(&lab);
    let ran = started.wait().expect_verdict("killed_by_guard", 137);
    let hog: u32 = lab.read("culprit").parse().expect("a pid");
    assert_eq!(ran.report["victims"][0]["pid"], hog);
}

#[test]
fn a_stopped_memwatch_is_no_reason_by_itself() {
    let lab = Lab::new();
    let started = lab.start(lab.reporting(&["--memory-max", "64M", "--", "sleep", "9"]));
    lab.wait_for_guard(Path::new(MEMWATCH));
    started.signal(libc::SIGSTOP);
    thread::sleep(Duration::from_secs(5));
    started.signal(libc::SIGCONT);
    started.wait().expect_verdict("finished", 0);
}
