//! The command line: `args` owns the spelling and the help, one file per subcommand runs it.

pub mod args;
pub mod attach;
pub mod complete;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod export;
pub mod failure;
pub mod guard;
mod help;
pub mod incidents;
pub mod record;
pub mod replay;
pub mod status;
pub mod tests;
pub mod top;
mod usage;

#[cfg(test)]
#[path = "documents_tests.rs"]
mod documents;

pub use args::{AttachArgs, Cli, Command, Target};
pub use config::ConfigArgs;
pub use daemon::DaemonArgs;
pub use doctor::DoctorArgs;
pub use export::ExportArgs;
pub use guard::GuardArgs;
pub use incidents::IncidentsArgs;
pub use record::RecordArgs;
pub use replay::ReplayArgs;
pub use status::StatusArgs;
pub use tests::TestsArgs;
pub use top::TopArgs;
pub use usage::OWN_FAILURE;
