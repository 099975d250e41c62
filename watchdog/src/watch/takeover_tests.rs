use super::super::oomd_rule::Under;
use super::*;
use crate::host::meminfo::MemInfo;
use crate::host::oomd::{Limits, Preference, PressureLimit};
use crate::host::psi::Psi;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const UNIT: u64 = 7;
const STOPPED_PEER: Health = Health::Unwell(Ailment::Stopped);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn takeover() -> Takeover {
    Takeover::new(Settings::default())
}

/// Judges `health` every half second from `from` to `to`, in seconds; what came of it, with when.
fn judge(it: &mut Takeover, from: u64, to: u64, health: Health) -> Vec<(Duration, Transition)> {
    (2 * from..2 * to)
        .map(|n| ms(500 * n))
        .filter_map(|now| Some((now, it.judge(now, health, true)?)))
        .collect()
}

#[test]
fn a_stop_is_taken_over_within_two_seconds_and_handed_back_after_ten() {
    let mut it = takeover();
    assert!(judge(&mut it, 0, 5, Health::Well).is_empty());
    let told = judge(&mut it, 5, 60, STOPPED_PEER);
    let transition = Transition::TakenOver {
        why: STOPPED_PEER,
        after: secs(1),
    };
    assert_eq!(told, [(secs(6), transition)]);
    assert!(it.stage().is_ours());
    let told = judge(&mut it, 60, 200, Health::Well);
    assert_eq!(
        told,
        [(secs(70), Transition::HandedBack { after: secs(64) })]
    );
    assert_eq!(it.stage(), Stage::Peer);
}

#[test]
fn a_debugger_and_a_restart_are_no_reason() {
    let mut it = takeover();
    for health in [STOPPED_PEER, Health::Gone] {
        assert_eq!(it.judge(secs(1), health, true), None);
        assert_eq!(it.judge(secs(1) + ms(900), health, true), None);
        assert_eq!(it.judge(secs(2), Health::Well, true), None);
        assert_eq!(it.stage(), Stage::Peer);
    }
    // systemd's own watchdog kills a stopped one and starts another.
    assert_eq!(judge(&mut it, 3, 4, STOPPED_PEER), []);
    assert_eq!(judge(&mut it, 4, 5, Health::Gone), []);
    assert_eq!(judge(&mut it, 5, 60, Health::Well), []);
}

#[test]
fn what_took_seconds_to_find_is_taken_over_at_once() {
    for ailment in [Ailment::Silent, Ailment::Paging, Ailment::Restarting] {
        let health = Health::Unwell(ailment);
        assert_eq!(judge(&mut takeover(), 9, 60, health).len(), 1);
        assert_eq!(judge(&mut takeover(), 9, 60, health)[0].0, secs(9));
    }
    assert_eq!(judge(&mut takeover(), 9, 60, Health::Gone)[0].0, secs(12));
}

#[test]
fn nobody_stands_in_for_nothing() {
    let mut it = takeover();
    for s in 0..100 {
        assert_eq!(it.judge(secs(s), Health::Gone, false), None);
    }
    assert_eq!(it.stage(), Stage::Peer);
}

#[test]
fn what_nobody_is_given_any_more_is_let_go() {
    let mut it = takeover();
    assert_eq!(judge(&mut it, 0, 10, Health::Gone).len(), 1);
    let after = secs(7);
    let let_go = Some(Transition::LetGo { after });
    assert_eq!(it.judge(secs(10), Health::Gone, false), let_go);
    assert_eq!(it.judge(secs(11), Health::Gone, false), None);
    assert_eq!(it.stage(), Stage::Peer);
}

#[test]
fn who_relapses_is_on_probation_for_longer_each_time() {
    let mut it = takeover();
    let mut now = 0;
    let mut probations = Vec::new();
    for _ in 0..6 {
        judge(&mut it, now, now + 5, Health::Gone);
        let told = judge(&mut it, now + 5, now + 300, Health::Well);
        probations.push(told[0].0.as_secs() - now - 5);
        now += 300;
    }
    assert_eq!(probations, [10, 20, 40, 80, 160, 160]);
    now += 600;
    judge(&mut it, now, now + 5, Health::Gone);
    let told = judge(&mut it, now + 5, now + 300, Health::Well);
    assert_eq!(told[0].0.as_secs(), now + 15, "forgiven");
}

fn any_health() -> impl Strategy<Value = Health> {
    prop_oneof![
        4 => Just(Health::Well),
        1 => Just(Health::Gone),
        1 => Just(STOPPED_PEER),
        1 => Just(Health::Unwell(Ailment::Silent)),
    ]
}

