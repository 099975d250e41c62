//! What memwatch tells other programs, read back from those that receive it: Prometheus, node_exporter, journald,
//! a notification server; and the files that take it to a fleet, by the tools that read them. Needs root, BPF and
//! cgroups, and fails without.

#[path = "support/lab.rs"]
mod lab;
#[path = "daemon/service.rs"]
mod service;
#[path = "support/users.rs"]
mod users;

#[path = "exporters/delivering.rs"]
mod delivering;
#[path = "exporters/desktop.rs"]
mod desktop;
#[path = "exporters/fleet.rs"]
mod fleet;
#[path = "exporters/journal.rs"]
mod journal;
#[path = "exporters/prometheus.rs"]
mod prometheus;
#[path = "exporters/receiver.rs"]
mod receiver;
