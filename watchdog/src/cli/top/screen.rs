//! The terminal: taken over for drawing and given back whatever happens, and the threads that listen to its keys
//! and to signals. What is drawn is `draw`'s.

use std::io::{self, IsTerminal, Stdout, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpid, getsid};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, MoveTo, Show};
use ratatui::crossterm::event;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};
use ratatui::crossterm::{execute, queue};
use ratatui::{Frame, Terminal};

use super::Message;
use super::draw::{Glyphs, Shown};

/// Why there is no drawing here.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// It is a file or a pipe.
    #[error(
        "memwatch top draws on a terminal, and standard {0} is none; for scripts and logs: memwatch status --json, memwatch status --watch"
    )]
    NoTerminal(&'static str),
    /// One that cannot move its cursor, or that nobody has said anything about.
    #[error(
        "memwatch top cannot draw on this terminal ({0}); set TERM to what it is, for example TERM=xterm-256color, or use: memwatch status --watch"
    )]
    Dumb(&'static str),
    /// One of no rows or no columns.
    #[error("the terminal does not say its size; set it, for example: stty rows 24 columns 80")]
    NoSize,
    /// It refuses.
    #[error("cannot {doing} the terminal: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why, with its errno.
        source: io::Error,
    },
}

/// Whether the terminal is ours at the moment.
static IS_OURS: AtomicBool = AtomicBool::new(false);
/// As it was before, for the last resort of who cannot write to it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Refuses where nothing can be drawn.
///
/// # Errors
/// Standard input or output is no terminal, or none that can be drawn on.
pub(super) fn check() -> Result<(), TerminalError> {
    if !io::stdout().is_terminal() {
        return Err(TerminalError::NoTerminal("output"));
    }
    if !io::stdin().is_terminal() {
        return Err(TerminalError::NoTerminal("input"));
    }
    match std::env::var_os("TERM") {
        None => return Err(TerminalError::Dumb("TERM is not set")),
        Some(term) if term.is_empty() => return Err(TerminalError::Dumb("TERM is empty")),
        Some(term) if term == "dumb" => return Err(TerminalError::Dumb("TERM is dumb")),
        Some(_) => {}
    }
    match size() {
        Ok((0, _) | (_, 0)) | Err(_) => Err(TerminalError::NoSize),
        Ok(_) => Ok(()),
    }
}

/// What may be drawn with here, by `NO_COLOR` and the locale.
pub(super) fn glyphs() -> Glyphs {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    Glyphs {
        has_color: set("NO_COLOR").is_none(),
        is_unicode: locale.ends_with("utf-8") || locale.ends_with("utf8"),
    }
}

/// The terminal while it is ours; dropping it gives it back.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal over. A panic of any thread gives it back before it is told.
    ///
    /// # Errors
    /// The terminal refuses; it is as it was then.
    pub fn enter() -> Result<Self, TerminalError> {
        give_back_on_panic();
        let before = tcgetattr(io::stdin()).map_err(|errno| TerminalError::Io {
            doing: "ask for the mode of",
            source: errno.into(),
        })?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        take().map_err(|source| TerminalError::Io {
            doing: "take over",
            source,
        })?;
        match Terminal::new(CrosstermBackend::new(io::stdout())) {
            Ok(terminal) => Ok(Self { terminal }),
            Err(source) => {
                give_back();
                let doing = "draw on";
                Err(TerminalError::Io { doing, source })
            }
        }
    }

    /// Draws what has changed; what `draw` says of it.
    pub(super) fn draw(
        &mut self,
        draw: impl FnOnce(&mut Frame<'_>) -> Shown,
    ) -> Result<Shown, TerminalError> {
        let doing = "draw on";
        if !IS_OURS.load(Ordering::SeqCst) {
            let source = io::Error::other("a part of memwatch top has panicked");
            return Err(TerminalError::Io { doing, source });
        }
        let mut shown = Shown::default();
        let drawn = self.terminal.draw(|frame| shown = draw(frame));
        match drawn {
            Ok(_) => Ok(shown),
            Err(source) => Err(TerminalError::Io { doing, source }),
        }
    }

    /// Has all of it drawn next, and the modes set, since somebody else may have been here.
    pub(super) fn redraw(&mut self) -> Result<(), TerminalError> {
        let doing = "take over";
        let again = || {
            give_back();
            take()?;
            // With buffers that know of nothing on the screen. `Terminal::clear` would ask for the cursor, and the
            // answer would come to the thread that reads keys.
            Terminal::new(CrosstermBackend::new(io::stdout()))
        };
        self.terminal = again().map_err(|source| TerminalError::Io { doing, source })?;
        Ok(())
    }

    /// Gives the terminal to the shell, and takes it again when the shell continues us.
    pub(super) fn stop(&mut self) -> Result<(), TerminalError> {
        give_back();
        let _ = raise(Signal::SIGSTOP);
        self.redraw()
    }
}

/// Stops the whole job, as a terminal in its usual mode does at Ctrl-Z; our own part of it comes as a signal. Who
/// leads the session has no shell that could continue it.
pub(super) fn ask_to_stop() {
    if getsid(None) != Ok(getpid()) {
        let _ = kill(Pid::from_raw(0), Signal::SIGTSTP);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    IS_OURS.store(true, Ordering::SeqCst);
    let taken = enable_raw_mode().and_then(|()| {
        let mut out = io::stdout();
        queue!(out, EnterAlternateScreen, Hide, Clear(ClearType::All))?;
        queue!(out, MoveTo(0, 0))?;
        out.flush()
    });
    if taken.is_err() {
        give_back();
    }
    taken
}

/// Each step whatever becomes of the others: there is nobody to tell.
fn give_back() {
    if IS_OURS.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            tell(info);
        }));
    });
}

const SIGNALS: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// Keeps the signals that end or stop a program for [`listen`]. Before there are threads.
pub(super) fn take_signals() -> nix::Result<SigSet> {
    let signals: SigSet = SIGNALS.into_iter().collect();
    signals.thread_block()?;
    Ok(signals)
}

/// Starts the threads that wait for keys and for signals.
pub(super) fn listen(signals: SigSet, sender: &Sender<Message>) -> io::Result<()> {
    let keys = sender.clone();
    let read = move || {
        loop {
            let message = event::read().map_or_else(Message::Deaf, Message::Input);
            let over = matches!(message, Message::Deaf(_));
            if keys.send(message).is_err() || over {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("memwatch-keys".into())
        .spawn(read)?;
    let sender = sender.clone();
    let wait = move || {
        while let Ok(signal) = signals.wait() {
            if sender.send(Message::Signal(signal)).is_err() {
                return;
            }
            if !matches!(signal, Signal::SIGTSTP | Signal::SIGCONT) {
                end_anyway(signal);
            }
        }
    };
    thread::Builder::new()
        .name("memwatch-signals".into())
        .spawn(wait)?;
    Ok(())
}

/// Who draws may hang on a terminal that takes nothing: then the mode is set back, which waits for nobody, and
/// the process ends here.
fn end_anyway(signal: Signal) {
    thread::sleep(Duration::from_secs(2));
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = before.as_ref() {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
    }
    // SAFETY: ends the process at once; no handler of its end could do more.
    unsafe { libc::_exit(128 + signal as i32) }
}
