use super::*;
use crate::host::oomd::{Limits, Preference};
use crossbeam_queue::ArrayQueue;
use std::fs;

/// Directories that look like a hierarchy, and what systemd would say of it.
struct Lab {
    mount: tempfile::TempDir,
    channel: Arc<Channel>,
    slow: Policies,
}

impl Lab {
    fn new() -> Self {
        let mount = tempfile::tempdir().expect("a directory");
        let channel = Arc::new(Channel::new().expect("descriptors"));
        let own = mount.path().join("memwatch.slice/memwatch.service");
        let slow = Policies::start(mount.path(), &own, Arc::clone(&channel), Mode::Real);
        let mut slow = slow.expect("no thread is needed");
        // Whatever systemd there is here is not asked.
        slow.asker.answers = Arc::new(ArrayQueue::new(1));
        Self {
            mount,
            channel,
            slow,
        }
    }

    fn group(&self, path: &str) -> u64 {
        let dir = self.mount.path().join(path);
        fs::create_dir_all(&dir).expect("a directory");
        for (file, text) in [
            ("memory.pressure", "full avg10=0.00\n"),
            ("memory.stat", "pgscan 0\n"),
            ("memory.current", "0\n"),
            ("memory.oom.group", "0\n"),
            ("cgroup.procs", ""),
        ] {
            fs::write(dir.join(file), text).expect("a file");
        }
        self.set_descendants(path, 0);
        cgroup::id(&dir).expect("it is there")
    }

    fn set_descendants(&self, path: &str, count: u64) {
        let file = self.mount.path().join(path).join("cgroup.stat");
        fs::write(file, format!("nr_descendants {count}\n")).expect("a file");
    }

    fn remove(&self, path: &str) {
        fs::remove_dir_all(self.mount.path().join(path)).expect("it was there");
    }

    fn answer(&self, cgroups: &[&str]) {
        let managed = |cgroup: &&str| Managed {
            name: (*cgroup).to_owned(),
            cgroup: cgroup.into(),
            limits: Limits {
                pressure: None,
                swap: true,
            },
        };
        let learned = Learned {
            is_wanted: true,
            peer: None,
            managed: cgroups.iter().map(managed).collect(),
        };
        drop(
            self.slow
                .asker
                .answers
                .force_push(Ok((learned, Defaults::default()))),
        );
    }

    fn poll(&mut self, ours: &[&str]) -> Vec<Change> {
        let ours: Vec<_> = ours
            .iter()
            .map(|path| self.mount.path().join(path))
            .collect();
        let ours: Vec<_> = ours.iter().map(PathBuf::as_path).collect();
        self.slow.poll(&Helpers::default(), &ours);
        std::iter::from_fn(|| self.channel.change()).collect()
    }
}

/// The cgroups that are handed over, and whether as new ones.
fn handed_over(changes: &[Change]) -> Vec<(u64, bool)> {
    let mut found: Vec<_> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Candidate {
                candidate, is_new, ..
            } => Some((candidate.id, *is_new)),
            _ => None,
        })
        .collect();
    found.sort_unstable();
    found
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list
}

#[test]
fn where_systemd_says_nothing_nothing_is_done() {
    let mut lab = Lab::new();
    lab.group("user.slice");
    assert!(lab.poll(&[]).is_empty());
    assert_eq!(lab.slow.status(), OomdStatus::default());
}

