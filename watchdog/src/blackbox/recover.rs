//! From what is found in a black box to an incident: the last minutes of a machine that ended without being shut
//! down. Making the record is pure; reading and marking as told is at the edge.

use super::file::{self, BlackBox};
use super::frame::{Frame, Page};
use super::slots::{self, Slot};
use crate::host::file_error::FileError;
use crate::incident::{self, Flight, Kind, Record, Target, Verdict};
use crate::watch::replay::RecordedLook;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use uuid::Uuid;

/// Tells `keep` of each machine's end that is found in `dir`, where memwatch keeps its state, and marks as told what
/// it has kept; the records. Called again before that it tells the same, by the same id. A black box that a living
/// memwatch has is none of a dead machine.
///
/// # Errors
/// A black box cannot be read, or not be marked. What the others told is kept all the same; the first error.
pub fn recover(
    dir: &Path,
    boot_id: &str,
    mut keep: impl FnMut(&Record) -> bool,
) -> Result<Vec<Record>, FileError> {
    let mut told = Vec::new();
    let mut failed = None;
    for path in file::names(dir) {
        match recover_one(&path, boot_id, &mut keep) {
            Ok(record) => told.extend(record),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) if told.is_empty() => Err(error),
        _ => Ok(told),
    }
}

fn recover_one(
    path: &Path,
    boot_id: &str,
    keep: &mut impl FnMut(&Record) -> bool,
) -> Result<Option<Record>, FileError> {
    let read = || {
        let Some(lock) = file::lock(path, false)? else {
            return Ok(None);
        };
        let bytes = file::contents(&lock)?;
        Ok(Some((lock, bytes)))
    };
    let Some((lock, bytes)) = read().map_err(FileError::at("read", path))? else {
        return Ok(None);
    };
    let Some(Found { record, .. }) = found(&bytes, boot_id) else {
        return Ok(None);
    };
    if keep(&record) {
        let mut told = BlackBox::over(path.to_owned(), lock, &bytes)
            .map_err(FileError::at("prepare", path))?;
        told.settle().map_err(FileError::at("mark as told", path))?;
    }
    Ok(Some(record))
}

/// What was found in a black box.
#[derive(Clone, Debug)]
pub struct Found {
    /// The machine's last minutes.
    pub record: Record,
    /// Slots that were torn, and are not believed.
    pub torn: usize,
}

/// The end of a machine that `file` tells of; `None` if it tells of none, or of the life that is this one. Pure.
#[must_use]
pub fn found(file: &[u8], boot_id: &str) -> Option<Found> {
    let (whole, torn) = slots::read(file);
    let newest = whole.last()?;
    let session = newest.session;
    if file::is_clean(newest) {
        return None;
    }
    let of_session = whole.iter().filter(|slot| slot.session == session);
    let frames: Vec<Frame> = of_session.filter_map(frame_of).collect();
    let last = frames.last()?;
    let is_this_life = |id: &str| id == boot_id;
    if last
        .host
        .boot_id
        .as_ref()
        .is_none_or(|id| is_this_life(id.as_str()))
    {
        return None;
    }
    let record = record(session, &frames, torn)?;
    Some(Found { record, torn })
}

/// Whether it tells of a machine's end that is still to be told.
pub(super) fn is_of_a_crash(file: &[u8], boot_id: &str) -> bool {
    found(file, boot_id).is_some()
}

fn frame_of(slot: &Slot<'_>) -> Option<Frame> {
    match serde_json::from_slice(slot.text).ok()? {
        Page::Frame(frame) => Some(*frame),
        Page::Clean => None,
    }
}

fn record(session: Uuid, frames: &[Frame], torn: usize) -> Option<Record> {
    let last = frames.last()?;
    let target = last.targets.first();
    let looks = target.map_or_else(Vec::new, |target| looks_of(target.id, frames));
    let began_us = looks
        .first()
        .map_or(frames.first()?.at_us, |look| look.at_us);
    let ended = UNIX_EPOCH + Duration::from_micros(last.wall_us);
    let lasted = Duration::from_micros(last.at_us.saturating_sub(began_us));
    let started = ended.checked_sub(lasted).unwrap_or(UNIX_EPOCH);
    let duration_us = lasted.as_micros() as u64;
    let mut record = Record::new(started, ended, duration_us, Verdict::Ongoing);
    record.id = session;
    record.kind = Kind::HardReset;
    record.host = last.host.clone();
    record.memwatch_version.clone_from(&last.memwatch_version);
    record.machine = Some(last.machine.clone());
    if let Some(target) = target {
        record.target = Target {
            cgroup_path: target.name.clone(),
            cgroup_id: Some(target.id),
            ..Target::default()
        };
        let limit = looks.iter().rev().find_map(|look| look.target.limit_bytes);
        record.target.memory_max_bytes = limit;
        record.peak_bytes = looks.iter().map(|look| look.target.current_bytes).max();
    }
    record.notes = notes(frames, last, torn);
    if !looks.is_empty() {
        record.flight = Some(Flight {
            began_us,
            looks,
            lost: last.lost,
        });
    }
    Some(record)
}

/// Every look at a target that one of the frames has.
fn looks_of(id: u64, frames: &[Frame]) -> Vec<RecordedLook> {
    let targets = frames.iter().flat_map(|frame| &frame.targets);
    let of_it = targets.filter(|target| target.id == id);
    let mut looks: Vec<RecordedLook> = of_it.flat_map(|target| target.looks.clone()).collect();
    // Of the same look the one with its processes.
    looks.sort_by_key(|look| (look.at_us, look.members.is_none()));
    looks.dedup_by_key(|look| look.at_us);
    looks
}

fn notes(frames: &[Frame], last: &Frame, torn: usize) -> Vec<incident::Text> {
    let mut notes = vec![format!(
        "the machine ended without being shut down; this is what memwatch wrote down before, {} times in {}",
        frames.len(),
        incident::duration(last.at_us.saturating_sub(frames[0].at_us))
    )];
    if torn > 0 {
        notes.push(format!(
            "{torn} of its pages were torn and are not believed"
        ));
    }
    for other in last.targets.iter().skip(1) {
        let held = other.looks.last().map(|look| look.target.current_bytes);
        let name = other.name.as_ref().map_or("?", |name| name.as_str());
        let held = held.map_or_else(String::new, |held| {
            format!(", with {}", incident::bytes(held))
        });
        notes.push(format!("beside it ran {name}{held}"));
    }
    let biggest = last.processes.iter().map(|process| {
        format!(
            "{} (pid {}) {}",
            incident::Comm::new(&process.comm),
            process.pid,
            incident::bytes(process.rss_bytes)
        )
    });
    let biggest: Vec<String> = biggest.collect();
    if !biggest.is_empty() {
        notes.push(format!("the biggest processes were {}", biggest.join(", ")));
    }
    notes.into_iter().map(Into::into).collect()
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
