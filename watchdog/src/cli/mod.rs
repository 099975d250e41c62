//! The command line: `args` owns the spelling and the help, one file per subcommand runs it.

pub mod args;
mod help;

pub use args::{AttachArgs, Cli, Command, DoctorArgs, Target};
