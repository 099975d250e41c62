//! The black box: the last minutes before a machine ended without being shut down. Under pressure the flight
//! recorder's tail goes into a small file, a slot at a time; what is found there after the next start becomes an
//! incident of its own.
//!
//! `slots` is the format and its reader, pure; `frame` what stands in a slot and what fits; `file` writes; `recover`
//! reads and makes the record. When something is written is the agent's (`agent::blackbox`).

mod file;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod recover;
mod slots;

pub use file::BlackBox;
pub use frame::{Frame, Page, Top, TopOf};
pub use recover::{Found, Recovered, Told, found, recover};
pub use slots::{FILE_BYTES, SLOT_BYTES, TEXT_BYTES};
