//! What is drawn is what was recorded, on one axis.

use super::*;
use crate::incident::{Flight, sample};
use crate::storm::storm;
use crate::watch::TargetFacts;
use crate::watch::replay::RecordedLook;
use proptest::prelude::*;

const SECOND: i64 = 1_000_000;

fn looks(stalls: &[(u64, u64)]) -> Flight {
    let look = |&(at_us, some_us): &(u64, u64)| RecordedLook {
        at_us: 1_000 + at_us,
        target: TargetFacts {
            psi: Some(crate::host::psi::Psi {
                some_us,
                full_us: 0,
            }),
            ..TargetFacts::default()
        },
        machine: None,
        members: None,
        victim_gone: false,
    };
    Flight {
        began_us: 1_000,
        looks: stalls.iter().map(look).collect(),
        lost: 0,
    }
}

#[test]
fn a_counter_becomes_a_share_of_the_time_between_two_looks() {
    let flight = looks(&[
        (0, 100),
        (1_000_000, 250_100),
        (2_000_000, 1_250_100),
        (3_000_000, 50),
    ]);
    let some = Curves::of(&flight).target_some;
    assert_eq!(
        some,
        [(0, 0.25), (SECOND, 0.25), (2 * SECOND, 1.0)],
        "and none where it begins anew"
    );
}

#[test]
fn ticks_are_round_and_in_the_window() {
    let ticks = |from, to| Window::new(from, to).ticks(5);
    assert_eq!(
        ticks(0, 96 * SECOND),
        [0, 30 * SECOND, 60 * SECOND, 90 * SECOND]
    );
    assert_eq!(
        ticks(-300 * SECOND, 12 * SECOND),
        [
            -300 * SECOND,
            -240 * SECOND,
            -180 * SECOND,
            -120 * SECOND,
            -60 * SECOND,
            0
        ]
    );
}

#[test]
fn what_was_done_stands_in_the_lane_of_whom_it_was_done_to() {
    let record = storm(12, 60);
    let marks = marks(&record);
    let lanes = lanes(&record, &marks);
    assert_eq!(lanes.len(), 12);
    assert!(lanes[0].is_victim && lanes[0].pid == record.victims[0].process.pid);
    let sorts: Vec<_> = lanes[0].marks.iter().map(|mark| mark.sort).collect();
    assert_eq!(sorts, [Sort::Abort, Sort::Sigterm, Sort::Sigkill]);
    assert!(lanes[1].is_rival);
    assert!(lanes.iter().map(|lane| lane.bars.len()).sum::<usize>() == 60);
    assert!(marks.is_sorted_by_key(|mark| mark.at_us));
}

#[test]
fn a_long_run_has_a_part_to_look_at_closely() {
    let mut record = storm(3, 10);
    assert_eq!(close(&record), None);
    record.duration_us = 3_600_000_000;
    let part = close(&record).expect("shorter than an hour");
    assert!(part.span_us() < 110 * SECOND, "{part:?}");
    assert_eq!(close(&sample::killed()), None, "no looks");
}

proptest! {
    #[test]
    fn no_record_makes_it_panic(
        times in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20),
        began in any::<u64>(),
        duration in any::<u64>(),
        at in any::<u64>(),
    ) {
        let mut record = sample::grave();
        let mut flight = looks(&[]);
        flight.looks = times.iter().map(|&(at_us, some)| RecordedLook {
            at_us,
            target: TargetFacts { current_bytes: some, psi: Some(crate::host::psi::Psi { some_us: some, full_us: some }), ..TargetFacts::default() },
            machine: None, members: None, victim_gone: false,
        }).collect();
        flight.began_us = began;
        record.flight = Some(flight);
        record.duration_us = duration;
        record.interventions[0].rungs[0].at_us = at;
        record.kernel_oom[0].at_us = Some(at);
        prop_assert!(!crate::incident::picture::page(&record).is_empty());
        prop_assert!(!crate::export::trace::render(&record).is_empty());
        let _ = crate::incident::sparklines(&record, crate::incident::Style::default());
    }

    #[test]
    fn thinning_keeps_the_ends_and_the_peaks(values in prop::collection::vec(0u32..1000, 2..500)) {
        let curve: Curve = values.iter().enumerate().map(|(n, &value)| (n as i64 * 1_000, f64::from(value))).collect();
        let window = Window::new(0, curve.len() as i64 * 1_000);
        let thin = thinned(&curve, window, 20);
        prop_assert!(thin.len() <= 4 * 21);
        prop_assert_eq!(most(&thin), most(&curve));
        prop_assert_eq!(thin.first(), curve.first());
        prop_assert_eq!(thin.last(), curve.last());
    }
}
