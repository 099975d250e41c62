//! The daemon's incidents, for users to read: each those of the own targets. The files are read by a thread of its own,
//! one request after the other, so that neither the daemon's loop nor the helpers that release memory wait for them.
//! Who sees what is decided here, by the user who stands in the record; which there are is `incident::store`'s.

use crate::control::protocol::PART_BYTES;
use crate::control::{Answer, Peer, Refusal};
use crate::incident::{Headline, Record, Store};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Files that are looked into for one part of a list.
const LOOKED_INTO: usize = 64;
/// Reading a record nests calls deeper than other work of the daemon's.
const STACK_BYTES: usize = 512 << 10;
/// Less urgent than all else.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce(&Store) + Send>;

/// What is to be read, and by whom.
#[derive(Clone)]
pub(super) struct Incidents {
    store: Store,
    waiting: Arc<Mutex<Waiting>>,
}

/// As long as there are connections, since each waits for its answer.
#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    is_read: bool,
}

impl Incidents {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            waiting: Arc::default(),
        }
    }

    /// Answers with some of those that `peer` may read and that are older than `before`, the newest first.
    pub(super) fn list(
        &self,
        peer: Peer,
        before: Option<Uuid>,
        answer: Answer<(Vec<Headline>, Option<Uuid>)>,
    ) {
        self.read(move |store| {
            let _ = answer.send(list(store, peer, before)); // who asked may have hung up
        });
    }

    /// Answers with a part of one.
    pub(super) fn send(&self, peer: Peer, id: Uuid, from: u64, answer: Answer<(String, u64)>) {
        self.read(move |store| {
            let _ = answer.send(part(store, peer, id, from));
        });
    }

    fn read(&self, job: impl FnOnce(&Store) + Send + 'static) {
        let mut waiting = lock(&self.waiting);
        waiting.jobs.push_back(Box::new(job));
        if waiting.is_read {
            return;
        }
        let (store, queue) = (self.store.clone(), Arc::clone(&self.waiting));
        let reader = std::thread::Builder::new()
            .name("memwatch-read".into())
            .stack_size(STACK_BYTES)
            .spawn(move || read_all(&store, &queue));
        match reader {
            Ok(_) => waiting.is_read = true,
            Err(error) => {
                tracing::warn!("incidents cannot be read: {error}");
                waiting.jobs.clear(); // who asked is told that there is no answer
            }
        }
    }
}

fn read_all(store: &Store, queue: &Mutex<Waiting>) {
    // SAFETY: sets one number of this thread; if it is refused, the thread is as urgent as others.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    loop {
        let next = {
            let mut waiting = lock(queue);
            let next = waiting.jobs.pop_front();
            waiting.is_read = next.is_some();
            next
        };
        match next {
            Some(job) => job(store),
            None => return,
        }
    }
}

