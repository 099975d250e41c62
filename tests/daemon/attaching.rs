//! What users attach: what the daemon does for them, and for nobody else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use memwatch::control::protocol::{RunningTest, TESTS};
use memwatch::control::{Client, ClientError};
use memwatch::host::{cgroup::pids, layout::Layout};

use super::lab::{is_alive, python, wait_for, wait_until, workload};
use super::service::{Home, Service};
use super::users::{NOBODY, OTHER, as_user, block_on};

/// Slow enough for a memwatch without realtime to be first where everything is slow.
const PACE: &str = "30M";

/// A shell line that leaks when the daemon has long taken the target on.
fn late_leak(seconds: u32) -> String {
    format!("sleep {seconds}; exec {} leak --rate {PACE}", workload())
}

#[test]
fn a_users_leak_is_killed_by_the_daemon_and_told_as_if_by_ones_own() {
    // By its numbers it is known who has decided.
    let service = Service::start("[policy]\ncooldown = \"9s\"\n");
    let home = Home::of(NOBODY);
    let line = late_leak(2);
    let started = home.attach(&service, &["--memory-max", "96M", "--cmd", &line]);
    service.target_of(NOBODY);
    let ran = started.wait().expect_verdict("killed_by_memwatch", 137);
    assert_eq!(ran.report["kind"], "kill");
    assert_eq!(ran.report["settings"]["cooldown"], "9s");
    let victim = &ran.report["victims"][0];
    assert_eq!(victim["comm"], "workload");
    assert_eq!(victim["killed_by"], "memwatch");
    let killed_at = victim["at_us"].as_u64().expect("a time");
    assert!(killed_at > 2_000_000, "since the run began: {killed_at}");
    assert!(killed_at < ran.report["duration_us"].as_u64().expect("a time"));
    assert!(
        ran.report["reclaim"]["memcg"].is_u64(),
        "{:#}",
        ran.report["reclaim"]
    );
    let lost = ran.report["features_lost"].to_string();
    assert!(
        !lost.contains("locked memory"),
        "the daemon may lock it: {lost}"
    );
    assert!(ran.err.contains("workload"), "{}", ran.err);

    let kept = wait_for("an incident", || service.incidents().pop());
    assert_eq!(kept["victims"][0]["pid"], victim["pid"]);
    for told in [&kept, &ran.report] {
        assert!(
            told["machine"]["memory_available_bytes"].is_u64(),
            "{told:#}"
        );
    }
    let own = home.lab.file("state/incidents");
    assert!(!own.exists(), "the daemon has it: nobody keeps it twice");
    assert!(
        ran.err.contains("memwatch incidents show last"),
        "{}",
        ran.err
    );
    let id = kept["id"].as_str().expect("an id");
    let (listed, _) = home.incidents(&service, &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed[0]["id"], id);
    assert_eq!(listed[0]["uid"], NOBODY);
    let (shown, _) = home.incidents(&service, &["show", &id[..20]]);
    assert!(shown.contains(id) && shown.contains("workload"), "{shown}");
    let other = Home::of(OTHER);
    let (none, _) = other.incidents(&service, &["list"]);
    assert_eq!(none, "No incidents.\n");
    let (_, refusal) = other.incidents(&service, &["show", id]);
    assert!(refusal.contains("no incident begins with"), "{refusal}");
    assert!(service.targets().is_empty());
    service.stop();
}

#[test]
fn a_user_is_told_of_the_kernels_kill_in_the_users_own_cgroup_and_root_of_all_of_it() {
    if fs::File::open("/dev/kmsg").is_err() {
        eprintln!("skipped: the kernel's log is not ours to read");
        return;
    }
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let options = ["--memory-max", "64M", "--on-pressure", "warn", "--cmd"];
    let line = late_leak(2);
    let started = home.attach(&service, &[&options[..], &[&line]].concat());
    service.target_of(NOBODY);
    let ran = started.wait().expect_verdict("killed_by_kernel_oom", 137);
    let texts = |report: &serde_json::Value| -> Vec<String> {
        let lines = report["kernel_log"].as_array().expect("a list").iter();
        lines
            .map(|line| line["text"].as_str().expect("a text").to_owned())
            .collect()
    };
    let is_kill = |report: &serde_json::Value| report["kind"] == "kernel_oom";
    let kept = wait_for("an incident", || {
        service.incidents().into_iter().find(is_kill)
    });
    let (users, roots) = (texts(&ran.report), texts(&kept));
    let killed = format!(
        "Killed process {} (workload)",
        ran.report["victims"][0]["pid"]
    );
    for lines in [&users, &roots] {
        assert!(
            lines.iter().any(|line| line.contains(&killed)),
            "{lines:#?}"
        );
    }
    // Of many kills within seconds, as other tests make them, the kernel has one line each.
    if roots
        .iter()
        .any(|line| line.contains(" invoked oom-killer: "))
    {
        let is_frame = |line: &String| line.starts_with(' ') && line.contains("+0x");
        assert!(roots.iter().any(is_frame), "{roots:#?}");
        assert!(!users.iter().any(is_frame), "{users:#?}");
        assert!(
            users.iter().any(|line| line.starts_with("memory: usage ")),
            "{users:#?}"
        );
    }
    service.stop();
}

