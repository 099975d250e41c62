//! memwatch between a person at a terminal and the command: keys, signals, job control. Needs root, cgroups
//! and pseudo terminals.

use std::{
    fs,
    io::{Read, Write},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use lab::{Lab, MEMWATCH, is_alive, python, wait_until};
use pty::Pty;

#[path = "support/lab.rs"]
mod lab;
#[path = "support/pty.rs"]
mod pty;

/// Puts a script where a line can name it: its words must not be on the screen when it is typed.
fn script(lab: &Lab, text: &str) {
    fs::write(lab.file("script"), text).expect("a script");
}

/// For bash: dash waits for its children's exec in a way that no stop reaches (vfork(2)).
const TICK: &str = "while :; do echo tick; sleep 0.05; done";

/// The states of all processes in the target.
fn states(lab: &Lab) -> String {
    let pids = memwatch::host::cgroup::pids(&lab.target());
    let state = |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    };
    pids.into_iter().filter_map(state).collect()
}

fn all_stopped(lab: &Lab) -> bool {
    let states = states(lab);
    !states.is_empty() && states.chars().all(|state| state == 'T')
}

#[test]
fn ctrl_c_reaches_the_command_once_and_the_code_is_the_commands() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    script(
        &lab,
        "trap 'n=$((n+1))' INT; echo ready; until [ \"$n\" ]; do sleep 0.05; done; sleep 0.7; echo \"got $n\"; exit 42",
    );
    pty.line("$MW attach -q -- bash script; echo code=$?");
    pty.see("ready");
    pty.ctrl_c();
    pty.see("got 1");
    pty.see("code=42");
}

#[test]
fn what_the_command_sends_to_its_group_reaches_it_once() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    let count =
        "trap 'n=$((n+1))' USR1 TERM; kill -USR1 0; sleep 0.3; kill 0; sleep 0.3; echo \"got $n\"";
    script(&lab, count);
    pty.line("$MW attach -q -- bash script; echo code=$?");
    pty.see("got 2");
    pty.see("code=0");
}

#[test]
fn keys_that_end_a_command_end_memwatch_after_it() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    script(&lab, "ulimit -c 0; echo ready; exec sleep 300");
    for (key, code) in [
        (Pty::ctrl_c as fn(&mut Pty), 130),
        (Pty::ctrl_backslash, 131),
    ] {
        pty.line("$MW attach -- sh script; echo code=$?");
        pty.see("ready");
        key(&mut pty);
        pty.see("memwatch: sh was ended by a signal");
        pty.see(&format!("code={code}"));
    }
}

#[test]
fn ctrl_z_stops_both_and_fg_and_bg_continue_both() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    script(&lab, TICK);
    pty.line("$MW attach -q -- bash script");
    pty.see("tick");
    for continued in ["fg", "bg"] {
        pty.ctrl_z();
        pty.see_stopped();
        wait_until("stop", || all_stopped(&lab));
        pty.line("jobs");
        pty.see_stopped();
        pty.line(continued);
        pty.see("tick\r\ntick");
    }
    // In one line: between two it tells of who has ended, and forgets it.
    pty.key(b"kill %1; wait %1; echo code=$?\n");
    pty.see("code=143");
}

#[test]
fn continuing_memwatch_alone_continues_the_command() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    // One process: its children would stay stopped, with memwatch as without.
    let tick = "import time\nwhile True:\n    print('tick', flush=True)\n    time.sleep(0.05)\n";
    script(&lab, tick);
    pty.line(&format!("$MW attach -q -- {} script", python()));
    pty.see("tick");
    pty.ctrl_z();
    pty.see_stopped();
    pty.line("jobs -p > pid; command kill -CONT $(cat pid)");
    pty.see("tick\r\ntick");
    pty.key(b"command kill -TERM $(cat pid); wait %1; echo code=$?\n");
    pty.see("code=143");
}

