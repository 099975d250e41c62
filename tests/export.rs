//! Incidents on the disk and on their way to receivers: the real `memwatch export` against receivers that answer
//! well, badly or not at all, against the collectors that people run, and on disks that are full or broken. Needs
//! root and what `cargo xtask test` provides.

#[path = "export/attaching.rs"]
mod attaching;
#[path = "export/collectors.rs"]
mod collectors;
#[path = "export/delivering.rs"]
mod delivering;
#[path = "export/desk.rs"]
mod desk;
#[path = "export/disks.rs"]
mod disks;
#[path = "support/lab.rs"]
mod lab;
#[path = "export/moods.rs"]
mod moods;
#[path = "export/receiver.rs"]
mod receiver;
#[path = "support/refuse.rs"]
mod refuse;
#[path = "export/secured.rs"]
mod secured;
#[path = "daemon/service.rs"]
mod service;
#[path = "export/testing.rs"]
mod testing;
#[path = "support/users.rs"]
mod users;
