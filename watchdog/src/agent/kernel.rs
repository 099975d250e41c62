//! The slow side of the BPF programs: loading them beside a command that has already started, and what
//! they say at the end.
//!
//! What they count while it runs is read by the deciding thread ([`super::pass::KernelEyes`]).

use super::deciding::KernelEyesSlot;
use super::pass::KernelEyes;
use crate::bpf;
use crate::incident::{FeatureLost, Record};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What the loader came to, once it has.
#[derive(Debug, Default)]
enum Loaded {
    /// It is at it. A short command ends before it is done.
    #[default]
    NotYet,
    /// The programs are attached.
    Yes {
        programs: Box<bpf::Programs>,
        reader: Box<bpf::Reader>,
        row: bpf::Row,
        losses: Vec<FeatureLost>,
    },
    /// None could be.
    No { why: String, losses: Vec<FeatureLost> },
}

/// The programs of this run.
#[derive(Debug, Default)]
pub struct Kernel {
    loaded: Arc<Mutex<Loaded>>,
}

impl Kernel {
    /// Loads the programs on a thread of its own and hands the deciding thread its eyes when they are
    /// ready: verifying takes longer than a command may wait.
    pub fn load_beside(cgroup_id: u64, level: u32, eyes: Arc<KernelEyesSlot>) -> Self {
        let kernel = Self::default();
        let loaded = Arc::clone(&kernel.loaded);
        let spawned = std::thread::Builder::new().name("memwatch-load".into()).spawn(move || {
            let outcome = load(cgroup_id, level, &eyes);
            if let Ok(mut loaded) = loaded.lock() {
                *loaded = outcome;
            }
        });
        if let (Err(error), Ok(mut loaded)) = (spawned, kernel.loaded.lock()) {
            *loaded = Loaded::No { why: error.to_string(), losses: Vec::new() };
        }
        kernel
    }

    /// Lets log lines of the programs out through `tracing`.
    pub fn flush_logs(&self) {
        if let Ok(mut loaded) = self.loaded.try_lock()
            && let Loaded::Yes { programs, .. } = &mut *loaded
        {
            programs.flush_logs();
        }
    }

    /// Whether an OOM victim is the target's: the programs saw it there, or it is there.
    pub fn is_ours(&self, row: Option<bpf::Row>, pid: u32, target: &Path) -> bool {
        let ours = match self.loaded.lock().as_deref() {
            Ok(Loaded::Yes { row: ours, .. }) => Some(*ours),
            _ => None,
        };
        (row.is_some() && row == ours) || is_member(pid, target)
    }

    /// Puts what the programs counted into the record, and what they could not do.
    pub fn tell(&self, record: &mut Record) {
        let Ok(loaded) = self.loaded.lock() else { return };
        match &*loaded {
            Loaded::NotYet => record.notes.push(
                "the run ended before the BPF programs were ready: reclaim was not counted".into(),
            ),
            Loaded::No { why, losses } => {
                record.notes.push(why.as_str().into());
                record.features_lost.extend_from_slice(losses);
            }
            Loaded::Yes { reader, row, losses, .. } => {
                let totals = reader.totals(*row);
                record.reclaim.direct = Some(totals.direct_reclaims);
                record.reclaim.memcg = Some(totals.memcg_reclaims);
                record.reclaim.stall_us = Some(totals.stall_ns / 1_000);
                record.reclaim.scanned_pages = Some(totals.scanned_pages);
                record.reclaim.reclaimed_pages = Some(totals.reclaimed_pages);
                record.reclaim.kswapd_wakeups = Some(totals.kswapd_wakeups);
                record.losses.ring_drops = reader.drops();
                record.features_lost.extend_from_slice(losses);
            }
        }
    }
}
