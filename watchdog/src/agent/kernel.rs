//! The slow side of the BPF programs: loading them beside what already runs, giving each target its row and
//! its guard, and what they say at the end.
//!
//! What they count while it runs is read by the deciding thread ([`super::eyes::KernelEyes`]).

use super::awake;
use super::channel::TargetId;
use super::deciding::{Arrival, Way};
use super::eyes::KernelEyes;
use super::orphans;
use crate::bpf;
use crate::causes::with_causes;
use crate::host::cgroup::{self, Orphan, Target};
use crate::host::clock;
use crate::host::layout::Layout;
use crate::incident::{self, FeatureLost, Record};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the loader came to, once it has.
#[derive(Debug, Default)]
enum Loaded {
    /// It finds out what this kernel offers. A short command ends before it knows.
    #[default]
    NotYet,
    /// It takes part in the programs of the machine, which is not to be left half done.
    Joining,
    /// The run was over before it began to.
    TooLate,
    /// The programs are attached.
    Yes {
        programs: Box<bpf::Programs>,
        totals: bpf::Totals,
        rows: BTreeMap<TargetId, bpf::Row>,
        losses: Vec<FeatureLost>,
    },
    /// None could be.
    No { losses: Vec<FeatureLost> },
}

impl Loaded {
    /// Puts the targets of the dead under the guard, where there is one to be had.
    fn guard(&mut self, targets: &[Orphan], v2_mount: &Path) {
        match self {
            Self::Yes { programs, .. } => orphans::guard(Some(programs), targets, v2_mount),
            Self::No { .. } => {}
            Self::NotYet | Self::Joining | Self::TooLate => {
                orphans::guard(None, targets, v2_mount);
            }
        }
    }
}

/// A target for the programs.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    id: TargetId,
    level: Option<u32>,
    terms: Option<bpf::Terms>,
}

impl Wanted {
    /// `terms` put it under the guard; `None` where nobody may be killed.
    pub fn new(target: &Target, terms: Option<bpf::Terms>) -> Self {
        Self {
            id: target.id,
            level: known_level(target.level),
            terms,
        }
    }
}

/// The programs of this memwatch.
#[derive(Debug)]
pub struct Kernel {
    loaded: Arc<Loading>,
    way: Way,
}

/// Where the loader says how far it is.
#[derive(Debug, Default)]
struct Loading {
    state: Mutex<Loaded>,
    changed: Condvar,
    /// Targets that came before the programs were ready.
    waiting: Mutex<Vec<Wanted>>,
    /// What was done for memwatches that had died, in words, and not told yet.
    done: Mutex<Vec<String>>,
}

impl Loading {
    /// Nobody panics while holding it, but the state is whole even then.
    fn state(&self) -> MutexGuard<'_, Loaded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on from `NotYet` to joining; `false` if the run is over.
    fn may_join(&self) -> bool {
        let mut state = self.state();
        let in_time = matches!(*state, Loaded::NotYet);
        if in_time {
            *state = Loaded::Joining;
        }
        in_time
    }

    fn done(&self) -> MutexGuard<'_, Vec<String>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Wanted>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on targets no longer wait.
    fn set(&self, loaded: Loaded, way: &Way) {
        let mut state = self.state();
        *state = loaded;
        for wanted in std::mem::take(&mut *self.waiting()) {
            take_in(&mut state, wanted, way);
        }
        self.changed.notify_all();
    }

    /// Keeps a loader that has not begun to join from it, and waits for one that has.
    fn settle(&self) {
        let mut state = self.state();
        if matches!(*state, Loaded::NotYet) {
            *state = Loaded::TooLate;
        }
        let joining = |state: &mut Loaded| matches!(state, Loaded::Joining);
        // One that is stuck is left to the next memwatch to tidy up after.
        drop(
            self.changed
                .wait_timeout_while(state, JOINING_AT_MOST, joining),
        );
    }
}

/// Longer than joining takes on a machine in trouble.
const JOINING_AT_MOST: Duration = Duration::from_secs(10);

impl Kernel {
    /// Loads the programs on a thread of its own and hands the deciding thread its eyes when they are
    /// ready: verifying takes longer than a command may wait. Looks after the targets of memwatches that have
    /// died, too.
    pub fn load_beside(targets: Vec<Wanted>, layout: &Layout, way: Way) -> Self {
        let layout = layout.clone();
        let loaded = Arc::new(Loading {
            waiting: Mutex::new(targets),
            ..Loading::default()
        });
        let kernel = Self {
            loaded: Arc::clone(&loaded),
            way: way.clone(),
        };
        let spawned = std::thread::Builder::new()
            .name("memwatch-load".into())
            .spawn(move || {
                let mut outcome = load(&loaded, layout.v2_mount(), &way);
                if !matches!(outcome, Loaded::TooLate) {
                    let swept = cgroup::sweep(&layout);
                    let told = swept.thawed.iter().map(|dir| orphans::thawed(dir));
                    loaded.done().extend(told);
                    outcome.guard(&swept.left, layout.v2_mount());
                }
                awake::give_back_memory();
                loaded.set(outcome, &way);
            });
        if let Err(error) = spawned {
            let losses = vec![all_lost(&format!("no thread for the loader: {error}"))];
            kernel.loaded.set(Loaded::No { losses }, &kernel.way);
        }
        kernel
    }

