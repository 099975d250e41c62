//! Where the crowd is moved to: armed targets, cgroups in them, and cgroups that look much like them and
//! are none. Who is moved when is `crowd`'s.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use memwatch::bpf::{Facts, Programs, Reader, Row, Terms, plan};
use memwatch_ebpf::{Reach, VICTIMS};

use crate::cgroups::Pair;

/// Under which the crowd's reading is reclaim all along.
const LIMIT: &str = "64M";

/// Always overdue: nobody has ever given a sign of life, and no stall is needed.
const TERMS: Terms = Terms {
    stale_after: Duration::from_nanos(1),
    budget: Duration::ZERO,
    window: Duration::from_secs(1),
    pause: Duration::from_millis(100),
    uid: None,
};

/// A user whose processes the crowd's are not.
const NOBODY: u32 = 65_534;

/// Where a whole process can go. `mixed` holds a threaded target beside a threaded cgroup that is none.
pub(crate) const PLACES: [&str; 12] = [
    "one",
    "one/nested",
    "one/nested/deep",
    "two",
    "two/inner",
    "crew",
    "mixed",
    "nobodys",
    "disarmed",
    "outside",
    "outside/nested",
    REMADE,
];

/// Removed and made again under the same name; every other one is a target.
const REMADE: &str = "remade";

/// Where its threads can go one by one, once it is in the first of them.
pub(crate) const THREADED: [[&str; 3]; 2] = [
    ["crew", "crew/left", "crew/right"],
    ["mixed", "mixed/in", "mixed/out"],
];

/// In no target.
pub(crate) const OUTSIDE: [&str; 2] = ["outside", "outside/nested"];

const TARGETS: [&str; 5] = ["one", "two", "two/inner", "crew", "mixed/in"];
const BELOW_TARGETS: [&str; 4] = ["one/nested", "one/nested/deep", "crew/left", "crew/right"];

/// Rows of removed cgroups that are kept at a time.
const STALE_ROWS: usize = 4;

pub(crate) struct Places {
    pub(crate) pair: Pair,
    programs: Programs,
    reader: Reader,
    /// Targets, by cgroup id.
    rows: BTreeMap<u64, Row>,
    /// Those of them whose cgroups are gone.
    stale: VecDeque<u64>,
    /// Named as victims of every target, whether they are members or not.
    names: [Option<(u32, u64)>; VICTIMS],
    /// The ids of the cgroups of armed targets, and of those below.
    pub(crate) inside: BTreeSet<u64>,
    remade: usize,
    reached: Reached,
}

impl Places {
    pub(crate) fn new() -> Self {
        let pair = Pair::new("moves", LIMIT);
        let plan = plan(&Facts::read());
        let mut programs = Programs::load(&plan).expect("the BPF object loads");
        assert_eq!(programs.losses(), plan.losses);
        let reader = programs.reader().expect("a reader");
        for place in PLACES.into_iter().chain(THREADED.into_iter().flatten()) {
            let dir = pair.v2.join(place);
            if !dir.exists() {
                fs::create_dir(&dir).expect("a cgroup");
            }
        }
        for threaded in THREADED.iter().flat_map(|places| &places[1..]) {
            fs::write(pair.v2.join(threaded).join("cgroup.type"), "threaded").expect("threaded");
        }
        let mut places = Self {
            pair,
            programs,
            reader,
            rows: BTreeMap::new(),
            stale: VecDeque::new(),
            names: Default::default(),
            inside: BTreeSet::new(),
            remade: 0,
            reached: Reached::default(),
        };
        for place in TARGETS {
            places.guard(place, &TERMS);
        }
        let below = BELOW_TARGETS.map(|place| id(&places.dir(place)));
        places.inside.extend(below);
        let for_nobody = Terms {
            uid: Some(NOBODY),
            ..TERMS
        };
        let nobodys = places.guard("nobodys", &for_nobody);
        places.inside.remove(&nobodys);
        let disarmed = places.guard("disarmed", &TERMS);
        let row = places.rows[&disarmed];
        places.programs.disarm(row).expect("disarmed");
        places.inside.remove(&disarmed);
        places
    }

    pub(crate) fn dir(&self, place: &str) -> PathBuf {
        self.pair.v2.join(place)
    }

    /// Puts a cgroup under the guard; its id.
    fn guard(&mut self, place: &str, terms: &Terms) -> u64 {
        let dir = self.dir(place);
        let id = id(&dir);
        let below_mount = dir.strip_prefix("/sys/fs/cgroup/unified").expect("on v2");
        let level = u32::try_from(below_mount.components().count()).expect("few");
        let row = self.programs.add_target(id, Some(level)).expect("a row");
        self.programs.arm(row, terms).expect("armed");
        self.reader.name_victims(row, self.names);
        self.rows.insert(id, row);
        self.inside.insert(id);
        id
    }

    /// Names a process as the first victim of every target; four are named at a time.
    pub(crate) fn name(&mut self, name: (u32, u64)) {
        self.names.rotate_right(1);
        self.names[0] = Some(name);
        for &row in self.rows.values() {
            self.reader.name_victims(row, self.names);
        }
    }

    /// Removes the cgroup that is made again and again, and makes it again: its row stays, and means
    /// nobody from now on. It must be empty.
    pub(crate) fn remake(&mut self) {
        let dir = self.dir(REMADE);
        let old = id(&dir);
        remove(&dir);
        fs::create_dir(&dir).expect("a cgroup");
        if self.rows.contains_key(&old) {
            self.stale.push_back(old);
        }
        if self.stale.len() > STALE_ROWS {
            let stale = self.stale.pop_front().expect("some");
            let row = self.rows.remove(&stale).expect("it has a row");
            self.programs.remove_target(row).expect("removed");
        }
        self.remade += 1;
        if self.remade % 2 == 1 {
            self.guard(REMADE, &TERMS);
        }
    }

    /// Whom the guard has written down so far. To be asked now and then: it keeps a thousand.
    pub(crate) fn reached(&mut self) -> Reached {
        let reached = &mut self.reached;
        for &id in &self.inside {
            for (_, kill) in self
                .programs
                .take_kills(|target| target == id)
                .expect("kills")
            {
                reached.reclaim += usize::from(kill.reach == Reach::Reclaim as u32);
                reached.running += usize::from(kill.reach == Reach::Running as u32);
                reached.named += usize::from(kill.reach == Reach::Named as u32);
            }
        }
        *reached
    }
}

/// Kills by the guard's own account, by the way to them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) reclaim: usize,
    pub(crate) running: usize,
    pub(crate) named: usize,
}

fn id(dir: &Path) -> u64 {
    fs::metadata(dir).expect("our cgroup").ino()
}

/// Waits for those who are just dying.
fn remove(dir: &Path) {
    for _ in 0..1_000 {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                thread::sleep(Duration::from_millis(2));
            }
            other => return other.expect("an empty cgroup"),
        }
    }
    panic!("somebody stays in {}", dir.display());
}
