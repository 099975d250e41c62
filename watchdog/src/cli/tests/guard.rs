//! `memwatch tests guard`: reads the files and prints what was found in them. The finding is
//! `tests::direct`'s.

use crate::causes::with_causes;
use crate::cli::args::Common;
use crate::cli::{OWN_FAILURE, failure};
use crate::config::Verbosity;
use crate::incident::Text;
use crate::tests::direct::{self, Finding, Kind};
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use thiserror::Error;

/// The long help.
pub(super) const ABOUT: &str = "\
Find direct calls of pytest, those that do not run under memwatch, and say what to write instead.

Looks through shell scripts, Makefiles, justfiles, Dockerfiles, Jenkinsfiles, CI files and other YAML, tox.ini, \
setup.cfg, the scripts of pyproject.toml and package.json, and Python, each known by its name or its first line. \
A comment `memwatch: allow` in the line of a call, or alone in the line before, allows it.";

/// Below the long help.
pub(super) const ABOUT_MORE: &str = "\
Exit codes:
  0     nothing was found
  1     something was
  125   the command line makes no sense, or a file cannot be read

Example, for a whole repository:
  git ls-files -z | xargs -0 memwatch tests guard";

const UNPRINTED: &str = "cannot print what was found";
/// More than this is no file that somebody wrote.
const MAX_BYTES: u64 = 4 << 20;

/// `memwatch tests guard`.
#[derive(Clone, Debug, Args)]
pub(super) struct GuardArgs {
    /// The files to look through
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// Why a file could not be looked through.
#[derive(Debug, Error)]
enum Unread {
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is no regular file; name files, for example with `git ls-files`", path.display())]
    NoFile { path: PathBuf },
    #[error("{} has more than {} MiB; nobody wrote that", path.display(), MAX_BYTES >> 20)]
    TooLarge { path: PathBuf },
}

/// The JSON form.
#[derive(Default, Serialize)]
struct Report {
    schema_version: u32,
    exit_code: u8,
    /// How many files were looked through.
    files: usize,
    findings: Vec<Found>,
    /// Files that were not looked through, or that have a mistake so that something may be missed.
    unread: Vec<NotLookedAt>,
}

#[derive(Serialize)]
struct Found {
    file: String,
    line: usize,
    found: String,
    instead: String,
    also: Option<&'static str>,
}

#[derive(Serialize)]
struct NotLookedAt {
    file: String,
    /// Where the mistake is.
    line: Option<usize>,
    why: String,
}

/// Looks through the files; the exit code.
///
/// # Errors
/// Nobody reads what is printed.
pub(super) fn run(args: &GuardArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let mut report = Report {
        schema_version: 1,
        ..Report::default()
    };
    let mut failed = false;
    for path in &args.files {
        match read(path) {
            Ok(text) => look(path, &text, &mut report),
            Err(error) => {
                failed = true;
                failure::say(&error);
                report.skip(path, None, with_causes(&error));
            }
        }
    }
    let found = u8::from(!report.findings.is_empty());
    report.exit_code = if failed { OWN_FAILURE } else { found };
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report).context(UNPRINTED)?;
        writeln!(out).context(UNPRINTED)?;
    } else {
        for found in &report.findings {
            writeln!(out, "{}", found.line_for_people()).context(UNPRINTED)?;
        }
        report.say_unread(common.verbosity());
    }
    Ok(report.exit_code.into())
}

fn look(path: &Path, text: &str, report: &mut Report) {
    let Some(kind) = Kind::of(&path.to_string_lossy(), text) else {
        return report.skip(path, None, "of no kind that memwatch knows".to_owned());
    };
    report.files += 1;
    let looked = direct::look(kind, text);
    let file = path.to_string_lossy();
    let found = looked.findings.into_iter().map(|finding| {
        let Finding {
            line,
            found,
            instead,
            also,
        } = finding;
        Found {
            file: file.clone().into_owned(),
            line,
            found,
            instead,
            also,
        }
    });
    report.findings.extend(found);
    if let Some((line, why)) = looked.mistake {
        report.skip(path, Some(line), why);
    }
}

impl Report {
    fn skip(&mut self, path: &Path, line: Option<usize>, why: String) {
        let file = path.to_string_lossy().into_owned();
        self.unread.push(NotLookedAt { file, line, why });
    }

    /// Files that cannot be read were told already. Those of other kinds are many where a whole repository is
    /// named.
    fn say_unread(&self, verbosity: Verbosity) {
        if verbosity == Verbosity::Quiet {
            return;
        }
        for NotLookedAt { file, line, why } in &self.unread {
            match line {
                Some(line) => note(&format!("{file}:{line}: {why}; what follows may be missed")),
                None if verbosity != Verbosity::Normal => note(&format!("{file}: {why}")),
                None => {}
            }
        }
        if self.files == 0 {
            note(
                "none of the files is of a kind that memwatch knows; see memwatch tests guard --help",
            );
        }
    }
}

impl Found {
    fn line_for_people(&self) -> Text {
        let Self {
            file,
            line,
            found,
            instead,
            also,
        } = self;
        let also = also.map_or(String::new(), |also| format!(" ({also})"));
        Text::from(format!(
            "{file}:{line}: {found}; write instead: {instead}{also}"
        ))
    }
}

fn note(words: &str) {
    // With standard error closed nobody is left to tell.
    let _ = writeln!(io::stderr(), "memwatch: {}", Text::from(words.to_owned()));
}

/// The text of a file; bytes that are no UTF-8 do not matter.
fn read(path: &Path) -> Result<String, Unread> {
    let io = |source| Unread::Io {
        path: path.to_owned(),
        source,
    };
    // A fifo must not make it wait.
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let file: File = options.open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(Unread::NoFile {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    let mut bounded = file.take(MAX_BYTES + 1);
    bounded.read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Unread::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
