//! What a record tells beside what memwatch did: the kernel's own words, the machine, how near it was; and what it
//! keeps to itself.

use std::fs;

use super::lab::{Lab, MEMWATCH, Ran, python, workload};
use serde_json::Value;

fn kernel_lines(report: &Value) -> Vec<&str> {
    let lines = report["kernel_log"].as_array().expect("a list");
    let texts = lines.iter().map(|line| line["text"].as_str());
    texts.map(|text| text.expect("a text")).collect()
}

/// By a limit of the kernel's that nobody steps in before.
fn killed_by_the_kernel(lab: &Lab) -> Ran {
    let workload = workload();
    let options = ["--memory-max", "64M", "--on-pressure", "warn", "--"];
    let hog = [&workload, "leak", "--rate", "100M"];
    let ran = lab.attach(&[&options[..], &hog].concat());
    ran.expect_verdict("killed_by_kernel_oom", 137)
}

#[test]
fn the_kernels_report_of_its_kill_is_in_the_record() {
    let lab = Lab::new();
    if fs::File::open("/dev/kmsg").is_err() {
        eprintln!("skipped: the kernel's log is not ours to read");
        return;
    }
    let ran = killed_by_the_kernel(&lab);
    let report = &ran.report;
    assert_eq!(report["kind"], "kernel_oom");
    let victim = &report["victims"][0]["pid"];
    let lines = kernel_lines(report);
    let killed = format!("Memory cgroup out of memory: Killed process {victim} (");
    let has = |wanted: &str| lines.iter().any(|line| line.contains(wanted));
    assert!(has(&killed), "{lines:#?}");
    // Of many kills within seconds, as other tests make them, the kernel has one line each.
    if lines.len() > 1 {
        assert!(lines[0].contains(" invoked oom-killer: "), "{lines:#?}");
        let group = report["target"]["cgroup_path"].as_str().expect("a path");
        let group = group.rsplit('/').next().expect("a name");
        assert!(has(&format!("/{group},task=")), "{lines:#?}");
        assert!(has("oom-kill:constraint=CONSTRAINT_MEMCG"), "{lines:#?}");
        assert!(!has("RAX: ") && !has("Code: "), "registers: {lines:#?}");
    }
    let duration = report["duration_us"].as_i64().expect("a number");
    for line in report["kernel_log"].as_array().expect("a list") {
        let at = line["at_us"].as_i64().expect("a number");
        assert!(
            (0..=duration + 300_000).contains(&at),
            "{line} of {duration}"
        );
    }
    let before = &report["kernel_oom"][0]["at_us"];
    assert!(
        before.is_u64(),
        "and the program in the kernel told it, too"
    );
}

#[test]
fn without_the_right_to_the_kernels_log_that_is_said() {
    let lab = Lab::new();
    let restricted = fs::read_to_string("/proc/sys/kernel/dmesg_restrict");
    if restricted.is_ok_and(|text| text.trim() != "1") {
        eprintln!("skipped: anybody may read the kernel's log here");
        return;
    }
    let mut command = lab.command("setpriv");
    let drop = "-syslog,-sys_admin";
    command.args(["--bounding-set", drop, "--inh-caps", drop]);
    command.args([MEMWATCH, "attach", "--report"]);
    command.arg(lab.file("report.json"));
    command.args(["--", "true"]);
    let ran = lab.run(command).expect_verdict("finished", 0);
    assert_eq!(ran.report["kernel_log"], serde_json::json!([]));
    let lost = ran.report["features_lost"].as_array().expect("a list");
    let said = |it: &&Value| {
        it["feature"]
            .as_str()
            .is_some_and(|it| it.contains("/dev/kmsg"))
    };
    assert!(lost.iter().any(|it| said(&it)), "{lost:#?}");
}

