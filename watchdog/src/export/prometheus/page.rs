//! Which numbers Prometheus is told, and what they are called there: docs/OPERATIONS.md has the table. How they
//! are written is [`super::text`]'s.
//!
//! Names do not change; units are those that Prometheus is used to: seconds, bytes, shares of one. How many series
//! there can be is bounded whatever others do: of the targets, whose names users choose, [`TARGETS`] are told one by
//! one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::text::{Family, Number, Text, Type};
use super::{Queue, Snapshot};
use crate::control::Status;
use crate::control::status::{Counts, GuardedBy, Losses, Oomd, Target};
use crate::export::words::word;
use crate::incident::{Kind, Rule, Timestamp};
use crate::watch::Rung;

/// As many targets are told one by one: first those that the configuration names, then the oldest, so that a
/// series that has begun goes on. How many are left out is a number of its own.
pub const TARGETS: usize = 128;

const PER_THOUSAND: f64 = 1000.0;
const US_PER_S: f64 = 1_000_000.0;

impl Snapshot {
    /// As a scrape gets it.
    #[must_use]
    pub fn page(&self) -> String {
        let mut text = Text::default();
        let mut version = text.family(
            "memwatch_build_info",
            Type::Gauge,
            "The memwatch that tells this.",
        );
        version.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.one(
            "memwatch_daemon_up",
            Type::Gauge,
            "Whether the daemon answers.",
            self.status.is_some(),
        );
        if let Some(status) = &self.status {
            daemon(&mut text, status);
            targets(&mut text, &status.targets);
            counts(&mut text, &status.counts);
            oomd(&mut text, &status.oomd);
            losses(&mut text, &status.losses);
        }
        exporters(&mut text, &self.exporters);
        text.maybe(
            "memwatch_incidents_kept",
            Type::Gauge,
            "Incidents on the disk.",
            self.kept,
        );
        text.into_string()
    }
}

fn daemon(text: &mut Text, status: &Status) {
    let mut version = text.family("memwatch_daemon_info", Type::Gauge, "The daemon.");
    version.sample(&[("version", status.memwatch.as_str())], 1);
    text.maybe(
        "memwatch_daemon_start_time_seconds",
        Type::Gauge,
        "When the daemon began, since 1970.",
        unix_seconds(&status.since),
    );
    text.one(
        "memwatch_features_lost",
        Type::Gauge,
        "What this machine does not offer memwatch: memwatch status says what.",
        status.features_lost.len() as u64,
    );
    let machine = &status.machine;
    text.one(
        "memwatch_machine_memory_available_bytes",
        Type::Gauge,
        "Memory of the machine that is free or could be freed, what ZFS would give back included.",
        machine.available_bytes,
    );
    text.one(
        "memwatch_machine_memory_total_bytes",
        Type::Gauge,
        "All memory of the machine.",
        machine.total_bytes,
    );
    let mut pressure = text.family(
        "memwatch_machine_memory_pressure_ratio",
        Type::Gauge,
        "Share of the last seconds in which some task of the machine waited for memory, and all at once.",
    );
    stall(
        &mut pressure,
        &[],
        machine.some_permille,
        machine.full_permille,
    );
}

fn stall(family: &mut Family<'_>, labels: &[(&str, &str)], some: Option<u32>, full: Option<u32>) {
    for (name, permille) in [("some", some), ("full", full)] {
        if let Some(permille) = permille {
            let labels = [labels, &[("stall", name)]].concat();
            family.sample(&labels, f64::from(permille) / PER_THOUSAND);
        }
    }
}

