//! `--record FILE`: every look as a line of JSON, written by a thread of its own.
//!
//! The deciding thread puts looks into a queue of fixed size; what does not fit is dropped and counted.

use crate::watch::replay::RecordedLook;
use crate::watch::{Facts, MachineFacts, Member, TargetFacts};
use crossbeam_queue::ArrayQueue;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The most processes a recorded look holds; the policy's victims are near the front of any list that
/// is longer, and what was left out is counted by the look itself.
const MEMBERS: usize = 32;
const QUEUED: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    target: TargetFacts,
    machine: Option<MachineFacts>,
    members: Option<([Member; MEMBERS], usize)>,
    victim_gone: bool,
}

#[derive(Debug)]
struct Shared {
    looks: ArrayQueue<Look>,
    dropped: AtomicU64,
    done: AtomicBool,
}

/// The deciding thread's end.
#[derive(Debug)]
pub struct Recorder(Arc<Shared>);

/// The writing end.
#[derive(Debug)]
pub struct Recording {
    shared: Arc<Shared>,
    writer: JoinHandle<io::Result<()>>,
}

impl Recorder {
    /// Takes a look.
    pub fn take(&self, at: Duration, facts: &Facts) {
        let members = facts.members.map(|members| {
            let mut kept = [Member::default(); MEMBERS];
            let len = members.len().min(MEMBERS);
            kept[..len].copy_from_slice(&members[..len]);
            (kept, len)
        });
        let look = Look {
            at,
            target: facts.target,
            machine: facts.machine,
            members,
            victim_gone: facts.victim_gone,
        };
        if self.0.looks.push(look).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Starts recording into `file`.
///
/// # Errors
/// No thread could be started.
pub fn start(file: File) -> io::Result<(Recorder, Recording)> {
    let shared = Arc::new(Shared {
        looks: ArrayQueue::new(QUEUED),
        dropped: AtomicU64::new(0),
        done: AtomicBool::new(false),
    });
    let source = Arc::clone(&shared);
    let writer = std::thread::Builder::new()
        .name("memwatch-record".into())
        .spawn(move || write(&source, BufWriter::new(file)))?;
    Ok((Recorder(Arc::clone(&shared)), Recording { shared, writer }))
}

impl Recording {
    /// Writes what is left; returns how many looks were dropped.
    ///
    /// # Errors
    /// The disk refused.
    pub fn finish(self) -> io::Result<u64> {
        self.shared.done.store(true, Ordering::Release);
        self.writer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the recorder ended early")))?;
        Ok(self.shared.dropped.load(Ordering::Relaxed))
    }
}

fn write(shared: &Shared, mut out: impl Write) -> io::Result<()> {
    loop {
        let done = shared.done.load(Ordering::Acquire);
        while let Some(look) = shared.looks.pop() {
            let line = RecordedLook {
                at_us: look.at.as_micros() as u64,
                target: look.target,
                machine: look.machine,
                members: look.members.map(|(members, len)| members[..len].to_vec()),
                victim_gone: look.victim_gone,
            };
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        }
        if done {
            return out.flush();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
