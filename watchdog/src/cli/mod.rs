//! The command line: `args` owns the spelling and the help, one file per subcommand runs it.

pub mod args;
pub mod doctor;
mod help;

pub use args::{AttachArgs, Cli, Command, Target};
pub use doctor::DoctorArgs;
