//! What happened at a moment: steps of the ladder, kills, tasks that hung.

use super::super::{Intervention, KilledBy, Outcome, Record, RungTaken};
use crate::watch::Rung;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When, from the start of the run.
    pub at_us: i64,
    /// What sort of thing.
    pub sort: Sort,
    /// The process that it happened to; `None` for the target as a whole.
    pub pid: Option<u32>,
    /// In words, names escaped.
    pub text: String,
}

/// The sorts of marks, the gravest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sort {
    /// The rule was met, and nobody was to be signalled for it.
    Met,
    /// It was near, and got away by itself.
    Near,
    /// Said.
    Warn,
    /// The test that ran was to fail.
    Abort,
    /// The target was stopped where it was.
    Freeze,
    /// A run of pytest was interrupted.
    Sigint,
    /// Asked to end.
    Sigterm,
    /// A task was in uninterruptible sleep for long.
    Blocked,
    /// The kernel reported a hung task.
    Hung,
    /// Ended.
    Sigkill,
    /// Ended by the guard in the kernel.
    Guard,
    /// Ended by the kernel's OOM killer.
    KernelOom,
}

impl Sort {
    /// All of them, the gravest last.
    pub const ALL: [Self; 12] = [
        Self::Met,
        Self::Near,
        Self::Warn,
        Self::Abort,
        Self::Freeze,
        Self::Sigint,
        Self::Sigterm,
        Self::Blocked,
        Self::Hung,
        Self::Sigkill,
        Self::Guard,
        Self::KernelOom,
    ];

    /// The letter that stands in its mark.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Met => "R",
            Self::Near => "N",
            Self::Warn => "W",
            Self::Abort => "A",
            Self::Freeze => "F",
            Self::Sigint => "I",
            Self::Sigterm => "T",
            Self::Blocked => "D",
            Self::Hung => "H",
            Self::Sigkill => "K",
            Self::Guard => "G",
            Self::KernelOom => "O",
        }
    }

    /// What it means.
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Met => "rule met",
            Self::Near => "near miss",
            Self::Warn => "warning",
            Self::Abort => "test failed",
            Self::Freeze => "freeze",
            Self::Sigint => "SIGINT",
            Self::Sigterm => "SIGTERM",
            Self::Blocked => "blocked task",
            Self::Hung => "hung task",
            Self::Sigkill => "SIGKILL",
            Self::Guard => "killed by the guard",
            Self::KernelOom => "kernel OOM kill",
        }
    }

    /// Whether somebody was ended by it.
    #[must_use]
    pub fn is_kill(self) -> bool {
        matches!(self, Self::Sigkill | Self::Guard | Self::KernelOom)
    }

    fn of(rung: Rung) -> Self {
        match rung {
            Rung::Warn => Self::Warn,
            Rung::Abort => Self::Abort,
            Rung::Freeze => Self::Freeze,
            Rung::Sigint => Self::Sigint,
            Rung::Sigterm => Self::Sigterm,
            Rung::Sigkill => Self::Sigkill,
        }
    }
}

/// Everything in `record` that has a moment, in order.
#[must_use]
pub fn marks(record: &Record) -> Vec<Mark> {
    let mut marks = Vec::new();
    for intervention in &record.interventions {
        if intervention.rungs.is_empty() {
            marks.push(met(intervention));
        }
        marks.extend(
            intervention
                .rungs
                .iter()
                .map(|taken| rung(taken, intervention, record.dry_run)),
        );
    }
    marks.extend(record.near_miss.as_ref().map(|near| Mark {
        at_us: signed(near.at_us),
        sort: Sort::Near,
        pid: None,
        text: format!(
            "{} (memwatch steps in at {})",
            near.observed.text, near.threshold.text
        ),
    }));
    let by_guard = record
        .victims
        .iter()
        .filter(|victim| victim.killed_by == KilledBy::Guard);
    marks.extend(by_guard.filter_map(|victim| {
        Some(Mark {
            at_us: signed(victim.at_us?),
            sort: Sort::Guard,
            pid: Some(victim.process.pid),
            text: format!(
                "{} ({}), {}",
                victim.process.comm, victim.process.pid, victim.reason
            ),
        })
    }));
    marks.extend(record.kernel_oom.iter().filter_map(|victim| {
        Some(Mark {
            at_us: signed(victim.at_us?),
            sort: Sort::KernelOom,
            pid: Some(victim.pid),
            text: format!("{} ({})", victim.comm, victim.pid),
        })
    }));
    marks.extend(record.hung_tasks.iter().filter_map(|task| {
        Some(Mark {
            at_us: signed(task.at_us?),
            sort: Sort::Hung,
            pid: Some(task.tid),
            text: format!("{} (tid {})", task.comm, task.tid),
        })
    }));
    marks.extend(record.blocked_tasks.iter().filter_map(|task| {
        let function = task
            .function
            .as_ref()
            .map_or(String::new(), |it| format!(" in {it}"));
        Some(Mark {
            at_us: signed(task.at_us?),
            sort: Sort::Blocked,
            pid: Some(task.pid),
            text: format!("{} (tid {}){function}", task.comm, task.tid),
        })
    }));
    marks.sort_by_key(|mark| (mark.at_us, mark.sort));
    marks
}

fn met(it: &Intervention) -> Mark {
    Mark {
        at_us: signed(it.at_us),
        sort: Sort::Met,
        pid: it.victim.as_ref().map(|victim| victim.pid),
        text: it.observed.text.to_string(),
    }
}

fn rung(taken: &RungTaken, of: &Intervention, is_dry: bool) -> Mark {
    let known = of
        .victim
        .as_ref()
        .filter(|victim| Some(victim.pid) == taken.pid);
    let whom = match (known, taken.pid) {
        (Some(victim), _) => format!("{} ({})", victim.comm, victim.pid),
        (None, Some(pid)) => format!("process {pid}"),
        (None, None) => "the target".to_owned(),
    };
    let outcome = match taken.outcome {
        Outcome::Delivered if !is_dry => "",
        Outcome::Delivered | Outcome::DryRun => ", dry run: not sent",
        Outcome::Gone => ", which was gone",
        Outcome::Refused { .. } => ", which the kernel refused",
    };
    Mark {
        at_us: signed(taken.at_us),
        sort: Sort::of(taken.rung),
        pid: taken.pid,
        text: format!("{whom}{outcome}: {}", of.observed.text),
    }
}

pub(super) fn signed(us: u64) -> i64 {
    super::within_reason(i64::try_from(us).unwrap_or(i64::MAX))
}
