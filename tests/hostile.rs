//! Ill will and bad luck: names that lie, targets that vanish, files that are none, rights that are missing.
//! Each run ends clearly and harms nobody outside. Needs root and cgroups.

#[path = "support/lab.rs"]
mod lab;
#[path = "support/refuse.rs"]
mod refuse;

#[path = "hostile/files.rs"]
mod files;
#[path = "hostile/names.rs"]
mod names;
#[path = "hostile/no_cgroup.rs"]
mod no_cgroup;
#[path = "hostile/rights.rs"]
mod rights;
#[path = "hostile/targets.rs"]
mod targets;
