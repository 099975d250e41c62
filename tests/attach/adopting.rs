//! `--pid` and `--cgroup`: what runs already is guarded, and given back.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use memwatch::host::cgroup::pids;

use super::lab::{Lab, Started, is_alive, python, wait_for, wait_until, workload};

fn cgroup_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

fn spawn(mut command: Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process to adopt")
}

fn shell(lab: &Lab, line: &str) -> Child {
    let mut sh = lab.command("sh");
    sh.args(["-c", line]);
    spawn(sh)
}

fn adopt(lab: &Lab, options: &[&str], pid: u32) -> Started {
    let pid = pid.to_string();
    let mut arguments = options.to_vec();
    arguments.extend(["--pid", &pid]);
    let started = lab.start(lab.reporting(&arguments));
    let target = lab.target();
    wait_until("adoption", || {
        let procs = fs::read_to_string(target.join("cgroup.procs")).unwrap_or_default();
        procs.lines().any(|line| line == pid)
    });
    started
}

#[test]
fn a_tree_is_adopted_and_comes_back_when_memwatch_is_told_to_end() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let lab = Lab::new();
        let mut root = shell(&lab, "sleep 300 & (sleep 300 & sleep 300; :) & wait");
        wait_until("tree", || lab.pair.pids().len() == 5);
        let before: Vec<_> = lab
            .pair
            .pids()
            .into_iter()
            .map(|pid| (pid, cgroup_of(pid)))
            .collect();
        let memwatch = adopt(&lab, &[], root.id());
        wait_until("whole tree", || {
            memwatch.stderr().contains("5 processes were adopted")
        });
        for (pid, place) in &before {
            assert_ne!(&cgroup_of(*pid), place);
        }
        memwatch.signal(signal);
        let ran = memwatch.wait().expect_verdict("finished", 0);
        for (pid, place) in &before {
            assert!(is_alive(*pid));
            assert_eq!(&cgroup_of(*pid), place, "{ran:#?}");
        }
        let notes = ran.report["notes"].to_string();
        assert!(notes.contains("stays with the old groups"), "{notes}");
        root.kill().expect("ours");
        root.wait().expect("ours");
    }
}

#[test]
fn a_target_that_ends_by_itself_is_no_failure() {
    let lab = Lab::new();
    let mut root = shell(&lab, "until [ -e go ]; do sleep 0.1; done; exit 3");
    let memwatch = adopt(&lab, &[], root.id());
    fs::write(lab.file("go"), "").expect("room");
    root.wait().expect("ours");
    memwatch.wait().expect_verdict("finished", 0);
}

#[test]
fn an_adopted_hog_is_killed() {
    let lab = Lab::new();
    let mut root = shell(
        &lab,
        &format!("sleep 1; exec {} leak --rate 100M", workload()),
    );
    let memwatch = adopt(&lab, &["--memory-max", "128M"], root.id());
    root.wait().expect("ours");
    let ran = memwatch.wait().expect_verdict("killed_by_memwatch", 137);
    assert_eq!(ran.report["victims"][0]["pid"], root.id());
}

#[test]
fn a_kill_inside_of_what_lives_on_is_no_end() {
    let lab = Lab::new();
    let mut root = shell(
        &lab,
        &format!("sleep 1; {} leak --rate 100M; sleep 1", workload()),
    );
    let memwatch = adopt(&lab, &["--memory-max", "128M"], root.id());
    root.wait().expect("ours");
    memwatch.wait().expect_verdict("finished_with_kills", 0);
}

#[test]
fn a_process_that_keeps_forking_does_not_get_away() {
    let lab = Lab::new();
    let script = lab.file("storm.py");
    let storm = "import os, sys, time\n\
        end = time.time() + 30\n\
        while time.time() < end:\n\
        \x20   if os.fork() == 0:\n\
        \x20       if os.fork() == 0:\n\
        \x20           time.sleep(0.3)\n\
        \x20       os._exit(0)\n\
        \x20   os.wait()\n";
    fs::write(&script, storm).expect("a script");
    let mut command = lab.command(python());
    command.arg(&script);
    let mut root = spawn(command);
    wait_until("storm", || lab.pair.pids().len() > 10);
    let memwatch = adopt(&lab, &[], root.id());
    let memwatch_pid = memwatch.child.id();
    // Those that were nobody's children any more when memwatch looked are no descendants; they are gone soon.
    let outside = || fs::read_to_string(lab.pair.v2.join("cgroup.procs")).unwrap_or_default();
    wait_until("the whole storm inside", || {
        outside().trim() == memwatch_pid.to_string()
    });
    memwatch.signal(libc::SIGTERM);
    memwatch.wait().expect_verdict("finished", 0);
    assert!(is_alive(root.id()));
    root.kill().expect("ours");
    root.wait().expect("ours");
}

