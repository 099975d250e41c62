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
    let refused = recover(&dir, NOW, |found| {
        asked.push(found.record.id);
        Told::NotYet
    });
    assert_eq!(refused.ends.len(), 1);
    let mut kept = Vec::new();
    let mut told = recover(&dir, NOW, |found| {
        kept = found.record.to_json();
        Told::Kept
    });
    let told = told.ends.pop().expect("a crash");
    assert_eq!(
        asked,
        [told.id],
        "what was not kept is told again by the same id"
    );
    assert_eq!(ends(&dir, NOW), 0, "once");

    assert_eq!(Record::from_json(&kept).expect("a record"), told);
    assert_eq!(told.kind, Kind::HardReset);
    assert_eq!(told.host.boot_id.as_ref().map(|id| id.as_str()), Some(THEN));
    let path = told.target.cgroup_path.as_ref().expect("a target");
    assert_eq!(path.as_str(), "/sys/fs/cgroup/2", "the one that stalls");
    assert_eq!(told.target.uid, Some(1002), "whose user may see it");
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

/// Has what is found kept; how many ends of machines that was.
fn ends(dir: &Path, boot_id: &str) -> usize {
    let recovered = recover(dir, boot_id, |_| Told::Kept);
    assert!(recovered.failed.is_empty(), "{:?}", recovered.failed);
    recovered.ends.len()
}

#[test]
fn an_end_has_its_own_time_for_an_id_whenever_its_session_began() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut black_box = BlackBox::open(dir.path(), THEN)
        .expect("opened")
        .expect("one");
    let mut at_us = 0;
    let mut write = |black_box: &mut BlackBox| {
        at_us += 60_000_000;
        let frame = frame(at_us, vec![look(at_us, at_us)]);
        let wall_us = frame.wall_us;
        let text = frame.fitted(0, slots::TEXT_BYTES);
        black_box.write(&text).expect("room");
        let found = found(&bytes(dir.path()), NOW).expect("a crash");
        (wall_us, found.record)
    };
    let ids: Vec<Uuid> = (0..3)
        .map(|_| {
            let (wall_us, record) = write(&mut black_box);
            let made = record.id.get_timestamp().expect("a time").to_unix();
            let made_ms = made.0 * 1000 + u64::from(made.1) / 1_000_000;
            assert_eq!(made_ms, wall_us / 1000);
            assert_eq!(record.id.get_version_num(), 7);
            let ended_us = record.ended_at.unix_us().expect("a time");
            assert_eq!(ended_us.cast_unsigned(), wall_us);
            record.id
        })
        .collect();
    assert!(ids.is_sorted(), "later ends are later ids: {ids:?}");
    let before = found(&bytes(dir.path()), NOW).expect("a crash").record;
    // The same moment in another session is another end.
    black_box.settle().expect("room");
    let text = frame(at_us, Vec::new()).fitted(0, slots::TEXT_BYTES);
    black_box.write(&text).expect("room");
    let after = found(&bytes(dir.path()), NOW).expect("a crash").record;
    assert_eq!(before.ended_at, after.ended_at);
    assert_ne!(before.id, after.id);
}

#[test]
fn where_no_target_stalled_the_machine_is_told_over_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut black_box = BlackBox::open(dir.path(), THEN)
        .expect("opened")
        .expect("one");
    for n in 1..=20 {
        let mut frame = frame(n * 500_000, Vec::new());
        frame.targets.clear();
        let text = frame.fitted(0, slots::TEXT_BYTES);
        black_box.write(&text).expect("room");
    }
    let told = found(&bytes(dir.path()), NOW).expect("a crash").record;
    crate::incident::validate(&told);
    assert_eq!(told.target, Target::default());
    assert_eq!(told.duration_us, 19 * 500_000);
    let flight = told.flight.as_ref().expect("looks at the machine");
    assert_eq!(flight.looks.len(), 20);
    assert!(flight.looks.iter().all(RecordedLook::is_of_machine_alone));
    let lines = incident::sparklines(&told, incident::Style::default());
    assert!(
        lines.contains("some") && lines.contains("up to 50%, machine"),
        "{lines}"
    );
    assert!(!lines.contains("memory "), "no target's was read: {lines}");
    let page = incident::picture::page(&told);
    assert!(!page.contains("NaN"), "{page}");
}

