//! Which figures are sent: what the daemon says of itself and of its targets, and what waits for exporters. Names
//! follow the semantic conventions' way; the conventions themselves have none for pressure. Pure.

use crate::control::Status;
use crate::export::otlp::metrics::{Amount, Measure, Point};
use crate::export::standing::Report;

/// All of them; without a daemon those that need none. `kept` is how many incidents are on the disk.
pub(super) fn measures(status: Option<&Status>, exporters: &[Report], kept: usize) -> Vec<Measure> {
    let mut all = vec![
        one(
            "memwatch.daemon.up",
            "1 while the daemon answers",
            "1",
            Amount::Whole(status.is_some().into()),
        ),
        one(
            "memwatch.incidents.kept",
            "Incidents on the disk",
            "{incident}",
            Amount::Whole(kept as u64),
        ),
    ];
    all.extend(of_exporters(exporters));
    if let Some(status) = status {
        all.extend(of_machine(status));
        all.extend(of_targets(status));
        all.push(losses(status));
    }
    all
}

fn one(
    name: &'static str,
    description: &'static str,
    unit: &'static str,
    value: Amount,
) -> Measure {
    let of = Vec::new();
    Measure {
        name,
        description,
        unit,
        is_count: false,
        points: vec![Point { of, value }],
    }
}

fn of_exporters(exporters: &[Report]) -> [Measure; 3] {
    let measure = |name, description, is_count, get: fn(&Report) -> u64| Measure {
        name,
        description,
        unit: "{incident}",
        is_count,
        points: exporters
            .iter()
            .map(|report| Point {
                of: vec![("exporter", report.name.clone())],
                value: Amount::Whole(get(report)),
            })
            .collect(),
    };
    [
        measure(
            "memwatch.exporter.waiting",
            "Incidents that an exporter has still to deliver",
            false,
            |report| report.waiting as u64,
        ),
        measure(
            "memwatch.exporter.refused",
            "Incidents that a receiver has refused for good",
            false,
            |report| report.refused as u64,
        ),
        measure(
            "memwatch.exporter.lost",
            "Incidents that will not be delivered: removed for newer ones, or not in the queue",
            true,
            |report| report.lost,
        ),
    ]
}

fn of_machine(status: &Status) -> Vec<Measure> {
    let machine = &status.machine;
    let mut all = vec![
        one(
            "memwatch.machine.memory.available",
            "Memory that is free or could be freed",
            "By",
            Amount::Whole(machine.available_bytes),
        ),
        one(
            "memwatch.machine.memory.total",
            "Memory of the machine",
            "By",
            Amount::Whole(machine.total_bytes),
        ),
        one(
            "memwatch.oomd.taken_over",
            "1 while memwatch looks after the units of systemd-oomd",
            "1",
            Amount::Whole(status.oomd.taken_over.into()),
        ),
        one(
            "memwatch.targets",
            "Guarded cgroups",
            "{target}",
            Amount::Whole(status.targets.len() as u64),
        ),
    ];
    let stalls = [
        ("some", machine.some_permille),
        ("full", machine.full_permille),
    ];
    all.push(Measure {
        name: "memwatch.machine.pressure",
        description: "Share of the last seconds in which tasks waited for memory",
        unit: "1",
        is_count: false,
        points: stalls
            .into_iter()
            .filter_map(|(kind, permille)| {
                Some(Point {
                    of: vec![("kind", kind.to_owned())],
                    value: share(permille?),
                })
            })
            .collect(),
    });
    all
}

fn of_targets(status: &Status) -> Vec<Measure> {
    type Get = fn(&crate::control::status::Target) -> Option<Amount>;
    let measure = |name, description, unit, is_count, get: Get| Measure {
        name,
        description,
        unit,
        is_count,
        points: status
            .targets
            .iter()
            .filter_map(|target| {
                Some(Point {
                    of: vec![("cgroup", target.cgroup.to_string())],
                    value: get(target)?,
                })
            })
            .collect(),
    };
    let mut pressure = measure("memwatch.target.pressure", "", "1", false, |_| None);
    pressure.description = "Share of the last seconds in which tasks of a target waited for memory";
    for target in &status.targets {
        for (kind, permille) in [
            ("some", target.some_permille),
            ("full", target.full_permille),
        ] {
            if let Some(permille) = permille {
                pressure.points.push(Point {
                    of: vec![
                        ("cgroup", target.cgroup.to_string()),
                        ("kind", kind.to_owned()),
                    ],
                    value: share(permille),
                });
            }
        }
    }
    vec![
        measure(
            "memwatch.target.memory.usage",
            "Memory that is charged to a target",
            "By",
            false,
            |target| target.current_bytes.map(Amount::Whole),
        ),
        measure(
            "memwatch.target.memory.limit",
            "Its limit",
            "By",
            false,
            |target| target.limit_bytes.map(Amount::Whole),
        ),
        measure(
            "memwatch.target.processes",
            "Processes of a target",
            "{process}",
            false,
            |target| Some(Amount::Whole(target.processes)),
        ),
        measure(
            "memwatch.target.interventions",
            "How often memwatch has stepped in on a target",
            "{intervention}",
            true,
            |target| Some(Amount::Whole(target.interventions)),
        ),
        pressure,
    ]
}

fn losses(status: &Status) -> Measure {
    let losses = &status.losses;
    let of = [
        ("late_looks", losses.late_looks),
        ("dropped_notices", losses.dropped_notices),
        ("ring_drops", losses.ring_drops),
        ("hung_helpers", losses.hung_helpers),
        ("dropped_jobs", losses.dropped_jobs),
        ("lost_incidents", losses.lost_incidents),
        ("untracked_processes", losses.untracked_processes),
        ("dropped_events", losses.dropped_events),
    ];
    Measure {
        name: "memwatch.losses",
        description: "What was not seen or not told, by kind",
        unit: "1",
        // Two of them are of the moment.
        is_count: false,
        points: of
            .into_iter()
            .map(|(kind, count)| Point {
                of: vec![("kind", kind.to_owned())],
                value: Amount::Whole(count),
            })
            .collect(),
    }
}

fn share(permille: u32) -> Amount {
    Amount::Share(f64::from(permille) / 1000.0)
}
