//! A daemon that guards nothing: it takes calls as the real one does, by the same rights, and answers. And
//! what is needed to talk to it as somebody else.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use memwatch::{
    control::{
        Call, Client, ClientError, Event, Events, Handed, Peer, Server, Status,
        status::{Counts, GuardedBy, Losses, Machine, Oomd, SCHEMA_VERSION, Target},
    },
    host::layout::{Hierarchy, Layout},
    incident::{Headline, Record, Text, Verdict},
};
use tempfile::TempDir;
use tokio::{runtime, sync::oneshot};
use uuid::Uuid;

use super::cgroups::Pair;
pub(crate) use super::users::{NOBODY, OTHER, as_user, block_on};

/// Incidents, and whose they are.
pub(crate) const OWN: (Uuid, u32) = (Uuid::from_u128(1 << 120), NOBODY);
pub(crate) const OTHERS: (Uuid, u32) = (Uuid::from_u128(2 << 120), OTHER);

pub(crate) fn incident(id: Uuid, uid: u32) -> Record {
    let now = SystemTime::UNIX_EPOCH;
    let mut record = Record::new(now, now, 0, Verdict::Ongoing);
    record.id = id;
    record.target.uid = Some(uid);
    record
}

/// As many as the configuration allows a user by default.
pub(crate) const TARGETS_PER_UID: usize = 16;

/// For what takes milliseconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Daemon {
    dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// What it guards, with whose it is.
    pub(crate) targets: Targets,
    /// Who watches.
    pub(crate) watchers: Arc<Mutex<Vec<(Peer, Events)>>>,
}

type Targets = Arc<Mutex<Vec<Guarded>>>;

pub(crate) struct Guarded {
    pub(crate) id: u64,
    pub(crate) peer: Peer,
    pub(crate) leader: Option<u32>,
    pub(crate) events: Events,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("ours");
        let mut daemon = Self {
            dir,
            stop: None,
            thread: None,
            targets: Targets::default(),
            watchers: Arc::default(),
        };
        let (stop, stopped) = oneshot::channel();
        let (path, targets, watchers) = (
            daemon.socket(),
            Arc::clone(&daemon.targets),
            Arc::clone(&daemon.watchers),
        );
        let serve = move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let server = Server::bind(&path).expect("bound");
                tokio::select! {
                    () = answer(server, &targets, &watchers) => {}
                    _ = stopped => {}
                }
            });
        };
        daemon.stop = Some(stop);
        daemon.thread = Some(thread::spawn(serve));
        let socket = daemon.socket();
        wait_until("a socket for everybody", || {
            fs::metadata(&socket).is_ok_and(|socket| socket.mode() & 0o777 == 0o666)
        });
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// Talks to it as root.
    pub(crate) fn talk<T>(&self, talk: impl AsyncFnOnce(Client) -> T) -> T {
        block_on(async { talk(self.connect().await.expect("it listens")).await })
    }

    /// Talks to it as that user.
    pub(crate) fn talk_as<T: Send>(
        &self,
        uid: u32,
        talk: impl AsyncFnOnce(Client) -> T + Send,
    ) -> T {
        as_user(uid, || self.talk(talk))
    }

    pub(crate) async fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.socket()).await
    }

    /// Ends it as its own end would.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the daemon panicked");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn answer(mut server: Server, targets: &Targets, watchers: &Mutex<Vec<(Peer, Events)>>) {
    let v2 = v2();
    loop {
        let call = server.call().await;
        let mut targets = targets.lock().expect("whole");
        match call {
            Call::Attach {
                peer,
                attach,
                cgroup,
                events,
                answer,
            } => {
                let held = targets.iter().filter(|target| target.peer.uid == peer.uid);
                let checked = peer.within_quota(held.count(), TARGETS_PER_UID);
                let checked = checked.and_then(|()| Handed::check(cgroup, peer, &v2));
                let attached = checked.map(|handed| {
                    targets.push(Guarded {
                        id: handed.id,
                        peer,
                        leader: handed.leader(attach.leader),
                        events,
                    });
                    (handed.id, vec!["guarded".into()])
                });
                let _ = answer.send(attached);
            }
            Call::Tests {
                peer, id, answer, ..
            } => {
                let its = targets
                    .iter()
                    .any(|target| target.id == id && peer.may_touch(Some(target.peer.uid)));
                let _ = answer.send(its.then(Vec::new).ok_or_else(|| peer.no_such_target(id)));
            }
            Call::Blame {
                peer,
                blame,
                answer,
            } => {
                let its = targets
                    .iter()
                    .any(|target| target.id == blame.id && peer.may_touch(Some(target.peer.uid)));
                let _ = answer.send(
                    its.then_some(())
                        .ok_or_else(|| peer.no_such_target(blame.id)),
                );
            }
            Call::Detach { peer, id, answer } => {
                let its =
                    |target: &Guarded| target.id == id && peer.may_touch(Some(target.peer.uid));
                let found = targets.iter().position(its);
                let detached = found.ok_or_else(|| peer.no_such_target(id)).map(|at| {
                    targets
                        .remove(at)
                        .events
                        .send(Event::Gone { id, record: None });
                    Some(serde_json::json!({ "verdict": "detached" }))
                });
                let _ = answer.send(detached);
            }
            Call::Status { answer, .. } => {
                let _ = answer.send(Ok(Box::new(status(server.lost_events()))));
            }
            Call::Incidents {
                peer,
                before,
                answer,
            } => {
                let all = [OWN, OTHERS].map(|(id, uid)| (incident(id, uid), uid));
                let own = all.iter().filter(|(_, uid)| peer.may_touch(Some(*uid)));
                let headlines: Vec<_> = own.map(|(record, _)| Headline::from(record)).collect();
                // One at a time, the newest first.
                let mut rest = headlines.into_iter().rev();
                let next = rest.find(|it| before.is_none_or(|before| it.id < before));
                let more = next.as_ref().map(|it| it.id);
                let _ = answer.send(Ok((next.into_iter().collect(), more)));
            }
            Call::Incident {
                peer,
                id,
                from,
                answer,
            } => {
                let mut all = [OWN, OTHERS].into_iter();
                let found = all.find(|it| it.0 == id && peer.may_touch(Some(it.1)));
                let part = found.and_then(|(id, uid)| {
                    let whole = String::from_utf8(incident(id, uid).to_json()).expect("text");
                    let rest = whole.get(usize::try_from(from).ok()?..)?;
                    Some((rest.chars().take(1000).collect(), whole.len() as u64))
                });
                let _ = answer.send(part.ok_or_else(|| peer.no_such_incident(id)));
            }
            Call::Watch {
                peer,
                events,
                answer,
            } => {
                watchers.lock().expect("whole").push((peer, events));
                let _ = answer.send(Ok(()));
            }
        }
    }
}

