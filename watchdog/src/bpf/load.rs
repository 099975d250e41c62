//! Loads the object, attaches what the plan says, and keeps the targets' rows.
//!
//! A program that does not load or attach costs its feature and nothing else. Everything is detached
//! when [`Programs`] is dropped.

use super::kfuncs;
use super::plan::{Feature, GuardClock, Loss, Plan, Tracepoint};
use super::reader::{Reader, Row, Totals};
use crate::causes::with_causes;
use crate::host::clock;
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
    ANY_USER, BUCKETS, GUARD_TICKS_PER_S, GuardTerms, Kill, MAJOR_FAULT_PERIOD, MAX_ARMED,
    MAX_LEVELS, MAX_TARGETS, MINOR_FAULT_PERIOD, Name, StallWindow, TargetRow, TargetTotals,
};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

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
    rows_fd: OwnedFd,
    levels: Array<MapData, u64>,
    armed: Array<MapData, u32>,
    kills: HashMap<MapData, Name, Kill>,
    stalls: Array<MapData, StallWindow>,
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
        let bytes = match &plan.guard_clock {
            Some(GuardClock::Named(numbers)) => {
                kfuncs::with_numbers(memwatch_ebpf::OBJECT, numbers)
            }
            _ => memwatch_ebpf::OBJECT.to_vec(),
        };
        let mut object = EbpfLoader::new()
            .btf(None)
            .override_global("LAYOUT", &plan.layout, true)
            .load(&bytes)?;
        let logger = EbpfLogger::init(&mut object).ok();
        let targets = HashMap::try_from(take(&mut object, "TARGETS")?)?;
        let rows_fd = fd(&object, "ROWS")?.fd().as_fd().try_clone_to_owned()?;
        let rows = Array::try_from(take(&mut object, "ROWS")?)?;
        let levels = Array::try_from(take(&mut object, "LEVELS")?)?;
        let armed = Array::try_from(take(&mut object, "ARMED")?)?;
        let kills = HashMap::try_from(take(&mut object, "KILLS")?)?;
        let stalls = Array::try_from(take(&mut object, "STALLS")?)?;
        let totals = Totals::new(
            fd(&object, "TOTALS")?.fd().as_fd(),
            fd(&object, "MACHINE")?.fd().as_fd(),
        )?;
        let mut programs = Self {
            object,
            targets,
            rows,
            rows_fd,
            levels,
            armed,
            kills,
            stalls,
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
        if let Some(clock) = plan.guard_clock {
            let (program, feature) = match clock {
                GuardClock::Running => ("guard_tick", Feature::GuardClock),
                GuardClock::Named(_) => ("guard_tick_named", Feature::GuardNames),
            };
            if let Err(error) = programs.tick(program) {
                programs.lose(feature, &error);
                if feature == Feature::GuardNames {
                    // The verifier's view of these functions changes from kernel to kernel.
                    let without = programs.tick("guard_tick");
                    without.unwrap_or_else(|error| programs.lose(Feature::GuardClock, &error));
                }
            }
        }
        Ok(programs)
    }

    /// Lets the guard's clock tick on every CPU.
    fn tick(&mut self, name: &'static str) -> Result<(), ProgramError> {
        let cpus = online_cpus().map_err(|(_, error)| ProgramError::IOError(error))?;
        let program = sampler(&mut self.object, name)?;
        program.load()?;
        for cpu in cpus {
            program.attach(
                PerfEventConfig::Software(SoftwareEvent::CpuClock),
                PerfEventScope::AllProcessesOneCpu { cpu },
                SamplePolicy::Period(1_000_000_000 / GUARD_TICKS_PER_S),
                false,
            )?;
        }
        self.attached.push(name);
        Ok(())
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
                why: why(error),
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
            self.disarm(row)?;
            self.tell_levels()?;
            self.targets.remove(&cgroup_id)?;
            self.rows.set(row.0, TargetRow::default(), 0)?;
        }
        Ok(())
    }

    /// Puts a target under the guard: if the owner of its heartbeat goes silent, the kernel acts on
    /// these terms. The heartbeat must have been given before.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn arm(&mut self, row: Row, terms: &Terms) -> Result<(), LoadError> {
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
        let mut target = self.rows.get(&row.0, 0)?;
        target.guard = GuardTerms::default();
        self.rows.set(row.0, target, 0)?;
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

    /// What the guard has done and nobody has read yet; each kill is returned once.
    ///
    /// # Errors
    /// The kernel refuses, which it does not.
    pub fn take_kills(&mut self) -> Result<Vec<(Name, Kill)>, LoadError> {
        let mut kills = Vec::new();
        let names: Vec<Name> = self.kills.keys().collect::<Result<_, _>>()?;
        for name in names {
            kills.push((name, self.kills.get(&name, 0)?));
            self.kills.remove(&name)?;
        }
        kills.sort_by_key(|(_, kill)| kill.time_ns);
        Ok(kills)
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
            self.rows_fd.as_fd(),
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

/// Why a program was refused, on one line: of the verifier's log, which has a line an instruction, the
/// verdict.
fn why(error: &ProgramError) -> String {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return with_causes(error);
    };
    let log = verifier_log.to_string();
    let statistics = ["verification time", "stack depth", "processed"];
    let verdict = log
        .lines()
        .rfind(|line| !line.is_empty() && !statistics.iter().any(|s| line.starts_with(s)));
    match verdict {
        Some(verdict) => format!("{io_error}: {verdict}"),
        None => io_error.to_string(),
    }
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