fn targets(text: &mut Text, all: &[Target]) {
    let told = chosen(all);
    let help = "What memwatch guards.";
    text.one("memwatch_targets", Type::Gauge, help, all.len() as u64);
    text.one(
        "memwatch_targets_left_out",
        Type::Gauge,
        "Targets that are not told one by one: too many, or two of one name.",
        (all.len() - told.len()) as u64,
    );
    let mut info = text.family(
        "memwatch_target_info",
        Type::Gauge,
        "Who attached a target, and who acts on it.",
    );
    for target in &told {
        let uid = target.uid.map(|uid| uid.to_string()).unwrap_or_default();
        let guard = match target.guarded_by {
            GuardedBy::Daemon => "daemon",
            GuardedBy::DaemonAndKernelGuard => "daemon_and_kernel_guard",
        };
        let labels = [
            ("cgroup", target.cgroup.as_str()),
            ("uid", uid.as_str()),
            ("guarded_by", guard),
        ];
        info.sample(&labels, 1);
    }
    type Read = fn(&Target) -> Option<u64>;
    let numbers: [(&str, Type, &str, Read); 4] = [
        (
            "memwatch_target_memory_bytes",
            Type::Gauge,
            "Memory that a target uses.",
            |target| target.current_bytes,
        ),
        (
            "memwatch_target_memory_limit_bytes",
            Type::Gauge,
            "A target's limit; not there without one.",
            |target| target.limit_bytes,
        ),
        (
            "memwatch_target_processes",
            Type::Gauge,
            "Processes in a target and below.",
            |target| Some(target.processes),
        ),
        (
            "memwatch_target_interventions_total",
            Type::Counter,
            "How often memwatch stepped in.",
            |target| Some(target.interventions),
        ),
    ];
    for (name, what, help, read) in numbers {
        let mut family = text.family(name, what, help);
        for target in &told {
            if let Some(number) = read(target) {
                family.sample(&[("cgroup", target.cgroup.as_str())], number);
            }
        }
    }
    let mut pressure = text.family(
        "memwatch_target_memory_pressure_ratio",
        Type::Gauge,
        "Share of the last seconds in which some task of a target waited for memory, and all at once.",
    );
    for target in &told {
        let labels = [("cgroup", target.cgroup.as_str())];
        stall(
            &mut pressure,
            &labels,
            target.some_permille,
            target.full_permille,
        );
    }
}

/// Those that are told one by one. A page in which two series have the same labels would be refused as a whole, so
/// of two that bear one name, as a cgroup that was removed and made again, the newer one is told.
fn chosen(all: &[Target]) -> Vec<&Target> {
    let mut newest_first: Vec<&Target> = all.iter().collect();
    newest_first.sort_by_key(|target| std::cmp::Reverse(target.id));
    let mut names = BTreeSet::new();
    newest_first.retain(|target| names.insert(&target.cgroup));
    let mut told = newest_first;
    told.sort_by_key(|target| (target.uid.is_some(), target.since.unix_us(), target.id));
    told.truncate(TARGETS);
    told
}

const KINDS: [Kind; 13] = [
    Kind::Run,
    Kind::Test,
    Kind::NearMiss,
    Kind::Warn,
    Kind::Hang,
    Kind::Freeze,
    Kind::Abort,
    Kind::KernelOom,
    Kind::Kill,
    Kind::Timeout,
    Kind::Takeover,
    Kind::HandBack,
    Kind::HardReset,
];
const RULES: [Rule; 11] = [
    Rule::Exhaustion,
    Rule::MachineExhaustion,
    Rule::Stall,
    Rule::MachineStall,
    Rule::Timeout,
    Rule::TestMemory,
    Rule::TestTimeout,
    Rule::NoProgress,
    Rule::Guard,
    Rule::OomdPressure,
    Rule::OomdSwap,
];
const RUNGS: [Rung; 6] = [
    Rung::Warn,
    Rung::Abort,
    Rung::Sigint,
    Rung::Sigterm,
    Rung::Sigkill,
    Rung::Freeze,
];

fn counts(text: &mut Text, counts: &Counts) {
    let Counts {
        incidents,
        interventions,
        rungs,
    } = counts;
    let mut family = text.family(
        "memwatch_incidents_total",
        Type::Counter,
        "Incidents since the daemon began.",
    );
    each(&mut family, "kind", &KINDS, incidents);
    let mut family = text.family(
        "memwatch_interventions_total",
        Type::Counter,
        "Interventions since the daemon began, by the rule that was met.",
    );
    each(&mut family, "rule", &RULES, interventions);
    let mut family = text.family(
        "memwatch_rungs_total",
        Type::Counter,
        "Steps that were taken in interventions, those of a dry run included.",
    );
    each(&mut family, "rung", &RUNGS, rungs);
}

