//! Who is measured when: with memwatch and without it in turns, so that whatever else changes on the
//! machine meets both alike, and without it twice, to see what chance does.

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