proptest! {
    /// However systemd-oomd flaps: transitions take turns, nobody waits longer than six seconds for a takeover,
    /// and nothing is handed back before ten seconds of health.
    #[test]
    fn whatever_happens_somebody_looks_after_the_units(
        spells in proptest::collection::vec((any_health(), 1u64..60), 1..60)
    ) {
        let mut it = takeover();
        let (mut n, mut well_since, mut ill_since) = (0u64, Some(0), None);
        let mut ours = false;
        for (health, looks) in spells {
            for _ in 0..looks {
                n += 1;
                match health {
                    Health::Well => (well_since, ill_since) = (well_since.or(Some(n)), None),
                    _ => (well_since, ill_since) = (None, ill_since.or(Some(n))),
                }
                match it.judge(ms(500 * n), health, true) {
                    Some(Transition::TakenOver { .. }) => {
                        prop_assert!(!ours);
                        ours = true;
                    }
                    Some(Transition::HandedBack { .. }) => {
                        prop_assert!(ours);
                        prop_assert!(well_since.is_some_and(|since| n - since >= 20));
                        ours = false;
                    }
                    Some(Transition::LetGo { .. }) => prop_assert!(false, "there is something"),
                    None => {}
                }
                prop_assert_eq!(ours, it.stage().is_ours());
                let waited = ill_since.map_or(0, |since| n - since);
                prop_assert!(ours || waited < 12, "{waited} looks");
            }
        }
    }
}

/// A machine of 1 GiB with cgroups that grow.
struct World {
    takeover: Takeover,
    now: Duration,
    total: u64,
    others: u64,
    candidates: Vec<Candidate>,
    units: Vec<Unit>,
    full_us: u64,
    /// Bytes a second: of each candidate, of its page cache, and of everybody else.
    growth: Vec<u64>,
    cache_growth: Vec<u64>,
    others_growth: u64,
    stalled_permille: u64,
}

impl World {
    fn new(held_mib: &[u64]) -> Self {
        let managed = Under {
            unit: UNIT,
            swap: false,
            preference: Preference::None,
        };
        let candidate = |(at, mib): (usize, &u64)| {
            let under = [Some(managed), None, None, None];
            let mut it = Candidate::new(at as u64, under, Preference::None);
            it.current_bytes = mib * MIB;
            it
        };
        let pressure = PressureLimit {
            permyriad: 1000,
            duration: secs(2),
        };
        let limits = Limits {
            pressure: Some(pressure),
            swap: false,
        };
        Self {
            takeover: takeover(),
            now: secs(100),
            total: 1024 * MIB,
            others: 100 * MIB,
            candidates: held_mib.iter().enumerate().map(candidate).collect(),
            units: vec![Unit::new(UNIT, limits)],
            full_us: 0,
            growth: vec![0; held_mib.len()],
            cache_growth: vec![0; held_mib.len()],
            others_growth: 0,
            stalled_permille: 0,
        }
    }

    fn available(&self) -> u64 {
        let held: u64 = self.candidates.iter().map(Candidate::held_bytes).sum();
        self.total.saturating_sub(self.others + held)
    }

    fn machine(&self) -> MachineFacts {
        MachineFacts {
            meminfo: MemInfo {
                total_bytes: self.total,
                available_bytes: self.available(),
                ..MemInfo::default()
            },
            arc: None,
            psi: Some(Psi {
                some_us: self.full_us,
                full_us: self.full_us,
            }),
        }
    }

    fn pass(&mut self) -> Option<Order> {
        let machine = self.machine();
        let it = &mut self.takeover;
        it.see_machine(self.now, &machine);
        for candidate in &mut self.candidates {
            candidate.mark(self.now, secs(4));
        }
        it.see_candidates(self.now, &machine, &self.candidates);
        it.order(self.now, &machine, 9000, &self.units, &self.candidates)
    }

    /// Runs for `time`, or until somebody is to be ended.
    fn run(&mut self, time: Duration) -> Option<Order> {
        let until = self.now + time;
        while self.now < until {
            if let Some(order) = self.pass() {
                return Some(order);
            }
            let pause = self.takeover.pause();
            let part = |rate: u64| (rate as f64 * pause.as_secs_f64()) as u64;
            for (at, candidate) in self.candidates.iter_mut().enumerate() {
                let cache = part(self.cache_growth[at]);
                candidate.current_bytes += part(self.growth[at]) + cache;
                candidate.reclaimable_bytes += cache;
            }
            self.others += part(self.others_growth);
            self.full_us += pause.as_micros() as u64 * self.stalled_permille / 1000;
            self.now += pause;
        }
        None
    }
}

#[test]
fn a_hog_that_fills_the_machine_is_ended_while_there_is_room_and_nobody_else() {
    for rate in [20, 150, 2000] {
        let mut world = World::new(&[30, 40, 10]);
        assert_eq!(world.run(secs(10)), None, "calm");
        world.growth[2] = rate * MIB;
        let order = world.run(secs(60)).expect("an order");
        assert_eq!(order.candidate, 2, "{rate} MiB/s");
        let left = world.available() / MIB;
        assert!(
            (40..=130).contains(&left),
            "{left} MiB left at {rate} MiB/s"
        );
        assert_eq!(world.takeover.stage(), Stage::Peer, "with oomd well");
    }
}

