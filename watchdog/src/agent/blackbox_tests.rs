//! That it writes when there is pressure, and what becomes of what is found.

use super::*;
use crate::agent::recorder::Lane;
use crate::host::psi::Psi;
use crate::watch::{Facts, TargetFacts};

fn stalling(flights: &Flights, now: Duration) {
    let mut recorder = flights.recorder(7, true);
    for n in 0..10u32 {
        let at = now.saturating_sub(Duration::from_millis(100) * (10 - n));
        let facts = Facts {
            target: TargetFacts {
                psi: Some(Psi {
                    some_us: u64::from(n) * 50_000,
                    full_us: 0,
                }),
                ..TargetFacts::default()
            },
            machine: None,
            members: None,
            victim_gone: false,
        };
        recorder.take(at, &facts, true, false);
    }
    flights.look_after(now);
    flights.name(7, "/sys/fs/cgroup/seven".into(), Some(1000));
}

#[test]
fn under_pressure_it_writes_and_a_crash_would_be_told() {
    let state = tempfile::tempdir().expect("a directory");
    let flights = Arc::new(Flights::new(Lane::new(64, 8), 1));
    let keep: Keep = Box::new(|_| true);
    let keeper = Keeper::start(state.path().to_owned(), Arc::clone(&flights), keep);
    let keeper = keeper.expect("a thread");
    let file = state.path().join("blackbox");
    let told = || blackbox::found(&std::fs::read(&file).ok()?, "another-boot");
    let found = loop {
        stalling(&flights, clock::now());
        if let Some(found) = told()
            && found.record.target.cgroup_path.is_some()
        {
            break found.record;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let path = found.target.cgroup_path.as_ref().map(Text::as_str);
    assert_eq!(path, Some("/sys/fs/cgroup/seven"));
    assert_eq!(found.target.uid, Some(1000));
    let flight = found.flight.as_ref().expect("looks");
    let of_machine = flight.looks.iter().filter(|it| it.is_of_machine_alone());
    let of_machine = of_machine.filter_map(|look| look.machine?.psi);
    assert!(of_machine.count() > 0, "the machine over time, too");
    let machine = found.machine.as_ref().expect("the machine");
    assert!(machine.memory_total_bytes.is_some_and(|bytes| bytes > 0));
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.as_str().contains("biggest"))
    );
    crate::incident::validate(&found);

    keeper.finish();
    assert!(told().is_none(), "an end as it should be");
}

#[test]
fn the_share_is_over_the_time_between_two_looks() {
    let state = tempfile::tempdir().expect("a directory");
    let black_box = BlackBox::open(state.path(), "now")
        .expect("made")
        .expect("one");
    let mut writer = Writer::new(black_box, Host::default(), mpsc::channel().0);
    let at = Duration::from_secs;
    assert!(
        !writer.stalls(at(1), Some(1_000_000)),
        "the first tells nothing"
    );
    assert!(writer.stalls(at(2), Some(1_020_000)));
    assert!(!writer.stalls(at(3), Some(1_039_000)));
    assert!(!writer.stalls(at(4), None));
}

#[test]
fn what_the_arc_gives_back_is_not_missing() {
    let glance = |available_bytes, size_bytes| Glance {
        memory: Some(MemInfo {
            total_bytes: 2000,
            available_bytes,
            ..MemInfo::default()
        }),
        arc: Some(ArcStats {
            size_bytes,
            c_bytes: 0,
            c_min_bytes: 10,
            c_max_bytes: 0,
        }),
        ..Glance::default()
    };
    assert!(glance(90, 10).is_short());
    assert!(!glance(90, 20).is_short());
    assert!(!Glance::default().is_short(), "not known");
}

/// A black box that a memwatch of another life has left in `state`, under pressure.
fn left_behind(state: &Path) {
    let frame = Frame {
        host: Host {
            boot_id: Some("0c5e1a1e-7d35-4d0e-9a43-6a8f3f0b5a11".into()),
            ..Host::default()
        },
        memwatch_version: "0.1.0".into(),
        wall_us: 1_772_356_336_000_000,
        at_us: 4_000_000_000,
        machine: Machine::default(),
        facts: Glance::now().facts(),
        targets: Vec::new(),
        processes: biggest(),
        lost: 0,
    };
    let black_box = BlackBox::open(state, "another").expect("made");
    let text = frame.fitted(0, blackbox::TEXT_BYTES);
    black_box.expect("one").write(&text).expect("room");
}