#[test]
fn of_looks_at_the_machine_no_target_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut black_box = BlackBox::open(dir.path(), THEN)
        .expect("opened")
        .expect("one");
    for n in 1..=5 {
        // The target is looked at a little before each is written.
        let looks = (1..=n).map(|n| look(n * 500_000 - 7, n * 400_000));
        let text = frame(n * 500_000, looks.collect()).fitted(0, slots::TEXT_BYTES);
        black_box.write(&text).expect("room");
    }
    let told = found(&bytes(dir.path()), NOW).expect("a crash").record;
    let flight = told.flight.as_ref().expect("looks");
    let of_machine = |look: &&RecordedLook| look.is_of_machine_alone();
    assert_eq!(flight.looks.iter().filter(of_machine).count(), 5);
    assert_eq!(flight.looks.len(), 10);
    assert!(flight.looks.is_sorted_by(|a, b| a.at_us < b.at_us));
    let curves = incident::timeline::Curves::of(flight);
    let held: Vec<f64> = curves.current_bytes.iter().map(|&(_, held)| held).collect();
    assert!(
        held.len() == 5 && held.iter().all(|&held| held > 0.0),
        "{held:?}"
    );
    // Nor are they driven with by who decides it again.
    let of_target: Vec<RecordedLook> = flight
        .looks
        .iter()
        .filter(|it| !it.is_of_machine_alone())
        .cloned()
        .collect();
    let settings = crate::watch::Settings::default();
    let orders = |looks: &[RecordedLook]| crate::watch::replay::replay(looks, settings, || 0);
    assert_eq!(orders(&flight.looks), orders(&of_target));
}

/// What a memwatch wrote before a frame had the targets' users and the machine's counters.
const OF_OLD: &str = r#"{"frame":{"host":{"hostname":"here","boot_id":"an-older-boot","kernel_release":"6.1"},"memwatch_version":"0.1.0","wall_us":1772356336000000,"at_us":1000000,"machine":{"memory_total_bytes":8,"memory_available_bytes":7,"swap_total_bytes":null,"swap_free_bytes":null,"swaps":[],"mglru":null,"some_permille":null,"full_permille":null,"arc":null,"oomd":null},"targets":[{"id":2,"name":"/sys/fs/cgroup/2","looks":[{"at_us":900000,"target":{"current_bytes":5,"limit_bytes":null,"stat":null,"psi":{"some_us":9,"full_us":0},"io_psi":null,"reclaim":null},"machine":null,"members":null,"victim_gone":false}]}],"processes":[],"lost":0}}"#;

#[test]
fn what_an_older_memwatch_wrote_is_read_and_what_a_newer_one_adds_passed_over() {
    let newer = OF_OLD.replace(r#""lost":0"#, r#""lost":0,"hue":"blue""#);
    for text in [OF_OLD, &newer] {
        let dir = tempfile::tempdir().expect("a directory");
        let black_box = BlackBox::open(dir.path(), THEN).expect("opened");
        let written = black_box.expect("one").write(text.as_bytes());
        written.expect("room");
        let told = found(&bytes(dir.path()), NOW).expect("a crash").record;
        crate::incident::validate(&told);
        assert_eq!((told.target.cgroup_id, told.target.uid), (Some(2), None));
        assert_eq!(told.flight.expect("looks").looks.len(), 1);
    }
}

#[test]
fn what_a_dead_memwatch_of_this_life_left_is_no_later_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    crash(dir.path(), 3);
    assert!(found(&bytes(dir.path()), NOW).is_some());
    assert_eq!(ends(dir.path(), THEN), 0);
    assert!(found(&bytes(dir.path()), NOW).is_none(), "it is settled");

    // Of one that lives nothing is said.
    let mut alive = BlackBox::open(dir.path(), THEN)
        .expect("opened")
        .expect("one");
    let text = frame(500_000, vec![look(500_000, 1)]).fitted(0, slots::TEXT_BYTES);
    alive.write(&text).expect("room");
    assert_eq!(ends(dir.path(), THEN), 0);
    drop(alive);
    assert!(
        found(&bytes(dir.path()), NOW).is_some(),
        "its own to settle"
    );

    // Nor is it a crash, if the machine was shut down later.
    let recovered = recover(dir.path(), NOW, |_| Told::NoEnd);
    assert_eq!(recovered.ends, []);
    assert_eq!(ends(dir.path(), NOW), 0);
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
    assert_eq!(ends(dir.path(), NOW), 0);
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
    assert_eq!(ends(dir.path(), NOW), 1, "of the first");
    drop((second, others));
}

#[test]
fn what_is_no_file_of_ours_is_refused_and_holds_up_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let names: Vec<_> = file::names(dir.path()).collect();
    let (place, others) = names.split_first().expect("names");
    crash(dir.path(), 3);
    fs::rename(place, &others[0]).expect("ours");
    std::os::unix::fs::symlink("/dev/null", place).expect("a link");
    let recovered = recover(dir.path(), NOW, |_| Told::NotYet);
    assert_eq!((recovered.ends.len(), recovered.failed.len()), (1, 1));
    let opened = BlackBox::open(dir.path(), NOW)
        .expect("opened")
        .expect("one");
    assert_eq!(opened.path(), others[1]);
    drop(opened);

    for other in others {
        let _ = fs::remove_file(other);
        std::os::unix::fs::symlink("/dev/null", other).expect("a link");
    }
    let refused = BlackBox::open(dir.path(), NOW).expect_err("none is ours");
    assert!(refused.to_string().contains("blackbox"), "{refused}");
    fs::remove_file(place).expect("ours");
    fs::write(place, "short").expect("room");
    assert!(
        BlackBox::open(dir.path(), NOW)
            .expect("made anew")
            .is_some()
    );
    assert_eq!(bytes(dir.path()).len(), FILE_BYTES);
    assert_eq!(ends(&dir.path().join("missing"), NOW), 0);
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
