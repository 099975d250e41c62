//! What is told about a run: the record and its faces. `record` and `intervention` are the one
//! `export`.

mod directory;
mod human;
mod intervention;
mod record;
mod report;
mod signal;
mod text;
mod timestamp;

pub use human::{bytes, count, duration, percent};
pub use intervention::{
    HungTask, Intervention, KernelOomVictim, KilledBy, Outcome, Process, Quantity, Rival, Rule,
    Rung, RungTaken, Unit, Victim,
};
pub use record::{
    Command, Faults, FeatureLost, Host, Kind, LimitEnforcer, Losses, MemoryLayout, ReadError,
    Reclaim, Record, SCHEMA_VERSION, Target, Verdict,
};
pub use report::{ReportError, ReportFile};
pub use signal::Signal;
pub use text::{Comm, Text};
pub use timestamp::Timestamp;