#[test]
fn nobody_else_is_ended_before_memory_has_come_back() {
    let mut world = World::new(&[30, 40, 10]);
    world.run(secs(10));
    (world.growth[1], world.growth[2]) = (100 * MIB, 200 * MIB);
    assert_eq!(world.run(secs(60)).map(|it| it.candidate), Some(2));
    world.growth = vec![0; 3];
    assert_eq!(world.run(secs(1)), None);
    assert!(world.takeover.is_following());
    let (now, machine) = (world.now, world.machine());
    assert_eq!(world.takeover.follow(now, &machine, true), None, "not back");
    world.candidates[2].current_bytes = 0;
    let machine = world.machine();
    let took = world.takeover.follow(now, &machine, true);
    assert!(took.is_some_and(|took| took >= secs(1)), "{took:?}");
    assert_eq!(world.run(secs(60)), None);
}

#[test]
fn a_whole_that_grows_alike_loses_its_largest() {
    let mut world = World::new(&[10, 12, 14, 10]);
    world.run(secs(10));
    world.growth = vec![60 * MIB; 4];
    assert_eq!(world.run(secs(60)).map(|it| it.candidate), Some(2));
}

#[test]
fn who_does_not_fill_the_machine_is_left_alone() {
    // Somebody who is not managed fills it.
    let mut world = World::new(&[30, 40]);
    world.run(secs(10));
    world.others_growth = 150 * MIB;
    world.growth[0] = 10 * MIB;
    assert_eq!(world.run(secs(5)), None);
    // Page cache fills it.
    let mut world = World::new(&[30, 40]);
    world.run(secs(10));
    world.cache_growth[0] = 300 * MIB;
    assert_eq!(world.run(secs(5)), None);
    // It fills nine tenths and stays there.
    let mut world = World::new(&[30, 40]);
    world.run(secs(10));
    world.growth[0] = 150 * MIB;
    world.run(ms(4900));
    world.growth[0] = 0;
    assert_eq!(
        world.run(secs(30)),
        None,
        "{} MiB left",
        world.available() / MIB
    );
}

#[test]
fn marks_count_for_the_machines_sake_too() {
    let mark = |world: &mut World, at: usize, preference| {
        world.candidates[at].under[0]
            .as_mut()
            .expect("there")
            .preference = preference;
    };
    let mut world = World::new(&[10, 10]);
    mark(&mut world, 1, Preference::Omit);
    world.run(secs(10));
    (world.growth[0], world.growth[1]) = (20 * MIB, 200 * MIB);
    assert_eq!(world.run(secs(4)), None, "what is omitted is not counted");
    let mut world = World::new(&[10, 10]);
    mark(&mut world, 1, Preference::Avoid);
    world.run(secs(10));
    (world.growth[0], world.growth[1]) = (20 * MIB, 200 * MIB);
    assert_eq!(world.run(secs(9)).map(|it| it.candidate), Some(0));
}

#[test]
fn the_pressure_of_a_unit_is_oomds_for_as_long_as_it_is_well() {
    let mut world = World::new(&[30, 40]);
    let thrash = |world: &mut World, from: u64| {
        for s in from..from + 5 {
            world.units[0].see(secs(100 + s), 5000, Some(s));
        }
    };
    thrash(&mut world, 0);
    world.now = secs(105);
    assert_eq!(world.pass(), None);
    judge(&mut world.takeover, 105, 110, STOPPED_PEER);
    world.now = secs(110);
    let order = world.pass().expect("an order");
    let why = Why::Pressure {
        unit: UNIT,
        full_permyriad: 5000,
        limit_permyriad: 1000,
        lasted: secs(10),
    };
    assert_eq!((order.candidate, order.why), (1, why));
    // It ended, and the average lags.
    world.candidates[1].current_bytes = 0;
    let machine = world.machine();
    assert!(world.takeover.follow(secs(111), &machine, true).is_some());
    thrash(&mut world, 10);
    world.now = secs(124);
    assert_eq!(world.pass(), None, "fifteen seconds are waited");
    // The units are not handed back yet, but what is done by its rule systemd-oomd does.
    judge(&mut world.takeover, 124, 126, Health::Well);
    world.now = secs(126);
    assert!(world.takeover.stage().is_ours());
    assert_eq!(world.pass(), None, "systemd-oomd is well");
    judge(&mut world.takeover, 126, 127, STOPPED_PEER);
    world.now = secs(127);
    assert_eq!(world.pass().map(|it| it.candidate), Some(0));
}

#[test]
fn a_machine_that_stalls_and_is_short_is_ours_only_when_oomd_is_not_well() {
    let stalling = || {
        let mut world = World::new(&[600, 40]);
        world.others = 320 * MIB;
        world.run(secs(10));
        world.stalled_permille = 400;
        world.growth[0] = MIB / 2;
        world
    };
    let mut world = stalling();
    judge(
        &mut world.takeover,
        90,
        110,
        Health::Unwell(Ailment::Paging),
    );
    let order = world.run(secs(8)).expect("an order");
    assert_eq!(order.candidate, 0);
    let Why::Machine(cause) = order.why else {
        panic!("{order:?}");
    };
    assert_eq!(cause.rule, super::super::Rule::MachineStall);
    assert_eq!(stalling().run(secs(8)), None, "its pressure is oomd's");
}
