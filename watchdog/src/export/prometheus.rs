//! What memwatch tells Prometheus: how the daemon, its targets and the exporters are, at one moment.
//!
//! [`Snapshot`] is what is told and [`Snapshot::page`] how; [`endpoint`] answers scrapes with it, [`textfile`]
//! puts it where node_exporter looks. Numbers alone go this way: incidents themselves are the other exporters'.

mod endpoint;
mod page;
mod text;
pub mod textfile;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use crate::control::{Client, Status};

pub use endpoint::{LISTEN, serve};
pub use page::TARGETS;

/// For the daemon to say how it is. A scrape is given 10 s by default, and one that says that the daemon is
/// silent is worth more than none.
const PATIENCE: Duration = Duration::from_secs(5);

/// How things are.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What the daemon says; `None` if it does not answer.
    pub status: Option<Status>,
    /// The exporters, each by another name.
    pub exporters: Vec<Queue>,
    /// Incidents on the disk.
    pub spool: Option<Spool>,
}

/// How an exporter does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// What it is called in the configuration.
    pub name: String,
    /// Incidents that wait for it.
    pub waiting: u64,
    /// Since when the oldest of them does.
    pub waiting_since: Option<SystemTime>,
    /// Incidents that were delivered.
    pub delivered: u64,
    /// Attempts after which an incident waits on.
    pub failures: u64,
    /// Incidents that the receiver will never take.
    pub refused: u64,
    /// When one was delivered last.
    pub delivered_at: Option<SystemTime>,
}

/// Incidents on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spool {
    /// How many.
    pub incidents: u64,
    /// What they take.
    pub bytes: u64,
    /// How many were removed for newer ones before all exporters had them.
    pub evicted: u64,
}

/// Who knows how things are.
pub trait Source: Send + Sync + 'static {
    /// How they are now. Soon: a scrape waits.
    fn snapshot(&self) -> impl Future<Output = Snapshot> + Send;
}

/// Asks the daemon, and `exporters` about what this process does itself.
#[derive(Clone)]
pub struct OfDaemon {
    socket: PathBuf,
    exporters: Arc<dyn Fn() -> (Vec<Queue>, Option<Spool>) + Send + Sync>,
}

impl OfDaemon {
    /// Of the daemon that listens at `socket`. `exporters` must not wait.
    pub fn new(
        socket: &Path,
        exporters: impl Fn() -> (Vec<Queue>, Option<Spool>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            socket: socket.to_owned(),
            exporters: Arc::new(exporters),
        }
    }
}

impl Source for OfDaemon {
    async fn snapshot(&self) -> Snapshot {
        let asked = timeout(PATIENCE, async {
            Client::connect(&self.socket).await?.status().await
        });
        let status = match asked.await {
            Ok(Ok(status)) => Some(status),
            Ok(Err(error)) => {
                tracing::debug!("{error}");
                None
            }
            Err(_) => None,
        };
        let (exporters, spool) = (self.exporters)();
        Snapshot {
            status,
            exporters,
            spool,
        }
    }
}