/// Those that have not happened, too: of a series that begins with 1, Prometheus does not see the rise.
fn each<K: Ord + Serialize>(
    family: &mut Family<'_>,
    label: &str,
    all: &[K],
    numbers: &BTreeMap<K, u64>,
) {
    for key in all {
        let number = numbers.get(key).copied().unwrap_or(0);
        family.sample(&[(label, &word(key))], number);
    }
}

fn oomd(text: &mut Text, oomd: &Oomd) {
    let mut state = text.family(
        "memwatch_oomd_info",
        Type::Gauge,
        "How systemd-oomd is, as memwatch sees it.",
    );
    state.sample(&[("state", oomd.state.as_str())], 1);
    text.one(
        "memwatch_oomd_taken_over",
        Type::Gauge,
        "Whether memwatch looks after the units of systemd-oomd.",
        oomd.taken_over,
    );
    text.one(
        "memwatch_oomd_managed_units",
        Type::Gauge,
        "Units that systemd-oomd is told to manage.",
        oomd.managed_units,
    );
    text.one(
        "memwatch_oomd_kills_total",
        Type::Counter,
        "Cgroups that memwatch has ended in units of systemd-oomd.",
        oomd.kills,
    );
}

fn losses(text: &mut Text, losses: &Losses) {
    let mut family = text.family(
        "memwatch_losses_total",
        Type::Counter,
        "What was not seen in time or not told, since the daemon began.",
    );
    for (what, number) in [
        ("late_looks", losses.late_looks),
        ("dropped_notices", losses.dropped_notices),
        ("ring_drops", losses.ring_drops),
        ("dropped_jobs", losses.dropped_jobs),
        ("lost_incidents", losses.lost_incidents),
        ("dropped_events", losses.dropped_events),
    ] {
        family.sample(&[("what", what)], number);
    }
    text.one(
        "memwatch_longest_delay_seconds",
        Type::Gauge,
        "By how much the latest look was late, since the daemon began.",
        losses.longest_delay_us as f64 / US_PER_S,
    );
    text.one(
        "memwatch_hung_helpers",
        Type::Gauge,
        "Threads of the daemon that hang in a call to the kernel.",
        losses.hung_helpers,
    );
    text.one(
        "memwatch_untracked_processes",
        Type::Gauge,
        "Processes that there is no room to track, now.",
        losses.untracked_processes,
    );
}

fn exporters(text: &mut Text, all: &[Queue]) {
    type Read = fn(&Queue) -> Option<Number>;
    let numbers: [(&str, Type, &str, Read); 5] = [
        (
            "memwatch_exporter_waiting",
            Type::Gauge,
            "Incidents that wait for an exporter.",
            |queue| Some(queue.waiting.into()),
        ),
        (
            "memwatch_exporter_failing",
            Type::Gauge,
            "Whether an exporter's last try failed.",
            |queue| Some(queue.failing.into()),
        ),
        (
            "memwatch_exporter_refused",
            Type::Gauge,
            "Incidents that a receiver will never take.",
            |queue| Some(queue.refused.into()),
        ),
        (
            "memwatch_exporter_lost_total",
            Type::Counter,
            "Incidents that an exporter will not deliver: removed for newer ones, or not in its queue.",
            |queue| Some(queue.lost.into()),
        ),
        (
            "memwatch_exporter_last_delivery_seconds",
            Type::Gauge,
            "When an exporter delivered an incident last, since 1970.",
            |queue| Some(unix_seconds(queue.delivered_at.as_ref()?)?.into()),
        ),
    ];
    for (name, what, help, read) in numbers {
        let mut family = text.family(name, what, help);
        for queue in all {
            if let Some(number) = read(queue) {
                family.sample(&[("exporter", &queue.name)], number);
            }
        }
    }
}

fn unix_seconds(time: &Timestamp) -> Option<f64> {
    time.unix_us().map(|us| us as f64 / US_PER_S)
}

#[cfg(test)]
mod tests;
