//! `memwatch top`: the daemon's targets on the terminal, live, with keys as in htop.
//!
//! One direction: `feed` asks the daemon, `screen` reads keys and signals → `model`, which is pure, with `keys`
//! for what a key means and `order` for the sorts → `draw`. This file runs the loop between them. What there is
//! to tell is `control::status`'s; `memwatch status` prints it for scripts.

mod draw;
mod feed;
mod keys;
mod model;
mod order;
#[cfg(test)]
mod sample;
mod screen;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use ratatui::crossterm::event::{Event as Input, KeyEventKind};

use self::draw::Shown;
use self::feed::News;
use self::model::{Action, Model};
use self::order::Sort;
use crate::config::Span;
use crate::control;
use crate::incident::Timestamp;

pub use screen::{Screen, TerminalError};

/// `memwatch top`.
#[derive(Clone, Debug, clap::Args)]
pub struct TopArgs {
    /// Ask the daemon this often: 500ms, 2s; from 100ms to 1h
    #[arg(short = 'd', long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// What comes first
    #[arg(short, long, value_name = "COLUMN", value_enum, default_value_t)]
    sort: Sort,
    /// Ask the daemon that listens here
    #[arg(long, value_name = "PATH", default_value = control::SOCKET)]
    socket: PathBuf,
}

/// `memwatch top --help`, to be given as `long_about` and `after_long_help`.
pub const ABOUT: &str = "\
Watch the daemon's targets on the terminal, with keys as in htop.

Everybody may. It signals nobody: memwatch itself does, by its rules. F1 in it tells the keys.";

/// Below `memwatch top --help`.
pub const ABOUT_MORE: &str = "\
Keys:
  arrows, PgUp, PgDn, Home, End   choose a target
  Enter                           all about it, with what was heard of it
  P, M, T                         sort by pressure, memory, time; > or F6 by any column, I turns it round
  / or F3, \\ or F4                search, filter
  Z                               hold it as it is
  q or F10                        quit

With NO_COLOR set it uses no colours; where the locale is not UTF-8, ASCII alone.

Exit codes:
  0        it was quit
  125      no daemon answers, or this is no terminal to draw on
  128 + n  signal n ended it";

/// How long a quiet spell is before the clock and the ages are drawn anew.
const TICK: Duration = Duration::from_secs(1);

fn interval(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|error| format!("{error}"))?;
    let within = Duration::from_millis(100)..=Duration::from_secs(3600);
    let asked = span.duration();
    let refused = || "give between 100ms and 1h, for example 500ms or 2s".to_owned();
    within.contains(&asked).then_some(asked).ok_or_else(refused)
}

/// Anything that changes what is on the screen.
enum Message {
    /// From the daemon.
    News(News),
    /// From the person.
    Input(Input),
    /// The keys cannot be read any more.
    Deaf(std::io::Error),
    /// From another process, or the kernel.
    Signal(Signal),
}

/// Runs it; the exit code.
///
/// # Errors
/// There is no terminal to draw on or no daemon, or the terminal fails.
pub fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    screen::check()?;
    // Before there is a second thread, so that no thread has them.
    let signals = screen::take_signals().context("cannot take signals")?;
    let (sender, messages) = mpsc::channel();
    let answer = feed::start(args.socket.clone(), args.interval, sender.clone())?;
    let mut model = Model::new(answer, args.sort, screen::glyphs());

    let screen = Screen::enter()?;
    screen::listen(signals, &sender).context("cannot listen to keys and signals")?;
    let ended = watch(&mut model, screen, &messages);
    // Whatever ended it, the terminal is as it was by now.
    Ok(match ended? {
        None => ExitCode::SUCCESS,
        Some(signal) => ExitCode::from(128 + signal as u8),
    })
}

/// Draws and hears until it is quit, or a signal ends it.
fn watch(
    model: &mut Model,
    mut screen: Screen,
    messages: &Receiver<Message>,
) -> anyhow::Result<Option<Signal>> {
    loop {
        let now_us = Timestamp::from(std::time::SystemTime::now()).unix_us();
        let shown = screen.draw(|frame| draw::draw(frame, model, now_us.unwrap_or_default()))?;
        let mut next = match messages.recv_timeout(TICK) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("its threads have ended"),
        };
        // What has come meanwhile is drawn with it.
        while let Some(message) = next {
            match take(model, message, shown)? {
                Action::None => {}
                Action::Quit => return Ok(None),
                Action::End(signal) => return Ok(Some(signal)),
                Action::Redraw => screen.redraw()?,
                Action::Suspend => screen::ask_to_stop(),
                Action::Stop => screen.stop()?,
            }
            next = messages.try_recv().ok();
        }
    }
}

/// What `message` changes, with that on the screen.
fn take(model: &mut Model, message: Message, shown: Shown) -> anyhow::Result<Action> {
    Ok(match message {
        Message::News(news) => {
            model.hear(news);
            Action::None
        }
        Message::Input(Input::Key(key)) if key.kind != KeyEventKind::Release => {
            model.press(key, shown)
        }
        // The next drawing asks the terminal for its size; all of it is drawn then.
        Message::Input(_) => Action::None,
        Message::Deaf(error) => {
            return Err(error).context("cannot read keys from the terminal any more");
        }
        Message::Signal(Signal::SIGTSTP) => Action::Stop,
        Message::Signal(Signal::SIGCONT) => Action::Redraw,
        Message::Signal(signal) => Action::End(signal),
    })
}

#[cfg(test)]
mod tests {
    use super::interval;

    #[test]
    fn an_interval_is_neither_a_hammer_nor_a_calendar() {
        assert_eq!(interval("250ms").expect("fine").as_millis(), 250);
        for refused in ["99ms", "2h", "0", "often"] {
            assert!(interval(refused).is_err(), "{refused}");
        }
    }
}
