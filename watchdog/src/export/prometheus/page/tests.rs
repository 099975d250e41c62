//! What a scrape reads. The real Prometheus is in `tests/exporters`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::control::status::{Machine, SCHEMA_VERSION};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn target(id: u64, uid: Option<u32>) -> Target {
    Target {
        id,
        cgroup: format!("/sys/fs/cgroup/app-{id}.scope").as_str().into(),
        uid,
        since: Timestamp::from(at(1_772_356_400 + id)),
        current_bytes: Some(512),
        limit_bytes: None,
        some_permille: Some(41),
        full_permille: Some(7),
        processes: 12,
        interventions: 3,
        guarded_by: GuardedBy::DaemonAndKernelGuard,
    }
}

fn snapshot(targets: Vec<Target>) -> Snapshot {
    let status = Status {
        schema_version: SCHEMA_VERSION,
        memwatch: "0.0.1".into(),
        pid: 1,
        since: Timestamp::from(at(1_772_356_400)),
        machine: Machine {
            available_bytes: 3,
            total_bytes: 4,
            swap_total_bytes: None,
            swap_free_bytes: None,
            some_permille: Some(1000),
            full_permille: None,
        },
        targets,
        oomd: Oomd {
            state: "well".into(),
            reason: None,
            since: None,
            managed_units: 2,
            taken_over: false,
            kills: 5,
        },
        counts: Counts {
            incidents: [(Kind::Kill, 2), (Kind::NearMiss, 1)].into(),
            interventions: [(Rule::MachineExhaustion, 2)].into(),
            rungs: [(Rung::Sigterm, 2), (Rung::Sigkill, 1)].into(),
        },
        exporters: Vec::new(),
        losses: Losses {
            late_looks: 6,
            longest_delay_us: 1500,
            ..Losses::default()
        },
        features_lost: Vec::new(),
    };
    let queue = Queue {
        name: "otlp".to_owned(),
        waiting: 4,
        refused: 1,
        lost: 2,
        failing: true,
        delivered_at: None,
    };
    let mut delivering = queue.clone();
    delivering.name = "journal".to_owned();
    delivering.delivered_at = Some(Timestamp::from(at(1_772_356_500)));
    Snapshot {
        status: Some(status),
        exporters: vec![queue, delivering],
        kept: Some(7),
    }
}

/// What has that name, with its labels.
fn series<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let named = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    page.lines().filter(named).collect()
}

#[test]
fn everything_that_is_known_is_told() {
    let page = snapshot(vec![target(7, Some(1000))]).page();
    for line in [
        "memwatch_daemon_up 1",
        "memwatch_daemon_info{version=\"0.0.1\"} 1",
        "memwatch_daemon_start_time_seconds 1772356400",
        "memwatch_machine_memory_available_bytes 3",
        "memwatch_machine_memory_total_bytes 4",
        "memwatch_machine_memory_pressure_ratio{stall=\"some\"} 1",
        "memwatch_targets 1",
        "memwatch_targets_left_out 0",
        "memwatch_target_info{cgroup=\"/sys/fs/cgroup/app-7.scope\",uid=\"1000\",guarded_by=\"daemon_and_kernel_guard\"} 1",
        "memwatch_target_memory_bytes{cgroup=\"/sys/fs/cgroup/app-7.scope\"} 512",
        "memwatch_target_processes{cgroup=\"/sys/fs/cgroup/app-7.scope\"} 12",
        "memwatch_target_interventions_total{cgroup=\"/sys/fs/cgroup/app-7.scope\"} 3",
        "memwatch_target_memory_pressure_ratio{cgroup=\"/sys/fs/cgroup/app-7.scope\",stall=\"some\"} 0.041",
        "memwatch_target_memory_pressure_ratio{cgroup=\"/sys/fs/cgroup/app-7.scope\",stall=\"full\"} 0.007",
        "memwatch_incidents_total{kind=\"kill\"} 2",
        "memwatch_incidents_total{kind=\"near_miss\"} 1",
        "memwatch_incidents_total{kind=\"hard_reset\"} 0",
        "memwatch_interventions_total{rule=\"machine_exhaustion\"} 2",
        "memwatch_rungs_total{rung=\"sigterm\"} 2",
        "memwatch_oomd_info{state=\"well\"} 1",
        "memwatch_oomd_taken_over 0",
        "memwatch_oomd_managed_units 2",
        "memwatch_oomd_kills_total 5",
        "memwatch_losses_total{what=\"late_looks\"} 6",
        "memwatch_longest_delay_seconds 0.0015",
        "memwatch_hung_helpers 0",
        "memwatch_exporter_waiting{exporter=\"otlp\"} 4",
        "memwatch_exporter_failing{exporter=\"otlp\"} 1",
        "memwatch_exporter_refused{exporter=\"otlp\"} 1",
        "memwatch_exporter_lost_total{exporter=\"otlp\"} 2",
        "memwatch_exporter_last_delivery_seconds{exporter=\"journal\"} 1772356500",
        "memwatch_incidents_kept 7",
    ] {
        assert!(page.lines().any(|told| told == line), "{line} in\n{page}");
    }
    let unknown = "memwatch_target_memory_limit_bytes";
    assert_eq!(series(&page, unknown), Vec::<&str>::new());
    let delivered = series(&page, "memwatch_exporter_last_delivery_seconds");
    assert_eq!(delivered.len(), 1, "{delivered:?}");
}

