//! Disks that are full, read-only or broken, and files that are not what they should be: what is lost is said, and
//! nothing else changes.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use memwatch::blackbox::BlackBox;

use super::desk::Desk;
use super::lab::{Lab, wait_for, wait_until, workload};
use super::receiver::{Receiver, TAKE};
use super::refuse::refuse_with;
use super::service::{Home, Service};
use super::users::NOBODY;

/// A disk of this test's own: in memory, with so many bytes.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).expect("room");
        mount(&["-t", "tmpfs", "-o", options, "memwatch-test"], at);
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.expect("umount").success());
    }
}

fn mount(arguments: &[&str], at: &Path) {
    let mounted = Command::new("mount").args(arguments).arg(at).status();
    assert!(mounted.expect("mount").success());
}

fn hook(receiver: &Receiver) -> String {
    format!(
        "[export.hook]\ntype = 'webhook'\nurl = '{}'\n",
        receiver.url()
    )
}

#[test]
fn a_full_disk_is_said_and_what_is_on_it_is_delivered() {
    let receiver = Receiver::new(|_| TAKE);
    let desk = Desk::new(&hook(&receiver));
    let _disk = Disk::mount(desk.state(), "size=256k");
    let queue = desk.queue("hook");
    let spool = desk.spool();
    let mut kept = 0;
    let error = loop {
        match spool.keep(&super::desk::incident()) {
            Ok(_) => kept += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("No space left on device"), "{error}");
    assert!(kept > 0);
    assert_eq!(queue.waiting().len(), kept, "a torn one is in no queue");
    let (code, text) = desk.exported(&["run", "--once"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(receiver.taken().len(), kept);
    assert!(queue.waiting().is_empty());
}

#[test]
fn from_a_disk_that_is_read_only_everything_is_delivered_once_by_each_process() {
    let receiver = Receiver::new(|_| TAKE);
    let desk = Desk::new(&hook(&receiver));
    let _disk = Disk::mount(desk.state(), "size=4m");
    let queue = desk.queue("hook");
    let ids = [desk.keep().id, desk.keep().id];
    // Whoever delivers needs its lock.
    fs::write(desk.state().join("delivering"), "").expect("room");
    let delivering = desk.deliver();
    wait_until("both", || queue.waiting().is_empty());
    delivering.kill();
    desk.keep();
    mount(&["-o", "remount,ro"], desk.state());
    let error = desk.spool().keep(&super::desk::incident());
    let error = error.expect_err("read-only").to_string();
    assert!(error.contains("Read-only file system"), "{error}");
    let (code, text) = desk.exported(&["run", "--once"]);
    assert_eq!(code, Some(125), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(ids.iter().all(|id| receiver.taken()[&id.to_string()] == 1));
    mount(&["-o", "remount,rw"], desk.state());
    assert_eq!(desk.exported(&["run", "--once"]).0, Some(0));
    assert_eq!(receiver.taken().len(), 3);
}

#[test]
fn a_daemon_whose_disk_cannot_be_written_guards_and_says_which_incidents_are_lost() {
    let mut disk = None;
    let service = Service::start_on("", |state| disk = Some(Disk::mount(state, "ro,size=4m")));
    let home = Home::of(NOBODY);
    let leak = || {
        let line = format!("sleep 1; exec {} leak --rate 30M", workload());
        let started = home.attach(&service, &["--memory-max", "96M", "--cmd", &line]);
        service.target_of(NOBODY);
        started.wait().expect_verdict("killed_by_memwatch", 137)
    };
    let ran = leak();
    assert_eq!(ran.report["victims"][0]["comm"], "workload");
    let lost = || service.status()["losses"]["lost_incidents"].as_u64();
    wait_until("the loss", || lost() == Some(1));
    assert!(
        service.said().contains("Read-only file system"),
        "{}",
        service.said()
    );
    mount(&["-o", "remount,rw"], &service.state());
    leak();
    wait_for("an incident", || {
        let kept = service.state().join("incidents");
        kept.is_dir().then(|| service.incidents().pop()).flatten()
    });
    assert_eq!(lost(), Some(1));
    service.stop();
}

#[test]
fn what_the_dead_left_is_counted_as_lost_to_who_cannot_have_it() {
    let receiver = Receiver::new(|_| TAKE);
    let desk = Desk::new(&hook(&receiver));
    let queue = desk.queue("hook");
    let spool = desk.spool();
    // No file has a second name on another disk.
    let dir = queue.dir();
    let _disk = Disk::mount(&dir, "size=256k");
    let record = super::desk::incident();
    let passing = spool.dir().join(format!(".{}.new", record.id));
    fs::write(&passing, record.to_json()).expect("room");
    let (code, text) = desk.exported(&["run", "--once"]);
    assert_eq!(code, Some(0), "{text}");
    let said = "an incident is kept, but lost to the exporter hook: cannot make ";
    assert!(text.contains(said), "{text}");
    assert!(text.contains("cross-device"), "{text}");
    assert_eq!((spool.ids(), queue.lost()), (vec![record.id], 1));
    let (_, list) = desk.exported(&["list"]);
    assert!(list.contains("up to date, 1 lost"), "{list}");
}

#[test]
fn what_is_no_incident_is_put_aside_and_said_and_the_others_are_delivered() {
    let receiver = Receiver::new(|_| TAKE);
    let desk = Desk::new(&hook(&receiver));
    let queue = desk.queue("hook");
    let (torn, empty, whole) = (desk.keep(), desk.keep(), desk.keep());
    let path = |id| queue.dir().join(format!("{id}.json"));
    let bytes = fs::read(path(torn.id)).expect("kept");
    fs::write(path(torn.id), &bytes[..bytes.len() / 2]).expect("room");
    fs::write(path(empty.id), "").expect("room");
    let zeros = uuid_of("01a21d3a-0c2c-729c-8a17-156cce8ef946");
    fs::write(queue.dir().join(&zeros), vec![0; 4096]).expect("room");
    let link = uuid_of("01a21d3a-0c2c-729c-8a17-156cce8ef947");
    std::os::unix::fs::symlink("/etc/passwd", queue.dir().join(&link)).expect("room");
    let newer = uuid_of("01a21d3a-0c2c-729c-8a17-156cce8ef948");
    let later =
        String::from_utf8_lossy(&bytes).replace("\"schema_version\": 1", "\"schema_version\": 99");
    fs::write(queue.dir().join(&newer), later).expect("room");
    for other in ["notes.txt", ".01a21d3a.tmp", "not-a-uuid.json"] {
        fs::write(queue.dir().join(other), "x").expect("room");
    }
    let (code, text) = desk.exported(&["run", "--once"]);
    assert_eq!(code, Some(0), "{text}");
    let taken: Vec<String> = receiver.taken().into_keys().collect();
    assert_eq!(taken, [whole.id.to_string()]);
    assert_eq!(queue.refused(), 5);
    for part in [
        "not an incident record",
        "it is no regular file",
        "the record has schema version 99",
    ] {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
    assert!(queue.dir().join("notes.txt").exists(), "none of ours");
}

fn uuid_of(id: &str) -> String {
    format!("{id}.json")
}

/// The kernel answers EIO to fsync(2), as for a disk that has failed.
fn as_on_a_broken_disk(command: &mut Command) {
    // SAFETY: in the child it makes system calls alone.
    unsafe { command.pre_exec(|| refuse_with(libc::SYS_fsync, libc::EIO)) };
}

#[test]
fn a_disk_that_is_broken_is_said_and_what_is_not_on_it_is_told_to_nobody() {
    let receiver = Receiver::new(|_| TAKE);
    let lab = Lab::new();
    fs::write(lab.file("memwatch.toml"), hook(&receiver)).expect("room");
    let mut command = lab.memwatch(&["--timeout", "300ms", "--", "sleep", "60"]);
    command.env("MEMWATCH_CONFIG", lab.file("memwatch.toml"));
    as_on_a_broken_disk(&mut command);
    let ran = lab.run(command).expect(124);
    assert!(
        ran.err.contains("memwatch: the incident is not kept: "),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("Input/output error"), "{}", ran.err);
    assert!(
        ran.err.contains("ran out of time"),
        "the summary is as ever: {}",
        ran.err
    );
    assert!(receiver.requests().is_empty());
    let left = fs::read_dir(lab.file("state/incidents")).expect("made");
    assert_eq!(left.count(), 0, "nothing is left of it");
}

#[test]
fn a_black_box_that_finds_no_room_takes_none_from_incidents() {
    let desk = Desk::new("");
    let _disk = Disk::mount(desk.state(), "size=256k");
    let error = BlackBox::open(desk.state(), "this boot").expect_err("no room");
    let error = error.to_string();
    assert!(error.contains("No space left on device"), "{error}");
    let kept = desk.spool().keep(&super::desk::incident());
    assert!(kept.is_ok(), "{kept:?}");
}
