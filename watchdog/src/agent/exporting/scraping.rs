//! Has Prometheus find the daemon's numbers and those of the exporters, where the configuration says so. What it
//! finds is `export::prometheus`'.

use super::Orders;
use crate::config;
use crate::export::Spool;
use crate::export::prometheus::{OfDaemon, Queue, serve, textfile};
use crate::export::standing::{self, Report};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Before an address is tried again that cannot be had: another program's, or that of a network to come.
const PAUSE: Duration = Duration::from_secs(1);

/// A task for each place.
pub(super) fn start(wanted: &config::Prometheus, orders: &Orders, tasks: &mut JoinSet<()>) {
    let state = orders.state.clone();
    let source = OfDaemon::new(&orders.daemon, move || look(&state));
    if let Some(address) = wanted.listen {
        let source = source.clone();
        tasks.spawn(async move {
            let listener = listen(address).await;
            match serve(listener, source).await {}
        });
    }
    if let Some(dir) = wanted.textfile.clone() {
        tasks.spawn(async move { match textfile::keep(dir, textfile::EVERY, source).await {} });
    }
}

/// As soon as that can be. Right after the configuration was read again, the one before may still be there.
async fn listen(address: SocketAddr) -> TcpListener {
    let mut tries = 0;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                tries += 1;
                if tries == 2 {
                    tracing::warn!(
                        "no scrape can be answered: cannot listen at {address}: {error}; it is tried on, or give \
                         another address as listen below [prometheus]"
                    );
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn look(state: &Path) -> (Vec<Queue>, Option<u64>) {
    let queues = standing::all(state).into_iter().map(queue).collect();
    (queues, Some(Spool::count(state) as u64))
}

fn queue(report: Report) -> Queue {
    Queue {
        waiting: report.waiting as u64,
        refused: report.refused as u64,
        lost: report.lost,
        failing: report.standing.failed_at.is_some(),
        delivered_at: report.standing.delivered_at,
        name: report.name,
    }
}
