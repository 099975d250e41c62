//! The place of the programs: made, found, left and refused.

use super::*;

#[test]
fn a_shared_home_is_made_once_and_taken_away_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = dir.path().join("memwatch");
    let (first, lock) = Home::shared(&base).expect("root mounts a BPF file system");
    let one = first.claim(|_| true).expect("a place");
    drop(lock);
    let (second, lock) = Home::shared(&base).expect("again");
    let two = second.claim(|_| true).expect("a place");
    assert_eq!((one.slot, two.slot), (0, 1));
    assert!(second.lives(0) && second.lives(1) && !second.lives(2));
    drop(one);
    assert!(!second.lives(0));
    drop((two, lock));
    second.clear(&[OWNERS]);
    second.leave();
    assert!(!base.exists());
}

/// What systemd does for a service with a sandbox, in a thread of its own: nobody else is changed.
#[test]
fn where_others_would_not_see_it_a_shared_home_is_found_but_not_made() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    let own_view = |how| {
        unshare(CloneFlags::CLONE_NEWNS).expect("a view of its own");
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | how, nothing).expect("changed");
    };
    let dir = tempfile::tempdir().expect("a directory");
    let bases = ["found", "not-made"].map(|name| dir.path().join(name));
    let [found, not_made] = bases.clone();
    let service = std::thread::spawn(move || {
        own_view(MsFlags::MS_SHARED);
        prepare(&found).expect("made as on any machine");
        // A view that nobody has is gone, and with it whoever could be one's master.
        let _machine = File::open("/proc/thread-self/ns/mnt").expect("the view of the machine");
        own_view(MsFlags::MS_SLAVE);
        let (home, lock) = Home::shared(&found).expect("found");
        home.claim(|_| true).expect("a place");
        drop(lock);
        home.clear(&[OWNERS]);
        home.leave();
        Home::shared(&not_made).expect_err("made for itself")
    });
    let refused = service.join().expect("no panic");
    assert!(matches!(refused, HomeError::Unseen { .. }), "{refused}");
    assert!(bases.iter().all(|base| !base.exists()), "nothing is left");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = dir.path().join("memwatch");
    DirBuilder::new().mode(0o755).create(&base).expect("made");
    assert!(matches!(
        Home::shared(&base),
        Err(HomeError::NotOurs { .. })
    ));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).expect("made");
    assert!(matches!(
        Home::shared(&link),
        Err(HomeError::NotOurs { .. })
    ));
}
