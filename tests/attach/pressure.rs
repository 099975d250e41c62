//! What becomes of hogs, and of those beside them, on the real kernel.

use std::fs;

use super::lab::{Lab, Ran, python, wait_until, workload};
use serde_json::Value;

/// Slow enough for memwatch to be first even where everything else is slow.
const PACE: &str = "100M";

fn leak(lab: &Lab, options: &[&str]) -> Ran {
    let workload = workload();
    let mut arguments = vec!["--memory-max", "128M"];
    arguments.extend(options);
    arguments.extend(["--", &workload, "leak", "--rate", PACE]);
    lab.attach(&arguments)
}

fn rungs(report: &Value) -> Vec<&str> {
    let interventions = report["interventions"].as_array().expect("a list");
    let rungs = interventions
        .iter()
        .flat_map(|it| it["rungs"].as_array().expect("a list"));
    rungs
        .map(|rung| rung["rung"].as_str().expect("a word"))
        .collect()
}

#[test]
fn a_hog_is_killed_before_the_kernel_does() {
    let lab = Lab::new();
    let ran = leak(&lab, &[]).expect_verdict("killed_by_memwatch", 137);
    assert_eq!(ran.report["kind"], "kill");
    assert_eq!(ran.report["victims"][0]["killed_by"], "memwatch");
    assert_eq!(ran.report["victims"][0]["comm"], "workload");
    assert_eq!(ran.report["kernel_oom"], serde_json::json!([]));
    assert_eq!(ran.report["target"]["memory_layout"], "v1_beside_v2");
    let it = &ran.report["interventions"][0];
    let [before, after] =
        ["memory_before_bytes", "memory_after_bytes"].map(|field| it[field].as_u64());
    assert!(after.is_some() && after < before, "{it:#}");
    assert!(ran.err.contains("memwatch:   freed    "), "{}", ran.err);
}

#[test]
fn a_child_that_hogs_is_killed_alone() {
    let lab = Lab::new();
    let culprit = lab.file("culprit").display().to_string();
    let workload = workload();
    let arguments = [
        "--memory-max",
        "200M",
        "--",
        &workload,
        "fork-tree",
        "--rate",
        PACE,
        "--bystander-size",
        "2M",
        "--culprit",
        &culprit,
    ];
    // The workload ends with 0 only if all siblings lived.
    let ran = lab
        .attach(&arguments)
        .expect_verdict("finished_with_kills", 0);
    let victims = ran.report["victims"].as_array().expect("a list");
    assert_eq!(victims.len(), 1, "{victims:#?}");
    assert_eq!(victims[0]["pid"].to_string(), lab.read("culprit"));
}

#[test]
fn told_only_to_warn_it_touches_nobody_and_names_the_kernels_victim() {
    let lab = Lab::new();
    let ran = leak(&lab, &["--on-pressure", "warn"]).expect_verdict("killed_by_kernel_oom", 137);
    assert!(
        rungs(&ran.report).iter().all(|&rung| rung == "warn"),
        "{ran:#?}"
    );
    assert!(ran.err.contains("memwatch: warning"), "{}", ran.err);
    assert_eq!(ran.report["victims"][0]["killed_by"], "kernel_oom");
}

#[test]
fn a_dry_run_decides_everything_and_touches_nobody() {
    let lab = Lab::new();
    let ran = leak(&lab, &["--dry-run"]).expect_verdict("killed_by_kernel_oom", 137);
    assert!(ran.err.contains("would send SIG"), "{}", ran.err);
    let interventions = ran.report["interventions"].as_array().expect("a list");
    let rungs = interventions
        .iter()
        .flat_map(|it| it["rungs"].as_array().expect("a list"));
    assert!(rungs.clone().count() > 0);
    assert!(
        rungs.clone().all(|rung| rung["result"] == "dry_run"),
        "{interventions:#?}"
    );
}

/// A leak that memwatch has frozen, and where.
fn frozen(lab: &Lab) -> (super::lab::Started, std::path::PathBuf) {
    let workload = workload();
    let started = lab.start(lab.reporting(&[
        "--memory-max",
        "128M",
        "--on-pressure",
        "freeze",
        "--",
        &workload,
        "leak",
        "--rate",
        PACE,
    ]));
    let target = lab.target();
    wait_until("freeze", || {
        fs::read_to_string(target.join("cgroup.events")).is_ok_and(|it| it.contains("frozen 1"))
    });
    wait_until("word about it", || {
        started.stderr().contains("cgroup.freeze")
    });
    let said = started.stderr();
    for file in ["cgroup.freeze", "cgroup.kill"] {
        let path = target.join(file).display().to_string();
        assert!(said.contains(&path), "{said}");
    }
    (started, target)
}

