use super::*;
use crate::incident::validate;
use crate::watch::peer::Ailment;
use crate::watch::{Cause, Measure, Rule};

const STOPPED: Health = Health::Unwell(Ailment::Stopped);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A cgroup that is not there any more.
const GONE: u64 = 12345;

struct Teller {
    story: Story,
    dry_run: bool,
}

impl Teller {
    fn new() -> Self {
        Self {
            story: Story::default(),
            dry_run: false,
        }
    }

    fn tell(&mut self, now: u64, notice: Notice) -> Heard {
        let moment = Moment {
            now: secs(now),
            wall: SystemTime::UNIX_EPOCH + secs(1_800_000_000 + now),
            peer_pid: Some(812),
            dry_run: self.dry_run,
        };
        let units = [(7, "test.slice")].into_iter();
        let dir = Path::new("/sys/fs/cgroup/test.slice/h\nog.service");
        self.story
            .hear(&moment, &notice, units, |id| (id != GONE).then_some(dir))
    }

    fn take_over(&mut self, at: u64) -> Told {
        let transition = Transition::TakenOver {
            why: STOPPED,
            after: secs(1),
        };
        let at = secs(at);
        let heard = self.tell(at.as_secs(), Notice::Turned { at, transition });
        heard.told.expect("told")
    }

    fn end(&mut self, at: u64, why: Why) -> (Told, Told) {
        self.tell(
            at,
            Notice::Ordered {
                at: secs(at),
                id: 99,
                why,
                held_bytes: 700 << 20,
                growth_bytes: 600 << 20,
            },
        );
        let hit = |pid, outcome| Notice::Hit {
            pid,
            named: (pid == 41).then_some((5000, *b"hog\0\0\0\0\0\0\0\0\0\0\0\0\0")),
            outcome,
        };
        let outcome = match self.dry_run {
            true => Outcome::DryRun,
            false => Outcome::Delivered,
        };
        self.tell(at, hit(41, outcome));
        self.tell(at, hit(42, Outcome::Gone));
        let rival = |id| Notice::Rival {
            id,
            held_bytes: 300 << 20,
            growth_bytes: 0,
        };
        self.tell(at, rival(99));
        self.tell(at, rival(GONE));
        let struck = self.tell(at, Notice::Struck);
        assert_eq!(struck.struck.map(|(id, _)| id), Some(99));
        let recovered = Notice::Recovered {
            at: secs(at + 1),
            took: secs(1),
            held_bytes: 1 << 20,
        };
        let recovered = self.tell(at + 1, recovered);
        (struck.told.expect("told"), recovered.told.expect("told"))
    }
}

const PRESSURE: Why = Why::Pressure {
    unit: 7,
    full_permyriad: 3520,
    limit_permyriad: 1000,
    lasted: Duration::from_secs(2),
};

#[test]
fn a_takeover_a_kill_and_the_hand_back_are_told_with_whom_and_why() {
    let mut teller = Teller::new();
    let told = teller.take_over(100);
    assert_eq!(
        told.line,
        "systemd-oomd (pid 812) is stopped by a signal or a debugger: memwatch looks after what it was given \
         (test.slice)"
    );
    let record = told.record.expect("a record");
    validate(&record);
    assert_eq!(
        (record.kind, record.verdict),
        (Kind::Takeover, Verdict::Ongoing)
    );
    let takeover = record.takeover.expect("it is about one");
    assert_eq!(takeover.fault, Some(Fault::Stopped));
    assert_eq!(
        (takeover.noticed_after_us, takeover.kills),
        (Some(1_000_000), 0)
    );

    let (struck, recovered) = teller.end(110, PRESSURE);
    assert!(
        struck
            .line
            .contains("memory pressure of test.slice at 35.20% for 2.0s")
            && struck.line.contains("10.00% or less")
            && struck.line.contains("in place of systemd-oomd")
            && struck.line.contains("2 processes")
            && !struck.line.contains('\n'),
        "{}",
        struck.line
    );
    let record = recovered.record.expect("a record");
    validate(&record);
    assert_eq!((record.kind, record.duration_us), (Kind::Kill, 1_000_000));
    assert_eq!(record.interventions[0].rule, incident::Rule::OomdPressure);
    assert_eq!(record.victims.len(), 1);
    assert_eq!(record.victims[0].process.pid, 41);
    assert_eq!(record.victims[0].process.comm.to_string(), "hog");
    let [rival] = &record.interventions[0].rival_cgroups[..] else {
        panic!("one that is gone has no name")
    };
    assert_eq!(rival.memory_bytes, 300 << 20);

    let transition = Transition::HandedBack { after: secs(70) };
    let told = teller.tell(
        170,
        Notice::Turned {
            at: secs(170),
            transition,
        },
    );
    let told = told.told.expect("told");
    assert!(
        told.line.contains("well again") && told.line.contains("one cgroup"),
        "{}",
        told.line
    );
    let record = told.record.expect("a record");
    validate(&record);
    assert_eq!(
        (record.kind, record.duration_us),
        (Kind::HandBack, 70_000_000)
    );
    assert_eq!(record.takeover.expect("it is about one").kills, 1);
    assert!(!teller.story.is_taken_over());
}

#[test]
fn a_kill_for_the_machines_sake_says_that_oomd_is_well() {
    let why = Why::Machine(Cause {
        rule: Rule::MachineExhaustion,
        measure: Measure::Fill,
        observed: 200_000,
        threshold: 250_000,
        lasted: secs(4),
        fill_bytes_per_s: 150 << 20,
        headroom_bytes: 30 << 20,
    });
    let (struck, recovered) = Teller::new().end(10, why);
    assert!(
        struck.line.contains("systemd-oomd is well"),
        "{}",
        struck.line
    );
    let record = recovered.record.expect("a record");
    validate(&record);
    assert_eq!(record.takeover.expect("its units").fault, None);
    assert_eq!(record.interventions[0].ground, Some(Ground::Growth));
}

#[test]
fn a_dry_run_says_so_and_has_no_victims() {
    let mut teller = Teller::new();
    teller.dry_run = true;
    let (struck, recovered) = teller.end(10, PRESSURE);
    assert!(
        struck.line.starts_with("would send SIGKILL"),
        "{}",
        struck.line
    );
    let record = recovered.record.expect("a record");
    validate(&record);
    assert!(record.victims.is_empty() && record.dry_run);
    assert_eq!(record.verdict, Verdict::Ongoing);
}

#[test]
fn health_is_known_with_its_time() {
    let mut teller = Teller::new();
    assert_eq!(teller.story.fault(), (None, None));
    let stopped = Notice::Health {
        at: secs(5),
        health: STOPPED,
    };
    teller.tell(5, stopped);
    assert_eq!(teller.story.fault(), (Some(Fault::Stopped), Some(secs(5))));
    let well = Notice::Health {
        at: secs(9),
        health: Health::Well,
    };
    teller.tell(9, well);
    assert_eq!(teller.story.fault(), (None, Some(secs(9))));
}

#[test]
fn who_has_nothing_to_look_after_is_let_go_and_not_called_well() {
    let mut teller = Teller::new();
    teller.take_over(100);
    let at = secs(130);
    let transition = Transition::LetGo { after: secs(30) };
    let told = teller.tell(130, Notice::Turned { at, transition });
    let told = told.told.expect("told");
    assert!(told.line.contains("lets go"), "{}", told.line);
    assert!(!told.line.contains("well again"), "{}", told.line);
    assert_eq!(told.record.expect("a record").kind, Kind::HandBack);
    assert!(!teller.story.is_taken_over());
}
