//! Which numbers Prometheus is told, and what they are called there: docs/OPERATIONS.md has the table. How they
//! are written is [`super::text`]'s.
//!
//! Names do not change; units are those that Prometheus is used to: seconds, bytes, shares of one. How many series
//! there can be is bounded whatever others do: of the targets, whose names users choose, [`TARGETS`] are told one by
//! one.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::text::{Family, Text, Type};
use super::{Queue, Snapshot, Spool};
use crate::control::Status;
use crate::control::status::{Counts, GuardedBy, Losses, Oomd, Target};

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
        if let Some(spool) = &self.spool {
            incidents_on_disk(&mut text, spool);
        }
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
        status.since.unix_us().map(|us| us as f64 / US_PER_S),
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
    each(&mut family, "kind", incidents.iter());
    let mut family = text.family(
        "memwatch_interventions_total",
        Type::Counter,
        "Interventions since the daemon began, by the rule that was met.",
    );
    each(&mut family, "rule", interventions.iter());
    let mut family = text.family(
        "memwatch_rungs_total",
        Type::Counter,
        "Steps that were taken in interventions, those of a dry run included.",
    );
    each(&mut family, "rung", rungs.iter());
}

fn each<'a, K: Serialize + 'a>(
    family: &mut Family<'_>,
    label: &str,
    numbers: impl Iterator<Item = (&'a K, &'a u64)>,
) {
    for (key, number) in numbers {
        let word = serde_json::to_value(key).unwrap_or_default();
        family.sample(&[(label, word.as_str().unwrap_or_default())], *number);
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
    let seconds = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).ok();
        since.map(|since| since.as_micros() as f64 / US_PER_S)
    };
    let mut family = text.family(
        "memwatch_exporter_waiting",
        Type::Gauge,
        "Incidents that wait for an exporter.",
    );
    for queue in all {
        family.sample(&[("exporter", &queue.name)], queue.waiting);
    }
    type Count = fn(&Queue) -> u64;
    let counters: [(&str, &str, Count); 3] = [
        (
            "memwatch_exporter_delivered_total",
            "Incidents that were delivered.",
            |queue| queue.delivered,
        ),
        (
            "memwatch_exporter_failures_total",
            "Attempts after which an incident waits on.",
            |queue| queue.failures,
        ),
        (
            "memwatch_exporter_refused_total",
            "Incidents that the receiver will never take.",
            |queue| queue.refused,
        ),
    ];
    for (name, help, count) in counters {
        let mut family = text.family(name, Type::Counter, help);
        for queue in all {
            family.sample(&[("exporter", &queue.name)], count(queue));
        }
    }
    type When = fn(&Queue) -> Option<SystemTime>;
    let times: [(&str, &str, When); 2] = [
        (
            "memwatch_exporter_waiting_since_seconds",
            "Since when the oldest incident waits, since 1970; not there if none does.",
            |queue| queue.waiting_since,
        ),
        (
            "memwatch_exporter_last_delivery_seconds",
            "When an incident was delivered last, since 1970.",
            |queue| queue.delivered_at,
        ),
    ];
    for (name, help, when) in times {
        let mut family = text.family(name, Type::Gauge, help);
        for queue in all {
            if let Some(at) = when(queue).and_then(seconds) {
                family.sample(&[("exporter", &queue.name)], at);
            }
        }
    }
}

fn incidents_on_disk(text: &mut Text, spool: &Spool) {
    text.one(
        "memwatch_spool_incidents",
        Type::Gauge,
        "Incidents on the disk.",
        spool.incidents,
    );
    text.one(
        "memwatch_spool_bytes",
        Type::Gauge,
        "What incidents take on the disk.",
        spool.bytes,
    );
    text.one(
        "memwatch_spool_evicted_total",
        Type::Counter,
        "Incidents that were removed for newer ones before all exporters had them.",
        spool.evicted,
    );
}

#[cfg(test)]
mod tests;
