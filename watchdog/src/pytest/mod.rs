//! What a run's pytest publishes, and how it is given the plugin that does so.
//!
//! [`home`] makes the directory of a run, with the plugin in it ([`bytecode`] spares Python the compiling), and says what the command's environment must
//! hold; [`slot`] is the test that a process runs now, [`results`] what it told of those that are over. All of
//! it can be written by whoever runs the tests: evidence, never authority, read with bounds and without
//! following a link. Who believes what of it is `agent::testing`'s.

mod bytecode;
pub mod home;
pub mod results;
pub mod slot;

pub use home::{ENTRY_POINTS, Home, HomeError, Terms};
pub use slot::{Phase, Slot};

/// The plugin: one file of Python's standard library.
pub const PLUGIN: &str = include_str!("memwatch_pytest.py");