#[test]
fn a_frozen_target_that_is_killed_by_its_user_ends_well() {
    let lab = Lab::new();
    let (started, target) = frozen(&lab);
    fs::write(target.join("cgroup.kill"), "1").expect("as it was told");
    let ran = started.wait().expect_verdict("signalled", 137);
    assert_eq!(ran.report["kind"], "freeze");
    assert_eq!(ran.report["victims"], serde_json::json!([]));
}

#[test]
fn a_frozen_target_that_is_thawed_goes_on() {
    let lab = Lab::new();
    let (started, target) = frozen(&lab);
    fs::write(target.join("cgroup.freeze"), "0").expect("as it was told");
    // It leaks on; the freeze holds for a while, so the kernel is next.
    started.wait().expect_verdict("killed_by_kernel_oom", 137);
}

#[test]
fn a_frozen_target_can_be_told_to_end() {
    let lab = Lab::new();
    let (started, _) = frozen(&lab);
    started.signal(libc::SIGTERM);
    started.wait().expect_verdict("signalled", 143);
}

#[test]
fn a_cgroup_with_a_limit_of_its_own_is_guarded_by_that() {
    let lab = Lab::new();
    let limited = lab.pair.below("limited", "96M");
    let mut hog = lab.command("sh");
    limited.confine(&mut hog);
    hog.args(["-c", "sleep 1; exec \"$0\" leak --rate 30M", &workload()]);
    let hog = lab.start(hog);
    let group = limited.v2.display().to_string();
    let ran = lab.run(lab.reporting(&["--cgroup", &group]));
    let ran = ran.expect_verdict("killed_by_memwatch", 137);
    let _ = hog.wait();
    let target = &ran.report["target"];
    assert_eq!(target["memory_layout"], "v1_beside_v2");
    assert_eq!(target["memory_max_bytes"], 96 << 20);
    assert_eq!(ran.report["victims"][0]["killed_by"], "memwatch");
    assert_eq!(ran.report["kernel_oom"], serde_json::json!([]));
}

#[test]
fn without_a_memory_controller_memwatch_holds_the_limit_itself() {
    let lab = Lab::new();
    // A v2 cgroup has no limit here; the memory group is the test's own safety, which must not be met.
    let safety = lab.pair.below("bare", "400M");
    // One that has no counterpart in the hierarchy of the memory controller.
    let group = safety.v2.join("alone").display().to_string();
    fs::create_dir(&group).expect("room");
    let mut hog = lab.command("sh");
    safety.confine(&mut hog);
    let line = format!(
        "echo $$ > {group}/cgroup.procs; until [ -e go ]; do sleep 0.1; done; exec \"$0\" leak"
    );
    hog.args(["-c", &line, &workload()]);
    let hog = lab.start(hog);
    let report = lab.file("guard.json").display().to_string();
    let memwatch = lab.start(lab.memwatch(&[
        "-v",
        "--memory-max",
        "160M",
        "--report",
        &report,
        "--cgroup",
        &group,
    ]));
    wait_until("the guard", || memwatch.stderr().contains("guarding /"));
    fs::write(lab.file("go"), "").expect("room");
    memwatch.wait().expect(137);
    let _ = hog.wait();
    let report: Value = serde_json::from_str(&lab.read("guard.json")).expect("a report");
    assert_eq!(report["verdict"], "killed_by_memwatch");
    assert_eq!(report["target"]["memory_layout"], "agent");
    assert_eq!(report["target"]["limit_enforcer"], "agent");
    let most = fs::read_to_string(safety.memory.join("memory.max_usage_in_bytes")).expect("a file");
    assert!(
        most.trim().parse::<u64>().expect("a number") < 300 << 20,
        "{most}"
    );
}

#[test]
fn who_outlives_a_leader_that_was_asked_to_end_does_not_go_free() {
    let lab = Lab::new();
    // The leader heeds SIGTERM, its child does not.
    let script = "\
import os, signal, time
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(300)
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
held = []
while True:
    held.append(b'x' * (1 << 20))
    time.sleep(0.03)
";
    let ran = lab.attach(&["--memory-max", "128M", "--", &python(), "-c", script]);
    let ran = ran.expect_verdict("finished_with_kills", 7);
    assert!(rungs(&ran.report).contains(&"sigterm"), "{ran:#?}");
    assert!(!ran.err.contains("without a guard"), "{}", ran.err);
    assert!(ran.err.contains("was killed with it"), "{}", ran.err);
    assert!(lab.pair.pids().is_empty(), "nobody stayed");
}

