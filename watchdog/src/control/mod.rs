//! The daemon's control socket: how users attach what is theirs, and how anybody asks how things are.
//!
//! [`protocol`] is what is said and how it is framed, [`status`] the answer to "how are things",
//! [`rights`] what each peer may do, [`Call`] what the daemon gets to hear, [`server`] the daemon's end and [`client`] the other. What is done
//! about a request is the daemon's, in `agent`. docs/CONTROL.md describes the protocol.

mod calls;
pub mod client;
mod connection;
mod descriptors;
pub mod protocol;
pub mod rights;
pub mod server;
pub mod status;

pub use calls::{Answer, Call, Events};
pub use client::{Client, ClientError};
pub use protocol::{Attach, Event, Refusal, Request};
pub use rights::{Handed, Peer};
pub use server::{BindError, Server};
pub use status::Status;

/// Where the daemon listens.
pub const SOCKET: &str = "/run/memwatch.sock";
