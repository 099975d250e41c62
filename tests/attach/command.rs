//! How a command is started, and the codes and records that runs end with.

use std::{fs, os::unix::fs::PermissionsExt};

use super::lab::{Lab, python, wait_until, workload};

#[test]
fn a_line_goes_through_the_users_shell() {
    let lab = Lab::new();
    let shell = lab.file("shell");
    fs::write(&shell, "#!/bin/sh\nprintf '<%s>' \"$@\"\n").expect("a shell");
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).expect("executable");
    let mut command = lab.memwatch(&["-q", "--cmd", "a | b  'c'"]);
    command.env("SHELL", &shell);
    assert_eq!(lab.run(command).expect(0).text(), "<-c><a | b  'c'>");

    let mut command = lab.memwatch(&["-q", "--cmd", "echo $((6*7)) | tr 4 x"]);
    command.env_remove("SHELL");
    assert_eq!(lab.run(command).expect(0).text(), "x2\n");
}

#[test]
fn a_program_gets_its_arguments_as_they_are() {
    let lab = Lab::new();
    let ran = lab.attach(&["--", "printf", "<%s>", "*", "$HOME", "a b", "", "--cmd"]);
    assert_eq!(
        ran.expect_verdict("finished", 0).text(),
        "<*><$HOME><a b><><--cmd>"
    );
}

#[test]
fn every_process_of_the_command_is_in_the_target_and_nobody_else() {
    let lab = Lab::new();
    // The shell itself, a child, and an orphan in a session of its own.
    let own = "cat /proc/self/cgroup";
    let line = format!("{own}; ({own}); setsid sh -c '{own}'; cat /proc/$PPID/cgroup >&2");
    let ran = lab.attach(&["-q", "--cmd", &line]).expect(0);
    let out = ran.text();
    let here = ran.report["target"]["cgroup_path"]
        .as_str()
        .expect("a path");
    let target = here.rsplit('/').next().expect("a name");
    for hierarchy in ["0::/", ":memory:/"] {
        let mut lines = out.lines().filter(|line| line.contains(hierarchy));
        assert_eq!(lines.clone().count(), 3);
        assert!(lines.all(|line| line.ends_with(target)), "{out}");
    }
    let of_memwatch = ran.err;
    assert!(
        of_memwatch.contains("0::/") && !of_memwatch.contains(target),
        "{of_memwatch}"
    );
}

/// Tells the limit of the cgroup that it runs in.
const LIMIT: &str =
    "cat /sys/fs/cgroup/memory/$(sed -n 's/.*:memory://p' /proc/self/cgroup)/memory.limit_in_bytes";

#[test]
fn the_limit_is_the_kernels_and_seen_from_inside() {
    let lab = Lab::new();
    let ran = lab
        .attach(&["--memory-max", "96M", "--cmd", LIMIT])
        .expect(0);
    assert_eq!(ran.text().trim(), (96 << 20).to_string());
    assert_eq!(ran.report["target"]["memory_max_bytes"], 96 << 20);
    assert_eq!(ran.report["target"]["limit_enforcer"], "kernel");
    // The group around it has 1 GiB.
    let ran = lab.attach(&["--memory-max", "1536M", "--", "true"]);
    assert_eq!(ran.report["target"]["memory_max_bytes"], 1 << 30);
    assert_eq!(ran.report["target"]["limit_enforcer"], "kernel");
}

#[test]
fn safe_mode_limits_memory_and_cpus_and_takes_no_looser_value() {
    let lab = Lab::new();
    let ran = lab.attach(&["--safe", "--", "nproc"]).expect(0);
    assert!(
        ran.text().trim().parse::<u32>().expect("a number") <= 2,
        "{ran:?}"
    );
    let ran = lab.attach(&["--safe", "--cmd", LIMIT]).expect(0);
    assert_eq!(ran.text().trim(), (2u64 << 30).to_string());
    // The tests' own group around it is tighter, and what is in force is what is told.
    assert!(ran.report["target"]["memory_max_bytes"].as_u64() <= Some(2 << 30));
    lab.attach(&["--safe", "--timeout", "301s", "--", "true"])
        .expect_refusal(&["5m", "--safe"]);
}

