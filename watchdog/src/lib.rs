//! memwatch: a memory-pressure watchdog.
pub mod act;
pub mod agent;
pub mod bpf;
pub mod cli;
pub mod config;
pub mod host;
pub mod incident;
pub mod watch;
