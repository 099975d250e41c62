//! Single cases of the policy that taught something. What holds in all is `policy_properties`'.

use super::super::facts::{Facts, Member, TargetFacts};
use super::super::world::{GIB, MIB, Manners, Process, World, leak, run, steady, thrash};
use super::*;
use crate::host::memory::MemoryStat;
use crate::host::psi::Psi;

const NONE: Duration = Duration::ZERO;

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
