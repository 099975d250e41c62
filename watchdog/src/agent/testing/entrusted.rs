//! Tests in a target that the daemon guards: it is told which of them run, so that it asks them to fail before it
//! ends a process, says what they spend in reclaim, and what it did is joined with its record at the end.
//!
//! The daemon reads nothing of a user's: it signals, and this side, as the user, says why to the process.

use super::blame::Killed;
use super::board::Notice;
use super::eye::Shared;
use super::words::Short;
use super::{Testing, words};
use crate::agent::story::Story;
use crate::control::protocol::{Blame, Hit, RunningTest, STACK_BYTES};
use crate::control::{Client, ClientError};
use crate::host::clock;
use crate::host::process::stat_of;
use crate::incident::{BlamedTest, Text};
use crate::watch::{Member, Rung};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the daemon is told.
const PERIOD: Duration = Duration::from_millis(100);

/// What the daemon did to a process, until its own record of it comes.
pub(super) struct ByDaemon {
    pid: u32,
    test: BlamedTest,
}

/// Takes out what is to be said. The stacks are there by now, if they will be.
fn blames(shared: &Shared, id: u64) -> Vec<Blame> {
    let blamed = std::mem::take(&mut *lock(&shared.blamed));
    let of_it = |(pid, test)| {
        let stacks = shared.home.stacks(pid).unwrap_or_default();
        let mut left = STACK_BYTES;
        let lines = super::stacks::stack_lines(&stacks).into_iter();
        let fits = |line: &Text| {
            left = left.saturating_sub(line.as_str().len());
            left > 0
        };
        Blame {
            id,
            pid,
            test,
            python_stack: lines.take_while(fits).collect(),
        }
    };
    blamed.into_iter().map(of_it).collect()
}

/// Tells of the tests that run, and of those that were signalled; takes what they have spent in reclaim.
async fn tell(
    client: &mut Client,
    id: u64,
    tests: &[Notice],
    shared: &Shared,
) -> Result<(), ClientError> {
    let running = tests.iter().map(|test| RunningTest {
        pid: test.pid,
        start_ticks: test.start_ticks,
        serial: test.serial,
    });
    let stall_ns = client.tests(id, running.collect()).await?;
    shared.board.put_down_stalls(|pid, serial| {
        let is_it = |test: &Notice| (test.pid, test.serial) == (pid, serial);
        let at = tests.iter().position(is_it)?;
        stall_ns.get(at).copied().flatten()
    });
    for blame in blames(shared, id) {
        client.blame(blame).await?;
    }
    Ok(())
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Testing {
    /// Tells the daemon at `socket` which tests run in the target `id`, until the run is over. On a connection of
    /// its own, and only from when there is one to tell of.
    pub(in crate::agent) fn tell_daemon(&self, socket: PathBuf, id: u64) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let mut client: Option<Client> = None;
            let mut said = Vec::new();
            while !shared.stop.load(Ordering::Acquire) {
                let long = lock(&shared.long).clone();
                let has_blamed = !lock(&shared.blamed).is_empty();
                // What a test spends in reclaim is asked for while it runs.
                if long != said || has_blamed || long.iter().any(|test| test.serial > 0) {
                    let connected = match client.take() {
                        Some(client) => Ok(client),
                        None => Client::connect(&socket).await,
                    };
                    let told: Result<Client, ClientError> = async {
                        let mut client = connected?;
                        tell(&mut client, id, &long, &shared).await?;
                        Ok(client)
                    }
                    .await;
                    match told {
                        Ok(connected) => client = Some(connected),
                        Err(error) => {
                            tracing::debug!("the daemon is not told of tests: {error}");
                            return;
                        }
                    }
                    said = long;
                }
                tokio::time::sleep(PERIOD).await;
            }
        });
    }

    /// The daemon has signalled a process. `limit_bytes` is the target's.
    pub(in crate::agent) fn hear_daemon(&mut self, hit: &Hit, limit_bytes: Option<u64>) {
        let Some((slot, own)) = self.owner(hit.pid, hit.ppid) else {
            return;
        };
        let at = clock::now();
        if hit.rung == Rung::Abort {
            let short = if hit.of_machine {
                Short::Machine
            } else {
                Short::Target(limit_bytes)
            };
            let used = super::used(&slot, hit.rss_bytes);
            let why = words::failed(hit.why.as_str(), Some(used), short, &self.shared.rest);
            let _ = self.shared.home.ask_to_fail(slot.pid, slot.serial, &why);
            super::poke(&slot, self.mode);
        }
        let member = Member {
            pid: hit.pid,
            start_ticks: stat_of(hit.pid).map_or(0, |stat| stat.start_ticks),
            anon_bytes: hit.rss_bytes,
            ..Member::default()
        };
        let test = self.blamed(&slot, own.then_some(hit.rss_bytes), &member, at);
        if own && matches!(hit.rung, Rung::Sigterm | Rung::Sigkill) {
            let why = format!("memwatch killed its process: {}", hit.why);
            let rss_bytes = hit.rss_bytes;
            self.end(slot, at, Killed::ForMemory { rss_bytes }, &why);
        }
        if let Some(test) = test {
            lock(&self.shared.blamed).push((hit.pid, test.clone()));
            self.by_daemon.push(ByDaemon { pid: hit.pid, test });
        }
    }

    /// What the daemon has not been told yet of those that it signalled.
    pub(in crate::agent) fn blames(&self, id: u64) -> Vec<Blame> {
        blames(&self.shared, id)
    }

    /// The daemon's record has come: its interventions get their tests, and where these were.
    pub(in crate::agent) fn join(&mut self, story: &mut Story) {
        for ByDaemon { pid, test } in std::mem::take(&mut self.by_daemon) {
            let Some(number) = story.unblamed(pid) else {
                continue;
            };
            story.blame(number, test);
            let stacks = self.shared.home.stacks(pid).unwrap_or_default();
            let from = self.old_stacks.insert(pid, stacks.len()).unwrap_or(0);
            story.python_stack(
                number,
                super::stacks::stack_lines(stacks.get(from..).unwrap_or_default()),
            );
        }
    }
}
