//! The figures of the daemon and of the exporters, sent to one receiver again and again. Nothing is kept of what
//! was not taken: the next figures are newer.

use super::measures::measures;
use crate::control::{Client, Status};
use crate::export::refusal::Refusal;
use crate::export::{Exporter, Spool, standing};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::MissedTickBehavior;

/// For the daemon to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends them every so often, for ever. `of` is the exporter's name and where the incidents are.
pub(super) async fn measure(
    of: (String, PathBuf),
    exporter: Arc<Exporter>,
    daemon: PathBuf,
    every: Duration,
) {
    let (name, state) = of;
    let Exporter::Otlp(otlp) = &*exporter else {
        return;
    };
    let since = SystemTime::now();
    let mut clock = tokio::time::interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        clock.tick().await;
        let asked = tokio::time::timeout(PATIENCE, ask(&daemon)).await;
        let status = asked.ok().flatten();
        let began = status.as_ref().and_then(|status| status.since.unix_us());
        let began = began.and_then(|us| u64::try_from(us).ok());
        let since = began.map_or(since, |us| {
            SystemTime::UNIX_EPOCH + Duration::from_micros(us)
        });
        let kept = Spool::count(&state);
        let measures = measures(status.as_ref(), &standing::all(&state), kept);
        match otlp.measure(&measures, since).await {
            Ok(_) if failing => {
                failing = false;
                tracing::warn!("{name}: metrics get through again");
            }
            Ok(_) => {}
            Err(Refusal::Later { why, .. } | Refusal::Never { why }) if !failing => {
                failing = true;
                tracing::warn!("{name}: metrics do not get through: {why}");
            }
            Err(_) => {}
        }
    }
}

async fn ask(daemon: &Path) -> Option<Status> {
    let mut client = Client::connect(daemon).await.ok()?;
    client.status().await.ok()
}
