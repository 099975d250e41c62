//! memwatch in namespaces of its own, as in a container.

use super::lab::{Lab, MEMWATCH, workload};

/// What a container's runtime does: the hierarchies as they look from inside.
const MOUNT_AGAIN: &str = "cd /sys/fs/cgroup && umount unified memory && \
     mount -t cgroup2 none unified && mount -t cgroup -o memory none memory && exec \"$@\"";

#[test]
fn in_a_cgroup_namespace_reclaim_is_counted_all_the_same() {
    let lab = Lab::new();
    let report = lab.file("report.json").display().to_string();
    let mut command = lab.command("unshare");
    command.args([
        "--cgroup",
        "--mount",
        "sh",
        "-c",
        MOUNT_AGAIN,
        "sh",
        MEMWATCH,
    ]);
    command.args([
        "attach",
        "--report",
        &report,
        "--memory-max",
        "64M",
        "--",
        &workload(),
    ]);
    let dir = env!("CARGO_TARGET_TMPDIR");
    command.args(["thrash", "--seconds", "10", "--dir", dir]);
    // On a disk that is as fast as memory a thrasher hardly stalls, and ends by itself.
    let ran = lab.run(command);
    let was_killed = ran.report["verdict"] == "killed_by_memwatch";
    assert!(
        ran.report["reclaim"]["memcg"].as_u64() > Some(0),
        "{ran:#?}"
    );
    assert!(
        ran.report["reclaim"]["stall_us"].as_u64() > Some(0),
        "{ran:#?}"
    );
    // Sampled while it stalled: of three seconds of it at least one fault in sixteen.
    assert!(
        !was_killed || ran.report["faults"]["pressed_major"].as_u64() > Some(0),
        "{ran:#?}"
    );
}
