//! Placing and claiming, on directories that only look like cgroups, and on real ones.

use super::place::v2_with_memory;
use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

fn hierarchy(mount: &Path, own: &str) -> Hierarchy {
    Hierarchy {
        mount: mount.to_owned(),
        own: own.to_owned(),
    }
}

#[test]
fn a_target_is_made_where_memory_is_handed_down_but_not_outside_of_another_target() {
    let mount = tempfile::tempdir().expect("a directory");
    let own = mount.path().join("user/memwatch-0123abcd/shell");
    fs::create_dir_all(&own).expect("directories");
    fs::write(mount.path().join("user/cgroup.subtree_control"), "memory\n").expect("a file");

    let outside = v2_with_memory(&hierarchy(mount.path(), "/user"), "new").expect("room");
    assert_eq!(outside, Some(mount.path().join("user/new")));
    let inside = hierarchy(mount.path(), "/user/memwatch-0123abcd/shell");
    assert_eq!(v2_with_memory(&inside, "new2").expect("room"), None);

    let target = mount
        .path()
        .join("user/memwatch-0123abcd/cgroup.subtree_control");
    fs::write(target, "memory").expect("a file");
    let below = v2_with_memory(&inside, "new3")
        .expect("room")
        .expect("a place");
    assert!(below.ends_with("memwatch-0123abcd/new3"));
}

#[test]
fn a_directory_that_a_sweep_has_taken_is_given_up() {
    let mount = tempfile::tempdir().expect("a directory");
    let v2 = hierarchy(mount.path(), "/");
    let dir = mount.path().join("memwatch-00000000");
    fs::create_dir(&dir).expect("a directory");
    let sweeping = lock(&dir).expect("free");
    assert!(Target::claim(&v2, dir.clone()).expect("no error").is_none());
    drop(sweeping);
    assert!(Target::claim(&v2, dir.clone()).expect("no error").is_some());
    assert!(!dir.exists(), "a target that is dropped is removed");
    assert!(Target::claim(&v2, dir).expect("no error").is_none());
}

#[test]
fn targets_are_made_while_others_sweep() {
    let layout = Layout::read(Path::new("/")).expect("a layout");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                sweep(&layout);
            }
        });
        for _ in 0..100 {
            let target = Target::create(&layout).expect("root");
            assert!(target.dir().expect("a cgroup").is_dir());
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_shelter_is_at_the_top_where_memory_is_handed_down_or_nowhere() {
    let mount = tempfile::tempdir().expect("a directory");
    let place = |own: &str| {
        let layout = Layout {
            v2: Some(hierarchy(mount.path(), own)),
            ..Layout::default()
        };
        Shelter::place(&layout).map(drop)
    };
    let file = |name: &str, text: &str| fs::write(mount.path().join(name), text).expect("a file");
    file("cgroup.procs", "");
    file("cgroup.subtree_control", "cpu pids\n");
    assert!(matches!(place("/user"), Err(NoShelter::NoMemory)));
    file("cgroup.subtree_control", "cpu memory pids\n");
    assert!(place("/user").is_ok());
    let guarded = place("/user/memwatch-0123abcd/shell");
    assert!(matches!(guarded, Err(NoShelter::Guarded)));
    file("cgroup.type", "domain\n");
    assert!(matches!(place("/user"), Err(NoShelter::NotTheTop)));
    let without = Layout::default();
    assert!(matches!(Shelter::place(&without), Err(NoShelter::NoV2)));
}

#[test]
fn who_comes_in_is_in_the_v2_cgroup_first() {
    let layout = Layout::read(Path::new("/")).expect("a layout");
    let target = Target::create(&layout).expect("root");
    let entrances = target.entrances().expect("our cgroup");
    let first = format!("/proc/self/fd/{}", entrances.doors()[0]);
    let first = fs::read_link(first).expect("it is open");
    assert_eq!(first, target.dir().expect("a cgroup").join("cgroup.procs"));
}

#[test]
fn what_a_cgroup_has_spent_is_told_also_where_no_controller_is_on() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(cpu_time(dir.path()), None);
    let stat = "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n";
    fs::write(dir.path().join("cpu.stat"), stat).expect("a file");
    let spent = std::time::Duration::from_micros(1500);
    assert_eq!(cpu_time(dir.path()), Some(spent));
    let layout = Layout::read(Path::new("/")).expect("a layout");
    let own = layout.v2.map(|v2| v2.own_dir());
    assert!(own.is_none_or(|own| own == Path::new("/") || cpu_time(&own).is_some()));
}
