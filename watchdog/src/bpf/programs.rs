//! The programs as an agent uses them: one set on a machine, shared by all who run there, each with a
//! place for its signs of life, a ring for its events, and rows for its targets.
//!
//! What is shared is changed under the home's lock. Whoever comes finds the set or loads it (`load`);
//! whoever goes takes its rows with it, and the last one takes the set away. An agent that dies takes
//! nothing: its targets stay under the guard, and the next one to come removes what has no target.

use super::home::{Home, Owner};
use super::load::{COMPLETE, LINKS, LoadError, MAPS, PROGRAMS, SAMPLERS, load_into};
use super::plan::{Loss, Plan};
use super::reader::{Reader, Row, Totals};
use super::standing::{clear, in_use, is_free, take_away};
use super::sys;
use crate::host::clock;
use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use aya::programs::perf_event::{
    PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::programs::{PerfEvent, ProgramInfo};
use aya::util::online_cpus;
use aya_log::EbpfLogger;
use log::Log;
use memwatch_ebpf::{
    ANY_LEVEL, ANY_USER, BUCKETS, Depths, EVENT_RING_BYTES, GuardTerms, Kill, MAJOR_FAULT_PERIOD,
    MAX_ARMED, MAX_DEPTHS, MAX_TARGETS, MINOR_FAULT_PERIOD, Name, StallWindow, TargetRow,
    TargetTotals,
};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The programs, and this agent's part in them.
pub struct Programs {
    home: Home,
    /// `None` once it has left.
    owner: Option<Owner>,
    slot: u32,
    targets: HashMap<MapData, u64, u32>,
    rows: Array<MapData, TargetRow>,
    depths: Array<MapData, Depths>,
    armed: Array<MapData, u32>,
    kills: HashMap<MapData, Name, Kill>,
    stalls: Array<MapData, StallWindow>,
    row_totals: Array<MapData, TargetTotals>,
    totals: Totals,
    rings: OwnedFd,
    ring: Option<RingBuf<MapData>>,
    attached: Vec<String>,
    losses: Vec<Loss>,
    samplers: Vec<(PerfEvent, Vec<PerfEventLinkId>)>,
    left_behind: Vec<(Name, Kill)>,
    logger: Option<EbpfLogger<&'static dyn Log>>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs")
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}

impl Programs {
    /// A set for this process alone, gone with it.
    ///
    /// # Errors
    /// The object as a whole is refused.
    pub fn load(plan: &Plan) -> Result<Self, LoadError> {
        let home = Home::private()?;
        let losses = load_into(&home, plan)?;
        Self::take_part(home, losses)
    }

    /// The set of this machine, loaded if it is not there; `base` is where its home is.
    ///
    /// `populated` says of a cgroup id whether processes are left in it: what the dead have left behind
    /// is removed where there are none.
    ///
    /// # Errors
    /// The object as a whole is refused, or there is no place for it.
    pub fn join(
        plan: &Plan,
        base: &Path,
        populated: impl Fn(u64) -> bool,
    ) -> Result<Self, LoadError> {
        let (home, lock) = Home::shared(base)?;
        let losses = if home.path(COMPLETE).exists() {
            missing_links(&home, plan)
        } else {
            // Half of a set, of a memwatch that died over it.
            clear(&home);
            match load_into(&home, plan) {
                Ok(losses) => losses,
                Err(error) => {
                    take_away(&home);
                    return Err(error);
                }
            }
        };
        let mut programs = Self::take_part(home, losses)?;
        programs.sweep(populated)?;
        drop(lock);
        Ok(programs)
    }

    /// Opens what is pinned and finds a place in it. The caller holds the lock.
    pub(super) fn take_part(home: Home, losses: Vec<Loss>) -> Result<Self, LoadError> {
        let map = |name: &str| MapData::from_pin(home.path(MAPS).join(name));
        let fd = |name: &str| -> Result<OwnedFd, LoadError> {
            Ok(map(name)?.fd().as_fd().try_clone_to_owned()?)
        };
        let rows: Array<_, TargetRow> = Array::try_from(Map::Array(map("ROWS")?))?;
        // The rows of a dead owner must not come to life again by our signs of life.
        let mut used = Vec::new();
        for row in 0..MAX_TARGETS {
            let target = rows.get(&row, 0)?;
            if target.cgroup_id != 0 {
                used.push(target.heartbeat_slot);
            }
        }
        let owner = home.claim(|slot| !used.contains(&slot))?;
        let rings = fd("RINGS")?;
        let ring = sys::create_ring(EVENT_RING_BYTES)?;
        sys::put_map(rings.as_fd(), owner.slot, ring.as_fd())?;
        let ring = RingBuf::try_from(Map::RingBuf(MapData::from_fd(ring)?))?;
        let logger = home.names(PROGRAMS).first().and_then(|name| {
            let info = ProgramInfo::from_pin(home.path(PROGRAMS).join(name)).ok()?;
            EbpfLogger::init_from_id(info.id()).ok()
        });
        Ok(Self {
            slot: owner.slot,
            owner: Some(owner),
            targets: HashMap::try_from(Map::HashMap(map("TARGETS")?))?,
            rows,
            depths: Array::try_from(Map::Array(map("DEPTHS")?))?,
            armed: Array::try_from(Map::Array(map("ARMED")?))?,
            kills: HashMap::try_from(Map::HashMap(map("KILLS")?))?,
            stalls: Array::try_from(Map::Array(map("STALLS")?))?,
            row_totals: Array::try_from(Map::Array(map("TOTALS")?))?,
            totals: Totals::new(fd("TOTALS")?.as_fd(), fd("MACHINE")?.as_fd())?,
            rings,
            ring: Some(ring),
            attached: attached(&home),
            losses,
            samplers: Vec::new(),
            left_behind: Vec::new(),
            logger,
            home,
        })
    }

    /// The programs that are attached, by their names in the object.
    pub fn attached(&self) -> &[String] {
        &self.attached
    }

    /// What is missing.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// This agent's place for signs of life.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Counts a cgroup, and those below it, from now on. `level` is its depth below the v2 root, as far
    /// as that can be known: without, cgroups inside of it are not found.
    ///
    /// # Errors
    /// No row is free, or the targets lie at too many different depths.
    pub fn add_target(&mut self, cgroup_id: u64, level: Option<u32>) -> Result<Row, LoadError> {
        let _lock = self.home.lock()?;
        let rows = self.taken_rows()?;
        let taken = rows.iter().filter(|target| !is_free(target));
        let depths: BTreeSet<u32> = taken.map(|target| target.level).chain(level).collect();
        if depths.iter().filter(|&&depth| depth != ANY_LEVEL).count() > MAX_DEPTHS {
            return Err(LoadError::TooManyDepths);
        }
        let row = rows
            .iter()
            .zip(0..)
            .find_map(|(target, row)| (target.cgroup_id == 0).then_some(row))
            .ok_or(LoadError::Full)?;
        let target = TargetRow {
            cgroup_id,
            level: level.unwrap_or(ANY_LEVEL),
            heartbeat_slot: self.slot,
            ..TargetRow::default()
        };
        // A target that had the row before left its numbers there.
        self.row_totals.set(row, TargetTotals::default(), 0)?;
        self.stalls.set(row, StallWindow::default(), 0)?;
        self.rows.set(row, target, 0)?;
        self.targets.insert(cgroup_id, row, 0)?;
        self.tell_depths()?;
        Ok(Row(row))
    }

    /// Stops counting and guarding a target. Its totals stay readable until the row is given away again.
    ///
    /// # Errors
    /// The kernel refuses, which it does not for an entry that is there.
    pub fn remove_target(&mut self, row: Row) -> Result<(), LoadError> {
        let _lock = self.home.lock()?;
        self.remove_row(row)
    }

    fn remove_row(&mut self, row: Row) -> Result<(), LoadError> {
        let target = self.rows.get(&row.0, 0)?;
        if target.cgroup_id == 0 {
            return Ok(());
        }
        self.clear_place(row)?;
        // Another row of the same cgroup may have come after.
        if self.targets.get(&target.cgroup_id, 0).ok() == Some(row.0) {
            self.targets.remove(&target.cgroup_id)?;
        }
        self.rows.set(row.0, TargetRow::default(), 0)?;
        self.tell_depths()
    }

    /// Puts a target under the guard: if the owner of its heartbeat goes silent, the kernel acts on
    /// these terms. The heartbeat must have been given before.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn arm(&mut self, row: Row, terms: &Terms) -> Result<(), LoadError> {
        let _lock = self.home.lock()?;
        let mut target = self.rows.get(&row.0, 0)?;
        target.guard = terms.for_kernel();
        self.rows.set(row.0, target, 0)?;
        for place in 0..MAX_ARMED {
            if self.armed.get(&place, 0)? == 0 {
                return Ok(self.armed.set(place, row.0 + 1, 0)?);
            }
        }
        // More than the clock has places for: guarded all the same, by who is at hand.
        Ok(())
    }

    /// Takes a target from under the guard.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn disarm(&mut self, row: Row) -> Result<(), LoadError> {
        let _lock = self.home.lock()?;
        let mut target = self.rows.get(&row.0, 0)?;
        target.guard = GuardTerms::default();
        self.rows.set(row.0, target, 0)?;
        self.clear_place(row)
    }

    fn clear_place(&mut self, row: Row) -> Result<(), LoadError> {
        for place in 0..MAX_ARMED {
            if self.armed.get(&place, 0)? == row.0 + 1 {
                self.armed.set(place, 0, 0)?;
            }
        }
        Ok(())
    }

    /// The stall that the guard's window of a target holds, a reclaim under way left out.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn guarded_stall(&self, row: Row) -> Result<Duration, LoadError> {
        let window: StallWindow = self.stalls.get(&row.0, 0)?;
        let bucket_ns = self.rows.get(&row.0, 0)?.guard.bucket_ns.max(1);
        let epoch = clock::now().as_nanos() as u64 / bucket_ns;
        let fresh = |&(counted, _): &(u64, u64)| epoch.saturating_sub(counted) < BUCKETS as u64;
        let buckets = window.epochs.into_iter().zip(window.stall_ns);
        let stall_ns = buckets.filter(fresh).map(|(_, stall_ns)| stall_ns).sum();
        Ok(Duration::from_nanos(stall_ns))
    }

    /// What the guard has done in a target and nobody has read yet; each kill is returned once.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn take_kills(&mut self, cgroup_id: u64) -> Result<Vec<(Name, Kill)>, LoadError> {
        self.take_kills_of(|kill| kill.cgroup_id == cgroup_id)
    }

    /// What the guard did in targets whose memwatch had died, as found when this one came.
    /// Once.
    pub fn take_left_behind(&mut self) -> Vec<(Name, Kill)> {
        std::mem::take(&mut self.left_behind)
    }

    fn take_kills_of(
        &mut self,
        wanted: impl Fn(&Kill) -> bool,
    ) -> Result<Vec<(Name, Kill)>, LoadError> {
        let names: Vec<Name> = self.kills.keys().collect::<Result<_, _>>()?;
        let mut taken = Vec::new();
        for name in names {
            if let Ok(kill) = self.kills.get(&name, 0)
                && wanted(&kill)
                && self.kills.remove(&name).is_ok()
            {
                taken.push((name, kill));
            }
        }
        taken.sort_by_key(|(_, kill)| kill.time_ns);
        Ok(taken)
    }

    /// Removes the rows of the dead that have no target any more, and takes in what the guard did there.
    pub(super) fn sweep(&mut self, populated: impl Fn(u64) -> bool) -> Result<(), LoadError> {
        for (target, row) in self.taken_rows()?.iter().zip(0..) {
            let dead = target.cgroup_id != 0 && !self.home.lives(target.heartbeat_slot);
            if dead && !populated(target.cgroup_id) {
                self.remove_row(Row(row))?;
            }
        }
        let living: Vec<u64> = self
            .taken_rows()?
            .iter()
            .filter(|target| self.home.lives(target.heartbeat_slot))
            .map(|target| target.cgroup_id)
            .collect();
        self.left_behind = self.take_kills_of(|kill| !living.contains(&kill.cgroup_id))?;
        Ok(())
    }

    fn taken_rows(&self) -> Result<Vec<TargetRow>, LoadError> {
        let rows = (0..MAX_TARGETS).map(|row| self.rows.get(&row, 0));
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn tell_depths(&mut self) -> Result<(), LoadError> {
        let taken = self.taken_rows()?;
        let taken = taken.iter().filter(|target| !is_free(target));
        let known: BTreeSet<u32> = taken
            .map(|target| target.level)
            .filter(|&level| level != ANY_LEVEL)
            .collect();
        let mut depths = Depths::default();
        for (place, depth) in depths.after_root.iter_mut().zip(known) {
            *place = depth;
        }
        Ok(self.depths.set(0, depths, 0)?)
    }

    /// The counters.
    pub fn totals(&self) -> Totals {
        self.totals.clone()
    }

    /// The deciding thread's end; there is one.
    ///
    /// # Errors
    /// It was taken before, or cannot be mapped.
    pub fn reader(&mut self) -> Result<Reader, LoadError> {
        let events = self.ring.take().ok_or(LoadError::NoMap("RINGS"))?;
        let fd = |name: &str| -> Result<OwnedFd, LoadError> {
            let map = MapData::from_pin(self.home.path(MAPS).join(name))?;
            Ok(map.fd().as_fd().try_clone_to_owned()?)
        };
        Ok(Reader::new(
            self.totals.clone(),
            fd("HEARTBEATS")?.as_fd(),
            fd("ROWS")?.as_fd(),
            fd("PROCESSES")?,
            events,
        )?)
    }

    /// Samples the page faults of all CPUs, or stops that. Only members of targets are counted, but
    /// every fault on the machine passes the sampling: only while a target is hot. One agent samples for
    /// all.
    ///
    /// # Errors
    /// The events cannot be opened.
    pub fn heat(&mut self, hot: bool) -> Result<(), LoadError> {
        if hot != self.samplers.is_empty() {
            return Ok(());
        }
        if !hot {
            for (mut program, links) in std::mem::take(&mut self.samplers) {
                for link in links {
                    program.detach(link)?;
                }
            }
            return Ok(());
        }
        let kinds = [
            (
                SAMPLERS[0],
                SoftwareEvent::PageFaultsMin,
                MINOR_FAULT_PERIOD,
            ),
            (
                SAMPLERS[1],
                SoftwareEvent::PageFaultsMaj,
                MAJOR_FAULT_PERIOD,
            ),
        ];
        let cpus = online_cpus().map_err(|(_, error)| error)?;
        for (name, event, period) in kinds {
            let pin = self.home.path(PROGRAMS).join(name);
            if !pin.exists() {
                continue;
            }
            let mut program = PerfEvent::from_pin(pin)?;
            let mut links = Vec::new();
            for &cpu in &cpus {
                links.push(program.attach(
                    PerfEventConfig::Software(event),
                    PerfEventScope::AllProcessesOneCpu { cpu },
                    SamplePolicy::Period(period),
                    false,
                )?);
            }
            self.samplers.push((program, links));
        }
        Ok(())
    }

    /// Lets log lines of the programs out. Where several share them, each line comes out of one.
    pub fn flush_logs(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Verified instructions of each loaded program, and its run time and count where
    /// `kernel.bpf_stats_enabled` is on.
    pub fn statistics(&self) -> Vec<Statistics> {
        let names = self.home.names(PROGRAMS).into_iter();
        names
            .filter_map(|program| {
                let info = ProgramInfo::from_pin(self.home.path(PROGRAMS).join(&program)).ok()?;
                Some(Statistics {
                    program,
                    verified_instructions: info.verified_instruction_count(),
                    run_ns: u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX),
                    runs: info.run_count(),
                })
            })
            .collect()
    }

    /// Takes this agent's rows and ring away, and the set with them if nobody else needs it.
    fn leave(&mut self) -> Result<(), LoadError> {
        let lock = self.home.lock()?;
        for (target, row) in self.taken_rows()?.iter().zip(0..) {
            if target.cgroup_id != 0 && target.heartbeat_slot == self.slot {
                self.remove_row(Row(row))?;
            }
        }
        let _ = sys::remove_map(self.rings.as_fd(), self.slot);
        self.owner = None;
        // Whatever somebody alive or dead still has a use for stays.
        if lock.is_some() && !in_use(&self.home) && self.taken_rows()?.iter().all(is_free) {
            take_away(&self.home);
        }
        Ok(())
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // What cannot be taken away now the next memwatch takes away.
        let _ = self.leave();
    }
}

