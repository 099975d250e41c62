//! `memwatch top` on real terminals: keys, sizes, job control, and the terminal given back whatever ends it. The
//! daemon is one that only answers; with the real one `daemon`'s tests have it. Needs root and pseudo terminals.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use daemon::Daemon;
use lab::{Lab, MEMWATCH, PATIENCE, is_alive, wait_until};
use nix::sys::termios::LocalFlags;
use pty::Pty;
use seen::Seen;

mod cgroups {
    pub(crate) use super::lab::Pair;
}
#[path = "control/daemon.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "it is control's; a part of it will do"
)]
mod daemon;
#[path = "support/lab.rs"]
mod lab;
#[path = "support/pty.rs"]
mod pty;
#[path = "support/seen.rs"]
mod seen;
#[path = "support/users.rs"]
mod users;

const ENTER_SCREEN: &str = "\x1b[?1049h";
const LEAVE_SCREEN: &str = "\x1b[?1049l";
/// The end of the daemon's one target.
const TARGET: &str = "2db.scope";

fn top(socket: &Path) -> Command {
    let mut top = Command::new(MEMWATCH);
    top.args(["top", "--interval", "100ms", "--socket"])
        .arg(socket)
        .env("TERM", "xterm-256color")
        .env("LC_ALL", "C.UTF-8")
        .env_remove("NO_COLOR");
    top
}

/// With its first picture drawn.
fn drawn(socket: &Path) -> Seen {
    let mut seen = Seen::start(top(socket));
    seen.see(TARGET);
    assert!(seen.screen().alternate_screen());
    seen
}

#[test]
fn keys_lead_through_it_and_q_gives_the_terminal_back() {
    let daemon = Daemon::start();
    let mut seen = drawn(&daemon.socket());
    assert!(!seen.pty.mode().local_flags.contains(LocalFlags::ICANON));
    for (keys, text) in [
        (&b"\x1bOP"[..], "this page"),
        (b"q", "HISTORY  PROC"),
        (b"\r", "nobody (uid 65534)"),
        (b"\x1b", "HISTORY  PROC"),
        (b"/x2d", "Search (F3 next): x2d_"),
        (b"\x1b", "F1Help"),
        (b"\\none", "None of 1 has none in its name"),
        (b"\r", "filter: none"),
        (b"\x1b", TARGET),
        (b"\x1b[17~", "> pressure"),
        (b"\x1b[B\r", "HISTORY  PROC"),
        (b"\x1b[20~", "signals nobody"),
    ] {
        seen.pty.key(keys);
        seen.see(text);
    }
    seen.pty.key(b"\x1b[21~");
    seen.ends(0);
}

#[test]
fn every_size_is_drawn_as_soon_as_it_is_there() {
    let daemon = Daemon::start();
    let mut seen = drawn(&daemon.socket());
    for (rows, columns, text) in [
        (10, 40, "SOME  FULL TARGET"),
        (3, 15, "too small"),
        (50, 200, "GUARD  SINCE TARGET"),
        (1, 1, "t"),
        (24, 80, "HISTORY  PROC"),
    ] {
        seen.resize(rows, columns);
        seen.see(text);
    }
    seen.pty.key(b"q");
    seen.ends(0);
}

#[test]
fn signals_end_it_with_the_terminal_given_back() {
    let daemon = Daemon::start();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let mut seen = drawn(&daemon.socket());
        seen.signal(signal);
        seen.ends(128 + signal);
    }
    let mut seen = drawn(&daemon.socket());
    seen.pty.ctrl_c();
    seen.ends(0);
}

/// What [`a_panic_gives_the_terminal_back`] starts: no test by itself.
#[test]
#[ignore = "panics; started by another test"]
fn a_program_that_panics_while_it_draws() {
    let _screen = memwatch::cli::top::Screen::enter().expect("a terminal");
    panic!("a bug");
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_told() {
    let mut panicking = Command::new(std::env::current_exe().expect("this program"));
    panicking.args(["--ignored", "--exact", "--nocapture"]);
    panicking.arg("a_program_that_panics_while_it_draws");
    panicking.env("TERM", "xterm-256color");
    let mut seen = Seen::start(panicking);
    let before = seen.pty.mode();
    seen.pty.see(ENTER_SCREEN);
    seen.pty.see(LEAVE_SCREEN);
    seen.pty.see("a bug");
    seen.ends(101);
    assert_eq!(seen.pty.mode(), before);
}

#[test]
fn a_terminal_that_is_closed_ends_it() {
    let daemon = Daemon::start();
    let mut child = drawn(&daemon.socket()).pty.close();
    let pid = child.id();
    wait_until("its end", || !is_alive(pid));
    child.wait().expect("ours");
}

#[test]
fn a_terminal_that_takes_nothing_keeps_no_signal_from_ending_it() {
    let daemon = Daemon::start();
    let mut seen = drawn(&daemon.socket());
    // More drawings than the terminal has room for, which nobody reads, until it waits to write.
    let pid = seen.pty.child.id();
    let writes = format!("{} 0x1 ", libc::SYS_write);
    let waits = || {
        fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|it| it.starts_with(&writes))
    };
    let until = Instant::now() + PATIENCE;
    while !(waits() && waits()) {
        assert!(Instant::now() < until, "it never has to wait");
        seen.pty.key(b"\x0c");
        thread::sleep(Duration::from_millis(5));
    }
    seen.signal(libc::SIGTERM);
    let status = seen.pty.child.wait().expect("ours");
    assert_eq!(status.code(), Some(128 + libc::SIGTERM));
    seen.is_cooked();
}

