//! The BPF programs, seen from the agent: what this kernel offers, what is attached, what it counts.
//!
//! ```text
//! facts (I/O) ──► plan (pure) ──► load, programs (I/O) ──► reader (no allocation) ──► event (pure)
//! ```
//!
//! The programs themselves, and the layout of what both sides read, are the crate `memwatch-ebpf`. What
//! the numbers mean is `watch`'s.

mod btf;
mod event;
mod facts;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guarding;
mod home;
mod kfuncs;
mod load;
mod plan;
mod programs;
mod reader;
mod sampling;
mod standing;
mod sys;
mod view;

pub use event::Event;
pub use facts::{Facts, KernelTypes, Kfuncs, Probe};
pub use guarding::{NoTerms, Terms, Unguarded};
pub use home::{HomeError, SHARED, prepare};
pub use load::LoadError;
pub use memwatch_ebpf::{Kill, Name};
pub use plan::{Feature, GuardClock, Loss, Plan, plan};
pub use programs::Programs;
pub use reader::{Reader, Row, Totals};
pub use sampling::Statistics;
pub use standing::{Standing, disarm_dead, standing, tidy};
