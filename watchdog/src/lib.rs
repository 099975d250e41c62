//! memwatch keeps a machine usable while something eats its memory.
//!
//! The modules stand in the order of the data's path; each knows those before it and none of those
//! after it.
//!
//! ```text
//!  kernel                                  agent                                        outside
//!  tracepoints ──► per-target totals ─┐
//!        └─────► ring buffer ─────────┼─► host, bpf ─► watch ─► act ─► incident ─► report, terminal
//!  PSI, memory.*, /proc, arcstats ────┘    (facts)     (pure)   (I/O)   (record)
//! ```
//!
//! `blackbox` is the file that tells of a machine's end, `control` the daemon's socket, `export` what others read a
//! run by and are told of it, `tests` knows how projects start their test suites and what became of them, `history`
//! keeps that. `page` is the frame of every HTML page. `agent` knows them all and wires them; `config` and `cli` are how a person says what is wanted.

pub mod causes;
pub mod config;
pub mod host;

pub mod bpf;

pub mod pytest;

pub mod watch;

pub mod act;

pub mod page;

pub mod incident;

pub mod blackbox;

pub mod control;

pub mod export;

pub mod tests;

pub mod history;

pub mod agent;

pub mod cli;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(test)]
#[path = "../../tests/support/counting.rs"]
mod counting;

#[cfg(test)]
#[path = "../../tests/support/storm.rs"]
mod storm;

/// What lies in `tests/support` knows the library by its name, inside of it, too.
#[cfg(test)]
extern crate self as memwatch;