    /// Takes another target in.
    pub fn take_in(&self, wanted: Wanted) {
        let mut state = self.loaded.state();
        match *state {
            Loaded::NotYet | Loaded::Joining => self.loaded.waiting().push(wanted),
            _ => take_in(&mut state, wanted, &self.way),
        }
    }

    /// Lets log lines of the programs out through `tracing`.
    pub fn flush_logs(&self) {
        if let Loaded::Yes { programs, .. } = &mut *self.loaded.state() {
            programs.flush_logs();
        }
    }

    /// Samples page faults while the target is in trouble, and only then.
    pub fn heat(&self, hot: bool) {
        if let Loaded::Yes {
            programs, losses, ..
        } = &mut *self.loaded.state()
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

    /// What the guard in the kernel has done in these targets since this was last asked; whose it was says
    /// [`bpf::Kill::cgroup_id`].
    pub fn guard_kills(&self) -> Vec<(bpf::Name, bpf::Kill)> {
        match &mut *self.loaded.state() {
            Loaded::Yes { programs, rows, .. } => {
                let is_ours = |target| rows.contains_key(&target);
                programs.take_kills(is_ours).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// What the guard, and the sweep at the start, did for memwatches that had died, in words; told once.
    pub fn left_behind(&self) -> Vec<String> {
        let mut done = std::mem::take(&mut *self.loaded.done());
        if let Loaded::Yes { programs, .. } = &mut *self.loaded.state() {
            done.extend(programs.take_left_behind().iter().map(told));
        }
        done
    }

    /// Gives up this run's part in the programs of the machine, and takes away what nobody needs any
    /// more, of memwatches that died too: of their targets, `orphans` still have processes. What their guard
    /// did is returned, in words.
    pub fn leave(&self, v2_mount: &Path, orphans: &[Orphan]) -> Vec<String> {
        let mut loaded = std::mem::take(&mut *self.loaded.state());
        loaded.guard(orphans, v2_mount);
        drop(loaded);
        let populated = |id| cgroup::is_populated(v2_mount, id);
        // What cannot be taken away now the next memwatch takes away.
        let kills = bpf::tidy(Path::new(bpf::SHARED), populated).unwrap_or_default();
        kills.iter().map(told).collect()
    }

    /// Keeps a loader that has not begun from it, and waits for one that has: what stands is known then.
    pub fn settle(&self) {
        self.loaded.settle();
    }

    /// Takes a target from under the guard and counts it no more: from here on nobody gives signs of life for
    /// it. What was counted can be told until another takes its place.
    pub fn stand_down(&self, target: TargetId) {
        let mut state = self.loaded.state();
        self.loaded.waiting().retain(|wanted| wanted.id != target);
        if let Loaded::Yes { programs, rows, .. } = &mut *state
            && let Some(row) = rows.get(&target)
        {
            // It is refused only for an entry that is not there.
            let _ = programs.remove_target(*row);
        }
    }

    /// Knows nothing of a target any more.
    pub fn forget(&self, target: TargetId) {
        if let Loaded::Yes { rows, .. } = &mut *self.loaded.state() {
            rows.remove(&target);
        }
    }

    /// Whether the programs see a target, and the guard stands over it where that was asked for.
    pub fn guards(&self, target: TargetId) -> bool {
        matches!(&*self.loaded.state(), Loaded::Yes { rows, .. } if rows.contains_key(&target))
    }

    /// What cannot be had here.
    pub fn losses(&self) -> Vec<FeatureLost> {
        match &*self.loaded.state() {
            Loaded::Yes { losses, .. } | Loaded::No { losses } => losses.clone(),
            Loaded::NotYet | Loaded::Joining | Loaded::TooLate => Vec::new(),
        }
    }

    /// Events that found no room in the ring.
    pub fn ring_drops(&self) -> u64 {
        match &*self.loaded.state() {
            Loaded::Yes { totals, .. } => totals.dropped_events(),
            _ => 0,
        }
    }

    /// Puts what the programs counted of a target into the record, and what they could not do.
    pub fn tell(&self, target: TargetId, record: &mut Record) {
        match &*self.loaded.state() {
            Loaded::NotYet | Loaded::TooLate => record.notes.push(
                "the run ended before the BPF programs were ready: reclaim was not counted".into(),
            ),
            // `settle` has waited for it.
            Loaded::Joining => {
                record.losses.hung_helpers += 1;
                record.notes.push(
                    "the BPF programs did not get ready and are left to the next memwatch: reclaim was not counted"
                        .into(),
                );
            }
            Loaded::No { losses } => record.features_lost.extend_from_slice(losses),
            Loaded::Yes {
                totals: counters,
                rows,
                losses,
                ..
            } => {
                record.losses.ring_drops = counters.dropped_events();
                record.features_lost.extend_from_slice(losses);
                let Some(row) = rows.get(&target) else {
                    return;
                };
                let totals = counters.of(*row);
                record.reclaim.direct = Some(totals.direct_reclaims);
                record.reclaim.memcg = Some(totals.memcg_reclaims);
                record.reclaim.stall_us = Some(totals.stall_ns / 1_000);
                record.reclaim.scanned_pages = Some(totals.scanned_pages);
                record.reclaim.reclaimed_pages = Some(totals.reclaimed_pages);
                record.reclaim.kswapd_wakeups = Some(totals.kswapd_wakeups);
                record.faults.pressed_minor = Some(totals.minor_faults);
                record.faults.pressed_major = Some(totals.major_faults);
            }
        }
    }
}

fn load(loading: &Loading, v2_mount: &Path, way: &Way) -> Loaded {
    let plan = bpf::plan(&bpf::Facts::read());
    let losses = |losses: &[bpf::Loss]| losses.iter().map(describe).collect::<Vec<_>>();
    if plan.tracepoints.is_empty() {
        return Loaded::No {
            losses: vec![all_lost(
                plan.losses.first().map_or("", |loss| loss.why.as_str()),
            )],
        };
    }
    if !loading.may_join() {
        return Loaded::TooLate;
    }
    match join(&plan, v2_mount) {
        Ok((programs, reader, alone)) => {
            let slot = programs.slot();
            // First a sign of life: the guard would take its absence for a death.
            reader.beat(slot, clock::now());
            way.send(Arrival::Kernel(KernelEyes {
                reader,
                slot,
                names: in_initial_namespace("pid", PROC_PID_INIT_INO),
            }));
            Loaded::Yes {
                totals: programs.totals(),
                rows: BTreeMap::new(),
                losses: losses(programs.losses()).into_iter().chain(alone).collect(),
                programs,
            }
        }
        Err(error) => Loaded::No {
            losses: vec![all_lost(&with_causes(&error))],
        },
    }
}

type Joined = (Box<bpf::Programs>, bpf::Reader, Option<FeatureLost>);

/// Takes part in the programs of this machine, or, where they have no place, loads some for this memwatch.
fn join(plan: &bpf::Plan, v2_mount: &Path) -> Result<Joined, bpf::LoadError> {
    let populated = |id| cgroup::is_populated(v2_mount, id);
    let (programs, alone) = match bpf::Programs::join(plan, Path::new(bpf::SHARED), populated) {
        Ok(programs) => (programs, None),
        Err(bpf::LoadError::Home(error)) => (bpf::Programs::load(plan)?, Some(mortal(&error))),
        Err(error) => return Err(error),
    };
    let mut programs = Box::new(programs);
    let reader = programs.reader()?;
    Ok((programs, reader, alone))
}

/// Gives a target its row and its guard, where there are any to be had.
fn take_in(state: &mut Loaded, wanted: Wanted, way: &Way) {
    let Loaded::Yes {
        programs,
        rows,
        losses,
        ..
    } = state
    else {
        return;
    };
    let row = match programs.add_target(wanted.id, wanted.level) {
        // Its own processes, then, and not those of cgroups inside of it.
        Err(bpf::LoadError::TooManyDepths) => programs.add_target(wanted.id, None),
        other => other,
    };
    let guarded = row.and_then(|row| {
        if let Some(terms) = &wanted.terms {
            programs.arm(row, terms)?;
        }
        Ok(row)
    });
    match guarded {
        Ok(row) => {
            rows.insert(wanted.id, row);
            way.send(Arrival::Row(wanted.id, row));
        }
        Err(error) => {
            let loss = all_lost(&with_causes(&error));
            if !losses.contains(&loss) {
                losses.push(loss);
            }
        }
    }
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

/// All features go for one reason: a line for each would hide it.
fn all_lost(why: &str) -> FeatureLost {
    FeatureLost {
        feature: format!("BPF programs ({why})").as_str().into(),
        fallback: "PSI, memory.stat and /proc".into(),
        cost: "reclaim neither wakes memwatch nor tells who caused it, and nothing acts if memwatch is stuck or dead"
            .into(),
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

/// The kernel's own namespaces (include/linux/proc_ns.h), in which process ids and depths of cgroups mean
/// here what they mean there.
const PROC_CGROUP_INIT_INO: u64 = 0xEFFF_FFFB;
const PROC_PID_INIT_INO: u64 = 0xEFFF_FFFC;

/// The depth of a target as the kernel counts it, if it can be told.
pub(super) fn known_level(level: u32) -> Option<u32> {
    in_initial_namespace("cgroup", PROC_CGROUP_INIT_INO).then_some(level)
}

fn in_initial_namespace(kind: &str, inode: u64) -> bool {
    std::fs::metadata(Path::new("/proc/self/ns").join(kind)).is_ok_and(|ns| ns.ino() == inode)
}

fn told((name, kill): &(bpf::Name, bpf::Kill)) -> String {
    format!(
        "when its memwatch was dead, the guard in the kernel killed {} (pid {}) in a target that had stalled for {}",
        incident::Comm::new(&kill.comm),
        name.tgid,
        incident::duration(kill.stall_ns / 1000),
    )
}