#[test]
fn a_daemon_that_does_not_answer_is_told_and_nothing_is_made_up() {
    let page = Snapshot::default().page();
    assert_eq!(
        series(&page, "memwatch_daemon_up"),
        ["memwatch_daemon_up 0"]
    );
    assert_eq!(series(&page, "memwatch_build_info").len(), 1);
    assert!(!page.contains("memwatch_machine"), "{page}");
    assert!(!page.contains("memwatch_losses"), "{page}");
}

#[test]
fn of_too_many_targets_those_of_the_configuration_and_the_oldest_are_told() {
    let mut all: Vec<Target> = (0..1000).rev().map(|id| target(id, Some(1000))).collect();
    all.push(target(5000, None));
    let page = snapshot(all).page();
    assert_eq!(series(&page, "memwatch_targets"), ["memwatch_targets 1001"]);
    let left_out = format!("memwatch_targets_left_out {}", 1001 - TARGETS);
    assert_eq!(series(&page, "memwatch_targets_left_out"), [&left_out[..]]);
    let told = series(&page, "memwatch_target_memory_bytes");
    assert_eq!(told.len(), TARGETS);
    assert!(told[0].contains("app-5000.scope"), "{}", told[0]);
    assert!(told[1].contains("app-0.scope"), "{}", told[1]);
}

#[test]
fn no_two_series_have_the_same_labels() {
    let mut again = target(9, None);
    again.cgroup = target(7, None).cgroup;
    again.current_bytes = Some(900);
    let page = snapshot(vec![target(7, None), again]).page();
    let told = series(&page, "memwatch_target_memory_bytes");
    let newer = "memwatch_target_memory_bytes{cgroup=\"/sys/fs/cgroup/app-7.scope\"} 900";
    assert_eq!(told, [newer]);
    assert_eq!(
        series(&page, "memwatch_targets_left_out"),
        ["memwatch_targets_left_out 1"]
    );
    let named = |line: &&str| !line.starts_with('#');
    let mut all: Vec<&str> = page.lines().filter(named).collect();
    all.iter_mut()
        .for_each(|line| *line = line.rsplit_once(' ').expect("a number").0);
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn all_that_can_happen_is_counted_before_it_does() {
    let schema = include_str!("../../../../../docs/incident-v1.schema.json");
    let schema: serde_json::Value = serde_json::from_str(schema).expect("JSON");
    let page = snapshot(Vec::new()).page();
    let told = |name| -> BTreeSet<String> {
        let word = |line: &str| Some(line.split('"').nth(1)?.to_owned());
        series(&page, name).into_iter().filter_map(word).collect()
    };
    for (name, pointer) in [
        ("memwatch_incidents_total", "/properties/kind"),
        (
            "memwatch_interventions_total",
            "/$defs/intervention/properties/rule",
        ),
        ("memwatch_rungs_total", "/$defs/rung/properties/rung"),
    ] {
        let words = schema
            .pointer(pointer)
            .unwrap_or_else(|| panic!("{pointer}"));
        let words = words["enum"].as_array().expect("words").iter();
        let words = words.map(|word| word.as_str().expect("a word").to_owned());
        assert_eq!(told(name), words.collect(), "{name}");
    }
}
