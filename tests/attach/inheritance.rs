//! What a command finds under memwatch is what it would find without.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use super::lab::{Lab, MEMWATCH};

/// Programs that print what they found. No shell where that would change it.
const PROBES: &[&[&str]] = &[
    &[
        "grep",
        "-E",
        "^(Umask|Uid|Gid|Groups|Sig[PBIC]|Shd|Cap|NoNew|Seccomp:|Cpus_allowed:)",
        "/proc/self/status",
    ],
    &[
        "cat",
        "/proc/self/limits",
        "/proc/self/oom_score_adj",
        "/proc/self/timerslack_ns",
    ],
    // Process group, session, terminal; priority, nice, realtime priority, policy.
    &[
        "awk",
        "{ print $5, $6, $7, $18, $19, $40, $41 }",
        "/proc/self/stat",
    ],
    &["readlink", "/proc/self/cwd"],
    &["env"],
    // find(1) has its own descriptors in /proc.
    &[
        "find",
        "/proc/self/fd",
        "-type",
        "l",
        "-not",
        "-lname",
        "/proc/*",
        "-printf",
        "%f %l\n",
    ],
];

/// What the probes print when they are started by `prepare`d memwatch, and without it.
fn with_and_without(prepare: impl Fn(&mut Command)) -> [Vec<String>; 2] {
    let lab = Lab::new();
    let print = |mut command: Command| {
        prepare(&mut command);
        lab.run(command).expect(0).text()
    };
    let direct = PROBES.iter().map(|probe| {
        let mut command = lab.command(probe[0]);
        command.args(&probe[1..]);
        print(command)
    });
    let guarded = PROBES.iter().map(|probe| {
        let mut arguments = vec!["-q", "--no-pytest", "--"];
        arguments.extend(*probe);
        let printed = print(lab.memwatch(&arguments));
        // The one thing by which it may know.
        printed
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("MEMWATCH_ATTACHED="))
            .collect()
    });
    [guarded.collect(), direct.collect()]
}

#[test]
fn a_command_finds_what_it_would_find_without_memwatch() {
    let [guarded, direct] = with_and_without(|_| ());
    assert_eq!(guarded, direct);
}

#[test]
fn whatever_was_changed_for_memwatch_reaches_the_command() {
    let [guarded, direct] = with_and_without(|command| {
        command
            .env("ODD", "a\nb=c")
            .env_remove("HOME")
            .arg0("renamed");
        // SAFETY: system calls on this process's own state, with valid arguments.
        unsafe { command.pre_exec(change_everything) };
    });
    assert_eq!(guarded, direct);
    assert!(
        direct[0].contains("Umask:\t0027"),
        "the probe sees changes: {}",
        direct[0]
    );
    assert!(
        direct[1].contains("321"),
        "the probe sees changes: {}",
        direct[1]
    );
}

fn change_everything() -> io::Result<()> {
    // SAFETY: plain numbers, and structures that live through their calls.
    unsafe {
        libc::umask(0o027);
        libc::nice(3);
        for ignored in [
            libc::SIGHUP,
            libc::SIGPIPE,
            libc::SIGCHLD,
            libc::SIGUSR1,
            libc::SIGTSTP,
        ] {
            libc::signal(ignored, libc::SIG_IGN);
        }
        let mut mask = std::mem::zeroed();
        libc::sigemptyset(&mut mask);
        libc::sigaddset(&mut mask, libc::SIGUSR2);
        libc::sigaddset(&mut mask, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_SETMASK, &mask, std::ptr::null_mut());
        let soft = |now, most| libc::rlimit {
            rlim_cur: now,
            rlim_max: most,
        };
        libc::setrlimit(libc::RLIMIT_NOFILE, &soft(300, 3000));
        libc::setrlimit(libc::RLIMIT_CORE, &soft(0, 0));
        libc::setrlimit(libc::RLIMIT_STACK, &soft(4 << 20, 64 << 20));
        let batch = libc::sched_param { sched_priority: 0 };
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &batch);
        let mut first: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut first);
        libc::sched_setaffinity(0, size_of_val(&first), &first);
        libc::prctl(libc::PR_SET_TIMERSLACK, 70_000);
        let adj = libc::open(
            c"/proc/self/oom_score_adj".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        );
        libc::write(adj, b"321".as_ptr().cast(), 3);
        // Two more descriptors for the command.
        libc::dup2(libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY), 77);
        Ok(())
    }
}