#[test]
fn other_numbers_are_read_for_who_runs_and_no_cgroup_in_a_target_is_forgotten() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let layout = Layout::read(Path::new("/")).expect("cgroups");
    let line = format!(
        "in={}$(sed -n s/^0:://p /proc/self/cgroup)/in && mkdir $in && echo $$ >$in/cgroup.procs && {}",
        layout.v2_mount().display(),
        late_leak(6),
    );
    let started = home.attach(&service, &["--memory-max", "96M", "--cmd", &line]);
    let dir = PathBuf::from(service.target_of(NOBODY).cgroup.as_str());
    wait_until("somebody inside", || !pids(&dir.join("in")).is_empty());
    // The daemon looks for such cgroups four times a second, and hands each over once.
    thread::sleep(Duration::from_secs(1));
    service.configure("[policy]\ncooldown = \"8s\"\n");
    service.signal(libc::SIGHUP);
    wait_until("a reading", || service.said().contains("read again"));
    let ran = started.wait().expect_verdict("killed_by_memwatch", 137);
    assert_eq!(ran.report["settings"]["cooldown"], "8s");
    assert_eq!(ran.report["victims"][0]["comm"], "workload");
    service.stop();
}

#[test]
fn who_rested_far_from_the_limit_is_looked_at_when_the_machine_fills() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    // Far from the limit is two gigabytes; and full in less than the time after which it would be looked at anyway.
    home.lab.pair.limit("2300M");
    let line = format!("sleep 2; exec {} leak --rate 600M", workload());
    let started = home.attach(&service, &["--memory-max", "2300M", "--cmd", &line]);
    service.target_of(NOBODY);
    let ran = started.wait().expect_verdict("killed_by_memwatch", 137);
    assert_eq!(ran.report["victims"][0]["comm"], "workload");
    // The first reclaim would have woken the daemon, too: at the limit.
    let held = ran.report["interventions"][0]["memory_before_bytes"].as_u64();
    let far = (2300 << 20) / 100 * 98;
    assert!(held.is_some_and(|bytes| bytes < far), "{held:?}");
    wait_until("the incident", || service.incidents().len() == 1);
    service.stop();
}

#[test]
fn a_run_in_which_nothing_happened_is_told_as_such() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let started = home.attach(&service, &["-v", "--", "sleep", "2"]);
    service.target_of(NOBODY);
    let ran = started.wait().expect_verdict("finished", 0);
    assert_eq!(ran.report["interventions"], serde_json::json!([]));
    assert!(ran.err.contains("guards from now on"), "{}", ran.err);
    service.stop();
}

#[test]
fn who_wants_no_daemon_and_whom_it_refuses_is_guarded_all_the_same() {
    let service = Service::start("[users]\nattach = false\n");
    for (option, told) in [("--daemon=never", false), ("--daemon=auto", true)] {
        let home = Home::of(NOBODY);
        let line = late_leak(1);
        let started = home.attach(&service, &[option, "--memory-max", "96M", "--cmd", &line]);
        let ran = started.wait().expect_verdict("killed_by_memwatch", 137);
        assert_eq!(
            ran.err.contains("guards nothing for users"),
            told,
            "{}",
            ran.err
        );
    }
    assert_eq!(service.incidents(), [] as [serde_json::Value; 0]);
    service.stop();
}

