//! The programs as an agent uses them: one set on a machine, shared by all who run there, each with a
//! place for its signs of life, a ring for its events, and rows for its targets.
//!
//! What is shared is changed under the home's lock. Whoever comes finds the set or loads it (`load`);
//! whoever goes takes its rows with it, and the last one takes the set away. An agent that dies takes
//! nothing: its targets stay under the guard, and the next one to come removes what has no target.
//! The guard is `guarding`'s, what is looked at only sometimes `sampling`'s.

use super::facts::MEMSTALL;
use super::home::{Home, Owner};
use super::load::{COMPLETE, LINKS, LoadError, MAPS, PROGRAMS, load_into};
use super::plan::{Feature, Loss, Plan};
use super::reader::{Reader, Row, Totals};
use super::standing::{clear, in_use, is_free, take_away};
use super::sys;
use aya::maps::{Array, HashMap, Map, MapData, RingBuf};
use aya::programs::perf_event::PerfEventLinkId;
use aya::programs::{PerfEvent, ProgramInfo};
use aya_log::EbpfLogger;
use log::Log;
use memwatch_ebpf::{
    ANY_LEVEL, Depths, EVENT_RING_BYTES, Kill, MAX_DEPTHS, MAX_TARGETS, Name, StallWindow,
    TargetRow, TargetTotals,
};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The programs, and this agent's part in them.
pub struct Programs {
    pub(super) home: Home,
    /// `None` once it has left.
    owner: Option<Owner>,
    slot: u32,
    targets: HashMap<MapData, u64, u32>,
    pub(super) rows: Array<MapData, TargetRow>,
    depths: Array<MapData, Depths>,
    pub(super) armed: Array<MapData, u32>,
    pub(super) kills: HashMap<MapData, Name, Kill>,
    pub(super) stalls: Array<MapData, StallWindow>,
    row_totals: Array<MapData, TargetTotals>,
    totals: Totals,
    rings: OwnedFd,
    ring: Option<RingBuf<MapData>>,
    attached: Vec<String>,
    losses: Vec<Loss>,
    pub(super) samplers: Vec<(PerfEvent, Vec<PerfEventLinkId>)>,
    pub(super) left_behind: Vec<(Name, Kill)>,
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
        // The guard of a memwatch that died would go on beside ours, and never hear of our signs of life.
        for (target, row) in self.taken_rows()?.iter().zip(0..) {
            if target.cgroup_id == cgroup_id && !self.home.lives(target.heartbeat_slot) {
                self.remove_row(Row(row))?;
            }
        }
        self.add_row(cgroup_id, level, self.slot)
    }

    /// A row with the signs of life of whoever has that slot. The caller holds the lock.
    pub(super) fn add_row(
        &mut self,
        cgroup_id: u64,
        level: Option<u32>,
        slot: u32,
    ) -> Result<Row, LoadError> {
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
            heartbeat_slot: slot,
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

    pub(super) fn remove_row(&mut self, row: Row) -> Result<(), LoadError> {
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

    pub(super) fn taken_rows(&self) -> Result<Vec<TargetRow>, LoadError> {
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

    /// Lets log lines of the programs out. Where several share them, each line comes out of one.
    pub fn flush_logs(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
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
    let traced = plan
        .tracepoints
        .iter()
        .map(|point| (point.program, point.feature));
    let stalls = MEMSTALL.map(|(program, _)| (program, Feature::GuardStalls));
    let stalls = stalls.into_iter().filter(|_| plan.guard_stalls);
    for (program, feature) in traced.chain(stalls) {
        if !there.iter().any(|name| name == program)
            && losses.iter().all(|loss| loss.feature != feature)
        {
            losses.push(Loss {
                feature,
                why: "the memwatch that loaded the programs could not attach it".into(),
            });
        }
    }
    losses
}
