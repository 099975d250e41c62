//! A target made ready to be guarded: its cgroup, its limits, and the files that tell about it.
//!
//! Tries the best there is and says what it had to do without. Starting or adopting what runs in it is
//! [`super::launch`]'s and [`super::adopt`]'s.

use super::eyes::{Listing, MachineEyes, NESTED, TargetEyes};
use crate::config::Limit;
use crate::host::cgroup::{CgroupError, Limits, Target};
use crate::host::layout::Layout;
use crate::host::meminfo;
use crate::host::memory::{Controller, MemoryFiles, MemoryStat};
use crate::host::place::Place;
use crate::host::psi::{self, Psi};
use crate::host::reread::{OpenError, Reread};
use crate::host::zfs;
use crate::incident::{self, LimitEnforcer, MemoryLayout};
use std::path::Path;

/// A target with its limits in place.
#[derive(Debug)]
pub struct Guarded {
    /// The cgroup.
    pub target: Target,
    /// The limit in force, whoever enforces it.
    pub limit_bytes: Option<u64>,
    /// The brake in force.
    pub high_bytes: Option<u64>,
    /// Who enforces the limit.
    pub enforcer: Option<LimitEnforcer>,
    /// What had to be done without, a line each.
    pub shortcomings: Vec<String>,
    memory: Option<MemoryFiles>,
    pressure: Option<Reread>,
    began: Totals,
}

/// Counters of the target at one time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Pressure.
    pub psi: Option<Psi>,
    /// The breakdown.
    pub stat: Option<MemoryStat>,
    /// The kernel's OOM kills.
    pub oom_kills: Option<u64>,
    /// The most that was ever charged.
    pub peak_bytes: Option<u64>,
}

/// How much of the machine a target without an explicit limit leaves to the others: a tenth, at least
/// 512 MiB and at most 4 GiB. The incident that memwatch was made for had no limit at all; this one
/// keeps a desktop and a shell alive and is too wide to touch anything that fits the machine.
fn reserve_bytes(total_bytes: u64) -> u64 {
    (total_bytes / 10).clamp(512 << 20, 4 << 30)
}

/// The share of the limit that lies behind the brake. The kernel lets the first 1.25 % beyond it pass: up to 99 % of
/// the limit nobody waits, and the rest is time for whoever acts when memwatch does not.
const BRAKE_SHARE: u64 = 48;

/// The kernel keeps whole pages of what it is told, and the record must have what it keeps: the largest page there is.
const PAGE_BYTES: u64 = 64 << 10;

/// The limit that `wanted` comes to where there is room for `total_bytes`.
pub fn limit_bytes(wanted: Limit, total_bytes: u64) -> Option<u64> {
    match wanted {
        Limit::None => None,
        Limit::Bytes(bytes) => Some(bytes),
        Limit::Auto => {
            let rest = total_bytes.saturating_sub(reserve_bytes(total_bytes));
            Some(rest.max(total_bytes / 2))
        }
    }
}

/// Where the brake of a target with a limit of `max_bytes` begins; unasked only where it `can_be_braked`.
pub fn brake_bytes(wanted: Limit, max_bytes: Option<u64>, can_be_braked: bool) -> Option<u64> {
    match wanted {
        Limit::None => None,
        Limit::Bytes(bytes) => Some(bytes),
        Limit::Auto if can_be_braked => {
            max_bytes.map(|max| (max - max / BRAKE_SHARE) / PAGE_BYTES * PAGE_BYTES)
        }
        Limit::Auto => None,
    }
}

/// What is lacking where no cgroup could be had, and why none could.
pub fn without_cgroup(why: &CgroupError) -> String {
    format!(
        "no cgroup can be had: the command's processes are found one by one, stalls are not seen, the limit is \
         enforced by memwatch alone, and nobody guards if memwatch is stopped or dead ({why})"
    )
}

