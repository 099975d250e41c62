//! The black box of the daemon: whose ends of machines its users see, and how it is missed.

use super::lab::{Lab, wait_until, workload};
use super::service::{Home, Service, leave_black_box};
use super::users::{NOBODY, OTHER};
use std::path::Path;

#[test]
fn a_user_sees_how_the_machine_ended_on_the_own_target_and_nobody_else_does() {
    let service = Service::start_on("", |state| leave_black_box(state, NOBODY));
    wait_until("the incident", || service.incidents().len() == 1);
    let kept = &service.incidents()[0];
    assert_eq!(kept["target"]["uid"], NOBODY);
    let id = kept["id"].as_str().expect("an id");
    let home = Home::of(NOBODY);
    let (listed, _) = home.incidents(&service, &["list"]);
    assert!(listed.contains("hard reset"), "{listed}");
    let (shown, said) = home.incidents(&service, &["show", id]);
    assert!(
        shown.contains("the machine ended without being shut down"),
        "{shown}{said}"
    );
    let (none, _) = Home::of(OTHER).incidents(&service, &["list"]);
    assert_eq!(none, "No incidents.\n");
    service.stop();
}

#[test]
fn who_can_keep_no_black_box_says_so_and_every_record_does() {
    let spoil = |state: &Path| {
        for number in 0..8 {
            let name = match number {
                0 => "blackbox".to_owned(),
                number => format!("blackbox.{number}"),
            };
            std::fs::create_dir_all(state.join(name)).expect("room");
        }
    };
    let names_it = |lost: &serde_json::Value| {
        let lost = lost.as_array().expect("a list").iter();
        lost.filter(|it| {
            it["feature"]
                .as_str()
                .is_some_and(|it| it.contains("the black box ("))
        })
        .count()
    };
    let service = Service::start_on("", spoil);
    wait_until("a warning", || {
        service.said().contains("no black box is kept")
    });
    wait_until("its status", || {
        names_it(&service.status()["features_lost"]) == 1
    });
    let home = Home::of(NOBODY);
    let line = format!("sleep 2; exec {} leak --rate 30M", workload());
    let started = home.attach(&service, &["--memory-max", "96M", "--cmd", &line]);
    let ran = started.wait().expect_verdict("killed_by_memwatch", 137);
    assert_eq!(names_it(&ran.report["features_lost"]), 1);
    service.stop();

    // So it is with a run's own.
    let lab = Lab::new();
    spoil(&lab.file("state"));
    let ran = lab
        .attach(&["--", "sleep", "3"])
        .expect_verdict("finished", 0);
    assert_eq!(
        names_it(&ran.report["features_lost"]),
        1,
        "{:#}",
        ran.report["features_lost"]
    );
}
