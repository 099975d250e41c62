//! What a memwatch that was killed leaves behind, and who removes it.

use std::{
    fs, os::unix::process::ExitStatusExt, path::PathBuf, process::Command, thread, time::Duration,
};

use super::lab::{Lab, MEMWATCH, Started, is_alive, wait_until, workload};

/// A memwatch with a command that sleeps, and the command's pid.
fn sleeper(lab: &Lab) -> (Started, u32) {
    let started = lab.start(lab.memwatch(&["--cmd", "echo $$ > pid; exec sleep 300"]));
    wait_until("command", || lab.read("pid").ends_with('\n'));
    (started, lab.read("pid").trim().parse().expect("a pid"))
}

fn kill(started: Started) {
    started.signal(libc::SIGKILL);
    started.wait();
}

fn end(command: u32) {
    let pid = i32::try_from(command).expect("a pid");
    // SAFETY: no pointers are passed; the test started it.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    wait_until("death", || !is_alive(command));
}

#[test]
fn a_dead_memwatchs_groups_go_when_they_are_empty_and_not_before() {
    let lab = Lab::new();
    let (memwatch, command) = sleeper(&lab);
    let orphans = lab.targets();
    assert_eq!(orphans.len(), 2, "one on v2, one in the memory hierarchy");
    kill(memwatch);
    assert!(is_alive(command), "its command runs on");

    let next = lab.run(lab.memwatch(&["--", "true"])).expect(0);
    assert!(
        next.err.contains(&orphans[0].display().to_string()),
        "{}",
        next.err
    );
    assert_eq!(lab.targets(), orphans, "somebody still runs in it");

    end(command);
    lab.run(lab.memwatch(&["--", "true"])).expect(0);
    assert_eq!(lab.targets(), [] as [PathBuf; 0]);
}

#[test]
fn a_living_memwatchs_groups_stay_even_when_they_are_empty() {
    let lab = Lab::new();
    let (memwatch, command) = sleeper(&lab);
    let groups = lab.targets();
    memwatch.signal(libc::SIGSTOP);
    end(command);
    let next = lab.run(lab.memwatch(&["--", "true"])).expect(0);
    assert!(!next.err.contains("left by"), "{}", next.err);
    assert_eq!(lab.targets(), groups);
    memwatch.signal(libc::SIGCONT);
    memwatch.wait().expect(137);
}

#[test]
fn told_to_end_at_any_moment_of_its_start_it_leaves_nothing() {
    let lab = Lab::new();
    for round in 0..40 {
        let started = lab.start(lab.memwatch(&["-q", "--", "sleep", "300"]));
        thread::sleep(Duration::from_millis(round));
        started.signal(libc::SIGTERM);
        let status = started.wait().status;
        // Before it takes signals there is nothing yet that it could leave.
        let ended = status.code() == Some(143) || status.signal() == Some(libc::SIGTERM);
        assert!(ended, "{status} in round {round}");
        assert_eq!(lab.targets(), [] as [PathBuf; 0], "in round {round}");
        assert!(lab.pair.pids().is_empty(), "in round {round}");
    }
}

#[test]
fn killed_at_any_moment_of_its_start_it_leaves_nothing_that_the_next_run_does_not_remove() {
    let lab = Lab::new();
    for round in 0..40 {
        let started = lab.start(lab.memwatch(&["-q", "--", "sleep", "0.05"]));
        thread::sleep(Duration::from_millis(round));
        started.signal(libc::SIGKILL);
        started.wait();
    }
    wait_until("end of all commands", || lab.pair.pids().is_empty());
    lab.run(lab.memwatch(&["--", "true"])).expect(0);
    assert_eq!(lab.targets(), [] as [PathBuf; 0]);
}

#[test]
fn cgroups_that_the_command_made_go_with_it() {
    let lab = Lab::new();
    let line = "d=/sys/fs/cgroup/unified$(sed -n 's/^0:://p' /proc/self/cgroup)\n\
        for i in 1 2 3; do mkdir -p $d/n$i/deep; (echo 0 > $d/n$i/deep/cgroup.procs; sleep 0.3) & done; wait";
    lab.attach(&["--", "bash", "-c", line])
        .expect_verdict("finished", 0);
}

#[test]
fn what_a_dead_memwatch_had_frozen_runs_again() {
    let lab = Lab::new();
    let (memwatch, command) = sleeper(&lab);
    let target = lab.target();
    fs::write(target.join("cgroup.freeze"), "1").expect("ours");
    kill(memwatch);
    let frozen = || fs::read_to_string(target.join("cgroup.freeze")).expect("it is there");
    assert_eq!(frozen(), "1\n");
    let next = lab.run(lab.memwatch(&["--", "true"])).expect(0);
    assert_eq!(frozen(), "0\n");
    assert!(next.err.contains("runs again"), "{}", next.err);

    end(command);
    lab.run(lab.memwatch(&["--", "true"])).expect(0);
}