impl Guarded {
    /// Puts limits on `target`, as far as it is ours, and opens its files.
    ///
    /// # Errors
    /// A limit that the kernel refuses, or files that do not open.
    pub fn new(target: Target, wanted: Limits) -> Result<Self, GuardError> {
        let mut shortcomings = Vec::new();
        let left = if target.is_ours() {
            target.limit(wanted)?
        } else {
            wanted
        };
        let memory = target.memory.as_ref().map(MemoryFiles::open).transpose()?;
        // What a target without a cgroup lacks is told in one line, by whoever could have none.
        let is_cgroup = target.dir().is_some();
        if memory.is_none() && is_cgroup {
            shortcomings.push(
                "no memory controller can be had here: usage is summed up from the processes and the limit is \
                 enforced by memwatch"
                    .into(),
            );
        }
        if left.high_bytes.is_some() {
            let why = match (&target.memory, target.is_ours()) {
                (Some(Controller::V2(_)), false) => {
                    "memory.high is for cgroups that memwatch makes, and this one is somebody else's"
                }
                _ => "memory.high needs the v2 memory controller, which this target has not",
            };
            shortcomings.push(format!("{why}: no brake"));
        }
        let pressure = target
            .dir()
            .and_then(|dir| Reread::open(&dir.join("memory.pressure")).ok());
        let pressure = pressure.filter(|file| read_psi(file).is_some());
        if pressure.is_none() && is_cgroup {
            shortcomings.push(
                "no pressure information (PSI) for this target: stalls are not seen, only memory that runs out; \
                 boot with psi=1, or write 1 to its cgroup.pressure"
                    .into(),
            );
        }
        let own_limit = target.memory.as_ref().and_then(Controller::limit_bytes);
        let limit_bytes = own_limit.into_iter().chain(wanted.max_bytes).min();
        let enforcer = limit_bytes.map(|limit| match own_limit {
            Some(kernels) if kernels <= limit => LimitEnforcer::Kernel,
            _ => LimitEnforcer::Agent,
        });
        let high_bytes = wanted.high_bytes.filter(|_| left.high_bytes.is_none());
        let mut guarded = Self {
            target,
            limit_bytes,
            high_bytes,
            enforcer,
            shortcomings,
            memory,
            pressure,
            began: Totals::default(),
        };
        guarded.began = guarded.read();
        Ok(guarded)
    }

    /// The files for the deciding thread, which needs descriptors of its own.
    ///
    /// # Errors
    /// They do not open any more.
    pub fn eyes(&self) -> Result<TargetEyes, GuardError> {
        let memory = self
            .target
            .memory
            .as_ref()
            .map(MemoryFiles::open)
            .transpose()?;
        let pressure = |name: &str| match (&self.pressure, self.target.dir()) {
            (Some(_), Some(dir)) => Reread::open(&dir.join(name)).map(Some),
            _ => Ok(None),
        };
        let io_pressure = pressure("io.pressure")?;
        let pressure = pressure("memory.pressure")?;
        let listing = match &self.target.place {
            Place::Cgroup(dir) => {
                let mut procs = Vec::with_capacity(1 + NESTED);
                procs.push(Reread::open(&dir.join("cgroup.procs"))?);
                Listing::Cgroup(procs)
            }
            Place::Tree(tree) => Listing::Tree(*tree),
        };
        Ok(TargetEyes {
            memory,
            pressure,
            io_pressure,
            listing,
            limit_bytes: self.limit_bytes,
            row: None,
        })
    }

    /// What the target holds now, where a controller counts it.
    pub fn current_bytes(&self) -> Option<u64> {
        self.memory.as_ref()?.current().ok()
    }