#[test]
fn ctrl_c_ends_a_frozen_command() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    script(&lab, TICK);
    pty.line("$MW attach -q -- bash script; echo code=$?");
    pty.see("tick");
    fs::write(lab.target().join("cgroup.freeze"), "1").expect("freeze");
    pty.ctrl_c();
    pty.see("code=130");
}

#[test]
fn a_terminal_that_is_closed_hangs_up_on_the_command() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    script(
        &lab,
        "trap 'echo hup >> heard; exit' HUP; echo ready; while :; do sleep 0.05; done",
    );
    pty.line("$MW attach -- bash script");
    pty.see("ready");
    let mut shell = pty.close();
    wait_until("hangup", || lab.read("heard").contains("hup"));
    wait_until("end", || lab.pair.pids().is_empty());
    shell.wait().expect("ours");
}

#[test]
fn the_command_sees_the_size_of_the_window_change() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    script(
        &lab,
        "trap 'stty size; exit 0' WINCH; stty size; while :; do sleep 0.05; done",
    );
    pty.line("$MW attach -q -- bash script; echo code=$?");
    pty.see("24 80");
    pty.resize(40, 100);
    pty.see("40 100");
    pty.see("code=0");
}

const RAW: &str = "\
import sys, termios, tty
before = termios.tcgetattr(0)
tty.setraw(0)
print('raw', end='\\r\\n', flush=True)
while (key := sys.stdin.buffer.raw.read(1)) != b'q':
    print('<%02x>' % key[0], end='', flush=True)
termios.tcsetattr(0, termios.TCSADRAIN, before)
";

#[test]
fn a_program_that_draws_gets_every_key_and_no_line_of_memwatchs() {
    let lab = Lab::new();
    script(&lab, RAW);
    let mut drawing = lab.memwatch(&["--", &python(), "script"]);
    drawing.env("TERM", "xterm");
    let mut drawing = Pty::start(drawing);
    let before = drawing.mode();
    let mut plain = Pty::start(lab.memwatch(&["--", "sleep", "300"]));
    drawing.see("raw\r\n");
    assert_ne!(drawing.mode(), before);

    // The line of a long run comes after half a minute, to both or to the one that it does not disturb.
    let start = Instant::now();
    plain.see("memwatch");
    assert!(
        start.elapsed() > Duration::from_secs(20),
        "{:?}",
        plain.screen()
    );
    thread::sleep(Duration::from_secs(1));
    drawing.key(b"\x03\x1a\x1c\x04\x11\x13\x7f\r\nq");
    drawing.see("memwatch: ");
    let expected = "raw\r\n<03><1a><1c><04><11><13><7f><0d><0a>memwatch: ";
    assert!(
        drawing.screen().starts_with(expected),
        "{:?}",
        drawing.screen()
    );
    assert_eq!(drawing.end(), Some(0));
    assert_eq!(drawing.mode(), before);
    plain.ctrl_c();
    assert_eq!(plain.end(), Some(130));
}

#[test]
fn a_pager_works() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    let text: String = (1..200).map(|n| format!("line {n}\n")).collect();
    fs::write(lab.file("text"), text).expect("a text");
    pty.line("TERM=xterm $MW attach -q -- less text; echo code=$?");
    pty.see("line 1");
    pty.key(b"G");
    pty.see("line 199");
    pty.key(b"q");
    pty.see("code=0");
}

#[test]
fn a_command_in_the_foreground_reads_the_terminal() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    pty.line("$MW attach -q -- cat; echo code=$?");
    lab.target();
    pty.line("hello");
    pty.see("hello\r\n");
    pty.ctrl_d();
    pty.see("code=0");
}

#[test]
fn a_command_in_the_background_is_stopped_when_it_reads_the_terminal() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    pty.line("$MW attach -q -- cat &");
    wait_until("stop", || all_stopped(&lab));
    pty.line("sleep 0.3; jobs");
    pty.see_stopped();
    pty.line("fg");
    pty.line("hello");
    pty.see("hello\r\n");
    pty.ctrl_d();
    pty.line("echo code=$?");
    pty.see("code=0");
}

