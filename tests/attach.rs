//! `memwatch attach` as its users meet it: what the command finds, how runs end, what is adopted, what is
//! cleaned up. The terminal is `terminal`'s, ill will `hostile`'s. Needs root and cgroups.

#[path = "support/lab.rs"]
mod lab;
#[path = "workloads/random.rs"]
mod random;
#[path = "support/refuse.rs"]
mod refuse;

#[path = "attach/adopting.rs"]
mod adopting;
#[path = "attach/awake.rs"]
mod awake;
#[path = "attach/command.rs"]
mod command;
#[path = "attach/dying.rs"]
mod dying;
#[path = "attach/evidence.rs"]
mod evidence;
#[path = "attach/guarding.rs"]
mod guarding;
#[path = "attach/inheritance.rs"]
mod inheritance;
#[path = "attach/leftovers.rs"]
mod leftovers;
#[path = "attach/namespaces.rs"]
mod namespaces;
#[path = "attach/outliving.rs"]
mod outliving;
#[path = "attach/pressure.rs"]
mod pressure;
