//! What is told of a machine's end, and that nothing is told which was not written so.

use super::super::frame::tests::{frame, look};
use super::super::slots::{FILE_BYTES, SLOT_BYTES};
use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

const THEN: &str = "an-older-boot";
const NOW: &str = "this-boot";

/// Writes so many frames into the black box of `dir`, half a second apart, as a memwatch of the boot before did.
fn crash(dir: &Path, frames: u64) -> Vec<RecordedLook> {
    let mut black_box = BlackBox::open(dir, THEN).expect("opened").expect("one");
    let looks: Vec<RecordedLook> = (1..=frames)
        .map(|n| look(n * 500_000, n * 400_000))
        .collect();
    for n in 1..=frames as usize {
        let at_us = n as u64 * 500_000;
        let text = frame(at_us, looks[..n].to_vec());
        let text = text.fitted(at_us.saturating_sub(500_000), slots::TEXT_BYTES);
        black_box.write(&text).expect("room");
    }
    looks
}

fn bytes(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("blackbox")).expect("a black box")
}

#[test]
fn the_last_minutes_become_an_incident_once() {
    let state = tempfile::tempdir().expect("a directory");
    let dir = state.path().join("memwatch");
    let looks = crash(&dir, 100);
    let mode = fs::metadata(dir.join("blackbox"))
        .expect("there")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    assert_eq!(bytes(&dir).len(), FILE_BYTES);

    let mut asked = Vec::new();
    let refused = recover(&dir, NOW, |record| {
        asked.push(record.id);
        false
    });
    assert_eq!(refused.expect("read").len(), 1);
    let mut kept = Vec::new();
    let told = recover(&dir, NOW, |record| {
        kept = record.to_json();
        true
    });
    let told = told.expect("read").pop().expect("a crash");
    assert_eq!(
        asked,
        [told.id],
        "what was not kept is told again by the same id"
    );
    assert_eq!(recover(&dir, NOW, |_| true).expect("read").len(), 0, "once");

    assert_eq!(Record::from_json(&kept).expect("a record"), told);
    assert_eq!(told.kind, Kind::HardReset);
    assert_eq!(told.host.boot_id.as_ref().map(|id| id.as_str()), Some(THEN));
    let path = told.target.cgroup_path.as_ref().expect("a target");
    assert_eq!(path.as_str(), "/sys/fs/cgroup/2", "the one that stalls");
    let flight = told.flight.as_ref().expect("looks");
    assert_eq!(
        flight.looks.last().map(|look| look.at_us),
        looks.last().map(|l| l.at_us)
    );
    let lately = flight.looks.iter().filter(|look| look.at_us > 34_000_000);
    assert_eq!(lately.count(), 32, "every look of the slots that are there");
    assert!(
        flight.looks[0].at_us < 20_000_000,
        "and a picture of before"
    );
    let machine = told.machine.as_ref().expect("the machine");
    assert_eq!(machine.memory_available_bytes, Some(7));
    let notes: Vec<&str> = told.notes.iter().map(|note| note.as_str()).collect();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("beside it ran /sys/fs/cgroup/1")),
        "{notes:?}"
    );
    assert!(
        notes.iter().any(|note| note.contains("python3 (pid 49)")),
        "{notes:?}"
    );
    crate::incident::validate(&told);
}

#[test]
fn what_ended_well_is_no_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    crash(dir.path(), 3);
    assert!(
        found(&bytes(dir.path()), THEN).is_none(),
        "memwatch died, and not the machine"
    );
    // The next one of that boot has it, and has nothing to write.
    let black_box = BlackBox::open(dir.path(), THEN)
        .expect("opened")
        .expect("one");
    assert!(found(&bytes(dir.path()), NOW).is_none());
    drop(black_box);

    crash(dir.path(), 3);
    assert!(found(&bytes(dir.path()), NOW).is_some());
    let mut black_box = BlackBox::open(dir.path(), THEN)
        .expect("opened")
        .expect("one");
    black_box.settle().expect("room");
    assert!(found(&bytes(dir.path()), NOW).is_none());
    assert_eq!(recover(dir.path(), NOW, |_| true).expect("read").len(), 0);
}

