//! Layouts of whole fixture trees, and the corners of the two formats they are read from.

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/doctor")
        .join(name)
}

fn hierarchy(mount: impl Into<PathBuf>, own: &str) -> Option<Hierarchy> {
    Some(Hierarchy {
        mount: mount.into(),
        own: own.to_owned(),
    })
}

/// A tree with just the two files of /proc and, for each mount given, its list of controllers.
fn tree(mountinfo: &str, cgroup: Option<&str>, mounts: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let proc = root.path().join("proc/self");
    std::fs::create_dir_all(&proc).unwrap();
    std::fs::write(proc.join("mountinfo"), mountinfo).unwrap();
    if let Some(cgroup) = cgroup {
        std::fs::write(proc.join("cgroup"), cgroup).unwrap();
    }
    for mount in mounts {
        let mount = root.path().join(mount);
        std::fs::create_dir_all(&mount).unwrap();
        std::fs::write(mount.join("cgroup.controllers"), "memory pids\n").unwrap();
    }
    root
}

#[test]
fn systemd_on_pure_v2() {
    let root = fixture("ubuntu-24.04-zfs");
    let layout = Layout::read(&root).unwrap();
    let own = "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-5a1c.scope";
    assert_eq!(layout.v2, hierarchy(root.join("sys/fs/cgroup"), own));
    assert_eq!(
        layout.v2.as_ref().unwrap().own_dir(),
        root.join("sys/fs/cgroup").join(&own[1..])
    );
    assert!(layout.v2_has_memory());
    assert_eq!(layout.v1_memory, None);
}

#[test]
fn hybrid_keeps_memory_on_v1() {
    let root = fixture("hybrid");
    let layout = Layout::read(&root).unwrap();
    assert_eq!(
        layout.v2,
        hierarchy(root.join("sys/fs/cgroup/unified"), "/")
    );
    assert_eq!(layout.v2_controllers, ["hugetlb"]);
    assert!(!layout.v2_has_memory());
    let own = "/ci/job-7";
    assert_eq!(
        layout.v1_memory,
        hierarchy(root.join("sys/fs/cgroup/memory"), own)
    );
}

#[test]
fn v1_only() {
    let root = fixture("kernel-5.4");
    let layout = Layout::read(&root).unwrap();
    assert_eq!((&layout.v2, layout.v2_controllers.len()), (&None, 0));
    let own = "/user.slice/user-1000.slice/session-2.scope";
    assert_eq!(
        layout.v1_memory,
        hierarchy(root.join("sys/fs/cgroup/memory"), own)
    );
}

#[test]
fn no_cgroups_mounted_or_none_in_the_kernel() {
    let plain = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";
    let unmounted = tree(plain, Some("0::/\n"), &[]);
    assert_eq!(Layout::read(unmounted.path()).unwrap(), Layout::default());
    let absent = tree(plain, None, &[]);
    assert_eq!(Layout::read(absent.path()).unwrap(), Layout::default());
}

#[test]
fn container_with_its_own_cgroup_namespace() {
    let root = fixture("container");
    let layout = Layout::read(&root).unwrap();
    assert_eq!(layout.v2, hierarchy(root.join("sys/fs/cgroup"), "/"));
    assert_eq!(layout.v2_controllers, ["cpu", "memory", "pids"]);
}

#[test]
fn container_that_shares_the_host_namespace_sees_its_group_as_the_mount_root() {
    let mountinfo = "616 615 0:27 /docker/4e1f /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
    let root = tree(
        mountinfo,
        Some("0::/docker/4e1f/init.scope\n"),
        &["sys/fs/cgroup"],
    );
    let layout = Layout::read(root.path()).unwrap();
    assert_eq!(
        layout.v2,
        hierarchy(root.path().join("sys/fs/cgroup"), "/init.scope")
    );
}

#[test]
fn a_mount_that_does_not_show_our_group_is_passed_over() {
    for (mounted, own) in [
        ("/docker/4e1f", "/docker/4e1f2/x"),
        ("/../..", "/"),
        ("/", "/../sibling"),
    ] {
        let mountinfo = format!("616 615 0:27 {mounted} /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
        let root = tree(&mountinfo, Some(&format!("0::{own}\n")), &["sys/fs/cgroup"]);
        assert_eq!(
            Layout::read(root.path()).unwrap(),
            Layout::default(),
            "{mounted} {own}"
        );
    }
}

#[test]
fn the_last_mount_of_a_hierarchy_wins() {
    let mountinfo =
        "30 23 0:27 / /old rw - cgroup2 cgroup2 rw\n31 23 0:27 / /new rw - cgroup2 cgroup2 rw\n";
    let root = tree(mountinfo, Some("0::/a\n"), &["old", "new"]);
    let layout = Layout::read(root.path()).unwrap();
    assert_eq!(layout.v2, hierarchy(root.path().join("new"), "/a"));
}

#[test]
fn escapes_in_mountinfo_and_none_in_cgroup() {
    let mountinfo =
        "31 23 0:27 /my\\040slice /mnt/c\\134g\\011\\040x rw shared:9 master:2 - cgroup2 none rw\n";
    let root = tree(
        mountinfo,
        Some("0::/my slice/a\\040b:c\n"),
        &["mnt/c\\g\t x"],
    );
    let layout = Layout::read(root.path()).unwrap();
    assert_eq!(
        layout.v2,
        hierarchy(root.path().join("mnt/c\\g\t x"), "/a\\040b:c")
    );
}

#[test]
fn a_truncated_escape_stays_as_it_is() {
    assert_eq!(unescape(b"a\\04"), "a\\04");
    assert_eq!(unescape(b"\\777\\040"), "\\777 ");
}

#[test]
fn memory_that_shares_a_v1_hierarchy_with_other_controllers() {
    let mountinfo = "35 31 0:32 / /cg rw - cgroup cgroup rw,cpu,memory\n36 31 0:33 / /no rw - cgroup cgroup rw,memoryish\n";
    let root = tree(mountinfo, Some("4:cpu,memory:/job\n"), &[]);
    let layout = Layout::read(root.path()).unwrap();
    assert_eq!(layout.v1_memory, hierarchy(root.path().join("cg"), "/job"));
}

#[test]
fn a_missing_proc_names_the_file() {
    let root = tempfile::tempdir().unwrap();
    let error = Layout::read(root.path()).unwrap_err();
    assert_eq!(error.path, root.path().join("proc/self/mountinfo"));
    assert!(
        error.to_string().contains("/proc must be mounted"),
        "{error}"
    );
}

#[test]
fn this_process_stands_in_the_groups_it_found() {
    let layout = Layout::read(Path::new("/")).unwrap();
    let pid = std::process::id().to_string();
    for hierarchy in [&layout.v2, &layout.v1_memory].into_iter().flatten() {
        let members = std::fs::read_to_string(hierarchy.own_dir().join("cgroup.procs")).unwrap();
        assert!(
            members.lines().any(|line| line == pid),
            "{pid} is not in {hierarchy:?}"
        );
    }
    assert!(layout.v2.is_some() || layout.v1_memory.is_some());
}
