//! The rung for tests of pytest: who runs one that can be asked to fail is asked that first.

use super::super::facts::{Facts, Member, TargetFacts};
use super::super::world::MIB;
use super::*;
use crate::host::memory::MemoryStat;

const LIMIT: u64 = 400 * MIB;
const STEP: Duration = Duration::from_millis(2);

/// A worker that fills its target at a rate; `answers` gives its memory back when it is asked, and the next test
/// begins.
struct Worker {
    anon_bytes: u64,
    bytes_per_s: u64,
    test: u32,
    answers: bool,
}

/// The rungs that it is given within `time`, with when and with which test.
fn rungs(worker: &mut Worker, time: Duration) -> Vec<(Duration, Rung, u32)> {
    let mut policy = Policy::new(Settings::default(), Response::Kill);
    let mut given: Vec<(Duration, Rung, u32)> = Vec::new();
    let mut at = Duration::ZERO;
    while at < time
        && given
            .last()
            .is_none_or(|(_, rung, _)| *rung != Rung::Sigkill)
    {
        worker.anon_bytes += worker.bytes_per_s * STEP.as_millis() as u64 / 1000;
        let members = [Member {
            pid: 7,
            anon_bytes: worker.anon_bytes,
            growth_bytes: worker.anon_bytes,
            test: worker.test,
            pgid: 1,
            ..Member::default()
        }];
        let facts = Facts {
            target: TargetFacts {
                current_bytes: worker.anon_bytes,
                limit_bytes: Some(LIMIT),
                stat: Some(MemoryStat::default()),
                ..TargetFacts::default()
            },
            machine: None,
            members: Some(&members),
            victim_gone: false,
        };
        let decision = policy.step(Duration::from_secs(1000) + at, &facts);
        let awaits = given.last().is_some_and(|(since, rung, test)| {
            (*rung, *test) == (Rung::Abort, worker.test)
                && at < *since + Settings::default().abort_grace
        });
        if awaits && decision.order.is_none() {
            // Whether memory came back must not be missed: another test may take as much soon.
            assert_eq!(decision.next.depth, Depth::Members);
            assert!(
                decision.next.after <= Duration::from_millis(50),
                "{decision:?}"
            );
        }
        if let Some(order) = decision.order {
            given.push((at, order.rung, worker.test));
            if order.rung == Rung::Abort && worker.answers {
                worker.anon_bytes = 30 * MIB;
                worker.test += 1;
            }
        }
        at += STEP;
    }
    given
}

fn names(given: &[(Duration, Rung, u32)]) -> Vec<(Rung, u32)> {
    given.iter().map(|(_, rung, test)| (*rung, *test)).collect()
}

#[test]
fn a_test_is_failed_and_when_it_does_not_answer_its_process_is_killed() {
    let mut deaf = Worker {
        anon_bytes: 0,
        bytes_per_s: 100 * MIB,
        test: 5,
        answers: false,
    };
    let given = rungs(&mut deaf, Duration::from_secs(20));
    assert_eq!(names(&given), [(Rung::Abort, 5), (Rung::Sigkill, 5)]);
    assert!(deaf.anon_bytes < LIMIT, "in time");
    let grace = given[1].0 - given[0].0;
    assert!(grace <= Settings::default().abort_grace, "{grace:?}");
}

#[test]
fn who_answers_lives_and_the_next_that_leaks_is_asked_for_itself() {
    let mut worker = Worker {
        anon_bytes: 0,
        bytes_per_s: 100 * MIB,
        test: 5,
        answers: true,
    };
    let given = rungs(&mut worker, Duration::from_secs(12));
    assert_eq!(
        names(&given),
        [(Rung::Abort, 5), (Rung::Abort, 6), (Rung::Abort, 7)],
        "every four seconds, within one cooldown"
    );
}

/// A thread of a failed test goes on: the test that runs by then is not asked, it has nothing to do with it.
#[test]
fn where_the_memory_stays_the_process_is_to_end_and_no_other_test_is_asked() {
    let mut policy = Policy::new(Settings::default(), Response::Kill);
    let mut given = Vec::new();
    let mut anon_bytes = 0;
    for step in 0..10_000u32 {
        let at = STEP * step;
        anon_bytes += 100 * MIB * STEP.as_millis() as u64 / 1000;
        // After it was asked the next test runs, and the memory goes on growing.
        let members = [Member {
            pid: 7,
            anon_bytes,
            growth_bytes: anon_bytes,
            test: 5 + given.len() as u32,
            pgid: 1,
            ..Member::default()
        }];
        let target = TargetFacts {
            current_bytes: anon_bytes,
            limit_bytes: Some(LIMIT),
            stat: Some(MemoryStat::default()),
            ..TargetFacts::default()
        };
        let facts = Facts {
            target,
            machine: None,
            members: Some(&members),
            victim_gone: false,
        };
        given.extend(
            policy
                .step(Duration::from_secs(1000) + at, &facts)
                .order
                .map(|order| order.rung),
        );
        if given.last() == Some(&Rung::Sigkill) {
            break;
        }
    }
    assert_eq!(given, [Rung::Abort, Rung::Sigkill]);
}

#[test]
fn a_fast_leak_gets_its_stacks_out_before_it_is_killed() {
    let mut fast = Worker {
        anon_bytes: 0,
        bytes_per_s: 2000 * MIB,
        test: 5,
        answers: false,
    };
    let given = rungs(&mut fast, Duration::from_secs(2));
    assert_eq!(names(&given), [(Rung::Abort, 5), (Rung::Sigkill, 5)]);
    assert!(fast.anon_bytes < LIMIT, "in time");
}