#[test]
fn the_machine_is_in_every_record() {
    let lab = Lab::new();
    let ran = lab.attach(&["--", "true"]).expect_verdict("finished", 0);
    let meminfo = fs::read_to_string("/proc/meminfo").expect("a file");
    let of = |name: &str| {
        let line = meminfo.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.expect("a number") * 1024
    };
    let machine = &ran.report["machine"];
    assert_eq!(machine["memory_total_bytes"], of("MemTotal:"));
    assert_eq!(machine["swap_total_bytes"], of("SwapTotal:"));
    let available = machine["memory_available_bytes"].as_u64();
    assert!(available.is_some_and(|bytes| bytes > 0), "{machine:#}");
    assert!(machine["some_permille"].is_u64() && machine["full_permille"].is_u64());
    let has_mglru = fs::exists("/sys/kernel/mm/lru_gen/enabled").expect("a path");
    assert_eq!(machine["mglru"].is_boolean(), has_mglru);
    let has_arc = fs::exists("/proc/spl/kstat/zfs/arcstats").expect("a path");
    assert_eq!(machine["arc"].is_object(), has_arc);
    assert!(machine["oomd"].is_string(), "{machine:#}");
}

/// Fills to nine tenths and a little at a steady pace, beyond where memwatch begins to call it near and short of
/// where it steps in, and ends.
#[test]
fn who_comes_near_and_gets_away_is_told_of_as_a_near_miss() {
    let lab = Lab::new();
    let script = "\
import time
goal = int(0.915 * (256 << 20))
held = []
while int(open('/proc/self/statm').read().split()[1]) * 4096 < goal:
    held.append(b'x' * (1 << 20))
    time.sleep(0.01)
";
    let ran = lab
        .attach(&["--memory-max", "256M", "--", &python(), "-c", script])
        .expect_verdict("finished", 0);
    assert_eq!(ran.report["kind"], "near_miss", "{ran:#?}");
    assert_eq!(ran.report["interventions"], serde_json::json!([]));
    let near = &ran.report["near_miss"];
    assert_eq!(near["rule"], "exhaustion");
    let [observed, threshold] =
        ["observed", "threshold"].map(|it| near[it]["value"].as_u64().expect("a number"));
    assert!(
        observed > threshold && observed <= 2 * threshold,
        "{near:#}"
    );
    let told = ran.err.lines().filter(|line| line.contains("  near  "));
    assert_eq!(told.count(), 1, "{}", ran.err);
}

#[test]
fn who_stays_below_is_not_told_of() {
    let lab = Lab::new();
    let script = "held = b'x' * (150 << 20); del held; import time; time.sleep(1)";
    let ran = lab
        .attach(&["--memory-max", "256M", "--", &python(), "-c", script])
        .expect_verdict("finished", 0);
    assert_eq!(ran.report["kind"], "run", "{ran:#?}");
    assert_eq!(ran.report["near_miss"], Value::Null);
}

#[test]
fn what_a_killed_process_was_given_stays_with_it() {
    const SECRET: &str = "hunter2-5f1d0c";
    let lab = Lab::new();
    let script = "\
import sys, time
held = []
while True:
    held.append(sys.argv[1].encode() * (1 << 16))
    time.sleep(0.005)
";
    let arguments = [
        "--memory-max",
        "128M",
        "--",
        &python(),
        "-c",
        script,
        SECRET,
    ];
    let mut command = lab.reporting(&arguments);
    command.env("TOKEN", SECRET).env(SECRET, "1");
    let ran = lab.run(command).expect_verdict("killed_by_memwatch", 137);
    let text = fs::read_to_string(lab.file("report.json")).expect("a report");
    assert!(!text.contains(SECRET), "{text}");
    assert!(!text.contains("sys.argv"), "nor the rest: {text}");
    assert!(!ran.err.contains(SECRET), "{}", ran.err);
    let it = &ran.report["interventions"][0];
    for process in [&it["victim"], &ran.report["victims"][0]] {
        let known = ["major_faults", "minor_faults", "system_us", "stall_us"];
        assert!(
            known.iter().all(|name| process[name].is_u64()),
            "{process:#}"
        );
    }
}
