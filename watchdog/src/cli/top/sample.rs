//! A daemon's answer for tests: targets of all sorts.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use super::draw::Glyphs;
use super::feed::{Answer, News};
use super::model::Model;
use super::order::Sort;
use crate::control::status::{
    Counts, GuardedBy, Losses, Machine, Oomd, SCHEMA_VERSION, Status, Target,
};
use crate::incident::{Text, Timestamp};

/// The time at which it is drawn.
pub(super) const NOW_US: i64 = 1_772_356_500_000_000;

pub(super) const PLAIN: Glyphs = Glyphs {
    has_color: false,
    is_unicode: true,
};

pub(super) fn ago(seconds: u64) -> Timestamp {
    (UNIX_EPOCH + Duration::from_micros(NOW_US as u64) - Duration::from_secs(seconds)).into()
}

pub(super) fn target(id: u64, name: &[u8], full: u32, current_mib: u64) -> Target {
    Target {
        id,
        cgroup: Text::of_name(name),
        uid: Some(1000),
        since: ago(id * 100),
        current_bytes: Some(current_mib << 20),
        limit_bytes: Some(2 << 30),
        some_permille: Some(full * 2),
        full_permille: Some(full),
        processes: id * 3,
        interventions: 0,
        guarded_by: GuardedBy::DaemonAndKernelGuard,
    }
}

pub(super) fn status() -> Status {
    Status {
        schema_version: SCHEMA_VERSION,
        memwatch: "0.1.0".into(),
        pid: 812,
        since: ago(183_845),
        machine: Machine {
            available_bytes: 19 << 30,
            total_bytes: 31 << 30,
            swap_total_bytes: Some(8 << 30),
            swap_free_bytes: Some(7 << 30),
            some_permille: Some(62),
            full_permille: Some(8),
        },
        targets: vec![
            target(
                1,
                b"/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/memwatch-00000001",
                0,
                700,
            ),
            target(
                2,
                b"/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/memwatch-00000002",
                310,
                1900,
            ),
            Target {
                uid: None,
                limit_bytes: None,
                some_permille: None,
                full_permille: None,
                guarded_by: GuardedBy::Daemon,
                interventions: 3,
                ..target(3, b"/sys/fs/cgroup/build.slice", 0, 5000)
            },
            Target {
                uid: Some(1001),
                current_bytes: None,
                ..target(4, b"/sys/fs/cgroup/evil\x1b[2J\nname.scope", 1, 0)
            },
        ],
        oomd: Oomd {
            state: "stands still".into(),
            reason: None,
            since: Some(ago(60)),
            managed_units: 2,
            taken_over: true,
            kills: 1,
        },
        exporters: Vec::new(),
        losses: Losses {
            ring_drops: 12,
            ..Losses::default()
        },
        features_lost: Vec::new(),
        counts: Counts::default(),
    }
}

pub(super) fn answer(status: Status) -> Answer {
    let name = (1000, Text::of_name(b"mara"));
    Answer {
        status: Box::new(status),
        users: HashMap::from([name]),
    }
}

/// One that has looked a few times, with the second target getting worse.
pub(super) fn model(glyphs: Glyphs) -> Model {
    let mut model = Model::new(answer(status()), Sort::Pressure, glyphs);
    for look in 0..20 {
        let mut status = status();
        status.targets[1].some_permille = Some(look * 50);
        status.targets[1].full_permille = Some(look * 16);
        model.hear(News::Status(answer(status)));
    }
    model
}