#[test]
fn each_memwatch_has_its_own_and_one_with_a_crash_in_it_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let names: Vec<_> = file::names(dir.path()).collect();
    crash(dir.path(), 2);
    let second = BlackBox::open(dir.path(), NOW)
        .expect("opened")
        .expect("one");
    assert_eq!(second.path(), names[1]);
    let others: Vec<_> = names[2..]
        .iter()
        .map(|name| {
            let other = BlackBox::open(dir.path(), NOW)
                .expect("opened")
                .expect("one");
            assert_eq!(other.path(), name);
            other
        })
        .collect();
    assert!(BlackBox::open(dir.path(), NOW).expect("opened").is_none());
    assert_eq!(
        recover(dir.path(), NOW, |_| true).expect("read").len(),
        1,
        "of the first"
    );
    drop((second, others));
}

#[test]
fn what_is_no_file_of_ours_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("blackbox");
    std::os::unix::fs::symlink("/dev/null", &place).expect("a link");
    assert!(BlackBox::open(dir.path(), NOW).is_err());
    assert!(recover(dir.path(), NOW, |_| true).is_err());
    fs::remove_file(&place).expect("ours");
    fs::write(&place, "short").expect("room");
    assert!(
        BlackBox::open(dir.path(), NOW)
            .expect("made anew")
            .is_some()
    );
    assert_eq!(bytes(dir.path()).len(), FILE_BYTES);
    assert_eq!(
        recover(&dir.path().join("missing"), NOW, |_| true)
            .expect("nothing")
            .len(),
        0
    );
}

#[test]
fn a_torn_slot_is_told_and_the_ones_before_it_are_believed() {
    let dir = tempfile::tempdir().expect("a directory");
    let looks = crash(dir.path(), 10);
    let whole = bytes(dir.path());
    let last = 9 * SLOT_BYTES;
    // Every prefix of the last slot over what was there before, which was nothing.
    for written in (0..SLOT_BYTES)
        .step_by(61)
        .chain([1, 8, 511, 512, 513, 4096])
    {
        let mut torn = whole.clone();
        torn[last + written..last + SLOT_BYTES].fill(0);
        let found = found(&torn, NOW).expect("a crash");
        let flight = found.record.flight.expect("looks");
        assert!(flight.looks.iter().all(|look| is_one_of(look, &looks)));
        let newest_us = flight.looks.last().map(|look| look.at_us);
        let is_whole = torn == whole;
        let expected = if is_whole { 10 } else { 9 };
        assert_eq!(newest_us, Some(expected * 500_000), "{written}");
        assert_eq!(
            found.torn,
            usize::from(!is_whole && written > 0),
            "{written}"
        );
    }
}

/// Whether it is one that was written, with or without its processes.
fn is_one_of(look: &RecordedLook, written: &[RecordedLook]) -> bool {
    written.iter().any(|other| {
        let mut bare = other.clone();
        bare.members = None;
        *look == *other || *look == bare
    })
}

/// A black box with more than it holds, and the looks that were taken.
static CRASHED: LazyLock<(Vec<u8>, Vec<RecordedLook>)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let looks = crash(dir.path(), 40);
    (bytes(dir.path()), looks)
});

proptest! {

    #[test]
    fn whatever_happens_to_the_file_no_look_is_told_that_was_not_taken(
        wrong in proptest::collection::vec((0usize..40 * SLOT_BYTES, any::<u8>(), 1usize..3000), 0..6),
        cut in proptest::option::of(0usize..FILE_BYTES),
    ) {
        let (file, looks) = &*CRASHED;
        let mut file = file.clone();
        for (at, byte, len) in wrong {
            let at = at % file.len();
            let end = (at + len).min(file.len());
            file[at..end].fill(byte);
        }
        file.truncate(cut.unwrap_or(FILE_BYTES));
        if let Some(found) = found(&file, NOW) {
            let flight = found.record.flight.expect("looks");
            prop_assert!(flight.looks.iter().all(|look| is_one_of(look, looks)));
        }
    }
}