#[test]
fn a_machine_that_was_shut_down_later_did_not_end_so_and_what_is_not_known_is_said() {
    let state = tempfile::tempdir().expect("a directory");
    left_behind(state.path());
    let bytes = std::fs::read(state.path().join("blackbox")).expect("written");
    let found = blackbox::found(&bytes, "this").expect("an end");
    let told = |ending, is_kept| {
        let mut kept = None;
        let told = tell_of(&found, ending, &mut |record: &Record| {
            kept = Some(record.notes.iter().map(ToString::to_string).collect());
            is_kept
        });
        (told, kept.unwrap_or_else(Vec::<String>::new).join("\n"))
    };
    let (nothing, notes) = told(Ok(Ending::InOrder), true);
    assert_eq!((nothing, notes.as_str()), (Told::NoEnd, ""));
    let (kept, notes) = told(Ok(Ending::Abrupt), true);
    assert_eq!(kept, Told::Kept);
    assert!(notes.contains("ended without being shut down"), "{notes}");
    assert!(!notes.contains("could not be told"), "{notes}");
    let unknown = "could not be told: systemd's journal has nothing of that boot";
    let (not_yet, notes) = told(Ok(Ending::Unknown), false);
    assert_eq!(not_yet, Told::NotYet);
    assert!(notes.contains(unknown), "{notes}");
    let (_, notes) = told(Err(io::ErrorKind::TimedOut.into()), true);
    assert!(
        notes.contains("could not be told: systemd's journal could"),
        "{notes}"
    );

    // Of that boot the journal of this machine has nothing: the whole way, with what is said of it.
    let recovered = recover(state.path(), |record| {
        record
            .notes
            .iter()
            .any(|note| note.as_str().contains(unknown))
    });
    assert_eq!((recovered.ends.len(), recovered.failed.len()), (1, 0));
    assert_eq!(recover(state.path(), |_| true).ends.len(), 0, "kept");
}

#[test]
fn who_has_no_black_box_is_told_why() {
    let state = tempfile::tempdir().expect("a directory");
    let file = state.path().join("file");
    std::fs::write(&file, "").expect("room");
    let flights = || Arc::new(Flights::new(Lane::new(64, 8), 1));
    let keeper = Keeper::start(file.join("below"), flights(), Box::new(|_| true));
    let keeper = keeper.expect("a thread");
    let lost = loop {
        if let Some(lost) = keeper.lost().next() {
            break lost;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let feature = lost.feature.as_str();
    assert!(
        feature.starts_with("the black box (") && feature.contains("Not a directory"),
        "{feature}"
    );

    // One file that is none of ours is no loss: there are others. What is found there is told.
    std::os::unix::fs::symlink("/dev/null", state.path().join("blackbox")).expect("a link");
    left_behind(state.path());
    let keeper = Keeper::start(state.path().to_owned(), flights(), Box::new(|_| true));
    let keeper = keeper.expect("a thread");
    let news = loop {
        if let Some(news) = keeper.news().next() {
            break news;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    match news {
        News::Kept(record) => assert_eq!(record.kind, crate::incident::Kind::HardReset),
        News::Lost(lost) => panic!("{lost:?}"),
    }
    keeper.finish();
}

#[test]
fn what_goes_for_an_end_and_what_keeps_it_is_said() {
    use crate::config::Incidents;
    use crate::export::Spool;
    use crate::incident::Verdict;
    let state = tempfile::tempdir().expect("a directory");
    let bounds = Incidents {
        most: 1,
        ..Incidents::default()
    };
    let spool = Spool::open(state.path(), &bounds).expect("made");
    let said = |kept| {
        let lines = std::cell::RefCell::new(Vec::new());
        let kept = was_kept(kept, |line| lines.borrow_mut().push(line.to_owned()));
        (kept, lines.into_inner())
    };
    let now = SystemTime::now();
    let record = || Record::new(now, now, 0, Verdict::Ongoing);
    assert_eq!(said(spool.keep(&record())), (true, vec![]));
    let (kept, lines) = said(spool.keep(&record()));
    assert!(
        kept && lines[0].contains("1 old incidents were removed"),
        "{lines:?}"
    );
    std::fs::remove_dir_all(spool.dir()).expect("ours");
    std::fs::write(spool.dir(), "no directory").expect("room");
    let (kept, lines) = said(spool.keep(&record()));
    assert!(
        !kept && lines[0].starts_with("an incident is not kept yet"),
        "{lines:?}"
    );
}
