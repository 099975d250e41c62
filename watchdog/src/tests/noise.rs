//! How far a figure moves by itself, and what is beyond. What the others of the suite did between the same runs
//! tells it: they were measured on the same machine at the same time, and few of them have really changed.

/// How surely a figure has to be beyond the noise: the share of comparisons of one figure in which chance may
/// make anything at all a regression. Two figures are compared, so both together stay at one in a hundred.
pub(super) const FALSE_ALARMS: f64 = 0.005;

/// Tests of about the same size that tell how noisy one is. What is small moves by more of itself than what is
/// large. A hundred give a spread that is itself right to a tenth.
const NEIGHBOURS: usize = 100;
/// With fewer tests their spread tells nothing, and the figure's own guess holds.
pub(super) const FEWEST: usize = 20;
/// Degrees of freedom of Student's distribution: tails somewhat heavier than the normal one's.
const FREEDOM: u32 = 30;
/// From the median of absolute deviations to the standard deviation of a normal distribution.
const TO_DEVIATION: f64 = 1.4826;
/// In standard deviations, where a twentieth of a normal distribution lies further down.
const TWENTIETH: f64 = 1.645;

/// What is known beforehand of a figure's noise, as a share of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prior {
    /// It is never taken for less.
    pub(super) least: f64,
    /// What it is where there are too few tests to tell.
    pub(super) guess: f64,
    /// The most that those which got better say of it: many improvements in one change are no noise.
    pub(super) most_by_tail: f64,
}

/// One test's change, from side to side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shift {
    /// How large it is: tests are neighbours by this.
    pub(super) level: f64,
    /// The logarithm of new over base.
    pub(super) change: f64,
    /// The standard deviation of `change` as the test's own runs tell it, and of how many values they tell it;
    /// of none where there are too few runs.
    pub(super) own: (f64, usize),
}

impl Shift {
    /// The standard deviation of the change: what the others show, moved towards what the test itself shows as
    /// far as its own runs are many; never below what the others show, since a few runs agree by chance.
    fn scale(&self, of_others: f64) -> f64 {
        /// What the others show counts as so many values of the test's own.
        const OTHERS: f64 = 4.0;

        let (own, count) = (self.own.0, self.own.1 as f64);
        let joined = (OTHERS * of_others.powi(2) + count * own.powi(2)) / (OTHERS + count);
        joined.sqrt().max(of_others)
    }
}

/// Which of `shifts` are upwards and beyond the noise, all of them being looked at: Benjamini and Hochberg's
/// step-up procedure over Student's distribution.
pub(super) fn beyond(shifts: &[Shift], prior: Prior) -> Vec<bool> {
    let scales = scales(shifts, prior);
    let chances: Vec<f64> = shifts
        .iter()
        .zip(&scales)
        .map(|(shift, scale)| upper_tail(shift.change / shift.scale(*scale)))
        .collect();
    let cut = largest_rejected(&chances, FALSE_ALARMS);
    chances.iter().map(|chance| *chance <= cut).collect()
}

/// The standard deviation of each change, as those of about the same size show it.
fn scales(shifts: &[Shift], prior: Prior) -> Vec<f64> {
    /// Neighbours change slowly along the order, and finding a spread takes a sort.
    const STEP: usize = NEIGHBOURS / 4;

    let mut scales = vec![prior.guess; shifts.len()];
    if shifts.len() < FEWEST {
        return scales;
    }
    let mut order: Vec<usize> = (0..shifts.len()).collect();
    order.sort_by(|&a, &b| shifts[a].level.total_cmp(&shifts[b].level));
    for (n, part) in order.chunks(STEP).enumerate() {
        let middle = n * STEP + part.len() / 2;
        let first = middle.saturating_sub(NEIGHBOURS / 2);
        let first = first.min(order.len().saturating_sub(NEIGHBOURS));
        let near = &order[first..order.len().min(first + NEIGHBOURS)];
        let scale = spread(near.iter().map(|&at| shifts[at].change).collect(), prior);
        part.iter().for_each(|&at| scales[at] = scale);
    }
    scales
}