#[test]
fn nobody_but_its_user_and_root_lets_a_target_go() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let line = late_leak(4);
    let started = home.attach(&service, &["--memory-max", "96M", "--cmd", &line]);
    let id = service.target_of(NOBODY).id;
    let socket = service.socket();
    let detach = || {
        block_on(async {
            let mut client = Client::connect(&socket).await?;
            client.detach(id).await
        })
    };
    let refused = as_user(OTHER, detach).expect_err("it is not theirs");
    assert!(matches!(refused, ClientError::Refused(_)), "{refused}");
    assert_eq!(service.target_of(NOBODY).id, id);
    detach().expect("root may").expect("a record");
    let ran = started.wait().expect_verdict("killed_by_memwatch", 137);
    assert!(ran.err.contains("alone from here on"), "{}", ran.err);
    service.stop();
}

#[test]
fn roots_process_in_a_users_cgroup_outlives_the_users_hog() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let line = late_leak(4);
    let started = home.attach(&service, &["--memory-max", "96M", "--cmd", &line]);
    let target = service.target_of(NOBODY);
    let mut roots = Command::new("sleep").arg("600").spawn().expect("sleep");
    let procs = format!("{}/cgroup.procs", target.cgroup);
    fs::write(&procs, roots.id().to_string()).expect("root may");
    wait_until("the hog's end", || !service.incidents().is_empty());
    let kept = service.incidents().remove(0);
    assert_eq!(kept["victims"][0]["comm"], "workload", "{kept:#}");
    let hit = kept["victims"].as_array().expect("a list");
    assert!(
        hit.iter().all(|victim| victim["pid"] != roots.id()),
        "{kept:#}"
    );
    started.wait().expect_verdict("killed_by_memwatch", 137);
    assert!(is_alive(roots.id()));
    roots.kill().expect("ours");
    roots.wait().expect("ours");
    service.stop();
}

/// A pytest that this user can run: the system's Python, and copies of the packages.
fn pytest(home: &Home) -> String {
    let ours = Command::new(python())
        .args([
            "-c",
            "import pytest, os; print(os.path.dirname(os.path.dirname(pytest.__file__)))",
        ])
        .output()
        .expect("Python");
    let packages = PathBuf::from(String::from_utf8_lossy(&ours.stdout).trim());
    let copy = home.lab.file("packages");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(&packages)
        .arg(&copy)
        .status();
    assert!(copied.expect("cp").success());
    format!(
        "PYTHONPATH={}:$PYTHONPATH /usr/bin/python3 -m pytest -p no:cacheprovider",
        copy.display()
    )
}

#[test]
fn a_users_test_is_failed_before_the_daemon_ends_its_process() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let suite = home.lab.file("test_it.py");
    let text = "
import time
def test_hog():
    time.sleep(2)
    keep = []
    while True:
        keep.append(bytearray(1 << 20)); time.sleep(0.02)
def test_z(): pass
";
    fs::write(&suite, text).expect("room");
    let line = format!("{} {}", pytest(&home), suite.display());
    let started = home.attach(&service, &["--memory-max", "300M", "--cmd", &line]);
    service.target_of(NOBODY);
    let ran = started.wait().expect_verdict("finished", 1);
    let it = &ran.report["interventions"][0];
    let rungs = it["rungs"].as_array().expect("a list");
    assert!(rungs.iter().all(|rung| rung["rung"] == "abort"), "{it:#}");
    assert!(
        it["test"]["id"]
            .as_str()
            .is_some_and(|id| id.ends_with("::test_hog")),
        "{it:#}"
    );
    assert!(
        it["python_stack"].to_string().contains("in test_hog"),
        "{it:#}"
    );
    let tests = ran.report["suite"]["tests"].as_array().expect("a suite");
    let outcomes: Vec<_> = tests.iter().map(|test| test["outcome"].as_str()).collect();
    assert_eq!(outcomes, [Some("failed"), Some("passed")], "{ran:#?}");
    assert_eq!(ran.report["victims"], serde_json::json!([]));
    // The daemon's own record, which is all that is kept, was told.
    let kept = wait_for("an incident", || service.incidents().pop());
    let told = &kept["interventions"][0];
    assert_eq!(told["test"]["id"], it["test"]["id"], "{kept:#}");
    assert!(
        told["python_stack"].to_string().contains("in test_hog"),
        "{told:#}"
    );
    assert!(!home.lab.file("state/incidents").exists());
    service.stop();
}

