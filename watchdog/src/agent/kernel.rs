//! The slow side of the BPF programs: loading them beside a command that has already started, and what
//! they say at the end.
//!
//! What they count while it runs is read by the deciding thread ([`super::pass::KernelEyes`]).

use super::deciding::{self, KernelEyesSlot};
use super::pass::KernelEyes;
use crate::bpf;
use crate::causes::with_causes;
use crate::host::cgroup::{self, Target};
use crate::host::clock;
use crate::incident::{FeatureLost, Record};
use std::os::unix::fs::MetadataExt;
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
        totals: bpf::Totals,
        row: bpf::Row,
        losses: Vec<FeatureLost>,
    },
    /// None could be.
    No { losses: Vec<FeatureLost> },
}

/// The programs of this run.
#[derive(Debug, Default)]
pub struct Kernel {
    cgroup_id: u64,
    loaded: Arc<Mutex<Loaded>>,
}

impl Kernel {
    /// Loads the programs on a thread of its own and hands the deciding thread its eyes when they are
    /// ready: verifying takes longer than a command may wait.
    ///
    /// `terms` put the target under the guard; `None` where nobody may be killed.
    pub fn load_beside(
        target: &Target,
        v2_mount: &Path,
        terms: Option<bpf::Terms>,
        eyes: Arc<KernelEyesSlot>,
    ) -> Self {
        let (cgroup_id, level) = (target.id, target.level);
        let mount = v2_mount.to_owned();
        let kernel = Self {
            cgroup_id,
            ..Self::default()
        };
        let loaded = Arc::clone(&kernel.loaded);
        let spawned = std::thread::Builder::new()
            .name("memwatch-load".into())
            .spawn(move || {
                let outcome = load(cgroup_id, level, &mount, terms, &eyes);
                deciding::give_back_memory();
                if let Ok(mut loaded) = loaded.lock() {
                    *loaded = outcome;
                }
            });
        if let (Err(error), Ok(mut loaded)) = (spawned, kernel.loaded.lock()) {
            let why = format!("no thread for the loader: {error}");
            let loss = bpf::Loss {
                feature: bpf::Feature::Reclaim,
                why,
            };
            *loaded = Loaded::No {
                losses: vec![describe(&loss)],
            };
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

    /// Samples page faults while the target is in trouble, and only then.
    pub fn heat(&self, hot: bool) {
        if let Ok(mut loaded) = self.loaded.try_lock()
            && let Loaded::Yes {
                programs, losses, ..
            } = &mut *loaded
            && let Err(error) = programs.heat(hot)
        {
            let loss = describe(&bpf::Loss {
                feature: bpf::Feature::Faults,
                why: error.to_string(),
            });
            if !losses.contains(&loss) {
                losses.push(loss);
            }
        }
    }

    /// What the guard in the kernel has done since this was last asked.
    pub fn guard_kills(&self) -> Vec<(bpf::Name, bpf::Kill)> {
        match self.loaded.lock().as_deref_mut() {
            Ok(Loaded::Yes { programs, .. }) => {
                programs.take_kills(self.cgroup_id).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// What the guard did for memwatches that had died; told once.
    pub fn left_behind(&self) -> Vec<(bpf::Name, bpf::Kill)> {
        match self.loaded.lock().as_deref_mut() {
            Ok(Loaded::Yes { programs, .. }) => programs.take_left_behind(),
            _ => Vec::new(),
        }
    }

    /// Takes the target from under the guard and counts it no more: from here on nobody gives signs of
    /// life for it.
    pub fn stand_down(&self) {
        if let Ok(Loaded::Yes { programs, row, .. }) = self.loaded.lock().as_deref_mut() {
            // It is refused only for an entry that is not there.
            let _ = programs.remove_target(*row);
        }
    }

    /// Puts what the programs counted into the record, and what they could not do.
    pub fn tell(&self, record: &mut Record) {
        let Ok(loaded) = self.loaded.lock() else {
            return;
        };
        match &*loaded {
            Loaded::NotYet => record.notes.push(
                "the run ended before the BPF programs were ready: reclaim was not counted".into(),
            ),
            Loaded::No { losses } => record.features_lost.extend_from_slice(losses),
            Loaded::Yes {
                totals: counters,
                row,
                losses,
                ..
            } => {
                let totals = counters.of(*row);
                record.reclaim.direct = Some(totals.direct_reclaims);
                record.reclaim.memcg = Some(totals.memcg_reclaims);
                record.reclaim.stall_us = Some(totals.stall_ns / 1_000);
                record.reclaim.scanned_pages = Some(totals.scanned_pages);
                record.reclaim.reclaimed_pages = Some(totals.reclaimed_pages);
                record.reclaim.kswapd_wakeups = Some(totals.kswapd_wakeups);
                record.losses.ring_drops = counters.dropped_events();
                record.features_lost.extend_from_slice(losses);
            }
        }
    }
}

fn load(
    cgroup_id: u64,
    level: u32,
    v2_mount: &Path,
    terms: Option<bpf::Terms>,
    eyes: &KernelEyesSlot,
) -> Loaded {
    let plan = bpf::plan(&bpf::Facts::read());
    let losses = |losses: &[bpf::Loss]| losses.iter().map(describe).collect::<Vec<_>>();
    if plan.tracepoints.is_empty() {
        return Loaded::No {
            losses: losses(&plan.losses),
        };
    }
    match attach(&plan, cgroup_id, level, v2_mount, terms) {
        Ok((programs, reader, row, alone)) => {
            let slot = programs.slot();
            let loaded = Loaded::Yes {
                totals: programs.totals(),
                row,
                losses: losses(programs.losses()).into_iter().chain(alone).collect(),
                programs,
            };
            let _ = eyes.push(KernelEyes {
                reader,
                row,
                slot,
                names: in_initial_pid_namespace(),
            });
            loaded
        }
        Err(error) => {
            let why = error.to_string();
            let all = bpf::Feature::ALL.map(|feature| bpf::Loss {
                feature,
                why: why.clone(),
            });
            Loaded::No {
                losses: losses(&all),
            }
        }
    }
}

type Attached = (
    Box<bpf::Programs>,
    bpf::Reader,
    bpf::Row,
    Option<FeatureLost>,
);

/// Takes part in the programs of this machine, or, where they have no place, loads some for this run.
fn attach(
    plan: &bpf::Plan,
    cgroup_id: u64,
    level: u32,
    v2_mount: &Path,
    terms: Option<bpf::Terms>,
) -> Result<Attached, bpf::LoadError> {
    let populated = |id| cgroup::is_populated(v2_mount, id);
    let (programs, alone) = match bpf::Programs::join(plan, Path::new(bpf::SHARED), populated) {
        Ok(programs) => (programs, None),
        Err(bpf::LoadError::Home(error)) => (bpf::Programs::load(plan)?, Some(mortal(&error))),
        Err(error) => return Err(error),
    };
    let mut programs = Box::new(programs);
    let row = programs.add_target(cgroup_id, level)?;
    let reader = programs.reader()?;
    if let Some(terms) = terms {
        // First a sign of life: the guard would take its absence for a death.
        reader.beat(programs.slot(), clock::now());
        programs.arm(row, &terms)?;
    }
    Ok((programs, reader, row, alone))
}

fn mortal(error: &bpf::HomeError) -> FeatureLost {
    FeatureLost {
        feature: format!("a guard that outlives memwatch ({})", with_causes(error))
            .as_str()
            .into(),
        fallback: "a guard for this run".into(),
        cost: "if memwatch is killed, the guard goes with it".into(),
    }
}

fn describe(loss: &bpf::Loss) -> FeatureLost {
    FeatureLost {
        feature: format!("{} ({})", loss.feature.name(), loss.why)
            .as_str()
            .into(),
        fallback: loss.feature.fallback().into(),
        cost: loss.feature.cost().into(),
    }
}

/// Whether process ids mean here what they mean in the kernel (include/linux/proc_ns.h,
/// `PROC_PID_INIT_INO`).
fn in_initial_pid_namespace() -> bool {
    const PROC_PID_INIT_INO: u64 = 0xEFFF_FFFC;
    std::fs::metadata("/proc/self/ns/pid").is_ok_and(|ns| ns.ino() == PROC_PID_INIT_INO)
}
