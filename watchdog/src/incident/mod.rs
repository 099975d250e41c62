//! What is told about a run: the record and its faces. `record`, `intervention` and `suite` are the one
//! schema, `merge` makes two of one target one, `evidence` fills it from what the policy saw, `text` keeps hostile names from speaking
//! through it, `diagnosis` says what it comes to when the machine was frozen and `advice` what to do, `report` puts it on disk, `summary` and `live` show it to a person. Who gathers the
//! facts is `agent`; who sends a record further is `export`.

pub mod advice;
mod diagnosis;
mod evidence;
mod flight;
mod headline;
mod human;
mod intervention;
mod live;
mod machine;
mod merge;
mod paragraph;
pub mod picture;
mod record;
mod report;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod schema;
mod signal;
mod spark;
pub mod store;
pub mod suite;
mod summary;
mod takeover;
mod text;
pub mod timeline;
mod timestamp;

pub use crate::act::Outcome;
pub use diagnosis::{Advice, Diagnosis, Finding, FindingKind, diagnose, time_of};
pub use evidence::{near_miss, order, quantities, rivals};
pub use flight::Flight;
pub use headline::{Headline, Named};
pub use human::{bytes, count, duration, percent};
pub use intervention::{
    BlamedTest, BlockedTask, Culprit, HungTask, Intervention, KernelOomVictim, KilledBy, NearMiss,
    Process, Quantity, Rival, RivalCgroup, Rule, RungTaken, TestPhase, Unit, Victim,
};
pub use live::{LiveStatus, live_line};
pub use machine::{ArcState, KernelLine, Machine, ServiceLine, SwapState};
pub use paragraph::Style;
pub(crate) use paragraph::wrap;
pub use record::{
    Command, Faults, FeatureLost, Host, Kind, LimitEnforcer, Losses, MemoryLayout, ReadError,
    Reclaim, Record, SCHEMA_VERSION, Target, Verdict, unnamed_kills,
};
pub use report::{ReportError, ReportFile};
#[cfg(test)]
pub(crate) use schema::validate;
pub use signal::{Signal, UnknownSignal};
pub use spark::sparklines;
pub use store::Store;
pub use suite::Suite;
pub use summary::{pointer, summary};
pub use takeover::{Fault, Takeover};
pub use text::{Comm, Text};
pub use timestamp::Timestamp;
