//! By what targets are sorted: the columns that have an order, and the order. Pure.

use std::cmp::Ordering;

use clap::ValueEnum;

use crate::control::status::Target;

/// A column to sort by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// The share of time in which all of its tasks waited for memory, then some
    #[default]
    Pressure,
    /// Memory that it uses
    Memory,
    /// Memory that it uses, of its limit
    Used,
    /// Processes in it
    Processes,
    /// How often memwatch has stepped in
    Interventions,
    /// Since when it is guarded
    Time,
    /// Who attached it
    User,
    /// Its cgroup's name
    Target,
}

impl Sort {
    /// All of them, as the menu has them.
    pub(super) const ALL: [Self; 8] = [
        Self::Pressure,
        Self::Memory,
        Self::Used,
        Self::Processes,
        Self::Interventions,
        Self::Time,
        Self::User,
        Self::Target,
    ];

    /// What the menu and the last line call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pressure => "pressure",
            Self::Memory => "memory",
            Self::Used => "memory of limit",
            Self::Processes => "processes",
            Self::Interventions => "interventions",
            Self::Time => "time",
            Self::User => "user",
            Self::Target => "target",
        }
    }

    /// How two targets stand: figures with the largest first, names with the first letter first. Where they are
    /// alike, by name, so that nothing dances.
    pub(super) fn compare(self, one: &Target, other: &Target) -> Ordering {
        let larger = |figure: fn(&Target) -> u64| figure(other).cmp(&figure(one));
        let order = match self {
            Self::Pressure => pressure(other).cmp(&pressure(one)),
            Self::Memory => larger(|it| it.current_bytes.unwrap_or(0)),
            Self::Used => larger(|it| u64::from(used_permille(it).unwrap_or(0))),
            Self::Processes => larger(|it| it.processes),
            Self::Interventions => larger(|it| it.interventions),
            // Who is guarded for longest, first.
            Self::Time => one.since.unix_us().cmp(&other.since.unix_us()),
            Self::User => one.uid.cmp(&other.uid),
            Self::Target => Ordering::Equal,
        };
        order
            .then_with(|| one.cgroup.cmp(&other.cgroup))
            .then(one.id.cmp(&other.id))
    }
}

fn pressure(target: &Target) -> (Option<u32>, Option<u32>) {
    (target.full_permille, target.some_permille)
}

/// What a target uses of its limit, as far as both are known.
pub(super) fn used_permille(target: &Target) -> Option<u32> {
    permille(target.current_bytes?, target.limit_bytes?)
}

/// `part` of `whole`, at most all of it; `None` of nothing.
pub(super) fn permille(part: u64, whole: u64) -> Option<u32> {
    let share = (u128::from(part) * 1000).checked_div(u128::from(whole))?;
    u32::try_from(share.min(1000)).ok()
}
