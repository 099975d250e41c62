//! What holds of the policy in every machine that can be made up: hogs are ended in time and alone,
//! innocents are left alone, and its orders are always among the allowed.

use super::super::facts::{Facts, Member, TargetFacts};
use super::super::world::{GIB, MIB, Manners, Process, World};
use super::*;
use crate::host::memory::MemoryStat;
use crate::host::psi::Psi;
use proptest::prelude::*;

const NONE: Duration = Duration::ZERO;

fn steady(pid: u32, bytes: u64) -> Process {
    Process {
        pid,
        base_bytes: bytes,
        fill_bytes_per_s: 0,
        most_bytes: bytes,
        stall_permille: 0,
        begins: NONE,
        signals: Manners::Dies,
    }
}

fn leak(pid: u32, bytes_per_s: u64) -> Process {
    Process {
        pid,
        base_bytes: 0,
        fill_bytes_per_s: bytes_per_s,
        most_bytes: u64::MAX,
        stall_permille: 0,
        begins: NONE,
        signals: Manners::Dies,
    }
}

/// A thrasher at its limit.
fn thrash(full_permille: u64) -> World {
    World {
        cache_bytes_per_s: GIB,
        full_permille,
        refaults_per_s: 5000,
        ..World::quiet(200 * MIB).with(Process {
            stall_permille: full_permille,
            ..steady(7, 20 * MIB)
        })
    }
}

fn run(world: &World, spell: Duration) -> super::super::world::Outcome {
    world.run(Settings::default(), Response::Kill, spell, NONE)
}

