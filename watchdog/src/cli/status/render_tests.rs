//! Whole pages, as they are printed.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::control::status::{Counts, Exporter, Machine, SCHEMA_VERSION};
use crate::incident::FeatureLost;

fn time(seconds: u64) -> Timestamp {
    (UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 250)).into()
}

fn target(cgroup: &str, full: u32) -> Target {
    Target {
        id: 7,
        cgroup: cgroup.into(),
        uid: Some(1000),
        since: time(1_772_356_400),
        current_bytes: Some(512 << 20),
        limit_bytes: Some(2 << 30),
        some_permille: Some(full * 2),
        full_permille: Some(full),
        processes: 12,
        interventions: 0,
        guarded_by: GuardedBy::DaemonAndKernelGuard,
    }
}

fn status() -> Status {
    let unlimited = Target {
        uid: None,
        limit_bytes: None,
        current_bytes: None,
        some_permille: None,
        full_permille: None,
        interventions: 3,
        guarded_by: GuardedBy::Daemon,
        ..target("/sys/fs/cgroup/build.slice", 0)
    };
    Status {
        schema_version: SCHEMA_VERSION,
        memwatch: "0.1.0".into(),
        pid: 812,
        since: time(1_772_356_336),
        machine: Machine {
            available_bytes: 3 << 30,
            total_bytes: 31 << 30,
            swap_total_bytes: Some(8 << 30),
            swap_free_bytes: Some(7 << 30),
            some_permille: Some(12),
            full_permille: Some(0),
        },
        targets: vec![
            unlimited,
            target(
                "/sys/fs/cgroup/user.slice/user-1000.slice/memwatch-00000001",
                0,
            ),
            target(
                "/sys/fs/cgroup/user.slice/user-1000.slice/memwatch-00000002",
                310,
            ),
        ],
        oomd: Oomd {
            state: "stopped".into(),
            reason: Some("state T".into()),
            since: Some(time(1_772_356_500)),
            managed_units: 2,
            taken_over: true,
            kills: 1,
        },
        counts: Counts::default(),
        exporters: vec![
            Exporter {
                name: "journal".into(),
                state: "up to date".into(),
            },
            Exporter {
                name: "otlp".into(),
                state: "3 wait (connection refused)".into(),
            },
        ],
        losses: Losses {
            late_looks: 2,
            longest_delay_us: 12_000,
            ..Losses::default()
        },
        features_lost: vec![FeatureLost {
            feature: "fentry programs (Operation not permitted)".into(),
            fallback: "raw tracepoints".into(),
            cost: "the guard does not see refaults".into(),
        }],
    }
}

fn of_width(width: impl Into<Option<usize>>) -> Style {
    Style {
        color: false,
        width: width.into(),
    }
}

#[test]
fn a_page_of_any_width() {
    assert_eq!(
        page(&status(), of_width(None)),
        "\
memwatch 0.1.0, process 812, since 2026-03-01T09:12:16Z
memory     3.0 GiB of 31 GiB available
stall      some 1.2%, full 0%
oomd       stopped since 2026-03-01T09:15:00Z (state T); 2 units of its looked after by memwatch; memwatch has ended 1 in them
exporters  journal: up to date; otlp: 3 wait (connection refused)
losses     2 late looks (by up to 12ms)
without    fentry programs (Operation not permitted); used instead: raw tracepoints; that costs: the guard does not see refaults

TARGET                                                        MEMORY    LIMIT  SOME  FULL  PROCS  ACTS   UID   GUARD
/sys/fs/cgroup/user.slice/user-1000.slice/memwatch-00000002  512 MiB  2.0 GiB   62%   31%     12     0  1000    both
/sys/fs/cgroup/user.slice/user-1000.slice/memwatch-00000001  512 MiB  2.0 GiB    0%    0%     12     0  1000    both
/sys/fs/cgroup/build.slice                                         -        -     -     -     12     3     -  daemon
"
    );
}

#[test]
fn a_page_of_80_columns() {
    assert_eq!(
        page(&status(), of_width(80)),
        "\
memwatch 0.1.0, process 812, since 2026-03-01T09:12:16Z
memory     3.0 GiB of 31 GiB available
stall      some 1.2%, full 0%
oomd       stopped since 2026-03-01T09:15:00Z (state T); 2 units of its looked
           after by memwatch; memwatch has ended 1 in them
exporters  journal: up to date; otlp: 3 wait (connection refused)
losses     2 late looks (by up to 12ms)
without    fentry programs (Operation not permitted); used instead: raw
           tracepoints; that costs: the guard does not see refaults

TARGET                    MEMORY    LIMIT  SOME  FULL  PROCS  ACTS   UID   GUARD
…lice/memwatch-00000002  512 MiB  2.0 GiB   62%   31%     12     0  1000    both
…lice/memwatch-00000001  512 MiB  2.0 GiB    0%    0%     12     0  1000    both
…/fs/cgroup/build.slice        -        -     -     -     12     3     -  daemon
"
    );
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in 80..160 {
        for line in page(&status(), of_width(width)).lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
    // What is narrower is as wide as it must be.
    let narrow = page(&status(), of_width(40));
    assert!(
        narrow.lines().all(|line| line.chars().count() <= 80),
        "{narrow}"
    );
}

#[test]
fn nothing_there_and_all_well() {
    let quiet = Status {
        targets: Vec::new(),
        counts: Counts::default(),
        exporters: Vec::new(),
        features_lost: Vec::new(),
        losses: Losses::default(),
        machine: Machine {
            some_permille: None,
            full_permille: None,
            ..status().machine
        },
        oomd: Oomd {
            state: "not installed".into(),
            reason: None,
            since: None,
            managed_units: 0,
            taken_over: false,
            kills: 0,
        },
        ..status()
    };
    assert_eq!(
        page(
            &quiet,
            Style {
                color: true,
                width: Some(80)
            }
        ),
        "\
\x1b[1mmemwatch 0.1.0, process 812, since 2026-03-01T09:12:16Z\x1b[0m
memory     3.0 GiB of 31 GiB available
stall      not told by this kernel
oomd       not installed
exporters  none
losses     none

No targets. Attach one: memwatch attach -- COMMAND
"
    );
}

#[test]
fn lines_have_the_time_and_name_each_target() {
    assert_eq!(
        lines(&status(), &time(1_772_356_501)),
        "\
2026-03-01T09:15:01Z machine: 3.0 GiB of 31 GiB available, some 1.2%, full 0%
2026-03-01T09:15:01Z /sys/fs/cgroup/build.slice: ? of no limit, not told by this kernel, 12 processes, 3 interventions
2026-03-01T09:15:01Z /sys/fs/cgroup/user.slice/user-1000.slice/memwatch-00000001: 512 MiB of 2.0 GiB, some 0%, full 0%, 12 processes, 0 interventions
2026-03-01T09:15:01Z /sys/fs/cgroup/user.slice/user-1000.slice/memwatch-00000002: 512 MiB of 2.0 GiB, some 62%, full 31%, 12 processes, 0 interventions
"
    );
}
