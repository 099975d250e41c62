//! The agent: the only place that knows all the others, and wires them.
//!
//! Two kinds of threads meet here. The deciding thread ([`deciding`], one [`pass`] after another) never
//! waits for the machine; the slow side ([`run`]) starts the command, talks to terminal and disk, and
//! may hang without the deciding thread noticing. Between them lies [`channel`], which drops and counts
//! rather than block.

pub mod adopt;
pub mod awake;
pub mod blackbox;
pub mod blocked;
pub mod channel;
pub mod daemon;
pub mod deciding;
mod drafting;
pub mod drill;
mod ending;
mod entrusted;
pub mod exporting;
pub mod eyes;
pub mod flight;
pub mod guarded;
pub mod helpers;
mod housekeeping;
pub mod identity;
pub mod inheritance;
mod keeping;
pub mod kernel;
pub mod kernel_log;
pub mod launch;
pub mod members;
mod orphans;
mod papers;
pub mod pass;
mod reacting;
pub mod recorder;
pub mod recording;
pub mod rehearsal;
pub mod run;
mod service_log;
pub mod signals;
mod starting;
pub mod stir;
pub mod story;
mod surroundings;
pub mod takeover;
pub mod terminal;
pub mod testing;
mod watched;
