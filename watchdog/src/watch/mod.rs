//! Decides. Pure: takes facts and the time, gives orders; reads no clock, no file, no global.
//!
//! [`facts`] is what one look at the machine saw, [`window`] turns counters into rates,
//! [`availability`] says what could still be freed, [`victim`] chooses inside the target, and
//! [`policy`] is the state machine that `agent::pass` steps; [`thinning`] says which looks of the past are kept. Because nothing here does I/O, a recording
//! of facts replays to the same orders.

pub mod availability;
pub mod facts;
pub mod near_miss;
pub mod oomd_rule;
pub mod peer;
pub mod policy;
pub mod replay;
pub mod settings;
pub mod takeover;
pub mod test_rule;
pub mod thinning;
pub mod trouble;
pub mod victim;
pub mod window;
#[cfg(test)]
mod world;

pub use facts::{Facts, MachineFacts, Member, Reclaim, TargetFacts};
pub use near_miss::NearMiss;
pub use policy::{Decision, Depth, Look, Order, Policy, Response, Rung};
pub use settings::Settings;
pub use test_rule::{Excess, RunningTest, TestOrder, TestRule};
pub use trouble::{Cause, Measure, Rule};
