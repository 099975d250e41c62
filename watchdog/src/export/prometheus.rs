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
use std::time::Duration;

use tokio::time::timeout;

use crate::control::{Client, Status};
use crate::incident::Timestamp;

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
    /// How many incidents are on the disk.
    pub kept: Option<u64>,
}

/// How an exporter does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// What it is called in the configuration.
    pub name: String,
    /// Incidents that wait for it.
    pub waiting: u64,
    /// Incidents that its receiver will never take.
    pub refused: u64,
    /// Incidents that it will not deliver: removed for newer ones, or not in its queue.
    pub lost: u64,
    /// Whether the last try failed.
    pub failing: bool,
    /// When it delivered one last.
    pub delivered_at: Option<Timestamp>,
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
    exporters: Arc<dyn Fn() -> (Vec<Queue>, Option<u64>) + Send + Sync>,
}

impl OfDaemon {
    /// Of the daemon that listens at `socket`. `exporters` may read files.
    pub fn new(
        socket: &Path,
        exporters: impl Fn() -> (Vec<Queue>, Option<u64>) + Send + Sync + 'static,
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
        let look = Arc::clone(&self.exporters);
        let seen = tokio::task::spawn_blocking(move || look()).await;
        let (exporters, kept) = seen.unwrap_or_default();
        Snapshot {
            status,
            exporters,
            kept,
        }
    }
}
