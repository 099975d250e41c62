//! How others learn of a run. What they read it by is one format per file, each made from the record alone:
//! [`ctrf`], [`github`], [`junit`]. What happened is kept on the disk ([`spool`], below [`place`]; of a run under way, [`draft`]) and waits there
//! ([`queue`]) until each [`exporter`] has told of it: [`desktop`], [`journal`], [`otlp`], [`webhook`]; how they do stands in
//! [`standing`]. [`prometheus`] is told how things are, and of no incident. Who runs them, and writes what where, is
//! `agent`'s; memwatch's own two faces, the record's JSON and the terminal, are `incident`'s.

pub mod backoff;
pub mod ctrf;
pub mod desktop;
mod discreet;
pub mod draft;
pub mod exporter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod github;
mod http;
pub mod journal;
pub mod junit;
mod node;
pub mod otlp;
mod percent;
pub mod place;
pub mod prometheus;
pub mod queue;
pub mod refusal;
pub mod spool;
pub mod standing;
pub mod trace;
pub mod webhook;
mod words;

pub use exporter::{Delivered, Exporter};
pub use http::SetupError;
pub use queue::Queue;
pub use spool::{Kept, Spool};