#[test]
fn closed_streams_stay_closed() {
    let script = "exec 9>found; for fd in 0 1 2; do test -e /proc/$$/fd/$fd && echo $fd >&9; done; echo mine > file";
    for (closed, open) in [
        (&[0][..], "1\n2\n"),
        (&[1], "0\n2\n"),
        (&[2], "0\n1\n"),
        (&[0, 1, 2], ""),
    ] {
        let lab = Lab::new();
        let mut command = lab.memwatch(&["--", "sh", "-c", script]);
        // SAFETY: closes what the command is not to have.
        unsafe {
            command.pre_exec(move || {
                for &fd in closed {
                    libc::close(fd);
                }
                Ok(())
            })
        };
        lab.run(command).expect(0);
        assert_eq!(lab.read("found"), open);
        assert_eq!(
            lab.read("file"),
            "mine\n",
            "memwatch writes nowhere else instead"
        );
    }
}

#[test]
fn streams_pass_through_byte_for_byte() {
    let lab = Lab::new();
    let mut data = vec![0u8; 8 << 20];
    let mut state = 1u64;
    for byte in &mut data {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    let mut command = lab.memwatch(&["-q", "--cmd", "tee /dev/stderr"]);
    command.stdin(Stdio::piped());
    let mut started = lab.start(command);
    started
        .child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(&data)
        .expect("a reader");
    let ran = started.wait().expect(0);
    assert!(ran.out == data, "standard output differs");
    assert!(
        std::fs::read(lab.file("err")).expect("standard error") == data,
        "standard error differs"
    );
}

#[test]
fn a_reader_that_goes_away_ends_the_command_as_ever() {
    let lab = Lab::new();
    let line = format!("{MEMWATCH} attach -- yes | head -1; echo ${{PIPESTATUS[0]}}");
    let mut bash = lab.command("bash");
    bash.args(["-c", &line]);
    let ran = lab.run(bash).expect(0);
    assert_eq!(ran.text(), "y\n141\n", "128 and SIGPIPE's 13");
}

#[test]
fn a_standard_error_that_nobody_reads_does_not_end_memwatch() {
    let lab = Lab::new();
    for arguments in [
        &["-vv", "--", "sh", "-c", "exit 7"][..],
        &["--pid", "4194305"],
        &["--config", "/none", "--", "true"],
    ] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let full = File::options()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full");
        for stderr in [Stdio::from(writer), Stdio::from(full)] {
            let status = lab
                .memwatch(arguments)
                .stderr(stderr)
                .status()
                .expect("memwatch");
            let code = if arguments.contains(&"sh") { 7 } else { 125 };
            assert_eq!(status.code(), Some(code), "{arguments:?}");
        }
    }
}

#[test]
fn with_the_plugin_the_environment_has_so_many_variables_more_and_no_other_is_changed() {
    let lab = Lab::new();
    let environment = |mut command: Command| {
        command.env_remove("PYTHONPATH").env_remove("TOX_OVERRIDE");
        let text = lab.run(command).expect(0).text();
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let direct = environment(lab.command("env"));
    let mut guarded = environment(lab.memwatch(&["-q", "--", "env"]));
    let run = guarded
        .remove("MEMWATCH_RUN")
        .expect("it is told where its run is");
    assert_eq!(guarded.remove("PYTHONPATH"), Some(format!("{run}/lib")));
    assert!(guarded.remove("MEMWATCH_ATTACHED").is_some());
    assert!(guarded.remove("TOX_OVERRIDE").is_some());
    assert_eq!(guarded, direct);
}
