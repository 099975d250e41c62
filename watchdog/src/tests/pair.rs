//! A test on both sides: which of its runs can be compared, and what they come to.

use super::noise::{Shift, lower_median, own_deviation};
use super::run::Measured;
use crate::incident::Text;

/// A figure of the runs of a test, with all else that was measured in each.
pub(super) type Values<'r> = Vec<(&'r Measured, f64)>;

/// A test that both sides have, with its figure on each.
#[derive(Clone, Debug)]
pub(super) struct Pair<'r> {
    pub(super) id: &'r Text,
    pub(super) base: f64,
    pub(super) new: f64,
    pub(super) shift: Shift,
    /// Whether nearly all new runs tell of it: they are above nearly all of the base's, and by a third of the
    /// change at least. A test that at times takes thrice as long does so on both sides.
    pub(super) stands_out: bool,
    /// How many runs tell it, on the side that has fewer.
    pub(super) runs: usize,
    /// Whether the two sides can be compared. Not, if the test set up something for others in all runs of one
    /// side and in none of the other's: what it took may be what others took there.
    pub(super) is_fair: bool,
}

impl<'r> Pair<'r> {
    /// Takes runs of one kind: those that set up nothing for others, where both sides have some. `soft` is added
    /// to both figures before they are set against each other, so that what is small has no large changes.
    pub(super) fn of(
        id: &'r Text,
        [base, new]: [Values<'_>; 2],
        is_parallel: bool,
        soft: f64,
    ) -> Option<Self> {
        // In one process it is always the same test that sets up something, but for the one that begins it.
        let paid = |test: &Measured| test.is_first || is_parallel && test.sets_up;
        let split = |side: Values<'_>| -> [Vec<f64>; 2] {
            let (paid, plain): (Values<'_>, Values<'_>) =
                side.into_iter().partition(|(test, _)| paid(test));
            [plain, paid].map(|part| part.into_iter().map(|(_, value)| value).collect())
        };
        let ([base_plain, base_paid], [new_plain, new_paid]) = (split(base), split(new));
        let both = |base: &[f64], new: &[f64]| !base.is_empty() && !new.is_empty();
        if both(&base_plain, &new_plain) {
            Self::of_one_kind(id, [base_plain, new_plain], soft, true)
        } else if both(&base_paid, &new_paid) {
            Self::of_one_kind(id, [base_paid, new_paid], soft, true)
        } else {
            let sides = [
                [base_plain, base_paid].concat(),
                [new_plain, new_paid].concat(),
            ];
            Self::of_one_kind(id, sides, soft, false)
        }
    }

    fn of_one_kind(
        id: &'r Text,
        [mut base, mut new]: [Vec<f64>; 2],
        soft: f64,
        is_fair: bool,
    ) -> Option<Self> {
        if base.is_empty() || new.is_empty() {
            return None;
        }
        base.sort_by(f64::total_cmp);
        new.sort_by(f64::total_cmp);
        let logarithms =
            |side: &[f64]| -> Vec<f64> { side.iter().map(|it| (it + soft).ln()).collect() };
        let own = own_deviation([&logarithms(&base), &logarithms(&new)]);
        let (was, is) = (lower_median(&base), lower_median(&new));
        let low = new[(new.len() - 1) / 5];
        let shift = Shift {
            level: was + soft,
            change: ((is + soft) / (was + soft)).ln(),
            own,
        };
        Some(Self {
            id,
            base: was,
            new: is,
            shift,
            stands_out: low > base[(base.len() - 1) * 4 / 5] && low - was >= (is - was) / 3.0,
            runs: base.len().min(new.len()),
            is_fair,
        })
    }
}
