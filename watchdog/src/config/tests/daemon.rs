//! What the machine's files say to the daemon, and that no others do.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use super::*;

#[test]
fn without_a_file_it_takes_over_serves_users_and_watches_nothing() {
    let daemon = Home::new().daemon().expect("defaults");
    assert_eq!(daemon, Daemon::default());
    assert!(daemon.watch.is_empty() && daemon.oomd.takeover && daemon.users.attach);
    assert_eq!(daemon.users.targets_per_user, 16);
}

#[test]
fn later_files_win_key_by_key_and_watches_add_up() {
    let home = Home::new()
        .system(
            "[[watch]]\nunits = ['docker.service']\n[[watch]]\ncgroups = ['/ci/*']\ndry_run = true\n\
             [oomd]\ntakeover = false\n[users]\nattach = false\ntargets_per_user = 4",
        )
        .drop_in(
            "50-ci.toml",
            "[[watch]]\nunits = ['build.slice']\non_pressure = 'freeze'\n\
             [users]\ntargets_per_user = 5\n[policy]\nstall_window = '4s'",
        )
        .user("[policy]\nstall_window = '9s'");
    let daemon = home.daemon().expect("right");
    assert_eq!(daemon.watch.len(), 3);
    assert!(daemon.watch[1].dry_run && !daemon.watch[0].dry_run);
    assert_eq!(daemon.watch[2].on_pressure, OnPressure::Freeze);
    assert!(!daemon.oomd.takeover && !daemon.users.attach);
    assert_eq!(daemon.users.targets_per_user, 5);
    assert_eq!(
        daemon.policy.stall_window,
        Duration::from_secs(4),
        "the daemon reads no user's file"
    );
    let shown = Home::new().system(&daemon.as_toml()).daemon();
    assert_eq!(shown.expect("what is shown is a file"), daemon);
    home.load(silent()).expect("a run reads them too");
}

#[test]
fn a_unit_is_found_by_its_name_anywhere_and_a_cgroup_by_its_path() {
    let daemon = Home::new()
        .system("[[watch]]\nunits = ['build.slice', 'memory.service', 'user@*.service']\ncgroups = ['/ci/*/job-*']")
        .daemon()
        .expect("right");
    let names = |path: &str| daemon.watch[0].names(Path::new(path));
    assert!(names("/build.slice"));
    assert!(names("user.slice/user-1000.slice/user@1000.service"));
    assert!(names(
        "/user.slice/user-1000.slice/user@1000.service/build.slice"
    ));
    assert!(!names("/build.slice/below"));
    assert!(
        names("/system.slice/_memory.service"),
        "systemd writes it so"
    );
    assert!(names("/ci/linux/job-7") && names("ci/linux/job-7"));
    assert!(!names("/ci/linux") && !names("/ci/linux/job-7/x") && !names("/a/ci/linux/job-7"));
    assert!(!names("/") && !names(""));
}

#[test]
fn of_two_watches_that_name_a_cgroup_the_later_one_counts() {
    let daemon = Home::new()
        .system("[[watch]]\nunits = ['*.service']\n[[watch]]\nunits = ['a.service']\ndry_run = true\n[[watch]]\nunits = ['b.service']")
        .daemon()
        .expect("right");
    let dry_run = |path: &str| daemon.watch_of(Path::new(path)).map(|watch| watch.dry_run);
    assert_eq!(dry_run("/system.slice/a.service"), Some(true));
    assert_eq!(dry_run("/system.slice/c.service"), Some(false));
    assert_eq!(dry_run("/system.slice"), None);
}

#[test]
fn a_users_file_says_nothing_to_the_daemon_and_is_told_so() {
    for (text, table) in [
        ("[[watch]]\nunits = ['a.service']", "[[watch]]"),
        ("[oomd]\ntakeover = false", "[oomd]"),
        ("[users]\nattach = false", "[users]"),
    ] {
        let refusal = Home::new().user(text).refusal(silent());
        let said = format!(
            "{table} is the machine's to say, and this is a user's file; \
             put it into /etc/memwatch/memwatch.toml"
        );
        assert!(refusal.ends_with(&said), "{refusal}");
        assert!(
            refusal.starts_with(".config/memwatch/memwatch.toml:1:"),
            "{refusal}"
        );
    }
}

#[test]
fn the_daemon_believes_root_alone() {
    let home = Home::new().system("").drop_in("10.toml", "");
    let path = |name: &str| home.0.path().join(name);
    let mode = |name: &str, mode| {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).expect("changed");
    };
    for (name, right) in [
        ("system.toml", 0o644),
        ("system.toml.d/10.toml", 0o644),
        ("system.toml.d", 0o755),
    ] {
        home.daemon().expect("root's alone");
        for wrong in [right | 0o020, right | 0o002] {
            mode(name, wrong);
            let refusal = home.words(home.daemon().expect_err("others may write"));
            let said = format!(
                "memwatch daemon does not read {name} (read by default; --config names another): \
                 others than root may write to it (mode {wrong:04o}); run: chmod go-w "
            );
            assert!(refusal.starts_with(&said), "{refusal}");
            home.load(silent())
                .expect("a run has no more rights than who starts it");
        }
        mode(name, right);
        chown(path(name), Some(1000), None).expect("given away");
        let refusal = home.words(home.daemon().expect_err("somebody else's"));
        let said = "it belongs to user 1000; run: chown root ";
        assert!(refusal.contains(said), "{refusal}");
        chown(path(name), Some(0), None).expect("taken back");
    }
}

#[test]
fn the_only_file_that_is_named_may_have_every_table() {
    let home = Home::new()
        .system("nonsense")
        .user("[attach]\ntimeout = '5s'\n[users]\nattach = false");
    let named = home.0.path().join(".config/memwatch/memwatch.toml");
    let daemon = Daemon::read(Some(&named), &home.environment());
    assert_eq!(daemon.files, std::slice::from_ref(&named));
    assert!(!daemon.result.expect("right").users.attach);
    let flags = Flags {
        config: Some(named),
        ..Flags::default()
    };
    let config = Config::load(&flags, &home.environment()).expect("right");
    assert_eq!(config.attach.timeout, Some(Duration::from_secs(5)));
}
