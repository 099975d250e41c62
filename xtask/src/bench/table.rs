//! How measured figures are printed: one line each, with the goal and the verdict beside them.

use super::statistics::{Estimate, Verdict, judge_ratio};

/// Figures measured in rounds of three: without memwatch, with it, and without it once more.
#[derive(Default)]
pub(crate) struct Rounds {
    pub(crate) without: Vec<f64>,
    pub(crate) with: Vec<f64>,
    pub(crate) again: Vec<f64>,
}

/// What is measured in one part of a round.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Without,
    With,
    /// The same as without: what chance alone makes of a ratio.
    Again,
}

/// The six orders of a round, so that drift meets every side alike.
const ORDERS: [[Side; 3]; 6] = {
    use Side::{Again, With, Without};
    [
        [Without, With, Again],
        [With, Again, Without],
        [Again, Without, With],
        [Without, Again, With],
        [Again, With, Without],
        [With, Without, Again],
    ]
};

/// Measures `rounds` rounds of figures, side by side in changing order.
pub(crate) fn interleave<const FIGURES: usize>(
    rounds: usize,
    mut measure: impl FnMut(Side) -> anyhow::Result<[f64; FIGURES]>,
) -> anyhow::Result<[Rounds; FIGURES]> {
    let mut measured = [(); FIGURES].map(|()| Rounds::default());
    for order in ORDERS.iter().cycle().take(rounds) {
        for &side in order {
            for (rounds, figure) in measured.iter_mut().zip(measure(side)?) {
                let values = match side {
                    Side::Without => &mut rounds.without,
                    Side::With => &mut rounds.with,
                    Side::Again => &mut rounds.again,
                };
                values.push(figure);
            }
        }
    }
    Ok(measured)
}

/// Prints a table's name and what it is about.
pub(crate) fn headline(name: &str, about: &str) {
    println!("\n── {name}: {about}");
}

/// Prints the names of the columns of [`ratio`].
pub(crate) fn ratio_columns(what: &str) {
    println!(
        "{what:<28} {:>9} {:>9}  {:<20} {:<20} {:>5} {:>5}  verdict",
        "without", "with", "ratio (95 %)", "A/A (95 %)", "runs", "goal"
    );
}

/// Prints a figure with and without memwatch.
pub(crate) fn ratio(what: &str, rounds: &Rounds, goal: f64) {
    let ratio = Estimate::of_ratios(&rounds.with, &rounds.without);
    let control = Estimate::of_ratios(&rounds.again, &rounds.without);
    println!(
        "{what:<28} {:>9} {:>9}  {:<20} {:<20} {:>5} {goal:>5.2}  {}",
        short(Estimate::of(&rounds.without).median),
        short(Estimate::of(&rounds.with).median),
        with_interval(ratio),
        with_interval(control),
        rounds.with.len(),
        judge_ratio(ratio, control, goal),
    );
}

/// Prints a figure that is held against its goal as it is.
pub(crate) fn figure(what: &str, measured: &str, goal: &str, verdict: Verdict) {
    println!("{what:<28} {measured:<44} goal {goal:<12} {verdict}");
}

fn with_interval(estimate: Estimate) -> String {
    let median = estimate.median;
    match estimate.interval {
        Some(interval) => format!("{median:.3} ({:.3}-{:.3})", interval.low, interval.high),
        None => format!("{median:.3} (too few)"),
    }
}

/// Four significant digits at most, which is more than the noise leaves.
fn short(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.3}"),
        ..100.0 => format!("{value:.2}"),
        ..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_comes_at_every_place_equally_often() {
        for place in 0..3 {
            let firsts = ORDERS.map(|order| order[place] as usize);
            for side in [Side::Without, Side::With, Side::Again] {
                let times = firsts.iter().filter(|&&s| s == side as usize).count();
                assert_eq!(times, 2);
            }
        }
    }

    #[test]
    fn a_round_measures_every_figure_on_every_side() {
        let measured = interleave(7, |side| Ok([side as usize as f64, 5.0])).expect("no I/O");
        assert_eq!(measured[0].without, [0.0; 7]);
        assert_eq!(measured[0].with, [1.0; 7]);
        assert_eq!(measured[0].again, [2.0; 7]);
        assert_eq!(measured[1].with, [5.0; 7]);
    }
}
