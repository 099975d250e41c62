//! memwatch dead: its target stays under the guard, whoever else lives, and the next memwatch tells what
//! the guard did and takes away what has no target any more.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use memwatch::host::cgroup::id;

use super::guarding::{go, late_thrasher};
use super::lab::{Lab, MEMWATCH, Started, is_alive, wait_for, wait_until};

/// A memwatch that is dead; its target waits to be told to thrash.
fn dead(lab: &Lab, program: &Path) -> Started {
    let hog = late_thrasher(lab);
    let mut command = lab.command(program);
    command.args(["attach", "--memory-max", "64M", "--cmd", &hog]);
    let mut memwatch = lab.start(command);
    lab.wait_for_guard(program);
    memwatch.child.kill().expect("ours");
    memwatch.child.wait().expect("ours");
    memwatch
}

/// Tells it; the thrasher.
fn thrasher(lab: &Lab) -> u32 {
    go(lab);
    wait_for("the hog", || lab.read("culprit").parse().ok())
}

/// A memwatch that is dead before its target begins to thrash; the thrasher.
fn orphan(lab: &Lab, program: &Path) -> (Started, u32) {
    (dead(lab, program), thrasher(lab))
}

/// memwatch of another build: its programs differ in a word of a log line, which makes them another set.
fn another_build(lab: &Lab) -> PathBuf {
    let mut program = fs::read(MEMWATCH).expect("the program");
    let (ours, theirs) = (b", which belongs to cgroup ", b", which adheres to cgroup ");
    let at: Vec<usize> = (0..program.len() - ours.len())
        .filter(|&at| program[at..].starts_with(ours))
        .collect();
    assert!(!at.is_empty(), "the programs have no such log line");
    for at in at {
        program[at..at + theirs.len()].copy_from_slice(theirs);
    }
    let path = lab.file("memwatch");
    fs::write(&path, program).expect("room");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    path
}

#[test]
fn an_upgrade_leaves_the_guard_in_place_and_tells_what_it_did() {
    let lab = Lab::new();
    let _memwatch = dead(&lab, &another_build(&lab));
    lab.attach(&["--", "true"]).expect(0);
    let hog = thrasher(&lab);
    wait_until("the guard's kill", || !is_alive(hog));
    let ran = lab.attach(&["--", "true"]).expect(0);
    let told = format!("the guard in the kernel killed workload (pid {hog})");
    assert!(ran.err.contains(&told), "{}", ran.err);
}

#[test]
fn the_target_of_a_dead_memwatch_is_guarded_and_the_next_one_tells_and_cleans_up() {
    let lab = Lab::new();
    let (_memwatch, hog) = orphan(&lab, Path::new(MEMWATCH));
    wait_until("the guard's kill", || !is_alive(hog));
    let next = ["--", "sleep", "2"];
    let ran = lab.attach(&next).expect_verdict("finished", 0);
    let told = format!("the guard in the kernel killed workload (pid {hog})");
    assert!(ran.err.contains(&told), "{}", ran.err);
    assert_eq!(lab.targets(), [] as [&Path; 0]);
    let ran = lab.attach(&next).expect_verdict("finished", 0);
    assert!(
        !ran.err.contains(&told),
        "each kill is told once: {}",
        ran.err
    );
}

#[test]
fn the_death_of_one_is_seen_although_another_lives() {
    let (dead, alive) = (Lab::new(), Lab::new());
    let other = alive.start(alive.reporting(&["--memory-max", "64M", "--", "sleep", "12"]));
    let (_memwatch, hog) = orphan(&dead, Path::new(MEMWATCH));
    wait_until("the guard's kill", || !is_alive(hog));
    let ran = other.wait().expect_verdict("finished", 0);
    assert_eq!(ran.report["victims"], serde_json::json!([]));
    // What the dead one left goes with the next run.
    dead.attach(&["--", "true"]).expect(0);
}

#[test]
fn the_guard_over_an_orphan_is_listed_and_can_be_lifted() {
    let lab = Lab::new();
    let mut memwatch = lab.start(lab.memwatch(&["--", "sleep", "60"]));
    let target = lab.target();
    lab.wait_for_guard(Path::new(MEMWATCH));
    let guard = |action: &str| {
        let mut command = lab.command(MEMWATCH);
        lab.run({
            command.args(["guard", action]);
            command
        })
        .expect(0)
        .text()
    };
    let line = |state: &str| format!("{}: armed, its memwatch {state}", target.display());
    assert!(guard("list").contains(&line("lives")));
    assert!(
        guard("disarm").contains(&line("lives")),
        "the living keep theirs"
    );
    memwatch.child.kill().expect("ours");
    memwatch.child.wait().expect("ours");
    assert!(guard("list").contains(&line("is dead")));
    assert!(!guard("disarm").contains(&target.display().to_string()));
    std::fs::write(target.join("cgroup.kill"), "1").expect("ours");
    wait_until("an empty target", || {
        memwatch::host::cgroup::pids(&target).is_empty()
    });
    lab.attach(&["--", "true"]).expect(0);
}

#[test]
fn with_the_last_memwatch_everything_goes() {
    let lab = Lab::new();
    let home = Path::new(memwatch::bpf::SHARED);
    let three = ["6", "7", "8"].map(|s| lab.start(lab.memwatch(&["--", "sleep", s])));
    let under_guard = || {
        let targets = lab.targets();
        let ours: Vec<u64> = targets.iter().filter_map(|dir| id(dir).ok()).collect();
        let standing = memwatch::bpf::standing(home).unwrap_or_default();
        let armed = standing.iter().filter(|row| row.armed && row.owner_lives);
        armed.filter(|row| ours.contains(&row.cgroup_id)).count()
    };
    wait_until("three targets in one set", || under_guard() == 3);
    for memwatch in three {
        memwatch.wait().expect(0);
    }
    // Other runs on this machine would keep it; of ours none is left.
    let standing = || memwatch::bpf::standing(home).is_ok_and(|rows| !rows.is_empty());
    wait_until("an end of it", || !home.exists() || standing());
}
