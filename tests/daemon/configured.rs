//! What the configuration names.

use std::process::Stdio;

use super::lab::{Lab, wait_for, wait_until};
use super::service::Service;

#[test]
fn what_the_configuration_names_is_guarded_until_a_right_one_does_not_name_it() {
    let lab = Lab::new();
    let watched = lab.pair.below("watched", "64M");
    let name = lab
        .pair
        .v2
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let watching = format!("[[watch]]\ncgroups = [\"/**/{name}/watched\"]\n");
    let mut sleep = std::process::Command::new("sleep");
    watched.confine(&mut sleep);
    let mut sleeper = sleep
        .arg("600")
        .stdin(Stdio::null())
        .spawn()
        .expect("sleep");

    let service = Service::start(&watching);
    let target = wait_for("the target", || service.targets().pop());
    let told = service.status();
    assert_eq!(
        told["targets"].as_array().map(Vec::len),
        Some(1),
        "{told:#}"
    );
    let told = &told["targets"][0];
    assert_eq!(told["id"], target.id);
    assert_eq!(told["cgroup"], watched.v2.display().to_string());
    assert_eq!(told["uid"], serde_json::Value::Null);
    assert_eq!(told["processes"], 1);

    service.configure("[[watch]]\ncgroups = [7]\n");
    service.signal(libc::SIGHUP);
    wait_until("a refusal", || {
        service
            .said()
            .contains("the configuration before stays in force")
    });
    assert_eq!(service.targets().len(), 1, "{}", service.said());

    service.configure("");
    service.signal(libc::SIGHUP);
    wait_until("no target", || service.targets().is_empty());
    sleeper.kill().expect("ours");
    sleeper.wait().expect("ours");
    service.stop();
}