/// By the middle, which does not mind what up to half of the tests did, and by those that shrank, which tells
/// of heavy tails and does not mind how many have grown.
fn spread(mut changes: Vec<f64>, prior: Prior) -> f64 {
    changes.sort_by(f64::total_cmp);
    let middle = lower_median(&changes);
    let shrunk = middle - changes[changes.len() / 20];
    let mut deviations: Vec<f64> = changes.iter().map(|it| (it - middle).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    let by_middle = lower_median(&deviations) * TO_DEVIATION;
    by_middle
        .max((shrunk / TWENTIETH).min(prior.most_by_tail))
        .max(prior.least)
}

/// The middle of sorted values, the lower of two: what disturbs a run makes it take more, so the lower one is
/// the truer.
pub(super) fn lower_median<T: Copy>(sorted: &[T]) -> T {
    sorted[(sorted.len() - 1) / 2]
}

/// The standard deviation of the difference of two sides' medians, as each side's deviations around its own
/// tell it, and of how many values that is told. A side that scatters wide is taken for what it is, however
/// quiet the other.
pub(super) fn own_deviation(sides: [&[f64]; 2]) -> (f64, usize) {
    /// Of fewer there is no telling which of them is out of line.
    const FEWEST_RUNS: usize = 3;
    /// A median scatters by so much more than a mean.
    const OF_A_MEDIAN: f64 = 1.25;

    let mut told = sides.map(|side| {
        let deviation = deviation(side);
        (side.len() >= FEWEST_RUNS).then_some((deviation, side.len() - 1))
    });
    // A side of too few runs is as noisy as the other.
    if let [Some((deviation, _)), None] | [None, Some((deviation, _))] = told {
        told = told.map(|it| it.or(Some((deviation, 0))));
    }
    let variances = told.iter().zip(sides).filter_map(|(told, side)| {
        let (deviation, freedom) = (*told)?;
        Some((deviation * deviation / side.len() as f64, freedom))
    });
    let (variance, freedom) = variances.fold((0.0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    (variance.sqrt() * OF_A_MEDIAN, freedom)
}

/// The standard deviation of values, by the middle of how far they are from their own middle.
fn deviation(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = lower_median(&sorted);
    let mut deviations: Vec<f64> = sorted.iter().map(|it| (it - middle).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    // The middle itself is a deviation of zero that nothing was measured by.
    deviations[deviations.len() / 2] * TO_DEVIATION
}

/// The chance of a value beyond `t` in Student's distribution with [`FREEDOM`] degrees, which are even: then it
/// has a closed form (Abramowitz and Stegun, 26.7.4).
fn upper_tail(t: f64) -> f64 {
    let freedom = f64::from(FREEDOM);
    let sine = t / (t * t + freedom).sqrt();
    let cosine_squared = freedom / (t * t + freedom);
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..FREEDOM / 2 {
        term *= cosine_squared * f64::from(2 * k - 1) / f64::from(2 * k);
        sum += term;
    }
    ((1.0 - sine * sum) / 2.0).max(0.0)
}

/// The largest chance that Benjamini and Hochberg's procedure takes for no chance; below zero if none is.
fn largest_rejected(chances: &[f64], rate: f64) -> f64 {
    let mut sorted = chances.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let bound = |rank: usize| rate * (rank + 1) as f64 / count;
    let last = (0..sorted.len())
        .rev()
        .find(|&rank| sorted[rank] <= bound(rank));
    last.map_or(-1.0, |rank| sorted[rank])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_distribution_is_that_of_the_tables() {
        for (t, chance) in [
            (0.0, 0.5),
            (1.310, 0.1),
            (2.042, 0.025),
            (2.750, 0.005),
            (3.646, 0.0005),
        ] {
            assert!(
                (upper_tail(t) - chance).abs() < 1e-4,
                "{t}: {}",
                upper_tail(t)
            );
            assert!((upper_tail(-t) - (1.0 - chance)).abs() < 1e-4, "{t}");
        }
        assert!(upper_tail(1e6) < 1e-12);
    }

    #[test]
    fn the_step_up_procedure_is_that_of_the_paper() {
        // Benjamini and Hochberg 1995, table 1's example: at 0.05 the first four are rejected.
        let chances = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.0000,
        ];
        assert_eq!(largest_rejected(&chances, 0.05), 0.0095);
        assert!(largest_rejected(&[0.3, 0.9], 0.05) < 0.0);
    }

    #[test]
    fn what_many_did_upwards_does_not_pass_for_noise() {
        let prior = Prior {
            least: 0.02,
            guess: 0.05,
            most_by_tail: 0.12,
        };
        let shift = |n: usize| Shift {
            level: n as f64,
            change: if n.is_multiple_of(5) {
                0.69
            } else {
                0.01 * (n % 3) as f64
            },
            own: (0.0, 0),
        };
        let shifts: Vec<_> = (0..500).map(shift).collect();
        let found = beyond(&shifts, prior);
        assert_eq!(found.iter().filter(|it| **it).count(), 100);
    }

    #[test]
    fn a_test_that_is_noisy_by_itself_is_not_judged_by_its_quiet_neighbours() {
        let quiet = [1.0, 1.01, 0.99];
        let wide = [1.0, 1.6, 0.5];
        assert!(own_deviation([&quiet, &quiet]).0 < 0.02);
        assert!(own_deviation([&quiet, &wide]).0 > 0.4);
        assert_eq!(own_deviation([&wide, &wide]).1, 4);
        assert!(
            own_deviation([&wide, &[1.0]]).0 > 0.8,
            "one run is as noisy as the others"
        );
        assert_eq!(
            own_deviation([&[1.0], &[9.0, 1.0]]),
            (0.0, 0),
            "too few to tell"
        );
        let shift = |own| Shift {
            level: 1.0,
            change: 0.69,
            own,
        };
        assert_eq!(shift((0.0, 4)).scale(0.1), 0.1);
        assert!(shift((0.4, 4)).scale(0.1) > 0.25);
    }
}
