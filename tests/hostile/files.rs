//! Reports and configurations at paths where no file can be, or should not be followed.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, chown, symlink},
    },
    path::Path,
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::lab::{Lab, MEMWATCH, Ran};

const NOBODY: u32 = 65534;

fn report_to(lab: &Lab, path: &Path) -> Ran {
    let arguments = [
        "--report".as_ref(),
        path.as_os_str(),
        "--".as_ref(),
        "touch".as_ref(),
        "ran".as_ref(),
    ];
    lab.run(lab.memwatch(&arguments))
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_command_runs() {
    let lab = Lab::new();
    fs::write(lab.file("prey"), "precious").expect("a file");
    symlink("prey", lab.file("link")).expect("a link");
    mkfifo(&lab.file("fifo"), Mode::S_IRWXU).expect("a fifo");
    for (path, why) in [
        (lab.file("link"), "a symbolic link stands there"),
        (lab.file("fifo"), "a fifo stands there"),
        ("/dev/full".into(), "a device stands there"),
        (
            lab.file("missing/report.json"),
            "No such file or directory (os error 2)",
        ),
        (
            lab.file("prey/report.json"),
            "Not a directory (os error 20)",
        ),
        (lab.file(""), "add a file name"),
    ] {
        report_to(&lab, &path).expect_refusal(&[why]);
        assert!(!lab.file("ran").exists(), "{}", path.display());
    }
    assert_eq!(lab.read("prey"), "precious");
}

#[test]
fn a_report_replaces_what_was_there() {
    let lab = Lab::new();
    fs::write(lab.file("report.json"), "before").expect("a file");
    report_to(&lab, &lab.file("report.json")).expect_verdict("finished", 0);
}

#[test]
fn a_user_writes_reports_only_where_that_user_may() {
    let lab = Lab::new();
    let shared = lab.file("shared");
    fs::create_dir(&shared).expect("a directory");
    fs::set_permissions(lab.file(""), fs::Permissions::from_mode(0o755)).expect("ours");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).expect("ours");
    fs::write(shared.join("roots"), "precious").expect("a file");
    fs::write(shared.join("prey"), "precious").expect("a file");
    symlink("prey", shared.join("roots-link")).expect("a link");
    fs::copy(MEMWATCH, lab.file("memwatch")).expect("a copy that nobody may run");
    for (path, why) in [
        (shared.join("roots"), "belongs to uid 0"),
        (shared.join("roots-link"), "a symbolic link stands there"),
        (lab.file("report.json"), "Permission denied (os error 13)"),
    ] {
        let mut command = lab.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .arg(lab.file("memwatch"))
            .args(["attach", "--report"])
            .arg(&path)
            .args(["--", "true"]);
        lab.run(command).expect_refusal(&[why]);
    }
    assert_eq!(
        fs::read_to_string(shared.join("roots")).expect("ours"),
        "precious"
    );
}

#[test]
fn a_link_of_somebody_elses_on_the_way_to_a_report_is_not_followed() {
    let lab = Lab::new();
    fs::create_dir(lab.file("real")).expect("a directory");
    symlink("real", lab.file("way")).expect("a link");
    std::os::unix::fs::lchown(lab.file("way"), Some(NOBODY), None).expect("root");
    report_to(&lab, &lab.file("way/report.json")).expect_refusal(&["belongs to uid 65534"]);
}

#[test]
fn a_full_disk_costs_the_report_and_not_the_verdict() {
    let lab = Lab::new();
    let disk = lab.file("disk");
    fs::create_dir(&disk).expect("a directory");
    let line = "mount -t tmpfs -o size=64k tmpfs disk && exec \"$0\" attach --report disk/report.json --cmd 'cat /dev/zero > disk/filler; exit 3'";
    let mut unshare = lab.command("unshare");
    unshare.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        line,
        MEMWATCH,
    ]);
    let ran = lab.run(unshare).expect(3);
    assert!(
        ran.err
            .contains("not written: No space left on device (os error 28)"),
        "{}",
        ran.err
    );
    assert_eq!(
        fs::read_dir(&disk).expect("ours").count(),
        0,
        "it was mounted in private"
    );
}

#[test]
fn a_configuration_that_is_none_is_refused_in_one_line() {
    let lab = Lab::new();
    fs::write(lab.file("huge"), vec![b'#'; (1 << 20) + 1]).expect("a file");
    fs::write(lab.file("malformed"), "[attach\n").expect("a file");
    fs::write(lab.file("binary"), b"[attach]\nreport = \"\xff\"\n").expect("a file");
    fs::write(lab.file("escape"), "[attach]\n\"\\u001b[2J\" = 1\n").expect("a file");
    mkfifo(&lab.file("fifo"), Mode::S_IRWXU).expect("a fifo");
    fs::write(lab.file("unreadable"), "").expect("a file");
    for (path, why) in [
        (lab.file("huge"), "larger than 1048576 bytes"),
        (lab.file("malformed"), ":1:"),
        (lab.file("binary"), "not UTF-8"),
        (lab.file("escape"), ":2:"),
        (lab.file("fifo"), "a fifo"),
        (lab.file(""), "a directory"),
        ("/dev/zero".into(), "a device"),
        (
            lab.file("missing"),
            "No such file or directory (os error 2)",
        ),
        ("/proc/self/mem".into(), ""),
        (
            OsStr::from_bytes(b"\xff\n\x1b[2J").into(),
            "No such file or directory (os error 2)",
        ),
    ] {
        let arguments = [
            "--config".as_ref(),
            path.as_os_str(),
            "--".as_ref(),
            "true".as_ref(),
        ];
        lab.run(lab.memwatch(&arguments)).expect_refusal(&[why]);
    }
}

#[test]
fn an_unreadable_configuration_says_so_and_an_empty_one_says_nothing() {
    let lab = Lab::new();
    fs::copy(MEMWATCH, lab.file("memwatch")).expect("a copy");
    fs::set_permissions(lab.file(""), fs::Permissions::from_mode(0o755)).expect("ours");
    fs::write(lab.file("secret"), "").expect("a file");
    fs::set_permissions(lab.file("secret"), fs::Permissions::from_mode(0o600)).expect("ours");
    chown(lab.file("secret"), Some(0), Some(0)).expect("root");
    let mut command = lab.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
        .arg(lab.file("memwatch"))
        .args(["attach", "--config", "secret", "--", "true"]);
    lab.run(command)
        .expect_refusal(&["secret", "Permission denied (os error 13)", "--config"]);

    fs::write(lab.file("empty"), "").expect("a file");
    lab.attach(&["--config", "empty", "--", "true"])
        .expect_verdict("finished", 0);
}