#[test]
fn units_and_what_lies_below_are_handed_over_once_and_taken_back() {
    let mut lab = Lab::new();
    let unit = lab.group("user.slice");
    let (a, b) = (
        lab.group("user.slice/a.scope"),
        lab.group("user.slice/b.scope"),
    );
    lab.set_descendants("user.slice", 2);
    lab.answer(&["user.slice", "gone.slice"]);
    let changes = lab.poll(&[]);
    assert!(
        matches!(changes[0], Change::SwapUsedLimit(9000)),
        "{changes:?}"
    );
    assert!(
        matches!(&changes[1], Change::Unit(it, _) if it.id == unit),
        "{changes:?}"
    );
    assert_eq!(handed_over(&changes), sorted(vec![(a, false), (b, false)]));
    assert!(lab.poll(&[]).is_empty(), "nothing has changed");

    let c = lab.group("user.slice/c.scope");
    lab.remove("user.slice/a.scope");
    assert!(
        lab.poll(&[]).is_empty(),
        "their number is the same, so not yet"
    );
    lab.set_descendants("user.slice", 3);
    let changes = lab.poll(&[]);
    assert_eq!(handed_over(&changes), [(c, true)]);
    assert!(
        changes
            .iter()
            .any(|it| matches!(it, Change::CandidateGone(id) if *id == a))
    );
    let status = lab.slow.status();
    assert_eq!((status.managed_units, status.candidates), (1, 2));

    lab.answer(&[]);
    let changes = lab.poll(&[]);
    assert!(
        changes
            .iter()
            .any(|it| matches!(it, Change::UnitGone(id) if *id == unit))
    );
    assert!(
        changes
            .iter()
            .any(|it| matches!(it, Change::CandidateGone(id) if *id == c))
    );
}

#[test]
fn memwatch_and_what_it_guards_are_nobodys_to_end_here() {
    let mut lab = Lab::new();
    lab.group("top.slice");
    let other = lab.group("top.slice/other.scope");
    lab.group("top.slice/target.scope/memwatch-0123abcd");
    lab.group("top.slice/target.scope");
    let own = lab.mount.path().join("top.slice/memwatch.service");
    lab.group("top.slice/memwatch.service");
    lab.slow.own = own;
    lab.answer(&["top.slice"]);
    let changes = lab.poll(&["top.slice/target.scope/memwatch-0123abcd"]);
    assert_eq!(handed_over(&changes), [(other, false)]);
}

#[test]
fn units_may_nest_and_a_cgroup_lies_under_each() {
    let mut lab = Lab::new();
    let outer = lab.group("user.slice");
    let inner = lab.group("user.slice/user-1000.slice");
    lab.group("user.slice/user-1000.slice/a.scope");
    lab.answer(&["user.slice", "user.slice/user-1000.slice"]);
    let changes = lab.poll(&[]);
    let under = changes.iter().find_map(|change| match change {
        Change::Candidate { candidate, .. } => Some(candidate.under),
        _ => None,
    });
    let units = under.expect("one").into_iter().flatten();
    assert_eq!(
        sorted(units.map(|it| it.unit).collect()),
        sorted(vec![outer, inner])
    );
    // The inner one is left to itself.
    lab.answer(&["user.slice"]);
    let changes = lab.poll(&[]);
    let moved = changes.iter().any(
        |it| matches!(it, Change::Moved(it) if it.under.iter().flatten().count() == 1 && it.preference == Preference::None),
    );
    assert!(moved, "{changes:?}");
}

#[test]
fn a_silent_bus_is_told_once_and_what_is_known_stays() {
    let mut lab = Lab::new();
    lab.group("user.slice");
    lab.answer(&["user.slice"]);
    lab.poll(&[]);
    let silence = |lab: &mut Lab| {
        drop(lab.slow.asker.answers.force_push(Err("it is late".into())));
        lab.slow.poll(&Helpers::default(), &[])
    };
    assert!(silence(&mut lab).is_empty(), "once is nothing");
    lab.slow.answered_at = lab.slow.answered_at.saturating_sub(STALE);
    let told = silence(&mut lab);
    assert!(told[0].line.contains("it is late"), "{told:?}");
    assert!(silence(&mut lab).is_empty());
    assert_eq!(lab.slow.status().managed_units, 1);
    assert!(lab.slow.status().bus_silent_s.is_some());
    lab.answer(&["user.slice"]);
    lab.poll(&[]);
    assert_eq!(lab.slow.status().bus_silent_s, None);
}

#[test]
fn more_than_there_is_room_for_is_counted_and_handed_over_bit_by_bit() {
    let mut lab = Lab::new();
    lab.group("big.slice");
    for n in 0..CANDIDATES + 3 {
        lab.group(&format!("big.slice/{n}.scope"));
    }
    lab.answer(&["big.slice"]);
    let mut count = 0;
    for _ in 0..20 {
        count += handed_over(&lab.poll(&[])).len();
    }
    assert_eq!(count, CANDIDATES);
    assert_eq!(lab.slow.status().left_out, 3);
}
