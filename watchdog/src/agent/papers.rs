//! What is written about a run when it is over: the record, and what others read. All of it by the rights of
//! whoever runs memwatch; what the user named is opened before the command starts, so that a path that cannot
//! work is refused before any work is lost. What stands in it is `incident`'s and `export`'s.

use super::run::Orders;
use super::terminal::Terminal;
use super::testing::Unwritten;
use crate::export::{ctrf, github, junit};
use crate::incident::suite::Test;
use crate::incident::{Record, ReportError, ReportFile, Text, Verdict};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The files that the user asked for, ready to be filled.
#[derive(Debug)]
pub(super) struct Papers {
    report: Option<ReportFile>,
    ctrf: Option<ReportFile>,
}

impl Papers {
    /// Finds out whether they can be written.
    ///
    /// # Errors
    /// One cannot.
    pub(super) fn open(orders: &Orders) -> Result<Self, ReportError> {
        let open = |path: Option<&PathBuf>| path.map(|path| ReportFile::open(path)).transpose();
        Ok(Self {
            report: open(orders.attach.report.as_ref())?,
            ctrf: open(orders.ctrf.as_ref())?,
        })
    }

    /// Writes all of it; what cannot be written is said. A full disk does not change how the command ended.
    pub(super) fn write(
        self,
        record: &Record,
        started: SystemTime,
        unwritten: &[Unwritten],
        terminal: &Terminal,
    ) {
        if let Some(report) = self.report
            && let Err(error) = report.write(record)
        {
            terminal.warn(&error.to_string());
        }
        if let Some(ctrf) = self.ctrf
            && let Err(error) = ctrf.write_bytes(&ctrf::render(record, started))
        {
            terminal.warn(&error.to_string());
        }
        for session in unwritten {
            write_junit(record, started, session, terminal);
        }
        if std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
            tell_github(record, terminal);
        }
    }
}

/// In place of a pytest that had no time to: unless it wrote, or something stands there that is none of its.
fn write_junit(record: &Record, started: SystemTime, session: &Unwritten, terminal: &Terminal) {
    if !is_to_be_written(&session.path, started) {
        return;
    }
    let of_session = |pid: &u32| session.pids.contains(pid);
    let ran = record.suite.iter().flat_map(|suite| &suite.tests);
    let ran: Vec<&Test> = ran.filter(|test| of_session(&test.pid)).collect();
    let not_run = record.suite.iter().flat_map(|suite| &suite.not_run);
    let not_run = not_run.filter(|one| of_session(&one.pid));
    let not_run: Vec<&Text> = not_run.map(|one| &one.id).collect();
    let why = match record.verdict {
        Verdict::KilledByMemwatch => "pytest was killed by memwatch for memory",
        Verdict::KilledByGuard => "pytest was killed by memwatch's guard in the kernel for memory",
        Verdict::KilledByKernelOom => "pytest was killed by the kernel's OOM killer",
        Verdict::Timeout => "pytest ran out of time",
        _ => "pytest ended before it could write its results",
    };
    let Ok(xml) = junit::render(&ran, &not_run, why) else {
        return;
    };
    // pytest makes the directories, too.
    let file = ReportFile::open_making_directories(&session.path);
    match file.and_then(|file| file.write_bytes(&xml)) {
        Ok(()) => terminal.say(&format!(
            "{why}: {} was written by memwatch, with the {} tests that ran and the {} that did not",
            session.path.display(),
            ran.len(),
            not_run.len()
        )),
        Err(error) => terminal.warn(&error.to_string()),
    }
}

/// The path is what a process of the target said. A file that is no XML, or newer than the run, stays.
fn is_to_be_written(path: &Path, started: SystemTime) -> bool {
    let Ok(about) = path.symlink_metadata() else {
        return true;
    };
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let mut begin = [0; 5];
    let is_xml = about.is_file()
        && file.is_ok_and(|mut file| file.read_exact(&mut begin).is_ok())
        && &begin == b"<?xml";
    is_xml && about.modified().is_ok_and(|changed| changed < started)
}

fn tell_github(record: &Record, terminal: &Terminal) {
    let workspace = std::env::var("GITHUB_WORKSPACE").ok();
    terminal.verbatim(&github::annotations(record, workspace.as_deref()));
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else {
        return;
    };
    let summary = github::summary(record);
    if summary.is_empty() {
        return;
    }
    if let Err(error) = github::append(Path::new(&path), &summary) {
        let path = path.to_string_lossy();
        terminal.warn(&format!(
            "the summary of this step is not in {path}: {error}"
        ));
    }
}