proptest! {
    /// From 10 MiB/s to what one core can do with small pages, under limits from 100 MiB to 16 GiB:
    /// before the limit, the leaker and nobody else, once.
    #[test]
    fn a_leak_is_ended_before_the_limit(
        rate_log in 23.3f64..31.3,
        limit_mib in 100u64..16384,
        bystanders in 0u64..40,
        late_us in 0u64..500,
        useless_swap_gib in 0u64..8,
    ) {
        let limit = limit_mib * MIB;
        let rate = rate_log.exp2() as u64;
        // Swap that the target may not use is no room.
        let world = World { swap_bytes: useless_swap_gib * GIB, may_swap: false, ..World::quiet(limit) }
            .with(steady(1, limit * bystanders / 100))
            .with(leak(7, rate))
            .with(steady(9, 4 * MIB));
        let needed = Duration::from_secs_f64(limit as f64 / rate as f64);
        let late = Duration::from_micros(late_us);
        let outcome = world.run(Settings::default(), Response::Kill, needed + Duration::from_secs(3), late);
        let signalled: Vec<u32> = outcome.orders.iter().filter_map(|(_, o)| Some(o.victim?.member.pid)).collect();
        prop_assert_eq!(outcome.out_of_memory, None);
        prop_assert_eq!(signalled, [7]);
    }

    /// A target with no limit of its own is ended before the machine's memory is.
    #[test]
    fn a_leak_without_a_limit_is_ended_before_the_machine_is_full(
        rate_log in 25.0f64..31.3,
        machine_gib in 2u64..64,
        others_percent in 0u64..95,
    ) {
        let rate = rate_log.exp2() as u64;
        let others_bytes = machine_gib * GIB * others_percent / 100;
        let world = World { machine_bytes: machine_gib * GIB, others_bytes, ..World::quiet(u64::MAX / 2) }
            .with(steady(1, 10 * MIB))
            .with(leak(7, rate));
        let needed = Duration::from_secs_f64((machine_gib * GIB) as f64 / rate as f64);
        let outcome = run(&world, needed + Duration::from_secs(1));
        prop_assert_eq!(outcome.out_of_memory, None);
        prop_assert_eq!(outcome.first_signal().map(|(_, pid)| pid), Some(7));
    }

    /// Others fill the machine: that is not the target's fault, however much it holds.
    #[test]
    fn the_appetite_of_others_is_not_the_targets_fault(
        rate_log in 25.0f64..31.3,
        held_percent in 0u64..60,
    ) {
        let machine = 16 * GIB;
        let world = World {
            machine_bytes: machine,
            others_bytes_per_s: rate_log.exp2() as u64,
            ..World::quiet(u64::MAX / 2)
        }
        .with(steady(7, machine * held_percent / 100));
        prop_assert_eq!(run(&world, Duration::from_secs(8)).first_signal(), None);
    }

    /// A machine that others had filled before is not the fault of the first that grows a little.
    #[test]
    fn who_finds_the_machine_full_is_not_why(
        available_mib in 200u64..2000,
        swap_gib in 0u64..16,
        rate_log in 16.0f64..25.0,
        base_mib in 1u64..80,
    ) {
        let machine = 32 * GIB;
        let world = World {
            machine_bytes: machine,
            others_bytes: machine - (available_mib + base_mib) * MIB,
            swap_bytes: swap_gib * GIB,
            ..World::quiet(u64::MAX / 2)
        }
        .with(Process {
            base_bytes: base_mib * MIB,
            most_bytes: (base_mib + available_mib / 10) * MIB,
            ..leak(7, rate_log.exp2() as u64)
        });
        prop_assert_eq!(run(&world, Duration::from_secs(6)).first_signal(), None);
    }

    /// Growing into swap: what stalls a little is asked, never killed unasked, and what does not stall
    /// is left alone.
    #[test]
    fn swap_that_stalls_is_a_reason_to_ask(full in 0u64..290, rate_log in 22.0f64..27.0) {
        let limit = 200 * MIB;
        let world = World { swap_bytes: 64 * GIB, full_permille: full, ..World::quiet(limit) }
            .with(leak(7, rate_log.exp2() as u64));
        let needed = Duration::from_secs_f64(limit as f64 / rate_log.exp2());
        let outcome = run(&world, needed + Duration::from_secs(5));
        let rung = outcome.orders.first().map(|(_, order)| order.rung);
        let expected = (full >= u64::from(Settings::default().stall_full_permille) / 2).then_some(Rung::Sigterm);
        prop_assert_eq!(rung, expected);
    }

    /// However fast it fills, what stops at nine tenths and stays there is left alone.
    #[test]
    fn what_fills_nine_tenths_and_stays_is_left_alone(
        rate_log in 22.0f64..31.0,
        limit_mib in 100u64..16384,
        percent in 10u64..=90,
    ) {
        let limit = limit_mib * MIB;
        let rate = rate_log.exp2() as u64;
        let filler = Process { most_bytes: limit * percent / 100, ..leak(7, rate) };
        let needed = Duration::from_secs_f64(limit as f64 / rate as f64);
        let outcome = run(&World::quiet(limit).with(filler), needed + Duration::from_secs(3));
        prop_assert_eq!(outcome.first_signal(), None);
    }

    /// Page cache fills the limit as fast as it likes, and I/O stalls as long as it likes: memory is
    /// not short.
    #[test]
    fn page_cache_and_slow_disks_are_no_reason(
        cache_log in 20.0f64..33.0,
        limit_mib in 100u64..8192,
        held_percent in 1u64..85,
        io_full in 0u64..=1000,
        memory_full in 0u64..40,
    ) {
        let limit = limit_mib * MIB;
        let world = World {
            cache_bytes_per_s: cache_log.exp2() as u64,
            io_full_permille: io_full,
            full_permille: memory_full,
            some_permille: memory_full * 2,
            refaults_per_s: 100_000,
            ..World::quiet(limit).with(steady(7, limit * held_percent / 100))
        };
        prop_assert_eq!(run(&world, Duration::from_secs(20)).first_signal(), None);
    }

    /// More stall never means a later order, and less stall never an order where more gives none.
    #[test]
    fn orders_are_monotone_in_the_pressure(less in 0u64..1000, more in 0u64..1000) {
        let (less, more) = (less.min(more), less.max(more));
        let first = |full| run(&thrash(full), Duration::from_secs(8)).first_signal();
        match (first(less), first(more)) {
            (Some((lighter, _)), Some((heavier, _))) => {
                prop_assert!(heavier <= lighter + Duration::from_millis(100), "{heavier:?} {lighter:?}");
            }
            (Some(_), None) => prop_assert!(false, "{less} gave an order, {more} did not"),
            (None, _) => {}
        }
    }

    /// Any facts whatever, in any order: the victim is a member that was looked at, nobody is hit by a
    /// second SIGTERM or SIGKILL of the same kind within the cooldown, and the next look is neither
    /// never nor always.
    #[test]
    fn no_facts_lead_to_an_order_that_is_not_allowed(looks in proptest::collection::vec(any_look(), 1..200)) {
        let settings = Settings::default();
        let mut policy = Policy::new(settings, Response::Kill);
        let mut hit: Vec<(u32, Rung, Duration)> = Vec::new();
        let mut at = Duration::from_secs(5);
        for look in &looks {
            at += Duration::from_millis(look.pause_ms);
            let decision = policy.step(at, &look.facts());
            prop_assert!(decision.next.after <= settings.longest_look);
            prop_assert!(decision.next.after >= settings.shortest_look || decision.next.depth == Depth::Members);
            let Some(order) = decision.order else { continue };
            prop_assert!(matches!(order.rung, Rung::Sigterm | Rung::Sigkill));
            let victim = order.victim.expect("a signal has somebody to go to").member;
            let known = look.members.iter().flatten().any(|m| m.pid == victim.pid);
            let asked = hit.iter().any(|&(pid, rung, _)| pid == victim.pid && rung == Rung::Sigterm);
            prop_assert!(known || asked, "{} was never looked at", victim.pid);
            let again = hit.iter().any(|&(pid, rung, when)| {
                pid == victim.pid && rung == order.rung && at - when < settings.cooldown
            });
            prop_assert!(!again, "{} got {:?} twice", victim.pid, order.rung);
            hit.push((victim.pid, order.rung, at));
        }
    }

    /// Warn and freeze touch no process, and do not repeat themselves within the cooldown.
    #[test]
    fn warnings_do_not_repeat(full in 400u64..1000, freeze: bool) {
        let (response, rung) = if freeze { (Response::Freeze, Rung::Freeze) } else { (Response::Warn, Rung::Warn) };
        let outcome = thrash(full).run(Settings::default(), response, Duration::from_secs(8), NONE);
        let rungs: Vec<Rung> = outcome.orders.iter().map(|(_, order)| order.rung).collect();
        prop_assert_eq!(rungs, [rung]);
    }
}

