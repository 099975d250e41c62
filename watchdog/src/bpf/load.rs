//! Loads the object, attaches what the plan says, and keeps the targets' rows.
//!
//! A program that does not load or attach costs its feature and nothing else. Everything is detached
//! when [`Programs`] is dropped.

use super::plan::{Feature, Loss, Plan, Tracepoint};
use super::reader::{Reader, Row, Totals};
use crate::causes::with_causes;
use aya::maps::{Array, HashMap, Map, MapData, MapError, RingBuf};
use aya::programs::perf_event::{
    PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::programs::{PerfEvent, ProgramError, RawTracePoint};
use aya::util::online_cpus;
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use log::Log;
use memwatch_ebpf::{
    MAJOR_FAULT_PERIOD, MAX_LEVELS, MAX_TARGETS, MINOR_FAULT_PERIOD, TargetRow, TargetTotals,
};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

/// Nothing could be loaded at all, or a map could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refused the maps or the object.
    #[error("the BPF object cannot be loaded: {0}")]
    Object(#[from] EbpfError),
    /// The object has no such map: it was built from another source.
    #[error("the BPF object has no map {0}; it was built from another source")]
    NoMap(&'static str),
    /// A map operation failed.
    #[error("a BPF map cannot be used: {0}")]
    Map(#[from] MapError),
    /// A map could not be mapped.
    #[error("a BPF map cannot be mapped: {0}")]
    Mmap(#[from] io::Error),
    /// All rows are taken.
    #[error("all {MAX_TARGETS} places for targets are taken")]
    Full,
    /// A cgroup too deep to be guarded.
    #[error("the cgroup lies {0} levels deep; memwatch guards up to {MAX_LEVELS}")]
    TooDeep(u32),
}

/// The loaded and attached programs.
pub struct Programs {
    object: Ebpf,
    targets: HashMap<MapData, u64, u32>,
    rows: Array<MapData, TargetRow>,
    levels: Array<MapData, u64>,
    totals: Totals,
    attached: Vec<&'static str>,
    losses: Vec<Loss>,
    sample_faults: bool,
    samplers: Vec<(&'static str, PerfEventLinkId)>,
    taken: BTreeMap<u32, (u64, u32)>,
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
    /// Loads and attaches. Verifying takes most of the time: some tens of milliseconds.
    ///
    /// # Errors
    /// The object as a whole is refused.
    pub fn load(plan: &Plan) -> Result<Self, LoadError> {
        // The object needs no BTF of the kernel. `new` has parsed all of it by now and aya offers no
        // way around that, but at least it is not kept.
        let mut object = EbpfLoader::new()
            .btf(None)
            .override_global("LAYOUT", &plan.layout, true)
            .load(memwatch_ebpf::OBJECT)?;
        let logger = EbpfLogger::init(&mut object).ok();
        let targets = HashMap::try_from(take(&mut object, "TARGETS")?)?;
        let rows = Array::try_from(take(&mut object, "ROWS")?)?;
        let levels = Array::try_from(take(&mut object, "LEVELS")?)?;
        let totals = Totals::new(
            fd(&object, "TOTALS")?.fd().as_fd(),
            fd(&object, "MACHINE")?.fd().as_fd(),
        )?;
        let mut programs = Self {
            object,
            targets,
            rows,
            levels,
            totals,
            attached: Vec::new(),
            losses: plan.losses.clone(),
            sample_faults: plan.sample_faults,
            samplers: Vec::new(),
            taken: BTreeMap::new(),
            logger,
        };
        for point in &plan.tracepoints {
            match programs.attach(point) {
                Ok(()) => programs.attached.push(point.program),
                Err(error) => programs.lose(point.feature, &error),
            }
        }
        Ok(programs)
    }

    fn attach(&mut self, point: &Tracepoint) -> Result<(), ProgramError> {
        let program = self
            .object
            .program_mut(point.program)
            .ok_or(ProgramError::NotLoaded)?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load()?;
        program.attach(point.tracepoint)?;
        Ok(())
    }

    fn lose(&mut self, feature: Feature, error: &ProgramError) {
        if self.losses.iter().all(|loss| loss.feature != feature) {
            self.losses.push(Loss {
                feature,
                why: with_causes(error),
            });
        }
    }

    /// The programs that are attached, by their names in the object.
    pub fn attached(&self) -> &[&'static str] {
        &self.attached
    }

    /// What is missing.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// Counts a cgroup, and those below it, from now on. `level` is its depth below the v2 root.
    ///
    /// # Errors
    /// No row is free, or the cgroup lies too deep.
    pub fn add_target(&mut self, cgroup_id: u64, level: u32) -> Result<Row, LoadError> {
        if level >= MAX_LEVELS {
            return Err(LoadError::TooDeep(level));
        }
        let row = (0..MAX_TARGETS)
            .find(|row| !self.taken.contains_key(row))
            .ok_or(LoadError::Full)?;
        let target = TargetRow {
            cgroup_id,
            level,
            ..TargetRow::default()
        };
        // A target that had the row before left its numbers there.
        let totals = self
            .object
            .map_mut("TOTALS")
            .ok_or(LoadError::NoMap("TOTALS"))?;
        Array::try_from(totals)?.set(row, TargetTotals::default(), 0)?;
        self.rows.set(row, target, 0)?;
        self.targets.insert(cgroup_id, row, 0)?;
        self.taken.insert(row, (cgroup_id, level));
        self.tell_levels()?;
        Ok(Row(row))
    }

    /// Stops counting a target. Its totals stay readable until the row is given away again.
    ///
    /// # Errors
    /// The kernel refuses, which it does not for an entry that is there.
    pub fn remove_target(&mut self, row: Row) -> Result<(), LoadError> {
        if let Some((cgroup_id, _)) = self.taken.remove(&row.0) {
            self.tell_levels()?;
            self.targets.remove(&cgroup_id)?;
            self.rows.set(row.0, TargetRow::default(), 0)?;
        }
        Ok(())
    }

    fn tell_levels(&mut self) -> Result<(), LoadError> {
        let levels = self
            .taken
            .values()
            .fold(0u64, |mask, (_, level)| mask | 1 << level);
        Ok(self.levels.set(0, levels, 0)?)
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
        let events = RingBuf::try_from(take(&mut self.object, "EVENTS")?)?;
        let processes = fd(&self.object, "PROCESSES")?
            .fd()
            .as_fd()
            .try_clone_to_owned()?;
        let heartbeats = fd(&self.object, "HEARTBEATS")?;
        Ok(Reader::new(
            self.totals.clone(),
            heartbeats.fd().as_fd(),
            processes,
            events,
        )?)
    }

    /// Samples the page faults of all CPUs, or stops that. Only members of targets are counted, but
    /// every fault on the machine passes the sampling: only while a target is hot.
    ///
    /// # Errors
    /// The events cannot be opened.
    pub fn heat(&mut self, hot: bool) -> Result<(), ProgramError> {
        if !self.sample_faults || hot != self.samplers.is_empty() {
            return Ok(());
        }
        if !hot {
            for (name, link) in std::mem::take(&mut self.samplers) {
                sampler(&mut self.object, name)?.detach(link)?;
            }
            return Ok(());
        }
        let kinds = [
            (
                "fault_minor",
                SoftwareEvent::PageFaultsMin,
                MINOR_FAULT_PERIOD,
            ),
            (
                "fault_major",
                SoftwareEvent::PageFaultsMaj,
                MAJOR_FAULT_PERIOD,
            ),
        ];
        let cpus = online_cpus().map_err(|(_, error)| ProgramError::IOError(error))?;
        for (name, event, period) in kinds {
            let program = sampler(&mut self.object, name)?;
            match program.load() {
                Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
                Err(error) => return Err(error),
            }
            for &cpu in &cpus {
                let link = program.attach(
                    PerfEventConfig::Software(event),
                    PerfEventScope::AllProcessesOneCpu { cpu },
                    SamplePolicy::Period(period),
                    false,
                )?;
                self.samplers.push((name, link));
            }
        }
        Ok(())
    }

    /// Lets log lines of the programs out.
    pub fn flush_logs(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Verified instructions of each loaded program, and its run time and count where
    /// `kernel.bpf_stats_enabled` is on.
    pub fn statistics(&self) -> Vec<Statistics> {
        self.object
            .programs()
            .filter_map(|(name, program)| {
                let info = program.info().ok()?;
                Some(Statistics {
                    program: name.to_owned(),
                    verified_instructions: info.verified_instruction_count(),
                    run_ns: u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX),
                    runs: info.run_count(),
                })
            })
            .collect()
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

fn sampler<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut PerfEvent, ProgramError> {
    object
        .program_mut(name)
        .ok_or(ProgramError::NotLoaded)?
        .try_into()
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    object.take_map(name).ok_or(LoadError::NoMap(name))
}

fn fd<'o>(object: &'o Ebpf, name: &'static str) -> Result<&'o MapData, LoadError> {
    match object.map(name) {
        Some(Map::Array(data) | Map::LruHashMap(data) | Map::HashMap(data)) => Ok(data),
        _ => Err(LoadError::NoMap(name)),
    }
}
