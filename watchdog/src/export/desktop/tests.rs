//! What a desktop is told, and on whose bus. A real bus is in `tests/exporters`.

use std::fs;
use std::os::unix::net::UnixListener;

use super::*;
use crate::incident::sample;

#[test]
fn whose_target_it_was_is_in_its_path() {
    let mut record = sample::killed();
    assert_eq!(user_of(&record), None);
    for (path, uid) in [
        (
            "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/x.scope",
            Some(1000),
        ),
        (
            "/sys/fs/cgroup/unified/user.slice/user-0.slice/session-1.scope",
            Some(0),
        ),
        ("/sys/fs/cgroup/user.slice", None),
        ("/sys/fs/cgroup/user.slice/user-x.slice", None),
        ("/sys/fs/cgroup/system.slice/user-1000.slice", None),
    ] {
        record.target.cgroup_path = Some(Text::of_name(path.as_bytes()));
        assert_eq!(user_of(&record), uid, "{path}");
    }
}

#[test]
fn only_who_has_a_bus_in_a_directory_of_their_own_is_told() {
    let root = tempfile::tempdir().expect("a directory");
    let desktop = Desktop {
        run_user: root.path().to_owned(),
        shown: Mutex::default(),
    };
    let own = geteuid().as_raw();
    assert_eq!(desktop.seat(own), None);
    let dir = root.path().join(own.to_string());
    fs::create_dir(&dir).expect("room");
    assert_eq!(desktop.all_seats(), []);
    fs::write(dir.join("bus"), "no socket").expect("room");
    assert_eq!(desktop.seat(own), None);
    fs::remove_file(dir.join("bus")).expect("ours");
    let _bus = UnixListener::bind(dir.join("bus")).expect("bound");
    assert_eq!(desktop.all_seats().len(), 1);
    // Another's directory under a third one's number.
    let foreign = root.path().join((own + 4242).to_string());
    fs::create_dir(&foreign).expect("room");
    let _bus = UnixListener::bind(foreign.join("bus")).expect("bound");
    assert_eq!(desktop.seat(own + 4242), None);
    assert_eq!(desktop.all_seats().len(), 1);
}

#[test]
fn nobody_is_shown_more_than_a_few_at_a_time_nor_what_is_long_over() {
    let desktop = Desktop::default();
    for _ in 0..MOST {
        assert_eq!(desktop.may_show(1000), Ok(()));
    }
    assert!(desktop.may_show(1000).is_err());
    assert_eq!(desktop.may_show(1001), Ok(()));
    let record = sample::killed();
    let now = SystemTime::now();
    assert!(!is_stale(&record, now));
    let later = now + STALE + Duration::from_secs(2);
    assert!(is_stale(&record, later));
    let reset = Record {
        kind: Kind::HardReset,
        ..record
    };
    assert!(!is_stale(&reset, later), "the machine was off for long");
}

#[test]
fn a_notification_says_what_was_done_to_whom() {
    let record = sample::killed();
    let told = notification(&record);
    assert_eq!(told.title, "memwatch has ended a process for memory");
    assert!(
        told.body
            .starts_with("python3 (pid 4250) was ended by memwatch")
    );
    assert!(
        told.body
            .ends_with(&format!("memwatch incidents show {}", record.id))
    );
    assert!(told.is_grave);
}