    /// What was counted since the target was made ready.
    pub fn totals(&self) -> Totals {
        let (now, began) = (self.read(), self.began);
        let since =
            |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then.unwrap_or(0)));
        Totals {
            psi: now.psi.map(|psi| {
                let then = began.psi.unwrap_or_default();
                Psi {
                    some_us: psi.some_us.saturating_sub(then.some_us),
                    full_us: psi.full_us.saturating_sub(then.full_us),
                }
            }),
            stat: now.stat.map(|stat| {
                let then = began.stat.unwrap_or_default();
                MemoryStat {
                    faults: stat.faults.saturating_sub(then.faults),
                    major_faults: stat.major_faults.saturating_sub(then.major_faults),
                    refault_pages: stat.refault_pages.saturating_sub(then.refault_pages),
                    ..stat
                }
            }),
            oom_kills: since(now.oom_kills, began.oom_kills),
            peak_bytes: now.peak_bytes,
        }
    }

    fn read(&self) -> Totals {
        let memory = self.memory.as_ref();
        Totals {
            psi: self.pressure.as_ref().and_then(read_psi),
            stat: memory.and_then(|m| m.stat().ok()),
            oom_kills: memory.and_then(MemoryFiles::kernel_oom_kills),
            // The peak of a target that was there before is not this run's.
            peak_bytes: memory
                .filter(|_| self.target.is_ours())
                .and_then(MemoryFiles::peak),
        }
    }

    /// How the record describes it.
    pub fn describe(&self) -> incident::Target {
        let dir = self.target.dir();
        incident::Target {
            cgroup_path: dir.map(|dir| incident::Text::of_name(dir.as_os_str().as_encoded_bytes())),
            cgroup_id: dir.map(|_| self.target.id),
            memory_layout: Some(match self.target.memory {
                Some(Controller::V2(_)) => MemoryLayout::V2,
                Some(Controller::V1(_)) => MemoryLayout::V1BesideV2,
                None => MemoryLayout::Agent,
            }),
            limit_enforcer: self.enforcer,
            memory_max_bytes: self.limit_bytes,
            memory_high_bytes: self.high_bytes,
            uid: None,
        }
    }
}

/// A target could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Making or limiting the cgroup failed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// One of its files does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// The machine's files for the deciding thread.
///
/// # Errors
/// `/proc/meminfo` does not open; what only some machines have may be missing.
pub fn machine_eyes() -> Result<MachineEyes, OpenError> {
    Ok(MachineEyes {
        meminfo: Reread::open(Path::new("/proc/meminfo"))?,
        pressure: Reread::open(Path::new("/proc/pressure/memory")).ok(),
        arcstats: Reread::open(&Path::new("/").join(zfs::ARCSTATS)).ok(),
    })
}

/// The memory that a target can have at most, in bytes: the machine's, or what a container or a slice
/// around this process is limited to.
///
/// # Errors
/// `/proc/meminfo` cannot be read.
pub fn room_bytes(layout: &Layout) -> std::io::Result<u64> {
    let text = std::fs::read("/proc/meminfo")?;
    let machine = meminfo::parse(&text)
        .map(|info| info.total_bytes)
        .ok_or_else(|| std::io::Error::other("/proc/meminfo has no MemTotal"))?;
    let own = [
        layout.v2.as_ref().map(|v2| Controller::V2(v2.own_dir())),
        layout
            .v1_memory
            .as_ref()
            .map(|v1| Controller::V1(v1.own_dir())),
    ];
    let limits = own.iter().flatten().filter_map(Controller::limit_bytes);
    Ok(limits.chain([machine]).min().unwrap_or(machine))
}

fn read_psi(file: &Reread) -> Option<Psi> {
    let mut buf = [0; 256];
    psi::parse(file.read_short(&mut buf).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brake_lies_just_below_the_limit_and_where_it_was_asked_for() {
        let at = |wanted, can| brake_bytes(wanted, Some(48 << 20), can);
        assert_eq!(at(Limit::Auto, true), Some(47 << 20));
        let whole_pages = brake_bytes(Limit::Auto, Some(64 << 20), true);
        assert_eq!(whole_pages, Some((64 << 20) - (22 * PAGE_BYTES)));
        assert_eq!(at(Limit::Auto, false), None);
        // That it cannot be had is to be told.
        assert_eq!(at(Limit::Bytes(5), false), Some(5));
        assert_eq!(at(Limit::None, true), None);
        assert_eq!(brake_bytes(Limit::Auto, None, true), None);
    }

    #[test]
    fn the_automatic_limit_leaves_the_machine_a_tenth() {
        const GIB: u64 = 1 << 30;
        assert_eq!(limit_bytes(Limit::Auto, 20 * GIB), Some(18 * GIB));
        assert_eq!(limit_bytes(Limit::Auto, 64 * GIB), Some(60 * GIB));
        assert_eq!(
            limit_bytes(Limit::Auto, 2 * GIB),
            Some(2 * GIB - (512 << 20))
        );
        assert_eq!(limit_bytes(Limit::Auto, GIB / 2), Some(GIB / 4));
        assert_eq!(limit_bytes(Limit::None, GIB), None);
        assert_eq!(limit_bytes(Limit::Bytes(5), GIB), Some(5));
    }
}
