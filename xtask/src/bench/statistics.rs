//! What a handful of noisy numbers can and cannot tell: medians, their 95 % intervals, and the verdict
//! against a goal. Pure; measuring is the tables', printing is `table`'s.

use std::fmt;

/// A range that holds the true median in 95 of 100 cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// A median with what is known of how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    /// `None` for fewer than six numbers, of which no range says anything with that certainty.
    pub(crate) interval: Option<Interval>,
}

/// How a figure stands against its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Reached,
    NotReached,
    /// The noise is too wide to say either.
    NotResolved,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reached => "reached",
            Self::NotReached => "NOT REACHED",
            Self::NotResolved => "not resolved",
        })
    }
}

impl Estimate {
    /// # Panics
    /// If there are no values.
    pub(crate) fn of(values: &[f64]) -> Self {
        let sorted = sorted(values);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        let interval = rank_of_interval(sorted.len()).map(|rank| Interval {
            low: sorted[rank - 1],
            high: sorted[sorted.len() - rank],
        });
        Self { median, interval }
    }

    /// Of the ratios of values that were measured in pairs.
    pub(crate) fn of_ratios(above: &[f64], below: &[f64]) -> Self {
        let ratios: Vec<_> = above.iter().zip(below).map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }
}

/// The smallest value that at least `percent` of the values do not exceed.
///
/// # Panics
/// If there are no values.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let rank = (values.len() * percent).div_ceil(100);
    sorted(values)[rank.max(1) - 1]
}

/// Whether a ratio stays at or below `goal`. `control` is the ratio of two measurements of the same
/// thing, which chance alone keeps from 1: a ratio is over the goal if it is also over whatever chance
/// came to, and within it only if chance strayed less than the goal allows.
pub(crate) fn judge_ratio(ratio: Estimate, control: Estimate, goal: f64) -> Verdict {
    let (Some(ratio), Some(control)) = (ratio.interval, control.interval) else {
        return Verdict::NotResolved;
    };
    let strayed = (control.high - 1.0).max(1.0 - control.low);
    if ratio.low > goal.max(control.high) {
        Verdict::NotReached
    } else if ratio.high <= goal && strayed <= goal - 1.0 {
        Verdict::Reached
    } else {
        Verdict::NotResolved
    }
}

/// Whether something that is counted rather than timed stays at or below `goal`.
pub(crate) fn judge(value: f64, goal: f64) -> Verdict {
    if value <= goal {
        Verdict::Reached
    } else {
        Verdict::NotReached
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The rank, from 1, of the lower end of the median's interval: the highest one below which the true
/// median lies with a chance of at most 2.5 %. Each value lies below the median as a coin falls, so no
/// distribution is assumed.
fn rank_of_interval(count: usize) -> Option<usize> {
    // The chance that exactly `rank` of `count` coins fall on one side, for rank 0, 1, ...
    let mut exactly = 0.5_f64.powi(count as i32);
    let mut at_most = 0.0;
    let mut found = None;
    for rank in 0..count / 2 {
        at_most += exactly;
        if at_most > 0.025 {
            break;
        }
        found = Some(rank + 1);
        exactly *= (count - rank) as f64 / (rank + 1) as f64;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(low: f64, high: f64) -> Estimate {
        Estimate {
            median: f64::midpoint(low, high),
            interval: Some(Interval { low, high }),
        }
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(Estimate::of(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(Estimate::of(&[4.0, 1.0, 3.0, 2.0]).median, 2.5);
    }

    /// Ranks from the tables of the binomial distribution.
    #[test]
    fn the_interval_is_made_of_ranks() {
        let ranks = [5, 6, 8, 9, 20, 30, 100].map(rank_of_interval);
        let known = [None, Some(1), Some(1), Some(2), Some(6), Some(10), Some(40)];
        assert_eq!(ranks, known);
        let values: Vec<_> = (1..=20).map(f64::from).collect();
        let interval = Estimate::of(&values).interval;
        let expected = Interval {
            low: 6.0,
            high: 15.0,
        };
        assert_eq!(interval, Some(expected));
    }

    #[test]
    fn the_99th_of_a_hundred_is_not_the_greatest() {
        let values: Vec<_> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 99), 99.0);
        assert_eq!(percentile(&values, 50), 50.0);
        assert_eq!(percentile(&values[..50], 99), 100.0);
        assert_eq!(percentile(&[7.0], 50), 7.0);
    }

    #[test]
    fn a_ratio_is_judged_by_its_interval_and_its_control() {
        let quiet = estimate(0.995, 1.004);
        let noisy = estimate(0.93, 1.05);
        let cases = [
            (estimate(0.99, 1.01), quiet, Verdict::Reached),
            (estimate(1.01, 1.05), quiet, Verdict::NotResolved),
            (estimate(1.04, 1.06), quiet, Verdict::NotReached),
            // What made 1.05 out of 1 may have made this out of 1.03.
            (estimate(1.04, 1.06), noisy, Verdict::NotResolved),
            (estimate(0.99, 1.01), noisy, Verdict::NotResolved),
            (estimate(1.20, 1.30), noisy, Verdict::NotReached),
        ];
        for (ratio, control, verdict) in cases {
            assert_eq!(judge_ratio(ratio, control, 1.03), verdict, "{ratio:?}");
        }
    }

    #[test]
    fn few_numbers_decide_nothing() {
        let few = Estimate::of(&[1.0; 5]);
        assert_eq!(judge_ratio(few, few, 1.03), Verdict::NotResolved);
    }
}
