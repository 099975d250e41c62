//! Loads the object, attaches what the plan says, and pins it all in a home, from which `programs` takes
//! it up. A program that does not load or attach costs its feature and nothing else.

use super::facts::MEMSTALL;
use super::home::{Home, HomeError};
use super::kfuncs;
use super::plan::{Feature, GuardClock, Loss, Plan, Tracepoint};
use super::sys;
use crate::causes::with_causes;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::links::FdLink;
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{FEntry, PerfEvent, ProgramError, RawTracePoint};
use aya::util::online_cpus;
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use memwatch_ebpf::{EVENT_RING_BYTES, GUARD_TICKS_PER_S, MAX_DEPTHS, MAX_OWNERS, MAX_TARGETS};
use std::io;
use std::os::fd::AsFd;

/// Nothing could be loaded at all, or a map could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refused the maps or the object.
    #[error("the BPF object cannot be loaded: {0}")]
    Object(#[from] EbpfError),
    /// There is no place for the programs.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Something could not be pinned.
    #[error("a BPF object cannot be pinned: {0}")]
    Pin(#[from] PinError),
    /// The object has no such map: it was built from another source.
    #[error("the BPF object has no map {0}; it was built from another source")]
    NoMap(&'static str),
    /// A map operation failed.
    #[error("a BPF map cannot be used: {0}")]
    Map(#[from] MapError),
    /// A program that is there cannot be used.
    #[error("a BPF program cannot be used: {0}")]
    Program(#[from] ProgramError),
    /// A map could not be made or mapped.
    #[error("a BPF map cannot be made or mapped: {0}")]
    Io(#[from] io::Error),
    /// All rows are taken.
    #[error("all {MAX_TARGETS} places for targets are taken")]
    Full,
    /// The programs look for targets at a few depths.
    #[error("targets lie at more than {MAX_DEPTHS} different depths below the root of the cgroups")]
    TooManyDepths,
}

/// Directories of a home.
pub(super) const LINKS: &str = "links";
pub(super) const PROGRAMS: &str = "programs";
pub(super) const MAPS: &str = "maps";
/// Made last: what is there without it was left half done.
pub(super) const COMPLETE: &str = "complete";

/// What is pinned by its name, and how the agent calls it.
const PINNED_MAPS: [&str; 11] = [
    "DEPTHS",
    "TARGETS",
    "ROWS",
    "HEARTBEATS",
    "TOTALS",
    "MACHINE",
    "PROCESSES",
    "STALLS",
    "ARMED",
    "KILLS",
    "RINGS",
];

/// The programs that sample page faults: attached by whoever is hot, for as long.
pub(super) const SAMPLERS: [&str; 2] = ["fault_minor", "fault_major"];

/// Loads, attaches and pins. Verifying takes most of the time: some tens of milliseconds. What is lost is
/// returned.
///
/// # Errors
/// The object as a whole is refused, or the home does not take it.
pub(super) fn load_into(home: &Home, plan: &Plan) -> Result<Vec<Loss>, LoadError> {
    home.furnish(&[LINKS, PROGRAMS, MAPS])?;
    let rings = home.path(MAPS).join("RINGS");
    let ring = sys::create_ring(EVENT_RING_BYTES)?;
    sys::pin(
        sys::create_array_of_maps(ring.as_fd(), MAX_OWNERS)?.as_fd(),
        &rings,
    )?;
    let bytes = match &plan.guard_clock {
        Some(GuardClock::Named(numbers)) => kfuncs::with_numbers(memwatch_ebpf::OBJECT, numbers),
        _ => memwatch_ebpf::OBJECT.to_vec(),
    };
    // The object needs no BTF of the kernel. `new` has parsed all of it by now and aya offers no way
    // around that, but at least it is not kept.
    let object = EbpfLoader::new()
        .btf(None)
        .override_global("LAYOUT", &plan.layout, true)
        .map_pin_path("RINGS", &rings)
        .load(&bytes)?;
    for name in PINNED_MAPS.into_iter().filter(|&name| name != "RINGS") {
        let map = object.map(name).ok_or(LoadError::NoMap(name))?;
        map.pin(home.path(MAPS).join(name))?;
    }
    let mut loading = Loading {
        home,
        object,
        losses: plan.losses.clone(),
    };
    for point in &plan.tracepoints {
        let attached = loading.trace(point);
        loading.or_lose(point.feature, attached)?;
    }
    if plan.sample_faults {
        for name in SAMPLERS {
            let loaded = loading.sampler(name);
            loading.or_lose(Feature::Faults, loaded)?;
        }
    }
    loading.start_clock(plan)?;
    if plan.guard_stalls {
        let watching = loading.watch_stalls();
        loading.or_lose(Feature::GuardStalls, watching)?;
    }
    home.furnish(&[COMPLETE])?;
    Ok(loading.losses)
}

struct Loading<'h> {
    home: &'h Home,
    object: Ebpf,
    losses: Vec<Loss>,
}

impl Loading<'_> {
    fn trace(&mut self, point: &Tracepoint) -> Result<(), LoadError> {
        let program: &mut RawTracePoint = find(&mut self.object, point.program)?.try_into()?;
        program.load()?;
        program.pin(self.home.path(PROGRAMS).join(point.program))?;
        let id = program.attach(point.tracepoint)?;
        let link: FdLink = program.take_link(id)?.into();
        link.pin(self.home.path(LINKS).join(point.program))?;
        Ok(())
    }

    fn sampler(&mut self, name: &str) -> Result<(), LoadError> {
        let program: &mut PerfEvent = find(&mut self.object, name)?.try_into()?;
        program.load()?;
        Ok(program.pin(self.home.path(PROGRAMS).join(name))?)
    }

    /// The guard's clock, with the longest reach that the verifier lets pass.
    fn start_clock(&mut self, plan: &Plan) -> Result<(), LoadError> {
        if matches!(plan.guard_clock, Some(GuardClock::Named(_))) {
            // The verifier's view of the kernel's functions changes from kernel to kernel.
            let ticking = self.tick("guard_tick_named");
            if ticking.is_ok() {
                return Ok(());
            }
            self.or_lose(Feature::GuardNames, ticking)?;
        }
        if plan.guard_clock.is_some() {
            let ticking = self.tick("guard_tick");
            self.or_lose(Feature::GuardClock, ticking)?;
        }
        Ok(())
    }

    /// Lets a program of the guard tick on every CPU.
    fn tick(&mut self, name: &str) -> Result<(), LoadError> {
        let cpus = online_cpus().map_err(|(_, error)| error)?;
        let program: &mut PerfEvent = find(&mut self.object, name)?.try_into()?;
        program.load()?;
        program.pin(self.home.path(PROGRAMS).join(name))?;
        for cpu in cpus {
            let id = program.attach(
                PerfEventConfig::Software(SoftwareEvent::CpuClock),
                PerfEventScope::AllProcessesOneCpu { cpu },
                SamplePolicy::Period(1_000_000_000 / GUARD_TICKS_PER_S),
                false,
            )?;
            // Before 5.15 such a link cannot be pinned, and the clock stops with this process.
            let link = FdLink::try_from(program.take_link(id)?)
                .map_err(|e| io::Error::other(e.to_string()))?;
            link.pin(self.home.path(LINKS).join(format!("{name}-{cpu}")))?;
        }
        Ok(())
    }

    /// Puts the guard's programs before the kernel's functions by which a task waits for memory. First both
    /// are loaded, and the end of a wait is attached before its begin: a wait that is never seen to end would
    /// be a stall for ever.
    fn watch_stalls(&mut self) -> Result<(), LoadError> {
        let kernel = Btf::from_sys_fs().map_err(ProgramError::Btf)?;
        for (name, function) in MEMSTALL {
            let program: &mut FEntry = find(&mut self.object, name)?.try_into()?;
            program.load(function, &kernel)?;
        }
        for (name, _) in MEMSTALL {
            let program: &mut FEntry = find(&mut self.object, name)?.try_into()?;
            program.pin(self.home.path(PROGRAMS).join(name))?;
            let id = program.attach()?;
            let link: FdLink = program.take_link(id)?.into();
            link.pin(self.home.path(LINKS).join(name))?;
        }
        Ok(())
    }

    /// What a program cannot do costs its feature; that the home does not take it is an error.
    fn or_lose(
        &mut self,
        feature: Feature,
        outcome: Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        match outcome {
            Err(LoadError::Program(error)) => {
                if self.losses.iter().all(|loss| loss.feature != feature) {
                    self.losses.push(Loss {
                        feature,
                        why: why(&error),
                    });
                }
                Ok(())
            }
            other => other,
        }
    }
}

fn find<'o>(
    object: &'o mut Ebpf,
    name: &str,
) -> Result<&'o mut aya::programs::Program, ProgramError> {
    object.program_mut(name).ok_or(ProgramError::NotLoaded)
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