/// Names of the attached programs: a clock has a link on each CPU.
fn attached(home: &Home) -> Vec<String> {
    let mut names: Vec<String> = home
        .names(LINKS)
        .iter()
        .map(|link| link.split('-').next().unwrap_or_default().to_owned())
        .collect();
    names.dedup();
    names
}

/// What the plan wants and whoever loaded the set did not attach.
fn missing_links(home: &Home, plan: &Plan) -> Vec<Loss> {
    let there = attached(home);
    let mut losses = plan.losses.clone();
    for point in &plan.tracepoints {
        if !there.iter().any(|name| name == point.program)
            && losses.iter().all(|loss| loss.feature != point.feature)
        {
            losses.push(Loss {
                feature: point.feature,
                why: "the memwatch that loaded the programs could not attach it".into(),
            });
        }
    }
    losses
}

/// When the guard may act in a target, and how soon again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A heartbeat older than this is stale.
    pub stale_after: Duration,
    /// Stall within the window from which the guard acts.
    pub budget: Duration,
    /// The window.
    pub window: Duration,
    /// The least time between two kills.
    pub pause: Duration,
    /// The user on whose behalf, whose processes alone may be hit; `None` for any.
    pub uid: Option<u32>,
}

impl Terms {
    fn for_kernel(&self) -> GuardTerms {
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        GuardTerms {
            stale_after_ns: ns(self.stale_after).max(1),
            budget_ns: ns(self.budget),
            bucket_ns: (ns(self.window) / BUCKETS as u64).max(1),
            pause_ns: ns(self.pause),
            uid: self.uid.unwrap_or(ANY_USER),
            ..GuardTerms::default()
        }
    }
}

/// What the kernel tells about one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Its name in the object.
    pub program: String,
    /// Instructions that the verifier walked; `None` before 5.16.
    pub verified_instructions: Option<u32>,
    /// Time spent in it, in ns.
    pub run_ns: u64,
    /// How often it ran.
    pub runs: u64,
}
