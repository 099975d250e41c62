//! Which of many looks are kept where there is room for few: closer together the nearer to now, and around the
//! moments that mattered. Pure; what a look holds is of no interest here.
//!
//! Of all looks the one goes whose going leaves the smallest gap for its age. What remains is then spaced as its
//! age: with room for 240, looks a second ago are about 50 ms apart, those of a minute ago 3 s. A *mark* (an
//! order was given) is a second now: around it looks stay as close together as they were.

use std::time::Duration;

/// So many looks at a target are kept.
pub const LOOKS: usize = 240;
/// What is older is of no use.
pub const OLDEST: Duration = Duration::from_secs(300);
/// The most marks that count, the latest.
pub const MARKS: usize = 4;
/// An age below this is this: looks are at least so far apart, and none is worth more for being the very last.
const YOUNGEST_US: u64 = 10_000;

/// What there is to know of a look in order to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// When, in µs.
    pub at_us: u64,
    /// How many looks of the plain sort it is worth: one that went further is worth more.
    pub worth: u32,
}

/// The one to part with: its place among `looks`, which are in the order of time. Never the first nor the last of
/// them: what lies between two looks is read off the line from one to the other. `None` if there is none else.
pub fn least_missed(
    looks: impl Iterator<Item = Kept>,
    now_us: u64,
    marks: &[u64],
) -> Option<usize> {
    let mut looks = looks.enumerate();
    let mut before = looks.next()?.1;
    let (mut at, mut look) = looks.next()?;
    let mut least: Option<(u128, usize)> = None;
    for (next_at, next) in looks {
        let gap_us = next.at_us.saturating_sub(before.at_us);
        let loss = u128::from(gap_us) * u128::from(look.worth.max(1)) * 1_000_000
            / u128::from(age_us(look.at_us, now_us, marks));
        if least.is_none_or(|(smallest, _)| loss < smallest) {
            least = Some((loss, at));
        }
        (before, at, look) = (look, next_at, next);
    }
    least.map(|(_, at)| at)
}

/// How far it is from now, or from the nearest mark.
fn age_us(at_us: u64, now_us: u64, marks: &[u64]) -> u64 {
    let moments = marks.iter().copied().chain([now_us]);
    let nearest = moments.map(|moment| moment.abs_diff(at_us)).min();
    nearest.unwrap_or(u64::MAX).max(YOUNGEST_US)
}

/// How many of `looks`, which are in the order of time, are too old. The last of those that are is kept: what was
/// true at the beginning is read off it.
pub fn too_old(looks: impl Iterator<Item = u64>, now_us: u64) -> usize {
    let line_us = now_us.saturating_sub(OLDEST.as_micros() as u64);
    looks
        .take_while(|&at_us| at_us < line_us)
        .count()
        .saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Keeps at most `room` of looks that come one by one; the times of those that are left.
    fn keep(times: &[u64], room: usize, marks: &[u64]) -> Vec<u64> {
        let mut kept: Vec<Kept> = Vec::new();
        for &at_us in times {
            let old = too_old(kept.iter().map(|look| look.at_us), at_us);
            kept.drain(..old);
            kept.push(Kept { at_us, worth: 1 });
            if kept.len() > room {
                let marks: Vec<u64> = marks.iter().copied().filter(|&m| m <= at_us).collect();
                let at = least_missed(kept.iter().copied(), at_us, &marks).expect("one");
                kept.remove(at);
            }
        }
        kept.iter().map(|look| look.at_us).collect()
    }

    /// The widest gap around a moment, for the time that has gone by since or until.
    fn widest_for_age(kept: &[u64], now_us: u64) -> f64 {
        let gaps = kept.windows(2).map(|pair| {
            let age = now_us.saturating_sub(pair[0]).max(YOUNGEST_US);
            (pair[1] - pair[0]) as f64 / age as f64
        });
        gaps.fold(0.0, f64::max)
    }

    #[test]
    fn of_five_minutes_at_full_rate_the_last_is_dense_and_the_first_is_there() {
        let times: Vec<u64> = (0..15_000).map(|n| n * 20_000).collect();
        let kept = keep(&times, 240, &[]);
        assert_eq!(kept.len(), 240);
        assert_eq!(kept[0], 0);
        let now_us = *times.last().expect("many");
        assert_eq!(kept.last(), Some(&now_us));
        let lately = kept.iter().filter(|&&at| now_us - at < 200_000).count();
        assert_eq!(lately, 10, "each of the last ten");
        let widest = widest_for_age(&kept[..220], now_us);
        assert!(widest < 0.15, "{widest}");
    }

    #[test]
    fn around_a_mark_nothing_is_thinned_that_now_would_keep() {
        let mark_us = 30_000_000;
        let times: Vec<u64> = (0..10_000).map(|n| n * 6_000).collect();
        let kept = keep(&times, 240, &[mark_us]);
        let around = kept.iter().filter(|at| at.abs_diff(mark_us) <= 30_000);
        assert!(around.count() >= 9, "{kept:?}");
    }

    #[test]
    fn what_is_worth_more_stays_longer() {
        let look = |n: u64| Kept {
            at_us: n * 1000,
            worth: if n == 5 { 3 } else { 1 },
        };
        let mut kept: Vec<Kept> = (0..20).map(look).collect();
        while kept.len() > 10 {
            let at = least_missed(kept.iter().copied(), 20_000, &[]).expect("one");
            kept.remove(at);
        }
        assert!(kept.iter().any(|look| look.worth == 3));
    }

    #[test]
    fn two_looks_are_both_kept() {
        let two = [0, 1].map(|at_us| Kept { at_us, worth: 1 });
        assert_eq!(least_missed(two.into_iter(), 2, &[]), None);
        assert_eq!(least_missed([].into_iter(), 2, &[]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn neither_end_goes_and_never_is_there_too_much(
            pauses in proptest::collection::vec(1u64..20_000_000, 3..400),
            marks in proptest::collection::vec(0u64..1_000_000_000, 0..MARKS),
            room in 3usize..60,
        ) {
            let mut at_us = 0;
            let times: Vec<u64> = pauses.iter().map(|pause| { at_us += pause; at_us }).collect();
            let kept = keep(&times, room, &marks);
            prop_assert!(kept.len() <= room);
            prop_assert_eq!(kept.last(), times.last());
            prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(kept.iter().all(|at| times.contains(at)));
            // One look may be older: it says how it was when the five minutes began.
            let oldest_us = OLDEST.as_micros() as u64;
            let old = kept.iter().filter(|&&at| at + oldest_us < at_us).count();
            prop_assert!(old <= 1, "{} are too old", old);
        }

        #[test]
        fn at_an_even_rate_gaps_grow_with_age(step_us in 2_000u64..100_000, room in 100usize..300) {
            let times: Vec<u64> = (0..1000).map(|n| n * step_us).collect();
            let kept = keep(&times, room, &[]);
            let widest = widest_for_age(&kept, times[999]);
            // Twice what the best spacing comes to, and the first gap, which nothing can narrow.
            let decades = (1000.0 * step_us as f64 / YOUNGEST_US as f64).ln() + 1.0;
            let bound = 4.0 * decades / room as f64 + step_us as f64 / YOUNGEST_US as f64;
            prop_assert!(widest <= bound, "{widest} for {bound}");
        }
    }
}
