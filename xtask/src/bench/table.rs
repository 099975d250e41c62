//! How measured figures are printed: one line each, with the goal and the verdict beside them. What
//! they can tell is `statistics`'.

use super::rounds::Rounds;
use super::statistics::{Estimate, Verdict, judge_ratio};

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
