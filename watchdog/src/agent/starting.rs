//! The steps of a start, and the way back if it fails half-way. Their order, and what follows, is
//! [`super::run`]'s.

use super::adopt;
use super::flight::Flights;
use super::guarded::{self, Guarded};
use super::inheritance::Inheritance;
use super::launch;
use super::recording::{self, Recording};
use super::run::{Orders, Running, Subject};
use crate::act::{self, Mode};
use crate::bpf;
use crate::config::{Attach, OnPressure};
use crate::host::cgroup::{Limits, Target};
use crate::host::layout::Layout;
use crate::watch::{Response, Settings};
use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use std::path::Path;
use std::sync::Arc;

/// A recording into a file that is not there yet.
pub(super) fn open_recording(path: &Path, flights: &Arc<Flights>) -> anyhow::Result<Recording> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| {
            format!(
                "cannot create the recording {}; name a file that does not exist yet",
                path.display()
            )
        })?;
    recording::start(file, Arc::clone(flights)).context("cannot start the recorder")
}

/// The target, made or found, with its limits.
pub(super) fn make_ready(orders: &Orders, layout: &Layout) -> anyhow::Result<Guarded> {
    let room = guarded::room_bytes(layout).context("cannot read /proc/meminfo")?;
    let max_bytes = guarded::limit_bytes(orders.attach.memory_max, room);
    let (target, lacks) = match &orders.subject {
        Subject::Cgroup(path) => (Target::existing(layout, path)?, None),
        // Orphans of a tree that memwatch did not start would be lost sight of.
        Subject::Pid(_) => (Target::create(layout)?, None),
        Subject::Program(_) => match Target::create(layout) {
            Ok(target) => (target, None),
            Err(why) => match Target::tree() {
                Ok(target) => (target, Some(guarded::without_cgroup(&why))),
                Err(_) => return Err(why.into()),
            },
        },
    };
    if let Some(terms) = guard_terms(orders) {
        target.leave_terms(&terms.to_string());
    }
    let high_bytes =
        guarded::brake_bytes(orders.attach.memory_high, max_bytes, target.can_be_braked());
    let limits = Limits {
        max_bytes,
        high_bytes,
    };
    let mut guarded = Guarded::new(target, limits)?;
    guarded.shortcomings.extend(lacks);
    Ok(guarded)
}

/// Puts into it what is to be guarded.
pub(super) fn start(
    orders: &Orders,
    guarded: &Guarded,
    layout: &Layout,
    inheritance: &Inheritance,
) -> anyhow::Result<Running> {
    match &orders.subject {
        Subject::Program(program) => {
            let entrances = guarded.target.entrances()?;
            let child = launch::launch(program, &entrances, inheritance)?;
            Ok(Running::Child { pid: child.id() })
        }
        Subject::Pid(pid) => Ok(Running::Adopted(adopt::adopt(
            *pid,
            &guarded.target,
            layout,
        )?)),
        Subject::Cgroup(_) => Ok(Running::Cgroup),
    }
}

/// Takes back a start: memwatch cannot guard after all. A command of ours ends, what was adopted goes
/// back.
pub(super) fn undo(subject: &Running, target: &Target) {
    match subject {
        Running::Child { pid } => {
            act::target::kill(&target.place, Mode::Real);
            let _ = nix::sys::wait::waitpid(Pid::from_raw(*pid as i32), None);
        }
        Running::Adopted(adopted) => drop(adopted.give_back(target)),
        Running::Cgroup => {}
    }
}

/// On what terms the guard stands over the target of a run.
pub(super) fn guard_terms(orders: &Orders) -> Option<bpf::Terms> {
    let attach = &orders.attach;
    terms(&orders.settings, attach.on_pressure, attach.dry_run, None)
}

/// The guard kills and can do nothing else, so it stands where killing is what was asked for. `uid` is the
/// user whose processes alone may be hit; `None` for any.
pub(super) fn terms(
    settings: &Settings,
    on_pressure: OnPressure,
    dry_run: bool,
    uid: Option<u32>,
) -> Option<bpf::Terms> {
    let kills = on_pressure == OnPressure::Kill && !dry_run;
    kills.then(|| bpf::Terms {
        stale_after: settings.guard_stale_after,
        budget: settings.stall_window * settings.guard_stall_permille / 1000,
        window: settings.stall_window,
        pause: settings.death_grace + settings.settle,
        uid,
    })
}

/// What the policy may do, in its own words.
pub(super) fn response(on_pressure: OnPressure) -> Response {
    match on_pressure {
        OnPressure::Kill => Response::Kill,
        OnPressure::Freeze => Response::Freeze,
        OnPressure::Warn => Response::Warn,
    }
}

/// How many files this process may have open.
pub(super) fn open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// The CPUs that safe mode leaves to the command.
pub(super) fn safe_cpus(attach: &Attach) -> Option<usize> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    attach.safe.then(|| (cpus / 2).clamp(1, 2))
}
