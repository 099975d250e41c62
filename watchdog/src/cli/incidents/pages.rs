//! `memwatch incidents html` and `open`: the picture of an incident and its trace, written and opened. Both are made
//! of names that processes chose themselves; what keeps those harmless is `incident::picture`'s.

use std::env;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;
use clap_complete::engine::ArgValueCandidates;

use super::sources::Sources;
use crate::cli::complete;
use crate::export::trace;
use crate::host::file_error::FileError;
use crate::incident::{Record, ReportFile, picture};

/// `memwatch incidents html`.
#[derive(Clone, Debug, Args)]
pub(super) struct HtmlArgs {
    /// Which
    #[arg(value_name = "ID", default_value = "last", add = ArgValueCandidates::new(complete::incidents))]
    id: String,
    /// Where to; the trace goes beside it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `memwatch incidents open`.
#[derive(Clone, Debug, Args)]
pub(super) struct OpenArgs {
    /// Which
    #[arg(value_name = "ID", default_value = "last", add = ArgValueCandidates::new(complete::incidents))]
    id: String,
}

/// Writes both, and prints where they are.
pub(super) fn html(args: &HtmlArgs, sources: &Sources) -> anyhow::Result<()> {
    let record = sources.read(&args.id)?;
    let files = Files::of(&record, args.output.as_deref())?;
    files.write(&record)?;
    super::print(&format!(
        "{}\n{}\n",
        files.html.display(),
        files.trace.display()
    ))
}

/// Writes both, and has the picture opened by whatever this desktop opens pages with.
pub(super) fn open(args: &OpenArgs, sources: &Sources) -> anyhow::Result<()> {
    let record = sources.read(&args.id)?;
    let files = Files::of(&record, None)?;
    files.write(&record)?;
    let mut opener = Command::new("xdg-open");
    opener.arg(&files.html).stdin(Stdio::null());
    let why = match opener.status() {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("xdg-open could not open it ({status})")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some("there is no xdg-open here".to_owned())
        }
        Err(error) => Some(format!("xdg-open cannot be started: {error}")),
    };
    if let Some(why) = why {
        super::warn(&format!("{why}; open this file in a browser yourself"));
    }
    super::print(&format!("{}\n", files.html.display()))
}

/// The two files of an incident.
struct Files {
    html: PathBuf,
    trace: PathBuf,
}

impl Files {
    fn of(record: &Record, output: Option<&Path>) -> anyhow::Result<Self> {
        let html = match output {
            Some(file) => file.to_owned(),
            None => directory()?.join(format!("{}.html", record.id)),
        };
        let trace = html.with_extension("trace.json");
        Ok(Self { html, trace })
    }

    fn write(&self, record: &Record) -> anyhow::Result<()> {
        ReportFile::open(&self.html)?.write_bytes(picture::page(record).as_bytes())?;
        ReportFile::open(&self.trace)?.write_bytes(&trace::render(record))?;
        Ok(())
    }
}

/// The user's cache, made if need be and closed to others.
fn directory() -> anyhow::Result<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let cache = env::var_os("XDG_CACHE_HOME").and_then(absolute);
    let below_home = || Some(env::var_os("HOME").and_then(absolute)?.join(".cache"));
    let cache = cache.or_else(below_home);
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set; say where to with `memwatch incidents html -o FILE`")?;
    let dir = cache.join("memwatch");
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(FileError::at("make", &dir))?;
    Ok(dir)
}
