//! A terminal of the test's own with a program on it: what a person would type goes in, what they would
//! see comes out.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::CommandExt,
    },
    process::{Child, Command},
    time::Instant,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    sys::termios::{Termios, tcgetattr},
    unistd::tcgetpgrp,
};

use super::lab::{Lab, MEMWATCH, PATIENCE};

const CTRL_C: &[u8] = b"\x03";
const CTRL_D: &[u8] = b"\x04";
const CTRL_Z: &[u8] = b"\x1a";
const CTRL_BACKSLASH: &[u8] = b"\x1c";

/// A person at a terminal.
pub(crate) struct Pty {
    master: File,
    pub(crate) child: Child,
    seen: Vec<u8>,
    /// What was seen up to here has been told of.
    told: usize,
}

impl Pty {
    /// Starts `command` as the leader of a session whose terminal this is.
    pub(crate) fn start(mut command: Command) -> Self {
        let size = winsize(24, 80);
        let pty = openpty(&size, None).expect("a pseudo terminal");
        for end in [&pty.master, &pty.slave] {
            // Or the program would hold the person's own end open.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("fcntl");
        }
        let slave = || pty.slave.try_clone().expect("a copy");
        command.stdin(slave()).stdout(slave()).stderr(slave());
        // SAFETY: system calls on this process's own state; standard input is the terminal.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            })
        };
        let child = command.spawn().expect("a program for the terminal");
        Self {
            master: pty.master.into(),
            child,
            seen: Vec::new(),
            told: 0,
        }
    }

    /// A shell with job control, ready for its first line; `$MW` is memwatch.
    pub(crate) fn shell(lab: &Lab) -> Self {
        let mut bash = lab.command("bash");
        bash.args(["--norc", "--noprofile", "--noediting", "-i"]);
        bash.env("MW", MEMWATCH)
            .env("PS1", "> ")
            .env("TERM", "dumb")
            .env_remove("HISTFILE");
        let mut pty = Self::start(bash);
        pty.see("> ");
        pty
    }

    pub(crate) fn key(&mut self, key: &[u8]) {
        self.master
            .write_all(key)
            .expect("somebody at the other end");
    }

    pub(crate) fn ctrl_c(&mut self) {
        self.key(CTRL_C);
    }

    pub(crate) fn ctrl_d(&mut self) {
        self.key(CTRL_D);
    }

    pub(crate) fn ctrl_z(&mut self) {
        self.key(CTRL_Z);
    }

    pub(crate) fn ctrl_backslash(&mut self) {
        self.key(CTRL_BACKSLASH);
    }

    /// Types a line, and waits for its echo, so that only what it does is seen next.
    pub(crate) fn line(&mut self, line: &str) {
        self.key(format!("{line}\n").as_bytes());
        self.see(&format!("{line}\r\n"));
    }

    /// Waits until `text` is on the screen, below what was waited for before.
    #[track_caller]
    pub(crate) fn see(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let fresh = &self.seen[self.told..];
            if let Some(at) = fresh
                .windows(text.len())
                .position(|part| part == text.as_bytes())
            {
                self.told += at + text.len();
                return;
            }
            assert!(
                Instant::now() < until,
                "no `{text}` on the screen: {:?}",
                self.screen()
            );
            self.look();
        }
    }

    /// Waits until the shell says that its job is stopped, and takes the next line: what is typed before its prompt is
    /// echoed in the midst of that.
    #[track_caller]
    pub(crate) fn see_stopped(&mut self) {
        self.see("Stopped");
        self.see("> ");
    }

    /// All that was ever written to it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.seen
    }

    /// All that was ever shown.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Takes what has come, waiting a little for it.
    pub(crate) fn look(&mut self) {
        let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(20u8)).expect("poll") > 0 {
            let mut part = [0; 4096];
            // EIO: nobody has the other end open.
            let len = self.master.read(&mut part).unwrap_or(0);
            self.seen.extend_from_slice(&part[..len]);
        }
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = winsize(rows, columns);
        // SAFETY: a valid size, which the call only reads.
        let result = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(result, 0);
    }

    pub(crate) fn mode(&self) -> Termios {
        tcgetattr(&self.master).expect("a terminal")
    }

    /// The process group that the terminal's keys go to.
    pub(crate) fn foreground(&self) -> i32 {
        tcgetpgrp(&self.master).expect("a terminal").as_raw()
    }

    /// The code that the program ends with.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("ours") {
                return status.code();
            }
            assert!(
                Instant::now() < until,
                "it does not end: {:?}",
                self.screen()
            );
            self.look();
        }
    }

    /// Closes the terminal, as its window does.
    pub(crate) fn close(self) -> Child {
        self.child
    }
}

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
