//! Where the incidents of whoever asks lie: in the state directory, root's or the user's own, and, for users, with the
//! daemon, which hands each the own. Reading a directory is `incident::store`'s.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use uuid::Uuid;

use super::{Place, warn};
use crate::causes::with_causes;
use crate::control::{Client, ClientError};
use crate::export::place;
use crate::incident::store::{self, Store};
use crate::incident::{Headline, Record};

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    stores: Vec<Store>,
    /// The daemon's socket, for those who cannot read its directory.
    socket: Option<PathBuf>,
}

impl Sources {
    /// Where `place` says, or where incidents of this user usually lie.
    pub(super) fn of(place: &Place) -> Self {
        if let Some(dir) = &place.dir {
            return Self {
                stores: vec![Store::at(dir.clone())],
                socket: None,
            };
        }
        // SAFETY: reads one number of this process.
        let is_root = unsafe { libc::geteuid() } == 0;
        let state = place::of_a_service().ok();
        let stores = state.map(|state| Store::at(state.join("incidents")));
        Self {
            stores: stores.into_iter().collect(),
            socket: (!is_root).then(|| place.socket.clone()),
        }
    }

    /// All incidents, the oldest first, each once. What cannot be read is said.
    pub(super) fn list(&self) -> Vec<Headline> {
        let mut all = self.of_daemon();
        for store in &self.stores {
            for id in self.ids_in(store) {
                match store.headline(id) {
                    Ok(headline) => all.push(headline),
                    Err(error) => warn(&format!("passed over: {error}")),
                }
            }
        }
        all.sort_by_key(|headline| headline.id);
        all.dedup_by_key(|headline| headline.id);
        all
    }

    /// The ids of all of them, the oldest first.
    pub(super) fn ids(&self) -> Vec<Uuid> {
        let daemons = self.of_daemon();
        let mut ids: Vec<Uuid> = daemons.iter().map(|headline| headline.id).collect();
        ids.extend(self.stores.iter().flat_map(|store| self.ids_in(store)));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The incident that `typed` means: a file, the beginning of an id, or `last`.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(super) fn read(&self, typed: &str) -> anyhow::Result<Record> {
        let file = Path::new(typed);
        let is_path = typed.contains('/') || file.extension().is_some();
        if is_path || (file.is_file() && self.find(typed).is_err()) {
            return Ok(store::read(file)?);
        }
        let id = self.find(typed)?;
        for store in &self.stores {
            if store.file(id).exists() {
                return Ok(store.read(id)?);
            }
        }
        match &self.socket {
            Some(socket) => from_daemon(socket, async |client| client.incident(id).await),
            None => bail!(
                "incident {id} is not there any more; see which there are: memwatch incidents list"
            ),
        }
    }

    fn find(&self, typed: &str) -> anyhow::Result<Uuid> {
        Ok(store::find(&self.ids(), typed)?)
    }

    fn ids_in(&self, store: &Store) -> Vec<Uuid> {
        store.ids().unwrap_or_else(|error| {
            warn(&error.to_string());
            Vec::new()
        })
    }

    /// Those that the daemon has of this user's; none where no daemon is, or none that answers.
    fn of_daemon(&self) -> Vec<Headline> {
        let Some(socket) = &self.socket else {
            return Vec::new();
        };
        let listed = from_daemon(socket, async |client| client.incidents().await);
        listed.unwrap_or_else(|error| {
            if !is_without_daemon(&error) {
                let why = with_causes(&*error);
                warn(&format!("without what the service has kept: {why}"));
            }
            Vec::new()
        })
    }
}

fn is_without_daemon(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::NoDaemon { .. }))
}

/// Asks the daemon at `socket`.
fn from_daemon<T>(
    socket: &Path,
    ask: impl AsyncFnOnce(&mut Client) -> Result<T, ClientError>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let answer = async { ask(&mut Client::connect(socket).await?).await };
    Ok(runtime.block_on(answer)?)
}