#[test]
fn what_a_dead_memwatch_had_frozen_and_not_made_runs_again() {
    let lab = Lab::new();
    let held = lab.pair.below("held", "128M");
    let mut shell = Command::new("sh");
    held.confine(&mut shell);
    let leak = format!("exec {} leak --seconds 20 --rate 20M", workload());
    let mut hog = shell.args(["-c", &leak]).spawn().expect("sh");
    let dir = held.v2.display().to_string();
    let freeze = [
        "--cgroup",
        &dir,
        "--on-pressure",
        "freeze",
        "--memory-max",
        "32M",
    ];
    let memwatch = lab.start(lab.memwatch(&freeze));
    let frozen = || fs::read_to_string(held.v2.join("cgroup.freeze")).expect("it is there");
    wait_until("freeze", || frozen() == "1\n");
    let meanwhile = lab.run(lab.memwatch(&["--", "true"])).expect(0);
    assert_eq!(frozen(), "1\n", "who froze it lives: {}", meanwhile.err);
    kill(memwatch);
    let next = lab.run(lab.memwatch(&["--", "true"])).expect(0);
    assert_eq!(frozen(), "0\n");
    assert!(next.err.contains("runs again"), "{}", next.err);
    hog.kill().expect("ours");
    hog.wait().expect("ours");
}

#[test]
fn who_lost_memwatch_before_the_guard_stood_gets_it_from_the_next_one_until_it_is_lifted() {
    let lab = Lab::new();
    let (memwatch, command) = sleeper(&lab);
    kill(memwatch);
    let target = lab.target();
    let is_guarded = |action| {
        let mut guard = lab.command(MEMWATCH);
        guard.args(["guard", action]);
        let armed = format!("{}: armed, its memwatch is dead", target.display());
        lab.run(guard).expect(0).text().contains(&armed)
    };
    lab.run(lab.memwatch(&["--", "true"])).expect(0);
    assert!(is_guarded("list"));
    assert!(!is_guarded("disarm"));
    lab.run(lab.memwatch(&["--", "true"])).expect(0);
    assert!(!is_guarded("list"), "it was lifted for good");
    end(command);
    lab.run(lab.memwatch(&["--", "true"])).expect(0);
}

#[test]
fn cgroups_beyond_those_that_are_looked_into_are_counted() {
    let lab = Lab::new();
    let line = "d=/sys/fs/cgroup/unified$(sed -n 's/^0:://p' /proc/self/cgroup)\n\
        for i in $(seq 70); do mkdir $d/n$i; done; sleep 1";
    let ran = lab.attach(&["--", "bash", "-c", line]);
    let ran = ran.expect_verdict("finished", 0);
    let notes = ran.report["notes"].to_string();
    assert!(
        notes.contains("6 cgroups in the target were not looked into"),
        "{notes}"
    );
}

#[test]
fn what_happened_before_memwatch_was_killed_is_an_incident_all_the_same() {
    let lab = Lab::new();
    let line = format!(
        "{} leak --rate 100M; echo $$ > pid; exec sleep 300",
        workload()
    );
    let memwatch = lab.start(lab.memwatch(&["--memory-max", "64M", "--cmd", &line]));
    let files = |dir: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(lab.file("state").join(dir))
            .into_iter()
            .flatten();
        let paths = entries.flatten().map(|entry| entry.path());
        paths.filter(|path| path.extension().is_some()).collect()
    };
    wait_until("a draft", || files("unfinished").len() == 1);
    // While its memwatch lives it is nobody's.
    lab.run(lab.memwatch(&["--", "true"])).expect(0);
    assert_eq!(files("incidents"), [] as [PathBuf; 0]);
    kill(memwatch);
    end(lab.read("pid").trim().parse().expect("a pid"));
    lab.run(lab.memwatch(&["--", "sleep", "1"])).expect(0);
    let [kept] = &files("incidents")[..] else {
        panic!("{:?}", files("incidents"))
    };
    let text = fs::read(kept).expect("kept");
    let record = memwatch::incident::Record::from_json(&text).expect("whole");
    assert_eq!(record.victims[0].process.comm.to_string(), "workload");
    assert_eq!(
        record.command.expect("it was known").program.as_str(),
        "/bin/sh"
    );
    assert!(record.flight.is_some());
    assert!(
        record
            .notes
            .iter()
            .any(|note| note.as_str().contains("ended before the command"))
    );
    assert_eq!(files("unfinished"), [] as [PathBuf; 0]);
}

#[test]
fn a_run_that_comes_to_its_end_is_one_incident() {
    let lab = Lab::new();
    let line = format!("{} leak --rate 1G; sleep 4", workload());
    let ran = lab.run(lab.reporting(&["--memory-max", "64M", "--cmd", &line]));
    let ran = ran.expect_verdict("finished_with_kills", 0);
    let all = |dir: &str| fs::read_dir(lab.file("state").join(dir)).map_or(0, Iterator::count);
    assert_eq!((all("incidents"), all("unfinished")), (1, 0));
    let id = ran.report["id"].as_str().expect("an id");
    assert!(
        lab.file("state/incidents")
            .join(format!("{id}.json"))
            .exists()
    );
}