#[derive(Clone, Debug)]
struct AnyLook {
    pause_ms: u64,
    target: TargetFacts,
    members: Option<Vec<Member>>,
    gone: bool,
}

impl AnyLook {
    fn facts(&self) -> Facts<'_> {
        Facts {
            target: self.target,
            machine: None,
            members: self.members.as_deref(),
            victim_gone: self.gone,
        }
    }
}

prop_compose! {
    fn any_look()(
        pause_ms in 0u64..1500,
        current_bytes in 0..2 * GIB,
        limited: bool,
        stat in proptest::option::of((0..GIB, 0u64..100_000)),
        psi in proptest::option::of((0u64..100_000_000, 0u64..100_000_000)),
        members in proptest::option::of(proptest::collection::vec((1u32..9, 0..GIB, 0..GIB, 0u64..1_000_000), 0..6)),
        gone: bool,
    ) -> AnyLook {
        let member = |(pid, anon_bytes, growth_bytes, stall_ns)| Member {
            pid, ppid: 1, pgid: 1, start_ticks: u64::from(pid), leader: pid == 1,
            anon_bytes, growth_bytes, stall_ns, ..Member::default()
        };
        AnyLook {
            pause_ms,
            target: TargetFacts {
                current_bytes,
                limit_bytes: limited.then_some(GIB),
                stat: stat.map(|(reclaimable_bytes, refault_pages)| MemoryStat {
                    reclaimable_bytes, refault_pages, ..MemoryStat::default()
                }),
                psi: psi.map(|(some_us, full_us)| Psi { some_us, full_us }),
                ..TargetFacts::default()
            },
            members: members.map(|m| m.into_iter().map(member).collect()),
            gone,
        }
    }
}