fn status(lost_events: u64) -> Status {
    Status {
        schema_version: SCHEMA_VERSION,
        memwatch: "0.0.0-test".into(),
        pid: std::process::id(),
        since: SystemTime::now().into(),
        machine: Machine::default(),
        targets: vec![target()],
        oomd: Oomd {
            state: "not installed".into(),
            reason: None,
            since: None,
            managed_units: 0,
            taken_over: false,
            kills: 0,
        },
        counts: Counts::default(),
        exporters: Vec::new(),
        losses: Losses {
            dropped_events: lost_events,
            ..Losses::default()
        },
        features_lost: Vec::new(),
    }
}

/// As systemd would name it.
fn target() -> Target {
    Target {
        id: 7,
        cgroup: Text::of_name(br"/sys/fs/cgroup/app-a\x2db.scope"),
        uid: Some(NOBODY),
        since: SystemTime::now().into(),
        current_bytes: None,
        limit_bytes: None,
        some_permille: None,
        full_permille: None,
        processes: 1,
        interventions: 0,
        guarded_by: GuardedBy::Daemon,
    }
}

pub(crate) fn v2() -> Hierarchy {
    let layout = Layout::read(Path::new("/")).expect("a layout");
    layout.v2.expect("cgroup v2")
}

/// A cgroup of that user's.
pub(crate) fn cgroup_of(uid: u32) -> Pair {
    let pair = Pair::new("control", "64M");
    for path in [pair.v2.clone(), pair.v2.join("cgroup.procs")] {
        chown(path, Some(uid), None).expect("root");
    }
    pair
}

/// As a client opens it: neither reading nor writing is needed.
pub(crate) fn open(dir: &Path) -> OwnedFd {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(dir);
    File::into(opened.unwrap_or_else(|error| panic!("{}: {error}", dir.display())))
}

#[track_caller]
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "no {what} within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(3));
    }
}