#[test]
fn the_exit_code_is_the_commands_own() {
    let lab = Lab::new();
    for code in [0, 1, 7, 124, 125, 126, 127, 128, 137, 143, 255] {
        let ran = lab.attach(&["--", "sh", "-c", &format!("exit {code}")]);
        ran.expect_verdict("finished", code);
    }
    for (name, number) in [
        ("HUP", 1),
        ("INT", 2),
        ("KILL", 9),
        ("SEGV", 11),
        ("TERM", 15),
        ("RTMIN", 34),
    ] {
        let ran = lab.attach(&["--", "bash", "-c", &format!("ulimit -c 0; kill -{name} $$")]);
        ran.expect_verdict("signalled", 128 + number);
    }
}

#[test]
fn what_cannot_be_started_says_why() {
    let lab = Lab::new();
    let file = lab.file("file");
    fs::write(&file, "exit 0").expect("a file");
    let (directory, file) = (lab.file(""), file.display().to_string());
    let cases = [
        (
            directory.to_str().expect("UTF-8"),
            126,
            "Permission denied (os error 13)",
        ),
        (&file, 126, "Permission denied (os error 13)"),
        ("/no/such/program", 127, "not found"),
        ("no-such-program", 127, "not found"),
        ("", 127, "not found"),
    ];
    for (program, code, why) in cases {
        let ran = lab.attach(&["--", program]).expect(code);
        assert_eq!(ran.err.matches(why).count(), 1, "{}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
}

#[test]
fn what_makes_no_sense_is_memwatchs_own_failure() {
    let lab = Lab::new();
    for arguments in [
        &["--no-such-option", "--", "true"][..],
        &["--memory-max", "-1", "--", "true"],
        &["--memory-max", "2", "--", "true"],
        &["--timeout", "soon", "--", "true"],
        &["--pid", "1", "--cgroup", "/"],
        &["--cmd", " "],
        &[],
    ] {
        let ran = lab.attach(arguments).expect(125);
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn a_quiet_run_is_told_in_three_lines() {
    let lab = Lab::new();
    let ran = lab
        .attach(&["--", "sh", "-c", "exit 3"])
        .expect_verdict("finished", 3);
    assert!(
        ran.err.starts_with("memwatch: sh finished in "),
        "{}",
        ran.err
    );
    assert_eq!(
        ran.err
            .lines()
            .filter(|line| !line.contains("note") && !line.contains("was left by"))
            .count(),
        3,
        "{}",
        ran.err
    );
    assert_eq!(ran.report["kind"], "run");
    assert_eq!(ran.report["command"]["arguments"], serde_json::Value::Null);
    let told = lab
        .attach(&["--with-arguments", "--", "sh", "-c", "exit 3"])
        .expect(3);
    assert_eq!(told.report["command"]["arguments"][1], "exit 3");
}

#[test]
fn time_is_up_for_the_whole_tree() {
    let lab = Lab::new();
    // One that says goodbye, one that does not listen, one that left the session.
    // Nobody forks when the time is up: who has not executed yet bears the shell's name.
    let line = "trap 'echo bye; exit 9' TERM; (trap '' TERM; sleep 300) & setsid sleep 300 & wait";
    let ran = lab
        .attach(&["--timeout", "1s", "--", "bash", "-c", line])
        .expect_verdict("timeout", 124);
    assert_eq!(ran.text(), "bye\n", "it was asked first");
    assert!(lab.pair.pids().is_empty(), "and nobody stayed");
    assert_eq!(ran.report["kind"], "timeout");
    // Each by name: how it was asked, and who had to be ended.
    let victims = ran.report["victims"].as_array().expect("a list");
    let told = |comm: &str, signal: &str| {
        let is_it =
            |victim: &&serde_json::Value| victim["comm"] == comm && victim["signal"] == signal;
        victims.iter().filter(is_it).count()
    };
    assert_eq!(told("bash", "SIGTERM"), 1, "{victims:#?}");
    assert!(
        told("bash", "SIGKILL") + told("sleep", "SIGTERM") >= 2,
        "{victims:#?}"
    );
    let rungs = ran.report["interventions"][0]["rungs"]
        .as_array()
        .expect("a list");
    assert!(rungs.iter().all(|rung| rung["pid"].is_u64()), "{rungs:#?}");
}

#[test]
fn who_does_not_listen_when_time_is_up_is_ended() {
    let lab = Lab::new();
    let line = "trap '' TERM; while :; do sleep 0.1; done";
    let ran = lab.attach(&["--timeout", "500ms", "--", "bash", "-c", line]);
    let ran = ran.expect_verdict("timeout", 124);
    let rungs = ran.report["interventions"][0]["rungs"]
        .as_array()
        .expect("rungs")
        .clone();
    let mut rungs: Vec<_> = rungs
        .iter()
        .map(|rung| rung["rung"].as_str().expect("a word"))
        .collect();
    rungs.dedup();
    assert_eq!(rungs, ["sigterm", "sigkill"]);
    assert!(lab.pair.pids().is_empty());
}

#[test]
fn a_dry_run_lets_time_run_out() {
    let lab = Lab::new();
    let ran = lab.attach(&[
        "--dry-run",
        "--timeout",
        "300ms",
        "--",
        "sh",
        "-c",
        "sleep 1; exit 5",
    ]);
    let ran = ran.expect_verdict("finished", 5);
    assert_eq!(
        ran.report["interventions"][0]["rungs"][0]["result"],
        "dry_run"
    );
}

#[test]
fn what_the_command_leaves_behind_runs_on_outside() {
    let lab = Lab::new();
    let line = "sleep 300 >/dev/null 2>&1 & setsid sleep 300 >/dev/null 2>&1 & exit 4";
    let ran = lab.attach(&["--cmd", line]).expect_verdict("finished", 4);
    assert!(
        ran.err
            .contains("2 processes of the target run on, without a guard"),
        "{}",
        ran.err
    );
    let left = lab.pair.pids();
    assert_eq!(left.len(), 2);
    let where_memwatch_was = fs::read_to_string(lab.pair.v2.join("cgroup.procs")).expect("procs");
    assert_eq!(
        where_memwatch_was.lines().count(),
        2,
        "they are back in memwatch's own group"
    );
}

#[test]
fn two_at_the_same_time_keep_apart() {
    let lab = Lab::new();
    let many: Vec<_> = (0..8)
        .map(|n| {
            lab.memwatch(&[
                "-q",
                "--",
                "sh",
                "-c",
                &format!("cat /proc/self/cgroup > own{n}; exit {n}"),
            ])
        })
        .map(|mut command| command.spawn().expect("memwatch"))
        .collect();
    for (n, mut child) in (0..).zip(many) {
        assert_eq!(child.wait().expect("ours").code(), Some(n));
    }
    let mut places: Vec<_> = (0..8).map(|n| lab.read(&format!("own{n}"))).collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 8, "{places:?}");
}

#[test]
fn memwatch_runs_under_memwatch() {
    let lab = Lab::new();
    let inner = lab.file("inner.json").display().to_string();
    let ran = lab.attach(&[
        "--memory-max",
        "200M",
        "--",
        super::lab::MEMWATCH,
        "attach",
        "-q",
        "--report",
        &inner,
        "--",
        "sh",
        "-c",
        "cat /proc/self/cgroup; exit 6",
    ]);
    let ran = ran.expect_verdict("finished", 6);
    let outer = ran.report["target"]["cgroup_path"]
        .as_str()
        .expect("a path")
        .to_owned();
    let inner: serde_json::Value = serde_json::from_str(&lab.read("inner.json")).expect("a report");
    let inner = inner["target"]["cgroup_path"]
        .as_str()
        .expect("a path")
        .to_owned();
    assert!(
        inner.starts_with(&outer) && inner != outer,
        "{inner} in {outer}"
    );
}

#[test]
fn a_signal_to_memwatch_alone_reaches_the_command_from_whomever() {
    let lab = Lab::new();
    let line = "trap 'echo got; exit 8' TERM; echo ready; while :; do sleep 0.05; done";
    // The test is in memwatch's process group, as a script is that started it in the background.
    let started = lab.start(lab.reporting(&["--", "bash", "-c", line]));
    wait_until("trap", || lab.read("out").contains("ready"));
    started.signal(libc::SIGTERM);
    assert_eq!(
        started.wait().expect_verdict("finished", 8).text(),
        "ready\ngot\n"
    );
}

#[test]
fn a_signal_from_outside_of_the_pid_namespace_reaches_the_command() {
    let lab = Lab::new();
    let mut unshare = lab.command("unshare");
    unshare.args([
        "--pid",
        "--fork",
        "--mount-proc",
        super::lab::MEMWATCH,
        "attach",
        "-q",
        "--cmd",
    ]);
    unshare.arg("trap 'echo got; exit 8' TERM; echo ready; while :; do sleep 0.05; done");
    let started = lab.start(unshare);
    wait_until("trap", || lab.read("out").contains("ready"));
    let children = format!("/proc/{pid}/task/{pid}/children", pid = started.pid());
    let memwatch = fs::read_to_string(children).expect("unshare's child");
    let memwatch = memwatch.trim().parse().expect("one pid");
    // SAFETY: no pointers are passed; it is a descendant of ours.
    assert_eq!(unsafe { libc::kill(memwatch, libc::SIGTERM) }, 0);
    assert_eq!(started.wait().expect(8).text(), "ready\ngot\n");
}

#[test]
fn a_recording_that_cannot_be_written_changes_nothing_but_a_note() {
    let lab = Lab::new();
    // 200 KiB are room for a report, and not for all looks at a target that fills up.
    let mut command = lab.command("bash");
    let line = "trap '' XFSZ; ulimit -f 200; exec \"$0\" attach --report report.json --record looks \
        --memory-max 200M -- \"$1\" leak --rate 50M";
    command.args(["-c", line, super::lab::MEMWATCH, &workload()]);
    let ran = lab.run(command).expect_verdict("killed_by_memwatch", 137);
    let notes = ran.report["notes"].to_string();
    assert!(notes.contains("the recording is not whole"), "{notes}");
    assert!(ran.err.contains("was killed by memwatch"), "{}", ran.err);
}

#[test]
fn a_command_whose_cgroup_somebody_removes_is_known_to_have_no_guard() {
    let lab = Lab::new();
    let started = lab.start(lab.reporting(&["--cmd", "echo $$ > pid; exec sleep 3"]));
    wait_until("command", || lab.read("pid").ends_with('\n'));
    let targets = lab.targets();
    for group in [&lab.pair.v2, &lab.pair.memory] {
        fs::write(group.join("cgroup.procs"), lab.read("pid").trim()).expect("a way out");
    }
    for target in targets {
        fs::remove_dir(target).expect("nobody is in it");
    }
    let ran = started.wait().expect_verdict("finished", 0);
    let told = "cgroup was removed by somebody else: what still runs has no guard";
    assert!(ran.report["notes"].to_string().contains(told), "{ran:#?}");
    assert!(ran.err.contains(told), "{}", ran.err);
}

#[test]
fn a_line_is_called_what_was_typed_and_only_on_the_terminal() {
    let lab = Lab::new();
    let line = format!("true; : {}", "x".repeat(80));
    let ran = lab.attach(&["--cmd", &line]).expect_verdict("finished", 0);
    let headline = format!("memwatch: true; : {}... finished in ", "x".repeat(49));
    // The 57 columns that are left of 60 begin with `true; : `.
    assert!(ran.err.starts_with(&headline), "{}", ran.err);
    assert_eq!(ran.report["command"]["program"], "/bin/sh");
}

#[test]
fn who_is_only_dying_does_not_run_on() {
    let lab = Lab::new();
    // What holds much takes a while to die.
    let hold = "held = b'x' * (300 << 20); print(flush=True); import time; time.sleep(300)";
    let line = format!(
        "mkfifo ready; {} -c \"{hold}\" > ready & read -r _ < ready; kill -9 $!; exit 4",
        python()
    );
    let ran = lab.attach(&["--on-pressure", "warn", "--cmd", &line]);
    let ran = ran.expect_verdict("finished", 4);
    assert!(!ran.err.contains("without a guard"), "{}", ran.err);
    wait_until("nobody", || lab.pair.pids().is_empty());
}
