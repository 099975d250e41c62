//! The stage against real processes, in directories that look like cgroups: their figures are made up, since
//! whose they are is what is tested, and time is given.

use super::*;
use crate::act::signal::pidfd_open;
use crate::counting;
use crate::host::meminfo::MemInfo;
use crate::host::oomd::{Limits, Preference, PressureLimit};
use crate::host::process::stat_of;
use crate::watch::oomd_rule::Under;
use crate::watch::peer::Ailment;
use crate::watch::takeover::{Transition, Why};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};

const UNIT: u64 = 7;
const MIB: u64 = 1 << 20;
/// By when what must happen has happened.
const SOON: Duration = Duration::from_secs(20);

struct Lab {
    root: tempfile::TempDir,
    channel: Arc<Channel>,
    stage: Takeover,
    children: Vec<Child>,
    now: Duration,
    available_bytes: u64,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Lab {
    fn new(mode: Mode) -> Self {
        let channel = Arc::new(Channel::new().expect("descriptors"));
        Self {
            root: tempfile::tempdir().expect("a directory"),
            stage: Takeover::new(Settings::default(), mode, Arc::clone(&channel)),
            channel,
            children: Vec::new(),
            now: Duration::from_secs(1000),
            available_bytes: 700 * MIB,
        }
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.root.path().join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn hand_over(&self, change: Change) {
        assert!(self.channel.hand_over(change).is_ok(), "there is room");
    }

    /// A process that is called as systemd-oomd is; its place among the children.
    fn add_peer(&mut self) -> usize {
        let program = self.root.path().join("systemd-oomd");
        // No copy: what is written to while another test begins a process cannot be executed.
        std::os::unix::fs::symlink("/bin/sleep", &program).expect("a link");
        let child = Command::new(program)
            .arg0("systemd-oomd")
            .arg("600")
            .spawn();
        let child = child.expect("it starts");
        // Until it has become the program, it has our name; and it is to sleep, since the time of a test is made up.
        let files = (0..20_000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            let files = PeerFiles::open(child.id()).ok()?;
            let look = files.look(&mut [0; 8192])?;
            (look.state == b'S').then_some(files)
        });
        self.hand_over(Change::Peer(Some(files.expect("it is there"))));
        self.children.push(child);
        self.children.len() - 1
    }

    fn add_unit(&self, full: &str, scanned: u64) {
        self.set_unit(full, scanned);
        let limits = Limits {
            pressure: Some(PressureLimit {
                permyriad: 1000,
                duration: Duration::from_secs(2),
            }),
            swap: false,
        };
        let dir = self.root.path().join("unit");
        let files = UnitFiles::open(&dir, false).expect("files");
        self.hand_over(Change::Unit(Unit::new(UNIT, limits), files));
    }

    fn set_unit(&self, full: &str, scanned: u64) {
        let pressure = format!("some avg10=99.00 total=1\nfull avg10={full} total=1\n");
        self.write("unit/memory.pressure", &pressure);
        self.write("unit/memory.stat", &format!("pgscan {scanned}\n"));
    }

    /// A cgroup that holds a real process.
    fn add_cgroup(&mut self, id: u64, mib: u64) -> usize {
        let child = Command::new("sleep").arg("600").spawn().expect("sleep");
        let name = format!("unit/{id}");
        self.hold(id, mib * MIB);
        self.write(&format!("{name}/memory.stat"), "pgscan 0\n");
        self.write(
            &format!("{name}/cgroup.procs"),
            &format!("{}\n", child.id()),
        );
        self.children.push(child);
        let under = Under {
            unit: UNIT,
            swap: false,
            preference: Preference::None,
        };
        let files = CandidateFiles::open(&self.dir(id), &[]).expect("files");
        self.hand_over(Change::Candidate {
            candidate: Candidate::new(id, [Some(under), None, None, None], Preference::None),
            files,
            is_new: false,
        });
        self.children.len() - 1
    }

    fn dir(&self, id: u64) -> PathBuf {
        self.root.path().join(format!("unit/{id}"))
    }

    fn hold(&self, id: u64, bytes: u64) {
        let file = format!("unit/{id}/memory.current");
        self.write(&file, &format!("{bytes}\n"));
    }

    fn signal(&self, child: usize, signal: i32) {
        // SAFETY: numbers only; the child is ours and not reaped.
        unsafe { libc::kill(self.children[child].id() as i32, signal) };
        // It takes a moment to stop.
        let becomes = if signal == libc::SIGSTOP { b'T' } else { b'S' };
        let until = std::time::Instant::now() + SOON;
        while stat_of(self.children[child].id()).map(|stat| stat.state) != Some(becomes) {
            assert!(std::time::Instant::now() < until, "nothing comes of it");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn lives(&self, child: usize) -> bool {
        !self.ends_within(child, Duration::from_millis(200))
    }

    fn ends(&self, child: usize) -> bool {
        self.ends_within(child, SOON)
    }

    fn ends_within(&self, child: usize, patience: Duration) -> bool {
        let pidfd = pidfd_open(self.children[child].id()).expect("not reaped");
        signal::exits_within(&pidfd, patience)
    }

    fn pass(&mut self) {
        let machine = MachineFacts {
            meminfo: MemInfo {
                total_bytes: 1024 * MIB,
                available_bytes: self.available_bytes,
                ..MemInfo::default()
            },
            arc: None,
            psi: None,
        };
        let before = counting::calls();
        let pause = self.stage.once(self.now, Some(&machine));
        assert_eq!(counting::calls(), before, "calls to the allocator");
        assert!(pause <= IDLE);
        self.now += pause.max(Duration::from_millis(1));
    }

    fn run(&mut self, time: Duration) -> Vec<Notice> {
        let until = self.now + time;
        while self.now < until {
            self.pass();
        }
        std::iter::from_fn(|| self.channel.next()).collect()
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn turns(notices: &[Notice]) -> Vec<Transition> {
    let turn = |notice: &Notice| match notice {
        Notice::Turned { transition, .. } => Some(*transition),
        _ => None,
    };
    notices.iter().filter_map(turn).collect()
}

#[test]
fn a_stopped_peer_is_stood_in_for_and_then_let_be() {
    let mut lab = Lab::new(Mode::Real);
    let peer = lab.add_peer();
    lab.add_unit("0.00", 5);
    let small = lab.add_cgroup(1, 10);
    let large = lab.add_cgroup(2, 90);
    lab.run(secs(1));
    lab.signal(peer, libc::SIGSTOP);
    // It thrashes from now on.
    lab.set_unit("55.00", 9);
    let began = lab.now;
    let notices = lab.run(secs(5));
    let Some(Notice::Turned { at, .. }) = notices
        .iter()
        .find(|it| matches!(it, Notice::Turned { .. }))
    else {
        panic!("{notices:?}");
    };
    assert!(*at - began <= secs(2), "{:?}", *at - began);
    let ordered = notices.iter().find_map(|notice| match notice {
        Notice::Ordered { id, why, .. } => Some((*id, *why)),
        _ => None,
    });
    let (id, why) = ordered.expect("an order");
    assert_eq!(id, 2);
    assert!(
        matches!(
            why,
            Why::Pressure {
                full_permyriad: 5500,
                ..
            }
        ),
        "{why:?}"
    );
    assert!(lab.ends(large));
    assert!(lab.lives(small));
    let hit = notices.iter().find_map(|notice| match notice {
        Notice::Hit { pid, named, .. } => Some((*pid, *named)),
        _ => None,
    });
    let (pid, named) = hit.expect("a process");
    assert_eq!(pid, lab.children[large].id());
    assert!(named.is_some_and(|(_, comm)| comm.starts_with(b"sleep\0")));
    assert!(
        lab.channel.next_dying().is_some(),
        "its memory is taken away"
    );

    // Its memory comes back, the pressure goes, and systemd-oomd goes on.
    lab.write("unit/2/cgroup.procs", "");
    lab.hold(2, 0);
    lab.set_unit("0.00", 9);
    lab.available_bytes += 90 * MIB;
    let notices = lab.run(secs(1));
    assert!(
        notices
            .iter()
            .any(|it| matches!(it, Notice::Recovered { held_bytes: 0, .. })),
        "{notices:?}"
    );
    lab.signal(peer, libc::SIGCONT);
    // A sleep does not switch by itself; only its first waking shows.
    let notices = lab.run(secs(3));
    assert!(
        notices.iter().any(|it| matches!(
            it,
            Notice::Health {
                health: Health::Well,
                ..
            }
        )),
        "{notices:?}"
    );
    assert!(lab.lives(small));
}

#[test]
fn a_peer_that_never_runs_and_one_that_is_gone_are_found_out() {
    let mut lab = Lab::new(Mode::Real);
    let peer = lab.add_peer();
    lab.add_unit("0.00", 5);
    let why = |notices: &[Notice]| match turns(notices)[..] {
        [Transition::TakenOver { why, .. }] => why,
        ref turns => panic!("{turns:?}"),
    };
    // A sleep is as silent as an oomd that hangs in an uninterruptible wait.
    assert_eq!(why(&lab.run(secs(6))), Health::Unwell(Ailment::Silent));
    let mut lab2 = Lab::new(Mode::Real);
    let gone = lab2.add_peer();
    lab2.add_unit("0.00", 5);
    lab2.run(secs(1));
    lab2.children[gone].kill().expect("ours");
    lab2.children[gone].wait().expect("ours");
    assert_eq!(why(&lab2.run(secs(5))), Health::Gone);
    assert!(lab.lives(peer), "nobody signals systemd-oomd");
}

#[test]
fn a_hog_that_fills_the_machine_is_ended_with_oomd_well_and_only_said_in_a_dry_run() {
    for mode in [Mode::Real, Mode::DryRun] {
        let mut lab = Lab::new(mode);
        lab.add_unit("0.00", 5);
        let calm = lab.add_cgroup(1, 50);
        let hog = lab.add_cgroup(2, 50);
        lab.run(Duration::from_millis(500));
        let mut notices = Vec::new();
        let mut held = 50 * MIB;
        while held < 800 * MIB && notices.is_empty() {
            let before = lab.now;
            let found = lab.run(Duration::from_millis(1));
            // 400 MiB a second.
            let grown = (lab.now - before).as_millis() as u64 * 400 * MIB / 1000;
            held += grown;
            lab.available_bytes = lab.available_bytes.saturating_sub(grown);
            lab.hold(2, held);
            notices = found
                .into_iter()
                .filter(|it| !matches!(it, Notice::Health { .. } | Notice::Turned { .. }))
                .collect();
        }
        assert!(
            matches!(
                notices[0],
                Notice::Ordered {
                    id: 2,
                    why: Why::Machine(_),
                    ..
                }
            ),
            "{notices:?}"
        );
        assert!(lab.available_bytes > 48 * MIB, "before the low mark");
        assert!(!lab.stage.policy.stage().is_ours());
        let rivals = notices.iter().filter_map(|it| match it {
            Notice::Rival { id, .. } => Some(*id),
            _ => None,
        });
        assert_eq!(rivals.collect::<Vec<_>>(), [1]);
        match mode {
            Mode::Real => assert!(lab.ends(hog)),
            Mode::DryRun => assert!(lab.lives(hog)),
        }
        assert!(lab.lives(calm));
        let outcome = notices.iter().find_map(|it| match it {
            Notice::Hit { outcome, .. } => Some(*outcome),
            _ => None,
        });
        let expected = match mode {
            Mode::Real => Outcome::Delivered,
            Mode::DryRun => Outcome::DryRun,
        };
        assert_eq!(outcome, Some(expected));
    }
}

#[test]
fn what_is_not_needed_comes_back_to_be_closed_and_an_empty_stage_rests() {
    let mut lab = Lab::new(Mode::Real);
    lab.add_peer();
    lab.add_unit("0.00", 5);
    lab.add_cgroup(1, 10);
    lab.run(secs(1));
    lab.hand_over(Change::CandidateGone(1));
    lab.hand_over(Change::UnitGone(UNIT));
    lab.hand_over(Change::Peer(None));
    lab.run(secs(1));
    let retired = std::iter::from_fn(|| lab.channel.retired()).count();
    assert_eq!(retired, 3);
    let pause = lab.stage.once(lab.now, None);
    assert_eq!(pause, IDLE);
}
