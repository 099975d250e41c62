//! memwatch: a memory-pressure watchdog.
pub mod cli;
pub mod config;
pub mod host;
pub mod bpf;
pub mod watch;
pub mod act;
pub mod agent;
pub mod incident;