#[test]
fn a_users_test_whose_process_the_daemon_ends_is_in_the_daemons_record_too() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let suite = home.lab.file("test_it.py");
    let text = "
import time
def test_stubborn():
    keep = []
    time.sleep(2)
    while True:
        try:
            while True: keep.append(bytearray(1 << 20)); time.sleep(0.02)
        except BaseException: pass
";
    fs::write(&suite, text).expect("room");
    let line = format!("exec env {} {}", pytest(&home), suite.display());
    let started = home.attach(&service, &["--memory-max", "300M", "--cmd", &line]);
    service.target_of(NOBODY);
    let ran = started.wait().expect_verdict("killed_by_memwatch", 137);
    let kept = wait_for("an incident", || service.incidents().pop());
    for told in [&ran.report, &kept] {
        let interventions = told["interventions"].as_array().expect("a list");
        let has_test = interventions.iter().any(|it| {
            it["test"]["id"]
                .as_str()
                .is_some_and(|id| id.ends_with("::test_stubborn"))
        });
        assert!(has_test, "{told:#}");
    }
    service.stop();
}

#[test]
fn what_the_run_itself_ends_for_its_time_is_kept_though_a_daemon_guards() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let options = [
        "--timeout",
        "3s",
        "--memory-max",
        "96M",
        "--",
        "sleep",
        "60",
    ];
    let started = home.attach(&service, &options);
    service.target_of(NOBODY);
    let ran = started.wait().expect_verdict("timeout", 124);
    let own = fs::read_dir(home.lab.file("state/incidents")).expect("it is kept");
    let own: Vec<_> = own.flatten().map(|file| file.file_name()).collect();
    let id = ran.report["id"].as_str().expect("an id");
    assert_eq!(own, [format!("{id}.json").as_str()]);
    assert_eq!(service.incidents().len(), 0);
    service.stop();
}

#[test]
fn what_a_users_test_spends_in_reclaim_is_the_daemons_to_say() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let suite = home.lab.file("test_it.py");
    let text = format!(
        "
import mmap, os, random, time
def test_calm(): time.sleep(1)
def test_thrashes():
    time.sleep(1)
    with open({:?}, 'w+b') as file:
        file.truncate(256 << 20)
        for _ in range(256): file.write(os.urandom(1 << 20))
        pages = mmap.mmap(file.fileno(), 0)
        until = time.monotonic() + 2.5
        while time.monotonic() < until: pages[random.randrange(len(pages))]
",
        format!("{}/big", home.scratch())
    );
    fs::write(&suite, text).expect("room");
    let line = format!("{} {}", pytest(&home), suite.display());
    let options = ["--memory-max", "128M", "--on-pressure", "warn"];
    let started = home.attach(&service, &[&options[..], &["--cmd", &line]].concat());
    service.target_of(NOBODY);
    let ran = started.wait().expect_verdict("finished", 0);
    let tests = ran.report["suite"]["tests"].as_array().expect("a suite");
    let reclaim = |at: usize| tests[at]["reclaim_us"].as_u64();
    assert_eq!(reclaim(0).unwrap_or(0), 0, "{ran:#?}");
    assert!(reclaim(1) > Some(1000), "{ran:#?}");
    service.stop();
}

#[test]
fn nobody_says_which_tests_run_in_anothers_target() {
    let service = Service::start("");
    let home = Home::of(NOBODY);
    let started = home.attach(&service, &["--", "sleep", "3"]);
    let id = service.target_of(NOBODY).id;
    let socket = service.socket();
    let tell = |tests: usize| {
        let test = RunningTest {
            pid: 1,
            start_ticks: 0,
            serial: 1,
        };
        let socket = &socket;
        move || {
            block_on(async {
                let mut client = Client::connect(socket).await?;
                client.tests(id, vec![test; tests]).await
            })
        }
    };
    let refused = as_user(OTHER, tell(1)).expect_err("it is not theirs");
    assert!(matches!(refused, ClientError::Refused(_)), "{refused}");
    as_user(NOBODY, tell(TESTS)).expect("it is theirs, and nobody is believed to be pid 1");
    let refused = as_user(NOBODY, tell(TESTS + 1)).expect_err("too many");
    assert!(refused.to_string().contains("64"), "{refused}");
    started.wait().expect_verdict("finished", 0);
    service.stop();
}
