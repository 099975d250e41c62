//! The command line: `args` owns the spelling and the help, one file per subcommand runs it.

pub mod args;
mod help;
mod usage;

pub use args::{AttachArgs, Cli, Command, DoctorArgs, Target};
pub use usage::OWN_FAILURE;
