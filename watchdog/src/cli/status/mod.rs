//! `memwatch status`: asks the daemon how things are, once or every second, and shows it. What there is to
//! tell is `control::status`'s, what it looks like `render`'s.

mod render;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap_complete::engine::ArgValueCandidates;

use super::complete;
use crate::control::{self, Client, Status};
use crate::incident::{Style, Text};

pub use render::{lines, page};
pub(super) use render::{losses, share, to_the_second};

/// `memwatch status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Show this target alone: a directory below /sys/fs/cgroup
    #[arg(value_name = "CGROUP", add = ArgValueCandidates::new(complete::targets))]
    target: Option<PathBuf>,
    /// Print it as JSON; with --watch a line a second
    #[arg(long)]
    json: bool,
    /// Show it anew every second, until Ctrl-C; where that is no terminal, as further lines
    #[arg(short, long)]
    watch: bool,
    /// Ask the daemon that listens here
    #[arg(long, value_name = "PATH", default_value = control::SOCKET)]
    socket: PathBuf,
}

/// `memwatch status --help`, to be given as `long_about` and `after_long_help`.
pub const ABOUT: &str = "\
Say how the daemon and what it guards are.

Everybody may ask. Targets under pressure come first. GUARD says who acts on a target: `both` are the \
daemon and, if that is stuck or dead, the guard in the kernel.";

/// Below `memwatch status --help`.
pub const ABOUT_MORE: &str = "\
Exit codes:
  0    the daemon answered
  125  there is no daemon, it cannot be asked, or it guards no such target";

const EVERY: Duration = Duration::from_secs(1);

/// Runs it; the exit code.
///
/// # Errors
/// No daemon answers, it guards no such target, or standard output cannot be written to.
pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start")?;
    match runtime.block_on(show(args)) {
        // Who watched has seen enough.
        Err(error) if args.watch && is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        shown => shown.map(|()| ExitCode::SUCCESS),
    }
}

async fn show(args: &StatusArgs) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.socket).await?;
    let mut screen = Screen::of_stdout();
    loop {
        let mut status = client.status().await?;
        if let Some(target) = &args.target {
            keep_only(&mut status, target)?;
        }
        let text = match (args.json, args.watch) {
            (true, true) => serde_json::to_string(&status)? + "\n",
            (true, false) => serde_json::to_string_pretty(&status)? + "\n",
            (false, true) if !screen.is_terminal => lines(&status, &SystemTime::now().into()),
            (false, _) => page(&status, screen.style()),
        };
        let redraw = args.watch && !args.json;
        screen
            .show(&text, redraw)
            .context("cannot print the status")?;
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn keep_only(status: &mut Status, target: &Path) -> anyhow::Result<()> {
    let name = Text::of_name(target.as_os_str().as_encoded_bytes());
    let wanted = name.as_str().trim_end_matches('/');
    status
        .targets
        .retain(|target| target.cgroup.as_str() == wanted);
    if status.targets.is_empty() {
        bail!("the daemon guards no target {name}; see which it guards: memwatch status");
    }
    Ok(())
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let errors = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    errors
        .into_iter()
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Standard output, and what stands on it.
struct Screen {
    is_terminal: bool,
    is_drawn: bool,
}

impl Screen {
    fn of_stdout() -> Self {
        Self {
            is_terminal: io::stdout().is_terminal(),
            is_drawn: false,
        }
    }

    fn style(&self) -> Style {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Style {
            color: self.is_terminal && !no_color,
            width: self.size().map(|(_, columns)| columns),
        }
    }

    /// Prints `text`; with `redraw`, on a terminal, in place of what was printed before.
    fn show(&mut self, text: &str, redraw: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !(redraw && self.is_terminal) {
            out.write_all(text.as_bytes())?;
            return out.flush();
        }
        let begin = if self.is_drawn {
            "\x1b[H"
        } else {
            "\x1b[H\x1b[2J"
        };
        self.is_drawn = true;
        // The cursor stands below the last line: one line more would scroll.
        let room = self
            .size()
            .map_or(usize::MAX, |(rows, _)| rows.saturating_sub(1));
        let mut frame = String::from(begin);
        for line in text.lines().take(room) {
            frame.extend([line, "\x1b[K\n"]);
        }
        frame.push_str("\x1b[J");
        out.write_all(frame.as_bytes())?;
        out.flush()
    }

    /// Rows and columns of the terminal.
    fn size(&self) -> Option<(usize, usize)> {
        // SAFETY: the size is plain numbers and the call fills it or fails.
        let size = unsafe {
            let mut size: libc::winsize = std::mem::zeroed();
            (libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) == 0).then_some(size)
        };
        let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0)?;
        Some((size.ws_row.into(), size.ws_col.into()))
    }
}
