//! What memwatch does without: rights, descriptors, memory to lock, files of the kernel's.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    process::Command,
};

use nix::sys::resource::{Resource, setrlimit};

use super::lab::{Lab, MEMWATCH, Pair, Ran, workload};
use super::refuse::refuse;

const NOBODY: u32 = 65534;

/// A place where nobody may run programs and write files.
pub(super) fn for_nobody(lab: &Lab) {
    fs::set_permissions(lab.file(""), fs::Permissions::from_mode(0o777)).expect("ours");
    fs::copy(MEMWATCH, lab.file("memwatch")).expect("a copy");
    fs::copy(workload(), lab.file("workload")).expect("a copy");
}

/// A group that was handed down to nobody, in both hierarchies.
fn delegated(lab: &Lab) -> Pair {
    let pair = lab.pair.below("delegated", "600M");
    for dir in [&pair.v2, &pair.memory] {
        for name in ["", "cgroup.procs", "cgroup.subtree_control"] {
            let path = dir.join(name);
            if path.exists() {
                chown(&path, Some(NOBODY), Some(NOBODY)).expect("root");
            }
        }
    }
    pair
}

pub(super) fn as_nobody(lab: &Lab, line: &str) -> Command {
    let mut command = lab.command("sh");
    command.args(["-c", line]);
    command.env("REPORT", lab.file("report.json"));
    command
}

pub(super) const SETPRIV: &str =
    "exec setpriv --reuid=65534 --regid=65534 --clear-groups ./memwatch attach";

#[test]
fn a_user_with_a_cgroup_is_guarded_even_where_proc_hides_the_others() {
    let lab = Lab::new();
    for_nobody(&lab);
    let home = delegated(&lab);
    // In KiB. Some is worse than none: what is locked for the future can run out of it.
    for memory_lock in ["0", "65536", "unlimited"] {
        let line = format!(
            "mount -t proc -o hidepid=2 proc /proc; ulimit -l {memory_lock}; \
             {SETPRIV} --report \"$REPORT\" --memory-max 128M -- ./workload leak --rate 30M"
        );
        let mut command = lab.command("unshare");
        home.confine(&mut command);
        command.args(["--mount", "--propagation", "private", "bash", "-c", &line]);
        command.env("REPORT", lab.file("report.json"));
        let ran = lab.run(command).expect_verdict("killed_by_memwatch", 137);
        assert_eq!(ran.report["victims"][0]["comm"], "workload");
    }
}

#[test]
fn without_bpf_it_runs_and_names_the_loss() {
    let lab = Lab::new();
    let mut command = lab.command("setpriv");
    let drop = "-bpf,-perfmon,-sys_admin";
    command.args([
        "--bounding-set",
        drop,
        "--inh-caps",
        drop,
        MEMWATCH,
        "attach",
        "--report",
    ]);
    command
        .arg(lab.file("report.json"))
        .args(["--", "sleep", "1"]);
    let ran = lab.run(command).expect_verdict("finished", 0);
    let lost = ran.report["features_lost"].to_string();
    assert!(
        lost.contains("loading BPF programs is not permitted"),
        "{lost}"
    );
}

#[test]
fn where_it_may_not_kill_it_says_so_and_does_not_say_that_it_guards() {
    let lab = Lab::new();
    let mut command = lab.reporting(&["-v", "--", "sh", "-c", "sleep 0.3; exit 5"]);
    // SAFETY: system calls.
    unsafe { command.pre_exec(|| refuse(libc::SYS_pidfd_send_signal)) };
    let ran = lab.run(command).expect_verdict("finished", 5);
    let cause = "pidfd_send_signal was refused: Permission denied (os error 13)";
    assert!(ran.err.contains("memwatch: not guarding: "), "{}", ran.err);
    assert!(ran.err.contains(cause), "{}", ran.err);
    assert!(!ran.err.contains("memwatch: guarding"), "{}", ran.err);
    assert_eq!(ran.report["rehearsal_us"], serde_json::Value::Null);
    let lost = ran.report["features_lost"].to_string();
    assert!(lost.contains(cause), "{lost}");
}

