//! What memwatch knows about test suites, beside running one: pure functions. `cli::tests` reads the files and
//! prints; docs/TESTS.md is the user's view of it. `direct` finds calls of pytest that do not go through memwatch.
//! The rest is what the tests of a run tell beside those of other runs: which are slow or take much memory, and
//! which got worse. Where runs are kept is `history`'s.
//!
//! A comparison goes `run` (what was measured, test by test) -> `sides` (what the machine did to all tests alike is
//! taken out) -> `pair` (one figure for each side of a test) -> `noise` (how far figures move by themselves) ->
//! `compare` (what is worse) against `limit` (what is too much).

mod classify;
mod compare;
pub mod direct;
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
