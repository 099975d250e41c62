//! `[prometheus]`: whether and where Prometheus finds memwatch's numbers. What these are is `export::prometheus`'.

use std::net::SocketAddr;
use std::path::PathBuf;

/// `[prometheus]`, as the files say it; `None` is silence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prometheus {
    /// Where scrapes are answered.
    pub listen: Option<SocketAddr>,
    /// The directory in which node_exporter finds them.
    pub textfile: Option<PathBuf>,
}