#[test]
fn ctrl_z_gives_the_shell_the_terminal_and_fg_comes_back() {
    let lab = Lab::new();
    let daemon = Daemon::start();
    let mut shell = lab.command("bash");
    shell.args(["--norc", "--noprofile", "--noediting", "-i"]);
    shell
        .env("PS1", "ready> ")
        .env("TERM", "xterm")
        .env("LC_ALL", "C.UTF-8");
    let mut seen = Seen::start(shell);
    seen.see("ready>");
    let socket = daemon.socket();
    seen.pty
        .key(format!("{MEMWATCH} top --socket {}; echo ended\n", socket.display()).as_bytes());
    for _ in 0..2 {
        seen.see(TARGET);
        assert!(seen.screen().alternate_screen());
        seen.pty.ctrl_z();
        seen.see("Stopped");
        assert!(!seen.screen().alternate_screen());
        seen.pty.key(b"clear; fg\n");
    }
    seen.see(TARGET);
    seen.pty.key(b"q");
    seen.see("ready>");
    seen.pty.key(b"echo a''fter\n");
    seen.see("after");
    seen.is_cooked();
}

#[test]
fn a_daemon_that_goes_is_missed() {
    let mut daemon = Daemon::start();
    let mut seen = drawn(&daemon.socket());
    daemon.stop();
    seen.see("NO ANSWER for");
    seen.see("systemctl start memwatch");
    seen.see(TARGET);
    seen.pty.key(b"q");
    seen.ends(0);
}

#[test]
fn without_a_daemon_or_a_terminal_it_says_what_to_do_and_draws_nothing() {
    let daemon = Daemon::start();
    let nowhere = daemon.socket().with_extension("none");
    let mut pty = Pty::start(top(&nowhere));
    pty.see("no daemon listens at");
    pty.see("systemctl start memwatch");
    assert_eq!(pty.end(), Some(125));
    assert!(!pty.screen().contains(ENTER_SCREEN));

    let mut piped = top(&daemon.socket());
    let piped = piped.stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8_lossy(&piped.stderr);
    assert_eq!(piped.status.code(), Some(125));
    assert!(
        said.contains("standard output is none") && said.contains("memwatch status --watch"),
        "{said}"
    );
    assert!(piped.stdout.is_empty());

    for term in [None, Some(""), Some("dumb")] {
        let mut dumb = top(&daemon.socket());
        match term {
            None => dumb.env_remove("TERM"),
            Some(term) => dumb.env("TERM", term),
        };
        let mut pty = Pty::start(dumb);
        pty.see("TERM=xterm-256color");
        assert_eq!(pty.end(), Some(125));
        assert!(!pty.screen().contains(ENTER_SCREEN));
    }
}

#[test]
fn colors_are_used_unless_told_otherwise() {
    let daemon = Daemon::start();
    let has_color = |seen: &Seen| {
        let screen = seen.screen();
        let mut cells = (0..24).flat_map(|row| (0..80).filter_map(move |at| screen.cell(row, at)));
        cells.any(|cell| (cell.fgcolor(), cell.bgcolor()) != Default::default())
    };
    for (no_color, expected) in [("", true), ("1", false)] {
        let mut command = top(&daemon.socket());
        command.env("NO_COLOR", no_color);
        let mut seen = Seen::start(command);
        for (keys, text) in [(&b""[..], "F10Quit"), (b"\r", "guarded"), (b"q", "F10Quit")] {
            seen.pty.key(keys);
            seen.see(text);
            assert_eq!(has_color(&seen), expected, "{text}");
        }
        seen.pty.key(b"q");
        seen.ends(0);
    }
}
