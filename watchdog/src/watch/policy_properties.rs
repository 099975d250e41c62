//! What holds of the policy in every machine that can be made up: hogs are ended in time and alone,
//! innocents are left alone, and its orders are always among the allowed. Single cases are `policy_tests`'.

use super::super::facts::{Facts, Member, TargetFacts};
use super::super::world::{GIB, MIB, Process, World, leak, run, steady, thrash};
use super::*;
use crate::host::memory::MemoryStat;
use crate::host::psi::Psi;
use proptest::prelude::*;

const NONE: Duration = Duration::ZERO;

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