#[test]
fn a_thrasher_is_asked_first_and_after_one_window() {
    let outcome = run(&thrash(600), Duration::from_secs(5));
    let (at, order) = outcome.orders.first().expect("it thrashes");
    assert_eq!(order.rung, Rung::Sigterm);
    assert_eq!(order.cause.rule, Rule::Stall);
    let window = Settings::default().stall_window;
    assert!((window..window * 2).contains(at), "{at:?}");
    assert_eq!(outcome.orders.len(), 1, "{:?}", outcome.orders);
}

#[test]
fn a_stall_without_refaults_or_far_from_the_limit_is_not_about_memory() {
    let calm = World {
        refaults_per_s: 0,
        ..thrash(700)
    };
    let roomy = World {
        cache_bytes_per_s: 0,
        ..thrash(900)
    };
    for world in [calm, roomy] {
        let outcome = run(&world, Duration::from_secs(10));
        assert_eq!(outcome.orders, [], "{world:?}");
    }
}

/// An index that is built of batches: each takes twice what stays of it, and gives half back.
#[test]
fn who_gives_back_a_part_at_every_step_is_ended_before_the_limit() {
    const LIMIT: u64 = 200 * MIB;
    const STEP: Duration = Duration::from_millis(800);
    let held = |since: Duration| {
        let steps = since.div_duration_f64(STEP);
        let within = steps.fract();
        let kept = steps.floor()
            + if within < 0.5 {
                4.0 * within
            } else {
                3.0 - 2.0 * within
            };
        (kept * 4.0 * MIB as f64) as u64
    };
    let mut policy = Policy::new(Settings::default(), Response::Kill);
    let (mut since, mut depth) = (NONE, Depth::Members);
    let order = loop {
        let anon_bytes = held(since);
        assert!(anon_bytes < LIMIT, "nobody was asked");
        let members = [Member {
            pid: 7,
            anon_bytes,
            growth_bytes: anon_bytes
                - held(since.saturating_sub(Settings::default().growth_window)),
            ..Member::default()
        }];
        let target = TargetFacts {
            current_bytes: anon_bytes,
            limit_bytes: Some(LIMIT),
            stat: (depth >= Depth::Stat).then(MemoryStat::default),
            ..TargetFacts::default()
        };
        let facts = Facts {
            target,
            machine: None,
            members: (depth == Depth::Members).then_some(&members[..]),
            victim_gone: false,
        };
        let decision = policy.step(Duration::from_secs(1000) + since, &facts);
        if let Some(order) = decision.order {
            break order;
        }
        since += decision.next.after.max(Duration::from_millis(1));
        depth = decision.next.depth;
    };
    assert_eq!(order.rung, Rung::Sigterm);
    assert_eq!(order.cause.rule, Rule::Exhaustion);
    assert!(
        order.cause.lasted > since / 2,
        "seen as one rise: {order:?}"
    );
}

#[test]
fn a_quiet_target_is_looked_at_once_in_a_while() {
    let world = World::quiet(16 * GIB).with(steady(1, MIB));
    let outcome = run(&world, Duration::from_secs(60));
    assert!((60..=130).contains(&outcome.looks), "{}", outcome.looks);
}

/// A stuck victim, or one that a dry run leaves where it is, is no reason to go on to the next: those
/// who had no part in it are left alone.
#[test]
fn a_victim_that_stays_does_not_draw_in_the_others() {
    let mut stalling = thrash(600);
    stalling.processes[0].signals = Manners::Stays;
    let stuck = Process {
        signals: Manners::Stays,
        most_bytes: 198 * MIB,
        ..leak(7, 40 * MIB)
    };
    let growing = World::quiet(200 * MIB).with(stuck);
    for world in [stalling, growing] {
        let world = world.with(steady(1, 30 * MIB)).with(steady(9, 10 * MIB));
        let outcome = run(&world, Duration::from_secs(9));
        let hit: Vec<_> = outcome
            .orders
            .iter()
            .filter_map(|(_, o)| Some((o.victim?.member.pid, o.rung)))
            .collect();
        assert!(
            !hit.is_empty() && hit.iter().all(|&(pid, _)| pid == 7),
            "{hit:?}"
        );
        assert!(hit.len() <= 2, "{hit:?}");
    }
}

