//! Programs and processes that are named to deceive whoever reads about them.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt};

use super::lab::{Lab, Ran, python, workload};

/// A hog that calls itself `argv[1]`, in bytes as hexadecimal digits, and tells its pid.
const HOG: &str = "\
import ctypes, os, sys, time
name = bytes.fromhex(sys.argv[1])
if os.fork() == 0:
    ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
    open('culprit', 'w').write(str(os.getpid()))
    held = []
    while True:
        held.append(bytearray(b'x') * (2 << 20))
        time.sleep(0.02)
os.wait()
";

/// Nothing that a terminal would obey, or that would look like a line of memwatch's own.
fn assert_harmless(said: &str) {
    let harmless = |c: char| c == '\n' || !c.is_control();
    assert!(said.chars().all(harmless), "{said:?}");
    assert!(
        said.lines()
            .all(|line| line.starts_with("memwatch: ") || line == "memwatch:"),
        "{said}"
    );
}

fn victim_of(ran: &Ran) -> (String, String) {
    let victims = ran.report["victims"].as_array().expect("a list");
    assert_eq!(victims.len(), 1, "{victims:#?}");
    (
        victims[0]["pid"].to_string(),
        victims[0]["comm"].as_str().expect("text").to_owned(),
    )
}

#[test]
fn a_hog_is_found_and_told_of_whatever_it_calls_itself() {
    let names: [(&[u8], &str); 5] = [
        (b") S 1 (", ") S 1 ("),
        (b"a\nmemwatch: b", "a\\nmemwatch: b"),
        (b"\x1b[2J\x1b[31m", "\\x1b[2J\\x1b[31m"),
        (b"\xff\xfe\x80 \xc3", "\\xff\\xfe\\x80 \\xc3"),
        (b"\\n\xe2\x80\xaex", "\\\\n\\u{202e}x"),
    ];
    let lab = Lab::new();
    fs::write(lab.file("hog.py"), HOG).expect("a script");
    for (name, told) in names {
        let digits: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let ran = lab.attach(&["--memory-max", "100M", "--", &python(), "hog.py", &digits]);
        let ran = ran.expect_verdict("finished_with_kills", 0);
        assert_eq!(victim_of(&ran), (lab.read("culprit"), told.to_owned()));
        assert!(ran.err.contains(told), "{}", ran.err);
        assert_harmless(&ran.err);
    }
}

#[test]
fn a_program_is_told_of_whatever_its_file_is_called() {
    let lab = Lab::new();
    for name in [&b"x\n\x1b[2J"[..], b"\xff\xfe", b") R 1", b"a\\n"] {
        let path = lab.file("").join(OsStr::from_bytes(name));
        fs::copy(workload(), &path).expect("a copy");
        let arguments = [
            "--memory-max".as_ref(),
            "100M".as_ref(),
            "--".as_ref(),
            path.as_os_str(),
        ];
        let mut command = lab.reporting(&arguments);
        command.args(["leak", "--rate", "100M"]);
        let ran = lab.run(command).expect_verdict("killed_by_memwatch", 137);
        assert_harmless(&ran.err);
        let program = ran.report["command"]["program"].as_str().expect("text");
        assert!(!program.contains(|c: char| c.is_control()), "{program:?}");
        fs::remove_file(&path).expect("ours");
    }
}

#[test]
fn what_cannot_be_started_is_named_harmlessly() {
    let lab = Lab::new();
    let program = OsStr::from_bytes(b"no\n\x1b[2J\xffsuch");
    let arguments = ["--".as_ref(), program];
    assert_harmless(&lab.attach(&arguments).expect(127).err);
    let group = [
        OsStr::new("--cgroup"),
        OsStr::from_bytes(b"/sys/fs/cgroup/unified/\x1b[2J\n"),
    ];
    assert_harmless(&lab.attach(&group).expect(125).err);
}

#[test]
fn a_cgroup_with_escapes_in_its_name_is_told_of_harmlessly() {
    let lab = Lab::new();
    let pair = lab.pair.below("x\x1b[2Jy", "100M");
    let mut inside = lab.command("sleep");
    inside.arg("1");
    pair.confine(&mut inside);
    let mut inside = inside.spawn().expect("sleep");
    let arguments = [OsStr::new("--cgroup"), pair.v2.as_os_str()];
    let memwatch = lab.start(lab.reporting(&arguments));
    inside.wait().expect("ours");
    assert_harmless(&memwatch.wait().expect_verdict("finished", 0).err);
}

#[test]
fn long_and_many_arguments_and_odd_environments_reach_the_command() {
    let lab = Lab::new();
    let long = "x".repeat(100 << 10);
    let mut arguments = vec![
        "-q",
        "--with-arguments",
        "--",
        "sh",
        "-c",
        "echo ${#1} $#",
        "sh",
        &long,
    ];
    arguments.extend(std::iter::repeat_n("a", 5000));
    let ran = lab.attach(&arguments).expect_verdict("finished", 0);
    assert_eq!(ran.text(), format!("{} 5001\n", 100 << 10));

    let mut odd = lab.memwatch(&["-q", "--", "env"]);
    odd.env(OsStr::from_bytes(b"O\xffD"), OsStr::from_bytes(b"\xfe\n"))
        .env("SHELL", "");
    let out = lab.run(odd).expect(0).out;
    let expected = b"O\xffD=\xfe\n";
    assert!(out.windows(expected.len()).any(|part| part == expected));
}
