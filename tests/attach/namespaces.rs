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
        "--cmd",
        // First the limit is full of cache, which a stream has reclaimed and a leak has to.
        &format!(
            "head -c 200M /dev/zero >{big} && cat {big} >/dev/null && exec {} leak --rate 30M",
            workload(),
            big = lab.file("big").display(),
        ),
    ]);
    let ran = lab.run(command).expect_verdict("killed_by_memwatch", 137);
    assert!(
        ran.report["reclaim"]["memcg"].as_u64() > Some(0),
        "{ran:#?}"
    );
    assert!(
        ran.report["reclaim"]["stall_us"].as_u64() > Some(0),
        "{ran:#?}"
    );
}