/// An exiting process gives up its memory map first, and its pages come back after that. Until they have, its
/// neighbour grows the most, whenever it exits.
#[test]
fn while_one_that_was_asked_is_dying_its_neighbour_is_left_alone() {
    for exits_after in (0..300).map(Duration::from_millis) {
        let hit = signalled_while_a_leaker_exits(exits_after);
        assert_eq!(hit.first(), Some(&(7, Rung::Sigterm)));
        assert!(
            hit.iter().all(|&(pid, _)| pid == 7),
            "{exits_after:?}: {hit:?}"
        );
    }
}

/// Who is signalled how, if a leaker gives up its memory map that long after SIGTERM and its memory comes back
/// 200 ms later.
fn signalled_while_a_leaker_exits(exits_after: Duration) -> Vec<(u32, Rung)> {
    let settings = Settings::default();
    let mut policy = Policy::new(settings, Response::Kill);
    let mut asked: Option<Duration> = None;
    let mut hit = Vec::new();
    for at in (0..6000).map(Duration::from_millis).step_by(4) {
        let grown =
            |mib_per_s: u64, until: Duration| until.as_millis() as u64 * mib_per_s * MIB / 1000;
        let exits = asked.map(|asked| asked + exits_after);
        let gone = exits.is_some_and(|exits| at >= exits + Duration::from_millis(200));
        let neighbour = grown(2, at);
        let leaked = grown(60, exits.map_or(at, |exits| exits.min(at)));
        let member = |pid: u32, anon_bytes: u64| Member {
            pid,
            ppid: 1,
            pgid: 1,
            start_ticks: pid.into(),
            anon_bytes: MIB + anon_bytes,
            growth_bytes: anon_bytes,
            ..Member::default()
        };
        let leaker = match exits {
            Some(exits) if at >= exits => Member {
                anon_bytes: 0,
                ..member(7, 0)
            },
            _ => member(7, leaked),
        };
        let both = [member(9, neighbour), leaker];
        let facts = Facts {
            target: TargetFacts {
                current_bytes: neighbour + if gone { 0 } else { leaked },
                limit_bytes: Some(300 * MIB),
                stat: Some(MemoryStat::default()),
                ..TargetFacts::default()
            },
            machine: None,
            members: Some(if gone { &both[..1] } else { &both[..] }),
            victim_gone: gone,
        };
        let order = policy.step(Duration::from_secs(100) + at, &facts).order;
        if let Some((choice, rung)) = order.and_then(|order| Some((order.victim?, order.rung))) {
            asked.get_or_insert(at);
            hit.push((choice.member.pid, rung));
        }
    }
    hit
}

