//! `memwatch attach` keeps what happened, tells of it if that is quick, and does all else as ever.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
};

use memwatch::export::Queue;
use serde_json::Value;

use super::lab::{Lab, MEMWATCH, Ran};
use super::receiver::{Receiver, Reply, TAKE};
use super::users::NOBODY;

/// A run that is over its time, which is the quickest of incidents.
fn timed_out(lab: &Lab, config: &str) -> Ran {
    fs::write(lab.file("memwatch.toml"), config).expect("room");
    let mut command = lab.reporting(&["--timeout", "300ms", "--", "sleep", "60"]);
    command.env("MEMWATCH_CONFIG", lab.file("memwatch.toml"));
    lab.run(command)
}

fn kept(lab: &Lab) -> Vec<Value> {
    let files = fs::read_dir(lab.file("state/incidents"))
        .into_iter()
        .flatten();
    let files = files.flatten().filter(|file| file.path().is_file());
    let texts = files.map(|file| fs::read(file.path()).expect("kept"));
    texts
        .map(|text| serde_json::from_slice(&text).expect("JSON"))
        .collect()
}

fn hook(receiver: &Receiver) -> String {
    format!(
        "[export.hook]\ntype = 'webhook'\nurl = '{}'\nretry_least = '1ms'\n",
        receiver.url()
    )
}

#[test]
fn what_happened_is_kept_and_told_and_a_quiet_run_is_not() {
    let lab = Lab::new();
    let receiver = Receiver::new(|_| TAKE);
    let ran = timed_out(&lab, &hook(&receiver)).expect_verdict("timeout", 124);
    let all = kept(&lab);
    assert_eq!(
        all,
        std::slice::from_ref(&ran.report),
        "the report's record"
    );
    let taken: Vec<String> = receiver.taken().into_keys().collect();
    assert_eq!(taken, [ran.report["id"].as_str().expect("an id")]);
    lab.attach(&["--", "true"]).expect(0);
    assert_eq!(kept(&lab).len(), 1, "nothing happened to it");
}

#[test]
fn a_receiver_that_hangs_costs_two_seconds_and_the_rest_waits() {
    let lab = Lab::new();
    let receiver = Receiver::new(|_| Reply::Hang);
    let ran = timed_out(&lab, &hook(&receiver)).expect_verdict("timeout", 124);
    let said = "memwatch: 1 incidents wait for the exporter hook (no answer in time); try again: memwatch export run --once";
    assert!(ran.err.contains(said), "{}", ran.err);
    let waiting = fs::read_dir(lab.file("state/queue/hook")).expect("a queue");
    assert_eq!(waiting.count(), 1);
    // The next run takes it along.
    let well = Receiver::new(|_| TAKE);
    timed_out(&lab, &hook(&well)).expect_verdict("timeout", 124);
    assert_eq!(well.taken().len(), 2);
}

#[test]
fn who_wants_none_kept_says_so() {
    let lab = Lab::new();
    timed_out(&lab, "[incidents]\nof_runs = false\n").expect_verdict("timeout", 124);
    assert!(!lab.file("state").exists());
}

#[test]
fn where_nothing_can_be_kept_that_is_said_and_the_run_is_as_ever() {
    let lab = Lab::new();
    fs::write(lab.file("state"), "a file").expect("room");
    let ran = timed_out(&lab, "").expect_verdict("timeout", 124);
    assert!(
        ran.err
            .contains("memwatch: the incident is not kept: cannot make "),
        "{}",
        ran.err
    );
}

#[test]
fn what_an_exporter_cannot_have_is_kept_and_told_to_the_others() {
    let lab = Lab::new();
    let [receiver, well] = [(), ()].map(|()| Receiver::new(|_| TAKE));
    fs::create_dir_all(lab.file("state/queue")).expect("room");
    fs::write(lab.file("state/queue/hook"), "a file").expect("room");
    let other = hook(&well).replace("hook", "well");
    let config = hook(&receiver) + &other.replace("type = 'webwell'", "type = 'webhook'");
    let ran = timed_out(&lab, &config).expect_verdict("timeout", 124);
    assert_eq!(kept(&lab), std::slice::from_ref(&ran.report));
    let said = "memwatch: an incident is kept, but lost to the exporter hook: cannot ";
    assert!(ran.err.contains(said), "{}", ran.err);
    assert_eq!(well.taken().len(), 1);
    assert_eq!(Queue::of(&lab.file("state"), "hook").lost(), 1);
}

#[test]
fn a_users_incidents_are_the_users_own() {
    let lab = Lab::new();
    let home = lab.file("home");
    fs::create_dir(&home).expect("room");
    chown(&home, Some(NOBODY), Some(NOBODY)).expect("root");
    for dir in [lab.file(""), home.clone()] {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).expect("ours");
    }
    let mut command = lab.command(MEMWATCH);
    command
        .args([
            "attach",
            "--daemon=never",
            "--timeout",
            "300ms",
            "--",
            "sleep",
            "60",
        ])
        .env_remove("MEMWATCH_STATE")
        .env_remove("XDG_STATE_HOME")
        .env("HOME", &home)
        .uid(NOBODY)
        .gid(NOBODY);
    lab.run(command).expect(124);
    let dir = home.join(".local/state/memwatch/incidents");
    let about = fs::metadata(&dir).expect("kept");
    assert_eq!((about.uid(), about.mode() & 0o777), (NOBODY, 0o700));
    assert_eq!(fs::read_dir(dir).expect("ours").count(), 1);
}
