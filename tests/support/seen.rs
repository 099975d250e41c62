//! The screen of a terminal of the test's own, as a person sees it: what a program has drawn and not what it has
//! written. Keys go in by `pty`.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{process::Command, time::Instant};

use nix::sys::termios::LocalFlags;

use super::lab::PATIENCE;
use super::pty::Pty;

/// A person who sees the picture that the bytes make.
pub(crate) struct Seen {
    pub(crate) pty: Pty,
    parser: vt100::Parser,
    fed: usize,
}

impl Seen {
    pub(crate) fn start(command: Command) -> Self {
        Self {
            pty: Pty::start(command),
            parser: vt100::Parser::default(),
            fed: 0,
        }
    }

    /// What is on the screen now.
    pub(crate) fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    pub(crate) fn look(&mut self) -> String {
        self.pty.look();
        self.parser.process(&self.pty.bytes()[self.fed..]);
        self.fed = self.pty.bytes().len();
        self.parser.screen().contents()
    }

    /// Waits until `text` is on the screen.
    #[track_caller]
    pub(crate) fn see(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let screen = self.look();
            if screen.contains(text) {
                return;
            }
            assert!(Instant::now() < until, "no `{text}` on:\n{screen}");
        }
    }

    pub(crate) fn resize(&mut self, rows: u16, columns: u16) {
        self.look();
        let [seen_rows, seen_columns] = [rows, columns].map(|n| n.try_into().expect("not nothing"));
        self.parser.screen_mut().set_size(seen_rows, seen_columns);
        self.pty.resize(rows, columns);
    }

    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pty.child.id()).expect("a pid");
        // SAFETY: no pointers are passed; the child is ours and not reaped yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Ends with `code`, and the terminal is as a shell left it.
    #[track_caller]
    pub(crate) fn ends(&mut self, code: i32) {
        assert_eq!(self.pty.end(), Some(code), "{}", self.look());
        for _ in 0..3 {
            self.look();
        }
        let screen = self.parser.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
        self.is_cooked();
    }

    #[track_caller]
    pub(crate) fn is_cooked(&self) {
        let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        assert!(self.pty.mode().local_flags.contains(cooked));
    }
}
