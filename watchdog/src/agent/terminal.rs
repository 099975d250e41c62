//! What a run says on standard error, and when: little, and never into a full-screen program.
//!
//! A terminal may be stopped and a pipe may have nobody who reads. While the command runs, a thread of its
//! own waits for them; the last word, when all else is done, is waited for.

use crate::act::Outcome;
use crate::config::{Live, Verbosity};
use crate::host::place::Place;
use crate::incident::{self, LiveStatus, Record, Style};
use crate::watch::{Order, Rung};
use nix::sys::termios::{LocalFlags, tcgetattr};
use std::cell::{Cell, OnceCell};
use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

/// The live line comes this often, and not before this long: a short run needs none.
const LIVE_EVERY: Duration = Duration::from_secs(30);

/// Standard error.
#[derive(Debug)]
pub struct Terminal {
    is_terminal: bool,
    live: Live,
    verbosity: Verbosity,
    next_live: Duration,
    writer: OnceCell<Writer>,
    dropped: Cell<u64>,
}

impl Terminal {
    /// Finds out what standard error is.
    pub fn new(live: Live, verbosity: Verbosity) -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            live,
            verbosity,
            next_live: LIVE_EVERY,
            writer: OnceCell::new(),
            dropped: Cell::new(0),
        }
    }

    /// Something that the user must know, on one line whatever names stand in it.
    pub fn warn(&self, text: &str) {
        self.line(incident::Text::from(format!("memwatch: {text}")).as_str());
    }

    /// Something worth knowing, unless asked to be quiet.
    pub fn say(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.warn(text);
        }
    }

    /// An order was given. Said at once where nothing else follows: for a warning, a dry run, or with
    /// `-v`; a kill is told whole in the summary.
    pub fn ordered(&self, order: &Order, dry_run: bool) {
        if !dry_run && order.rung != Rung::Warn && self.verbosity < Verbosity::Verbose {
            return;
        }
        self.warn(&incident::order(order, dry_run));
    }

    /// The target was frozen, or could not be.
    pub fn frozen(&self, place: &Place, outcome: Outcome) {
        if let Some(text) = frozen(place, outcome) {
            self.warn(&text);
        }
    }

    /// The daemon has done something to the target: as for the own orders.
    pub fn said_by_daemon(&self, line: &str, told_at_end: bool) {
        if !told_at_end || self.verbosity >= Verbosity::Verbose {
            self.warn(line);
        }
    }

    /// Something for those who want to know more.
    pub fn explain(&self, text: &str) {
        if self.verbosity >= Verbosity::Verbose {
            self.warn(text);
        }
    }

    /// Whether the live line is due and nobody is disturbed by it.
    pub fn wants_live(&mut self, elapsed: Duration) -> bool {
        let wanted = self.live == Live::Auto && self.verbosity > Verbosity::Quiet;
        if !wanted || !self.is_terminal || elapsed < self.next_live {
            return false;
        }
        self.next_live = elapsed + LIVE_EVERY;
        is_cooked()
    }

    /// The live line.
    pub fn live(&self, status: LiveStatus) {
        self.line(&incident::live_line(status, width().unwrap_or(80)));
    }

    /// memwatch guards, because it has shown that it can kill. Only with `-v`.
    pub fn guarding(&self, place: &Place, rehearsal: Duration) {
        let took = incident::duration(rehearsal.as_micros() as u64);
        self.explain(&format!(
            "guarding {place}; killing was rehearsed in {took}"
        ));
    }

    /// Lines that were given up because nobody took those before them.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Lines for another program that reads this stream, as they are. Nothing for an empty text.
    pub fn verbatim(&self, lines: &str) {
        if !lines.is_empty() {
            self.line(lines.trim_end());
        }
    }

    fn line(&self, text: &str) {
        let writer = self.writer.get_or_init(Writer::start);
        if !writer.write(format!("{text}\n")) {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    /// The summary at the end, after whatever is still to be written. Quiet: only if something was done. A line `typed` for a shell stands in for
    /// the shell's name: here, and not in the record, since it may carry secrets. Where an incident is kept
    /// under `name`, it says how to see more of it.
    pub fn summary(&mut self, record: &Record, typed: Option<&OsStr>, name: Option<&str>) {
        if self.verbosity == Verbosity::Quiet
            && record.interventions.is_empty()
            && record.victims.is_empty()
        {
            return;
        }
        let color = self.is_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let mut shown = record.clone();
        if let (Some(typed), Some(command)) = (typed, &mut shown.command) {
            command.program = cut(incident::Text::of_name(typed.as_encoded_bytes()));
        }
        let style = Style {
            color,
            width: width(),
        };
        drop(self.writer.take());
        let more = name.map_or(String::new(), |name| incident::pointer(name, style));
        write(&format!(
            "{}\n{more}",
            incident::summary(&shown, style).trim_end()
        ));
    }
}

/// How to go on with a target that was frozen, or that it is not.
pub fn frozen(place: &Place, outcome: Outcome) -> Option<String> {
    match outcome {
        Outcome::Delivered => Some(format!(
            "frozen, nothing was killed. To go on: echo 0 > {place}/cgroup.freeze   To end it: echo 1 > {place}/cgroup.kill"
        )),
        Outcome::DryRun | Outcome::Gone => None,
        Outcome::Refused { errno } => {
            let why = std::io::Error::from_raw_os_error(errno);
            Some(format!("{place} could not be frozen: {why}"))
        }
    }
}

/// As much of a line as a headline has room for.
fn cut(text: incident::Text) -> incident::Text {
    const ROOM: usize = 60;
    if text.as_str().chars().count() <= ROOM {
        return text;
    }
    let kept: String = text.as_str().chars().take(ROOM - 3).collect();
    format!("{kept}...").into()
}

/// A terminal in raw mode belongs to a program that draws on it.
fn is_cooked() -> bool {
    tcgetattr(std::io::stderr()).is_ok_and(|mode| {
        mode.local_flags
            .contains(LocalFlags::ICANON | LocalFlags::ECHO)
    })
}

/// Columns; `None` if standard error is no terminal.
fn width() -> Option<usize> {
    // SAFETY: the size is plain numbers and the call fills it or fails.
    let columns = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &mut size) == 0).then_some(size.ws_col)
    };
    columns.filter(|&c| c > 0).map(usize::from)
}

/// Lines on their way to standard error, and the thread that may have to wait there.
#[derive(Debug)]
struct Writer {
    lines: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
}

/// More lines than this nobody reads who does not read these.
const LINES: usize = 64;

impl Writer {
    fn start() -> Self {
        let (lines, waiting) = mpsc::sync_channel::<String>(LINES);
        let thread = std::thread::Builder::new()
            .name("memwatch-write".into())
            .stack_size(128 << 10)
            .spawn(move || waiting.iter().for_each(|line| write(&line)));
        Self {
            lines: Some(lines),
            thread: thread.ok(),
        }
    }

    /// `false`: there is no room, or no thread.
    fn write(&self, line: String) -> bool {
        let lines = self.lines.as_ref();
        lines.is_some_and(|lines| lines.try_send(line).is_ok())
    }
}

impl Drop for Writer {
    /// Waits until everything is written.
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One write for the whole text, so that it is not torn by what the command writes. Nobody to tell if
/// standard error is closed.
fn write(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