/// After the patience with one that does not die, what is known is forgotten: it takes a new window.
#[test]
fn the_next_victim_of_a_stall_needs_a_window_of_its_own() {
    let settings = Settings::default();
    let mut world = thrash(600);
    world.processes[0].signals = Manners::Stays;
    let mut policy = Policy::new(settings, Response::Kill);
    let mut at = Duration::from_secs(100);
    let mut hit: Vec<(Duration, u32, Rung)> = Vec::new();
    while at < Duration::from_secs(112) {
        let stalled = (at - Duration::from_secs(100)).as_micros() as u64 * 6 / 10;
        // Once the first was killed, the other is what stalls.
        let killed = hit.iter().any(|&(_, _, rung)| rung == Rung::Sigkill);
        let mut members = [7, 8].map(|pid| Member {
            pid,
            start_ticks: pid.into(),
            anon_bytes: MIB,
            ..Member::default()
        });
        members[usize::from(killed)].stall_ns = 1_000_000_000;
        let decision = policy.step(
            at,
            &Facts {
                target: TargetFacts {
                    current_bytes: 200 * MIB,
                    limit_bytes: Some(200 * MIB),
                    stat: Some(MemoryStat {
                        reclaimable_bytes: 180 * MIB,
                        refault_pages: stalled / 100,
                        ..MemoryStat::default()
                    }),
                    psi: Some(Psi {
                        some_us: stalled,
                        full_us: stalled,
                    }),
                    ..TargetFacts::default()
                },
                machine: None,
                members: Some(&members),
                victim_gone: false,
            },
        );
        hit.extend(
            decision
                .order
                .and_then(|o| Some((at, o.victim?.member.pid, o.rung))),
        );
        at += Duration::from_millis(20);
    }
    let [first, second, third, ..] = hit[..] else {
        panic!("{hit:?}")
    };
    assert_eq!(
        (first.1, first.2, second.1, second.2),
        (7, Rung::Sigterm, 7, Rung::Sigkill)
    );
    assert_eq!((third.1, third.2), (8, Rung::Sigterm));
    assert!(
        third.0 - second.0 >= settings.death_grace + settings.stall_window,
        "{hit:?}"
    );
}

/// Nobody dies in a dry run, so who would have been next cannot be told.
#[test]
fn a_rehearsal_names_one_and_is_quiet_for_a_cooldown() {
    let mut world = World::quiet(400 * MIB);
    for pid in 2..10 {
        // All the same, and in turn the largest.
        world = world.with(Process {
            signals: Manners::Stays,
            ..leak(pid, 5 * MIB + u64::from(pid))
        });
    }
    let mut policy = Policy::new(Settings::default(), Response::Kill);
    policy.rehearse();
    let outcome = world.drive(policy, Duration::from_secs(15), NONE);
    let killed: Vec<_> = outcome
        .orders
        .iter()
        .filter(|(_, o)| o.rung == Rung::Sigkill)
        .collect();
    assert_eq!(killed.len(), 1, "{killed:?}");
}

/// One that did as it was asked is not killed for the next one's leak.
#[test]
fn who_complied_is_not_blamed_for_the_next() {
    let world = World::quiet(200 * MIB)
        .with(Process {
            signals: Manners::GivesBack,
            base_bytes: MIB,
            ..leak(7, 20 * MIB)
        })
        .with(Process {
            begins: Duration::from_secs(14),
            ..leak(9, 60 * MIB)
        });
    let outcome = run(&world, Duration::from_secs(20));
    let hit: Vec<_> = outcome
        .orders
        .iter()
        .filter_map(|(_, o)| Some((o.victim?.member.pid, o.rung)))
        .collect();
    assert_eq!(outcome.out_of_memory, None);
    assert_eq!(hit.first(), Some(&(7, Rung::Sigterm)));
    assert!(
        hit.len() > 1 && hit[1..].iter().all(|&(pid, _)| pid == 9),
        "{hit:?}"
    );
}

#[test]
fn a_leak_that_memory_high_holds_up_is_a_stall() {
    let held_up = |stall_permille| World {
        high_bytes: Some(2 * GIB),
        full_permille: 950,
        ..World::quiet(4 * GIB)
            .with(steady(9, 20 * MIB))
            .with(Process {
                most_bytes: 2 * GIB,
                stall_permille,
                ..leak(7, GIB)
            })
    };
    // With and without a program that can tell who is in reclaim.
    for stall_permille in [950, 0] {
        let outcome = run(&held_up(stall_permille), Duration::from_secs(6));
        assert_eq!(
            outcome.first_signal().map(|(_, pid)| pid),
            Some(7),
            "{outcome:?}"
        );
    }
}

#[test]
fn a_thrasher_on_a_slow_disk_is_a_stall_with_few_refaults() {
    let slow = World {
        refaults_per_s: 400,
        ..thrash(950)
    };
    assert!(run(&slow, Duration::from_secs(5)).first_signal().is_some());
}
