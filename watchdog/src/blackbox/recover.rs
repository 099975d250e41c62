//! From what is found in a black box to an incident: the last minutes of a machine that ended without being shut
//! down. Making the record is pure; reading and marking as told is at the edge.

use super::file::{self, BlackBox};
use super::frame::{Frame, Page, TopOf};
use super::slots::{self, Slot};
use crate::host::file_error::FileError;
use crate::incident::{self, Flight, Kind, Record, Target, Verdict};
use crate::watch::replay::RecordedLook;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use uuid::{Builder, Uuid};

/// What has become of a machine's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is kept, and need not be told again.
    Kept,
    /// Not yet.
    NotYet,
    /// It was none: the machine was shut down later.
    NoEnd,
}

/// What was found in all black boxes of a directory.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The ends of machines, kept or not yet.
    pub ends: Vec<Record>,
    /// Black boxes that cannot be read or not be marked as told. The others are not held up by them.
    pub failed: Vec<FileError>,
}

/// Asks `tell` what becomes of each machine's end that is found in `dir`, where memwatch keeps its state, and marks
/// as told what need not be told again. Called again before that it tells the same, by the same id. A black box that
/// a living memwatch has is none of a dead machine, and one of this life of the machine whose memwatch is gone tells
/// of that one's end alone: it is marked, too, lest a later life take it for the machine's.
pub fn recover(dir: &Path, boot_id: &str, mut tell: impl FnMut(&Found) -> Told) -> Recovered {
    let mut recovered = Recovered::default();
    for path in file::names(dir) {
        match recover_one(&path, boot_id, &mut tell) {
            Ok(record) => recovered.ends.extend(record),
            Err(error) => recovered.failed.push(error),
        }
    }
    recovered
}

fn recover_one(
    path: &Path,
    boot_id: &str,
    tell: &mut impl FnMut(&Found) -> Told,
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
    let found = found(&bytes, boot_id);
    let told = match &found {
        Some(found) => tell(found),
        None if is_of_this_life(&bytes, boot_id) => Told::NoEnd,
        None => return Ok(None),
    };
    if told != Told::NotYet {
        let mut told = BlackBox::over(path.to_owned(), lock, &bytes)
            .map_err(FileError::at("prepare", path))?;
        told.settle().map_err(FileError::at("mark as told", path))?;
    }
    let is_end = told != Told::NoEnd;
    Ok(found.filter(|_| is_end).map(|found| found.record))
}

/// What was found in a black box.
#[derive(Clone, Debug)]
pub struct Found {
    /// The machine's last minutes.
    pub record: Record,
    /// When the last of it was written, on the monotonic clock of that life.
    pub last_us: u64,
    /// Slots that were torn, and are not believed.
    pub torn: usize,
}

/// The end of a machine that `file` tells of; `None` if it tells of none, or of the life that is this one. Pure.
#[must_use]
pub fn found(file: &[u8], boot_id: &str) -> Option<Found> {
    let words = last_words(file)?;
    let last = words.frames.last()?;
    let boot = last.host.boot_id.as_ref()?;
    if boot.as_str() == boot_id {
        return None;
    }
    Some(Found {
        record: record(words.session, &words.frames, words.torn)?,
        last_us: last.at_us,
        torn: words.torn,
    })
}

/// Whether a memwatch of this life has written it and not said that it was over.
fn is_of_this_life(file: &[u8], boot_id: &str) -> bool {
    let words = last_words(file);
    let last = words.as_ref().and_then(|words| words.frames.last());
    let boot = last.and_then(|last| last.host.boot_id.as_ref());
    boot.is_some_and(|id| id.as_str() == boot_id)
}

/// What a memwatch has written last, and not said that it was over.
struct LastWords {
    session: Uuid,
    frames: Vec<Frame>,
    torn: usize,
}

fn last_words(file: &[u8]) -> Option<LastWords> {
    let (whole, torn) = slots::read(file);
    let newest = whole.last()?;
    let session = newest.session;
    if file::is_clean(newest) {
        return None;
    }
    let of_session = whole.iter().filter(|slot| slot.session == session);
    let frames = of_session.filter_map(frame_of).collect();
    Some(LastWords {
        session,
        frames,
        torn,
    })
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
    let target = last.foremost();
    let of_target = target.map_or_else(Vec::new, |target| looks_of(target.id, frames));
    let mut newest_first = of_target.iter().rev();
    let limit = newest_first.find_map(|look| look.target.limit_bytes);
    let peak = of_target.iter().map(|look| look.target.current_bytes).max();
    let looks = with_machine(of_target, frames);
    let began_us = looks
        .first()
        .map_or(frames.first()?.at_us, |look| look.at_us);
    let ended = UNIX_EPOCH + Duration::from_micros(last.wall_us);
    let lasted = Duration::from_micros(last.at_us.saturating_sub(began_us));
    let started = ended.checked_sub(lasted).unwrap_or(UNIX_EPOCH);
    let duration_us = lasted.as_micros() as u64;
    let mut record = Record::new(started, ended, duration_us, Verdict::Ongoing);
    record.id = id(last, session);
    record.kind = Kind::HardReset;
    record.host = last.host.clone();
    record.memwatch_version.clone_from(&last.memwatch_version);
    record.machine = Some(last.machine.clone());
    if let Some(target) = target {
        record.target = Target {
            cgroup_path: target.name.clone(),
            cgroup_id: Some(target.id),
            uid: target.uid,
            memory_max_bytes: limit,
            ..Target::default()
        };
        record.peak_bytes = peak;
    }
    record.notes = notes(frames, last, target, torn);
    if !looks.is_empty() {
        record.flight = Some(Flight {
            began_us,
            looks,
            lost: last.lost,
        });
    }
    Some(record)
}

/// Of the time that the last of it was written, as ids sort; the rest is of the session, so that it is the same
/// however often it is told.
fn id(last: &Frame, session: Uuid) -> Uuid {
    let mut random = [0; 10];
    random.copy_from_slice(&session.as_bytes()[6..]);
    Builder::from_unix_timestamp_millis(last.wall_us / 1000, &random).into_uuid()
}

/// The same looks and, between them, those at the machine.
fn with_machine(mut looks: Vec<RecordedLook>, frames: &[Frame]) -> Vec<RecordedLook> {
    let of_machine = |frame: &Frame| Some(RecordedLook::of_machine(frame.at_us, frame.facts?));
    looks.extend(frames.iter().filter_map(of_machine));
    looks.sort_by_key(|look| (look.at_us, look.is_of_machine_alone()));
    looks.dedup_by_key(|look| look.at_us);
    looks
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

fn notes(
    frames: &[Frame],
    last: &Frame,
    target: Option<&TopOf>,
    torn: usize,
) -> Vec<incident::Text> {
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
    let is_other = |other: &&TopOf| target.is_none_or(|target| target.id != other.id);
    for other in last.targets.iter().filter(is_other) {
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