#[test]
fn memwatch_started_to_ignore_a_signal_does_not_end_on_it() {
    let lab = Lab::new();
    let mut root = shell(&lab, "exec sleep 300");
    let mut nohup = lab.command("sh");
    let line = format!(
        "trap '' HUP; exec {} attach --pid {}",
        super::lab::MEMWATCH,
        root.id()
    );
    nohup.args(["-c", &line]);
    let memwatch = lab.start(nohup);
    let target = lab.target();
    wait_until("adoption", || {
        !memwatch::host::cgroup::pids(&target).is_empty()
    });
    memwatch.signal(libc::SIGHUP);
    memwatch.signal(libc::SIGTERM);
    let ran = memwatch.wait().expect(0);
    assert!(
        ran.err.contains("1 process of the target runs on"),
        "{}",
        ran.err
    );
    root.kill().expect("ours");
    root.wait().expect("ours");
}

fn guard(lab: &Lab, options: &[&str], group: &Path) -> Started {
    let group = group.display().to_string();
    let mut arguments = options.to_vec();
    arguments.extend(["--cgroup", &group]);
    lab.start(lab.reporting(&arguments))
}

#[test]
fn a_cgroup_is_guarded_where_it_is_and_left_as_it_was() {
    let lab = Lab::new();
    let pair = lab.pair.below("theirs", "200M");
    let mut inside = lab.command("sleep");
    inside.arg("300");
    pair.confine(&mut inside);
    let mut inside = spawn(inside);
    // One that has no counterpart in the hierarchy of the memory controller, which is said.
    let theirs = pair.v2.join("alone");
    fs::create_dir(&theirs).expect("room");
    fs::write(theirs.join("cgroup.procs"), inside.id().to_string()).expect("ours");
    let memwatch = guard(&lab, &[], &theirs);
    wait_until("signs of life", || {
        memwatch.stderr().contains("no memory controller")
    });
    memwatch.signal(libc::SIGTERM);
    memwatch.wait().expect_verdict("finished", 0);
    assert!(is_alive(inside.id()) && pids(&theirs) == [inside.id()]);

    let memwatch = guard(&lab, &[], &theirs);
    wait_until("signs of life", || {
        memwatch.stderr().contains("no memory controller")
    });
    inside.kill().expect("ours");
    inside.wait().expect("ours");
    memwatch.wait().expect_verdict("finished", 0);
    assert!(theirs.is_dir(), "it is not memwatch's to remove");
}

#[test]
fn a_process_that_cannot_be_adopted_is_named_and_nothing_is_moved() {
    let lab = Lab::new();
    let mut zombie = shell(&lab, "exit 0");
    wait_until("zombie", || !is_alive(zombie.id()));
    let mut threads = lab.command(python());
    threads.args([
        "-c",
        "import threading, time; threading.Thread(target=lambda: time.sleep(300)).start()",
    ]);
    let mut threads = spawn(threads);
    let thread = wait_for("thread", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", threads.id())).ok()?;
        let mut ids = tasks
            .flatten()
            .filter_map(|it| it.file_name().into_string().ok());
        ids.find(|id| *id != threads.id().to_string())
    });
    let parent = std::process::id();
    let places = || [1, 2, parent, threads.id()].map(cgroup_of);
    let before = places();
    for (pid, why) in [
        ("4194305".into(), "no process 4194305"),
        (zombie.id().to_string(), "no process"),
        (thread, "no process"),
        ("2".to_owned(), "Invalid argument (os error 22)"),
        ("1".to_owned(), ""),
        (parent.to_string(), "ancestor"),
    ] {
        lab.attach(&["--pid", &pid]).expect_refusal(&[&pid, why]);
    }
    for pid in ["0", "-7", "99999999999", "1.5", ""] {
        lab.attach(&["--pid", pid]).expect(125);
    }
    zombie.wait().expect("ours");
    assert_eq!(places(), before, "nobody was moved");
    threads.kill().expect("ours");
    threads.wait().expect("ours");
}

#[test]
fn a_cgroup_that_holds_memwatch_itself_is_refused() {
    let lab = Lab::new();
    for group in [
        lab.pair.v2.clone(),
        lab.pair.v2.parent().expect("one").to_owned(),
    ] {
        let ran = guard(&lab, &[], &group).wait();
        ran.expect_refusal(&["holds this memwatch itself"]);
    }
}

#[test]
fn an_adopted_process_is_told_by_its_name_alone() {
    let lab = Lab::new();
    let mut sleeper = shell(&lab, "exec sleep 300");
    wait_until("exec", || {
        fs::read_to_string(format!("/proc/{}/comm", sleeper.id())).is_ok_and(|it| it == "sleep\n")
    });
    let memwatch = adopt(&lab, &["-vv"], sleeper.id());
    wait_until("word of what is seen", || {
        memwatch.stderr().contains("looked")
    });
    sleeper.kill().expect("ours");
    sleeper.wait().expect("ours");
    let ran = memwatch.wait().expect_verdict("finished", 0);
    assert_eq!(ran.report["command"]["program"], "sleep");
    assert!(ran.err.contains("memwatch: sleep finished"), "{}", ran.err);
}