#[test]
fn an_answered_request_is_no_kill() {
    let lab = Lab::new();
    // Gives its memory back when it is asked to end, and comes to an end of its own later.
    let script = "\
import os, resource, signal, time
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
class Asked(Exception): pass
def asked(*_): raise Asked
signal.signal(signal.SIGTERM, asked)
held = []
try:
    while True:
        held.append(b'x' * (1 << 20))
        time.sleep(0.03)
except Asked:
    held.clear()
time.sleep(2)
os.kill(os.getpid(), signal.SIGSEGV)
";
    let ran = lab.attach(&["--memory-max", "128M", "--", &python(), "-c", script]);
    let ran = ran.expect_verdict("signalled", 139);
    assert!(rungs(&ran.report).contains(&"sigterm"), "{ran:#?}");
    assert_eq!(ran.report["victims"], serde_json::json!([]));
}

#[test]
fn a_kill_of_the_kernels_that_nobody_saw_is_told_by_its_number() {
    let lab = Lab::new();
    let mut command = lab.command("setpriv");
    let drop = "-bpf,-perfmon,-sys_admin";
    command.args(["--bounding-set", drop, "--inh-caps", drop]);
    command.args([super::lab::MEMWATCH, "attach", "--report"]);
    command.arg(lab.file("report.json"));
    command.args(["--memory-max", "64M", "--on-pressure", "warn", "--cmd"]);
    command.arg(format!("{} leak --rate {PACE}; exit 4", workload()));
    let ran = lab.run(command).expect_verdict("finished_with_kills", 4);
    assert_eq!(ran.report["kernel_oom_kills"], 1);
    assert_eq!(ran.report["kernel_oom"], serde_json::json!([]));
    assert_eq!(ran.report["kind"], "kernel_oom");
    assert!(
        ran.err.contains("1 of its processes was killed") && ran.err.contains("OOM killer, unseen"),
        "{}",
        ran.err
    );
}

#[test]
fn a_kill_of_the_kernels_outside_of_the_target_is_not_the_targets() {
    let lab = Lab::new();
    let both = lab.pair.below("both", "200M");
    let mut other = lab.command(python());
    both.confine(&mut other);
    let hold = "import time; held = b'x' * (100 << 20); print(flush=True); time.sleep(60)";
    other
        .args(["-c", hold])
        .stdout(std::process::Stdio::piped());
    let mut other = other.spawn().expect("a neighbour");
    let mut ready = [0];
    let out = other.stdout.as_mut().expect("a pipe");
    std::io::Read::read_exact(out, &mut ready).expect("it holds what it wants");

    // By then the BPF programs are there.
    let script = "import time; time.sleep(4); held = b'x' * (110 << 20); time.sleep(1)";
    let mut command = lab.reporting(&[
        "--memory-max",
        "150M",
        "--on-pressure",
        "warn",
        "--",
        &python(),
        "-c",
        script,
    ]);
    both.confine(&mut command);
    let ran = lab.run(command).expect_verdict("finished", 0);
    let ended = other.wait().expect("ours");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended),
        Some(libc::SIGKILL)
    );
    assert_eq!(ran.report["kernel_oom"], serde_json::json!([]), "{ran:#?}");
    assert_eq!(ran.report["kernel_oom_kills"], 0);
}

#[test]
fn a_cgroup_that_memwatch_froze_is_thawed_when_it_lets_go() {
    let lab = Lab::new();
    let safety = lab.pair.below("bare", "400M");
    let mut hog = lab.command(python());
    safety.confine(&mut hog);
    let script = "\
import time
time.sleep(1)
held = []
for _ in range(220):
    held.append(b'x' * (1 << 20))
    time.sleep(0.01)
time.sleep(300)
";
    let mut hog = hog.args(["-c", script]).spawn().expect("a hog");
    let group = safety.v2.display().to_string();
    let options = ["--memory-max", "160M", "--on-pressure", "freeze"];
    let arguments = [&options[..], &["--cgroup", &group]].concat();
    let memwatch = lab.start(lab.reporting(&arguments));
    let frozen = || fs::read_to_string(safety.v2.join("cgroup.freeze")).expect("a file");
    wait_until("freeze", || frozen() == "1\n");
    wait_until("word about it", || {
        memwatch.stderr().contains("cgroup.freeze")
    });
    memwatch.signal(libc::SIGTERM);
    memwatch.wait().expect_verdict("finished", 0);
    assert_eq!(frozen(), "0\n");
    hog.kill().expect("ours");
    hog.wait().expect("ours");
}