#[test]
fn without_pressure_files_of_the_machine_it_runs() {
    let lab = Lab::new();
    let line = "mount -t tmpfs tmpfs /proc/pressure && exec \"$0\" attach --report \"$REPORT\" --memory-max 128M -- \"$1\" leak --rate 100M";
    let mut command = lab.command("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        line,
        MEMWATCH,
        &workload(),
    ]);
    command.env("REPORT", lab.file("report.json"));
    lab.run(command).expect_verdict("killed_by_memwatch", 137);
}

/// memwatch with a limit on itself, around a command that needs little.
fn limited(lab: &Lab, resource: Resource, limit: u64, arguments: &[&str]) -> Ran {
    let mut command = lab.reporting(arguments);
    let lower = move || setrlimit(resource, limit, limit).map_err(Into::into);
    // SAFETY: one system call.
    unsafe { command.pre_exec(lower) };
    lab.run(command)
}

#[test]
fn with_few_descriptors_it_runs_or_says_so() {
    let lab = Lab::new();
    for limit in [8, 12, 16, 20, 24, 28, 32, 48, 64, 128] {
        let ran = limited(
            &lab,
            Resource::RLIMIT_NOFILE,
            limit,
            &["--", "sh", "-c", "sleep 0.3; exit 5"],
        );
        match ran.status.code() {
            Some(5) => drop(ran.expect_verdict("finished", 5)),
            _ => drop(ran.expect_refusal(&["(os error 24)", "ulimit -n"])),
        }
        assert!(lab.targets().is_empty(), "at {limit}");
        assert_eq!(lab.pair.pids(), [0u32; 0], "at {limit}");
    }
}

#[test]
fn with_few_descriptors_a_crowd_is_counted_as_unseen_and_the_hog_is_still_killed() {
    let lab = Lab::new();
    let workload = workload();
    let line = format!("for i in $(seq 40); do sleep 30 & done; exec {workload} leak --rate 100M");
    let ran = limited(
        &lab,
        Resource::RLIMIT_NOFILE,
        192,
        &["--memory-max", "150M", "--", "sh", "-c", &line],
    );
    let ran = ran.expect_verdict("killed_by_memwatch", 137);
    assert!(
        ran.report["losses"]["untracked_processes"].as_u64() > Some(0),
        "{ran:#?}"
    );
    assert!(lab.pair.pids().is_empty());
}

#[test]
fn with_no_process_left_it_runs_or_says_so() {
    let lab = Lab::new();
    for_nobody(&lab);
    let home = delegated(&lab);
    for limit in [1, 2, 3, 4, 6, 10] {
        let line =
            format!("ulimit -u {limit}; {SETPRIV} --report \"$REPORT\" -- ./memwatch --version");
        let mut command = lab.command("bash");
        home.confine(&mut command);
        command
            .args(["-c", &line])
            .env("REPORT", lab.file("report.json"));
        let ran = lab.run(command);
        match ran.status.code() {
            Some(0) => drop(ran.expect_verdict("finished", 0)),
            _ => drop(ran.expect_refusal(&["(os error 11)", "ulimit -u"])),
        }
        assert!(home.pids().is_empty(), "at {limit}");
        assert_eq!(
            memwatch::host::cgroup::nested(&home.v2),
            [] as [std::path::PathBuf; 0],
            "at {limit}"
        );
    }
}

#[test]
fn with_nothing_to_write_to_it_harms_no_file_of_the_commands() {
    let lab = Lab::new();
    let mut command = lab.memwatch(&[
        "-vv",
        "--",
        "sh",
        "-c",
        "exec > first 2> second < /dev/null; sleep 0.3; echo mine",
    ]);
    // SAFETY: closes what memwatch is not to have.
    unsafe {
        command.pre_exec(|| {
            for fd in 0..3 {
                libc::close(fd);
            }
            Ok(())
        })
    };
    lab.run(command).expect(0);
    assert_eq!(
        (lab.read("first"), lab.read("second")),
        ("mine\n".into(), String::new())
    );
}
