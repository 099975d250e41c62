//! The daemon's control socket: real sockets, real users, real cgroups, and a daemon that only answers.
//! Needs root and cgroups, and fails without.

#[path = "support/cgroups.rs"]
mod cgroups;
#[path = "control/daemon.rs"]
mod daemon;
#[path = "support/users.rs"]
mod users;

#[path = "control/attaching.rs"]
mod attaching;
#[path = "control/completing.rs"]
mod completing;
#[path = "control/frames.rs"]
mod frames;
#[path = "control/permission.rs"]
mod permission;
#[path = "control/serving.rs"]
mod serving;
