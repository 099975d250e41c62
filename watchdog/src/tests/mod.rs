//! What the tests of a run tell beside those of other runs: which are slow or take much memory, and which
//! got worse. Pure: the records come in as [`Run`]s, what is printed of the answers is `cli::tests`'s, where
//! runs are kept is `history`'s. docs/TESTS.md is the user's view of it.
//!
//! A comparison goes `run` (what was measured, test by test) -> `sides` (one figure for each side of a test,
//! what the machine did to all alike taken out) -> `noise` (how far figures move by themselves) -> `compare`
//! (what is worse) against `limit` (what is too much).

mod classify;
mod compare;
mod limit;
mod noise;
mod pair;
mod run;
mod sides;
#[cfg(test)]
pub(crate) mod simulated;
mod trend;

pub use classify::{Bounds, Classified, Marker, classify};
pub use compare::{Basis, Change, Comparison, Doubt, Ended, Total, Unsure, compare};
pub use limit::{Excess, Figure, Limit, LimitError};
pub use run::{Measured, NoTests, Run};
pub use trend::{Worse, worsenings};
