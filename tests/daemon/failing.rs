//! When one of both is stopped or dies: the target is never without a guard.

use super::lab::{Lab, is_alive, wait_for, wait_until, workload};
use super::service::{Home, Service};
use super::users::NOBODY;
use memwatch::control::status::GuardedBy;

fn late_hog(seconds: u32, hog: &str) -> String {
    format!("sleep {seconds}; exec {} {hog}", workload())
}

/// What a daemon that was killed has left, the next memwatch takes away.
fn tidy() {
    let lab = Lab::new();
    lab.attach(&["--", "sleep", "3"])
        .expect_verdict("finished", 0);
}

#[test]
fn a_run_goes_on_alone_when_the_daemon_dies() {
    let mut service = Service::start("");
    let home = Home::of(NOBODY);
    let line = late_hog(4, "leak --rate 30M");
    let started = home.attach(&service, &["--memory-max", "96M", "--cmd", &line]);
    service.target_of(NOBODY);
    service.kill();
    let ran = started.wait().expect_verdict("killed_by_memwatch", 137);
    assert_eq!(ran.report["victims"][0]["comm"], "workload");
    assert!(ran.err.contains("alone from here on"), "{}", ran.err);
    let lost = ran.report["features_lost"].to_string();
    assert!(lost.contains("BPF programs"), "a user has none: {lost}");
    tidy();
}

#[test]
fn the_kernel_acts_for_a_user_while_the_daemon_is_stopped() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let culprit = home.lab.file("culprit").display().to_string();
    // Who it is stands there before it writes what it will read: where writing stalls it may be killed at that.
    let line = format!(
        "sleep 6; printf %s $$ > {culprit}; exec {} thrash --dir {}",
        workload(),
        home.scratch()
    );
    let started = home.attach(&service, &["--memory-max", "64M", "--cmd", &line]);
    wait_until("the guard", || {
        service.target_of(NOBODY).guarded_by == GuardedBy::DaemonAndKernelGuard
    });
    service.signal(libc::SIGSTOP);
    let hog: u32 = wait_for("the hog", || home.lab.read("culprit").parse().ok());
    wait_until("the guard's kill", || !is_alive(hog));
    service.signal(libc::SIGCONT);
    let ran = started.wait().expect_verdict("killed_by_guard", 137);
    assert_eq!(ran.report["victims"][0]["pid"], hog);
    assert_eq!(ran.report["victims"][0]["killed_by"], "guard");
    service.stop();
}

#[test]
fn the_daemon_guards_on_when_the_run_is_killed_and_lets_go_when_nobody_is_left() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let line = late_hog(4, "leak --rate 30M");
    let mut started = home.attach(&service, &["--memory-max", "96M", "--cmd", &line]);
    let target = service.target_of(NOBODY);
    started.child.kill().expect("ours");
    started.child.wait().expect("ours");
    let kept = wait_for("an incident", || service.incidents().pop());
    assert_eq!(kept["victims"][0]["comm"], "workload", "{kept:#}");
    assert_eq!(kept["target"]["cgroup_id"], target.id);
    wait_until("no target", || service.targets().is_empty());
    // What the run would have removed.
    for dir in home.lab.targets() {
        std::fs::remove_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
    service.stop();
}
