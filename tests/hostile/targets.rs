//! Targets that vanish, change or never were what they seemed.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::lab::{Lab, Pair, python, wait_until, workload};

fn inside(lab: &Lab, pair: &Pair, line: &str) -> Child {
    let mut sh = lab.command("sh");
    sh.args(["-c", line]).stdout(Stdio::null());
    pair.confine(&mut sh);
    sh.spawn().expect("sh")
}

fn guard(lab: &Lab, pair: &Pair) -> Command {
    lab.reporting(&["--cgroup".as_ref(), pair.v2.as_os_str()])
}

#[test]
fn a_target_may_vanish_at_any_moment() {
    let lab = Lab::new();
    for round in 0..50u64 {
        let pair = lab.pair.below("theirs", "100M");
        let mut sleeper = inside(&lab, &pair, "exec sleep 300");
        let memwatch = lab.start(guard(&lab, &pair));
        // Every part of a start and of a run gets its turn.
        thread::sleep(Duration::from_millis(round * 37 % 200));
        sleeper.kill().expect("ours");
        sleeper.wait().expect("ours");
        drop(pair);
        let ran = memwatch.wait();
        match ran.status.code() {
            Some(0) => drop(ran.expect_verdict("finished", 0)),
            _ => drop(ran.expect_refusal(&["No such"])),
        }
    }
}

#[test]
fn cgroups_inside_may_come_and_go() {
    let lab = Lab::new();
    // Many more than are looked at at once, always by the same names; the last one hogs.
    let script = "import os, subprocess, sys, time\n\
        own = [l.split('::')[1].strip() for l in open('/proc/self/cgroup') if l.startswith('0::')][0]\n\
        here = '/sys/fs/cgroup/unified' + own\n\
        def enter(group):\n\
        \x20   os.makedirs(group, exist_ok=True)\n\
        \x20   open(group + '/cgroup.procs', 'w').write('0')\n\
        for turn in range(150):\n\
        \x20   group = '%s/n%d' % (here, turn % 75)\n\
        \x20   subprocess.run(['true'], preexec_fn=lambda: enter(group))\n\
        \x20   for _ in range(200):\n\
        \x20       try: os.rmdir(group); break\n\
        \x20       except OSError: time.sleep(0.005)\n\
        hog = subprocess.Popen([sys.argv[1], 'leak', '--rate', '60M'], preexec_fn=lambda: enter(here + '/n1'))\n\
        sys.exit(0 if hog.wait() < 0 else 1)\n";
    fs::write(lab.file("nest.py"), script).expect("a script");
    let ran = lab.attach(&[
        "--memory-max",
        "128M",
        "--",
        &python(),
        "nest.py",
        &workload(),
    ]);
    let ran = ran.expect_verdict("finished_with_kills", 0);
    assert_eq!(
        ran.report["victims"][0]["killed_by"], "memwatch",
        "{ran:#?}"
    );
}

#[test]
fn a_target_without_pressure_information_is_guarded_with_what_is_left() {
    let lab = Lab::new();
    let pair = lab.pair.below("blind", "100M");
    fs::write(pair.v2.join("cgroup.pressure"), "0").expect("Linux 6.1");
    let mut sleeper = inside(&lab, &pair, "sleep 1");
    let memwatch = lab.start(guard(&lab, &pair));
    sleeper.wait().expect("ours");
    let ran = memwatch.wait().expect_verdict("finished", 0);
    let lines = ran
        .err
        .lines()
        .filter(|line| line.contains("no pressure information (PSI)"));
    assert!(lines.count() >= 1, "{}", ran.err);
    assert_eq!(ran.report["stall_us"], serde_json::Value::Null);
}

#[test]
fn what_is_no_cgroup_is_refused() {
    let lab = Lab::new();
    let here = lab.file("").display().to_string();
    for path in [
        here.as_str(),
        "/proc",
        "/sys/fs/cgroup/memory",
        "/dev/null",
        "/sys/fs/cgroup/unified/../../../../tmp",
    ] {
        lab.attach(&["--cgroup", path]).expect_refusal(&[]);
    }
}

#[test]
fn a_process_that_ends_while_it_is_adopted_is_no_harm() {
    let lab = Lab::new();
    for round in 0..20u64 {
        let mut sh = lab.command("sleep");
        sh.arg(format!("0.0{round:02}"));
        let mut sleeper = sh.spawn().expect("sleep");
        // Reaped at once, so that the number is free while memwatch looks at it.
        let pid = sleeper.id().to_string();
        let memwatch = lab.start(lab.reporting(&["--pid", &pid]));
        sleeper.wait().expect("ours");
        let ran = memwatch.wait();
        match ran.status.code() {
            Some(0) => drop(ran.expect_verdict("finished", 0)),
            _ => drop(ran.expect_refusal(&["no process"])),
        }
    }
}

#[test]
fn a_working_directory_that_was_removed_is_no_reason_to_fail() {
    let lab = Lab::new();
    let gone = lab.file("gone");
    fs::create_dir(&gone).expect("a directory");
    let report = lab.file("report.json").display().to_string();
    let mut sh = lab.command("sh");
    let line = "cd gone; rmdir ../gone; exec \"$0\" attach --report \"$1\" -- sh -c 'echo here'";
    sh.args(["-c", line, super::lab::MEMWATCH, &report]);
    let ran = lab.run(sh).expect_verdict("finished", 0);
    assert_eq!(ran.text(), "here\n");
}

#[test]
fn a_bomb_ends_with_its_leader() {
    let lab = Lab::new();
    // Each child hogs and forks; the first is the command itself.
    let script = "import os, sys, time\n\
        held = []\n\
        while True:\n\
        \x20   held.append(bytearray(b'x') * (1 << 20))\n\
        \x20   time.sleep(0.01)\n\
        \x20   if len(held) % 20 == 0 and os.fork() == 0: os.setsid()\n";
    fs::write(lab.file("bomb.py"), script).expect("a script");
    let ran = lab.attach(&[
        "--memory-max",
        "150M",
        "--timeout",
        "6s",
        "--",
        &python(),
        "bomb.py",
    ]);
    assert!(
        [124, 137].contains(&ran.status.code().expect("a code")),
        "{ran:#?}"
    );
    wait_until("end of all", || lab.pair.pids().is_empty());
}