#[test]
fn memwatch_writes_from_the_background_without_being_stopped() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    pty.line("stty tostop; $MW attach -- true &");
    pty.see("memwatch: true finished");
    pty.line("wait; jobs; echo done");
    pty.see("done");
    assert!(!pty.screen().contains("Stopped"), "{:?}", pty.screen());
}

#[test]
fn a_shell_inside_has_jobs_of_its_own() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    let outer = pty.foreground();
    script(&lab, TICK);
    pty.line("PS1='inner> ' $MW attach -q --cmd 'exec bash --norc --noprofile --noediting -i'; echo code=$?");
    pty.see("inner> ");
    let inner = pty.foreground();
    assert_ne!(inner, outer);
    assert!(
        memwatch::host::cgroup::pids(&lab.target()).contains(&u32::try_from(inner).expect("a pid"))
    );
    pty.line("bash script");
    pty.see("tick");
    let job = pty.foreground();
    assert!(job != inner && job != outer);
    pty.ctrl_z();
    pty.see("Stopped");
    pty.see("inner> ");
    assert_eq!(pty.foreground(), inner);
    pty.line("fg");
    pty.see("tick");
    pty.ctrl_c();
    pty.see("inner> ");
    pty.line("exit 7");
    pty.see("code=7");
    pty.see("> ");
    assert_eq!(pty.foreground(), outer);
}

#[test]
fn at_an_adopted_process_keys_are_memwatchs_own() {
    let lab = Lab::new();
    let mut pty = Pty::shell(&lab);
    pty.line("sleep 300 & echo started");
    pty.see("started");
    pty.line("$MW attach --pid $!");
    pty.see("was adopted");
    let adopted = memwatch::host::cgroup::pids(&lab.target());
    pty.ctrl_z();
    pty.see_stopped();
    assert_eq!(states(&lab), "S", "the adopted one is not stopped");
    let shell = pty.foreground();
    pty.line("fg");
    wait_until("its turn", || pty.foreground() != shell);
    pty.ctrl_c();
    pty.see("run");
    pty.line("echo code=$?");
    pty.see("code=0");
    assert!(adopted.into_iter().all(is_alive));
}

#[test]
fn without_a_terminal_there_is_none() {
    let lab = Lab::new();
    let mut command = lab.command("setsid");
    command.args([
        "-w",
        MEMWATCH,
        "attach",
        "-q",
        "--cmd",
        "tty; ps -o tty= -p $$",
    ]);
    let ran = lab.run(command).expect(0);
    assert_eq!(ran.text().replace(' ', ""), "notatty\n?\n");
}

#[test]
fn a_terminal_that_takes_nothing_keeps_no_time_from_being_up() {
    let lab = Lab::new();
    let (mut reader, mut writer) = std::io::pipe().expect("descriptors");
    // SAFETY: asks for a number.
    let room = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ) };
    writer
        .write_all(&vec![b'.'; usize::try_from(room).expect("a size")])
        .expect("just so much");
    let mut command = lab.memwatch(&[
        "-v",
        "--timeout",
        "1s",
        "--cmd",
        "echo $$ > pid; exec sleep 300",
    ]);
    let mut memwatch = command.stderr(writer).spawn().expect("memwatch");
    drop(command);
    wait_until("command", || lab.read("pid").ends_with('\n'));
    let pid: u32 = lab.read("pid").trim().parse().expect("a pid");
    wait_until("the end of its time", || !is_alive(pid));
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("text");
    let status = memwatch.wait().expect("ours");
    assert_eq!(status.code(), Some(124), "{said}");
    let said = said.trim_start_matches('.');
    assert!(said.starts_with("memwatch: guarding"), "{said}");
    assert!(said.contains("ran out of time"), "{said}");
}
