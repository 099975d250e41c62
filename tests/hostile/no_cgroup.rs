//! A user who may not make a cgroup anywhere: the processes below memwatch stand in for one.

use super::lab::Lab;
use super::rights::{SETPRIV, as_nobody, for_nobody};

#[test]
fn a_user_without_a_cgroup_is_told_what_that_costs_in_one_line_and_guarded_all_the_same() {
    let lab = Lab::new();
    for_nobody(&lab);
    // When it grows the hog is an orphan in a session of its own. It is waited for until nobody has that number:
    // somebody must bury it.
    let line = format!(
        "{SETPRIV} --report \"$REPORT\" --memory-max 128M -- sh -c '
             (setsid ./workload leak --rate 50M --culprit culprit &)
             until [ -s culprit ]; do sleep 0.1; done
             while kill -0 $(cat culprit) 2>/dev/null; do sleep 0.1; done
             exit 3'"
    );
    let ran = lab.run(as_nobody(&lab, &line));
    let ran = ran.expect_verdict("finished_with_kills", 3);
    let told = ran.err.lines().next().unwrap_or_default();
    for part in [
        "memwatch: no cgroup can be had",
        "stalls are not seen",
        "cannot make the cgroup",
        "Permission denied (os error 13)",
        "systemd-run",
    ] {
        assert!(told.contains(part), "no `{part}` in: {told}");
    }
    let culprit = std::fs::read_to_string(lab.file("culprit")).expect("the hog's");
    let victims = ran.report["victims"].as_array().expect("a list");
    assert_eq!(victims.len(), 1, "{victims:?}");
    assert_eq!(victims[0]["pid"].to_string(), culprit);
    assert_eq!(ran.report["interventions"][0]["rule"], "exhaustion");
    let target = &ran.report["target"];
    assert_eq!(target["cgroup_path"], serde_json::Value::Null);
    assert_eq!(target["memory_layout"], "agent");
    assert_eq!(target["limit_enforcer"], "agent");
}

#[test]
fn what_forks_away_from_a_command_without_a_cgroup_ends_with_its_time_and_else_runs_on() {
    let lab = Lab::new();
    for_nobody(&lab);
    let away = "(setsid sleep 30 & echo $! >away)";
    let line = |options: &str, then: &str| {
        format!("{SETPRIV} --report \"$REPORT\" {options} -- sh -c '{away}; {then}'")
    };
    let away = || {
        let pid = std::fs::read_to_string(lab.file("away")).expect("its number");
        pid.trim().parse::<i32>().expect("a number")
    };
    lab.run(as_nobody(&lab, &line("--timeout 1s", "sleep 30")))
        .expect_verdict("timeout", 124);
    // Its last parent is outside of this test, and may take its time to bury it.
    let stat = std::fs::read(format!("/proc/{}/stat", away())).unwrap_or_default();
    let state = memwatch::host::process::parse_stat(&stat).map(|stat| stat.state);
    assert!(matches!(state, None | Some(b'Z' | b'X')), "{state:?}");

    let ran = lab.run(as_nobody(&lab, &line("", "exit 0")));
    let ran = ran.expect_verdict("finished", 0);
    let notes = ran.report["notes"].to_string();
    let note = "1 process of the target runs on, without a guard";
    assert!(notes.contains(note), "{notes}");
    // SAFETY: ends a process that this test has made.
    assert_eq!(unsafe { libc::kill(away(), libc::SIGKILL) }, 0);
}
