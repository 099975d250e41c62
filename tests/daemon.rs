//! `memwatch daemon` at work: what its configuration names, and what users attach through it. The words on its
//! socket are `control`'s tests. Needs root, BPF and cgroups, and fails without.

#[path = "support/lab.rs"]
mod lab;
#[path = "support/pty.rs"]
mod pty;
#[path = "support/seen.rs"]
mod seen;
#[path = "support/users.rs"]
mod users;

#[path = "daemon/attaching.rs"]
mod attaching;
#[path = "daemon/black_box.rs"]
mod black_box;
#[path = "daemon/configured.rs"]
mod configured;
#[path = "daemon/failing.rs"]
mod failing;
#[path = "daemon/service.rs"]
mod service;
#[path = "daemon/watching.rs"]
mod watching;
