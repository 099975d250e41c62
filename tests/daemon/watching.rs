//! `memwatch top` with the daemon itself. Its keys and terminals are `top`'s tests.

use std::process::{Command, Stdio};

use super::lab::{Lab, MEMWATCH, wait_until};
use super::seen::Seen;
use super::service::Service;

#[test]
fn top_shows_what_the_daemon_guards_as_it_is() {
    let lab = Lab::new();
    let cgroup = lab.pair.below("topped", "64M");
    let mut sleep = Command::new("sleep");
    cgroup.confine(&mut sleep);
    let mut sleeper = sleep
        .arg("600")
        .stdin(Stdio::null())
        .spawn()
        .expect("sleep");
    let name = lab.pair.v2.file_name().expect("a name").to_string_lossy();
    let watching = format!("[[watch]]\ncgroups = [\"/**/{name}/topped\"]\n");
    let service = Service::start(&watching);

    let mut top = Command::new(MEMWATCH);
    top.args(["top", "--interval", "100ms", "--socket"])
        .arg(service.socket())
        .env("TERM", "xterm-256color")
        .env("LC_ALL", "C.UTF-8");
    let mut seen = Seen::start(top);
    seen.see("/topped");
    seen.see("Targets 1; processes 1; acts 0");
    let screen = seen.look();
    // Every machine has memory, and tells of its swap.
    assert!(
        !screen.contains("Swap [not told]") && screen.contains("GiB]"),
        "{screen}"
    );
    seen.pty.key(b"\r");
    seen.see("nobody: the configuration names it");
    let processes = |screen: &str| {
        let mut lines = screen.lines();
        lines
            .find_map(|line| line.strip_prefix("processes "))
            .map(|n| n.trim().to_owned())
    };
    // A picture is written in parts.
    wait_until("the number", || {
        processes(&seen.look()).as_deref() == Some("1")
    });

    service.configure("");
    service.signal(libc::SIGHUP);
    seen.see("It is guarded no more.");
    seen.see("it is guarded no more");
    seen.pty.key(b"qq");
    seen.ends(0);
    service.stop();
    sleeper.kill().expect("ours");
    sleeper.wait().expect("ours");
}