fn lock(queue: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn list(
    store: &Store,
    peer: Peer,
    before: Option<Uuid>,
) -> Result<(Vec<Headline>, Option<Uuid>), Refusal> {
    let mut ids = store
        .ids()
        .map_err(|error| Refusal::new(error.to_string(), "look at the daemon's journal"))?;
    ids.retain(|id| before.is_none_or(|before| *id < before));
    let oldest = ids.len().saturating_sub(LOOKED_INTO);
    let looked_into = ids[oldest..].iter().rev();
    let headlines = looked_into.filter_map(|&id| store.headline(id).ok());
    let may_read = headlines.filter(|headline| peer.may_touch(headline.uid));
    let next = (oldest > 0).then(|| ids[oldest]);
    Ok((may_read.collect(), next))
}

fn part(store: &Store, peer: Peer, id: Uuid, from: u64) -> Result<(String, u64), Refusal> {
    let no_such = || peer.no_such_incident(id);
    let mut record = store.read(id).map_err(|_| no_such())?;
    if !peer.may_touch(record.target.uid) {
        return Err(no_such());
    }
    if peer.uid != 0 {
        leave_out_what_is_roots(&mut record);
    }
    let whole = serde_json::to_string(&record)
        .map_err(|error| Refusal::new(error.to_string(), "look at the daemon's journal"))?;
    let rest = usize::try_from(from)
        .ok()
        .and_then(|from| whole.get(from..));
    let rest = rest.ok_or_else(|| {
        Refusal::new(
            format!("the incident has no byte {from} to begin with"),
            "begin with byte 0",
        )
    })?;
    let mut end = rest.len().min(PART_BYTES);
    while !rest.is_char_boundary(end) {
        end -= 1;
    }
    Ok((rest[..end].to_owned(), whole.len() as u64))
}

/// A user sees of the kernel what the kernel shows to that user: no stacks, and its log only where everybody may
/// read that (sysctl `kernel.dmesg_restrict`).
fn leave_out_what_is_roots(record: &mut Record) {
    for task in &mut record.blocked_tasks {
        task.stack.clear();
    }
    let restricted = std::fs::read("/proc/sys/kernel/dmesg_restrict");
    let is_for_all = restricted.is_ok_and(|text| text.first() == Some(&b'0'));
    if !is_for_all && !record.kernel_log.is_empty() {
        record.kernel_log.clear();
        record.notes.push("the lines of the kernel's log are root's to see here: memwatch incidents show, as root".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::storm;
    use std::sync::mpsc;

    const ROOT: Peer = Peer {
        uid: 0,
        gid: 0,
        pid: 1,
    };
    const USER: Peer = Peer {
        uid: 1000,
        gid: 1000,
        pid: 2,
    };
    const OTHER: Peer = Peer {
        uid: 1001,
        gid: 1001,
        pid: 3,
    };

    /// A hundred and fifty incidents, a third each of root's configuration, of one user and of another.
    fn many(dir: &std::path::Path) -> Store {
        let store = Store::at(dir.to_owned());
        let mut record = storm(1, 1);
        record.flight = None;
        for n in 0..150_u128 {
            record.id = Uuid::from_u128((n + 1) << 80);
            record.target.uid = [None, Some(1000), Some(1001)][n as usize % 3];
            std::fs::write(store.file(record.id), record.to_json()).expect("room");
        }
        store
    }

    fn all(store: &Store, peer: Peer) -> Vec<Headline> {
        let mut all = Vec::new();
        let mut before = None;
        loop {
            let (some, next) = list(store, peer, before).expect("readable");
            all.extend(some);
            before = next;
            if before.is_none() {
                return all;
            }
        }
    }

    #[test]
    fn each_user_sees_the_own_incidents_and_root_sees_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = many(dir.path());
        std::fs::write(store.file(Uuid::from_u128(7)), "torn").expect("room");
        assert_eq!(all(&store, ROOT).len(), 150);
        let users = all(&store, USER);
        assert_eq!(users.len(), 50);
        assert!(users.iter().all(|headline| headline.uid == Some(1000)));
        assert!(
            users.is_sorted_by(|one, other| one.id > other.id),
            "the newest first"
        );
        let id = users[3].id;
        assert!(part(&store, USER, id, 0).is_ok() && part(&store, ROOT, id, 0).is_ok());
        let refusal = part(&store, OTHER, id, 0).expect_err("another's");
        let none = part(&store, OTHER, Uuid::from_u128(5), 0).expect_err("none");
        let alike = |refusal: &Refusal| {
            refusal
                .to_string()
                .replace(|c: char| c.is_ascii_hexdigit(), "")
        };
        assert_eq!(
            alike(&refusal),
            alike(&none),
            "it does not tell whether there is one"
        );
    }

    #[test]
    fn a_large_record_comes_in_parts_without_what_is_roots() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::at(dir.path().to_owned());
        let mut record = storm(60, 300);
        record.target.uid = Some(1000);
        record.notes.push("größe ".repeat(100_000).into());
        std::fs::write(store.file(record.id), record.to_json()).expect("room");
        let whole = |peer| {
            let mut json = String::new();
            loop {
                let (more, bytes) =
                    part(&store, peer, record.id, json.len() as u64).expect("a part");
                let frame = crate::control::protocol::encode(
                    &more,
                    crate::control::protocol::FROM_DAEMON_BYTES,
                );
                assert!(!more.is_empty() && frame.is_ok());
                json.push_str(&more);
                if json.len() as u64 == bytes {
                    return Record::from_json(json.as_bytes()).expect("a record");
                }
            }
        };
        assert_eq!(whole(ROOT), record);
        let users = whole(USER);
        assert!(users.blocked_tasks.iter().all(|task| task.stack.is_empty()));
        assert_eq!(users.flight, record.flight);
        for beyond in [u64::MAX, 1 << 40] {
            assert!(part(&store, USER, record.id, beyond).is_err());
        }
    }

    #[test]
    fn what_is_asked_at_once_is_answered_one_after_the_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let incidents = Incidents::new(Store::at(dir.path().to_owned()));
        let (tell, told) = mpsc::channel();
        for n in 0..100 {
            let tell = tell.clone();
            incidents.read(move |_| tell.send(n).expect("somebody waits"));
        }
        drop(tell);
        assert_eq!(
            told.iter().collect::<Vec<_>>(),
            (0..100).collect::<Vec<_>>()
        );
    }
}
