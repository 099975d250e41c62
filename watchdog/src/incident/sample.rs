//! Records for tests. Whatever hands one out has it held against the schema first.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::host::swap::Medium;
use crate::watch::{
    Rung,
    victim::{Ground, Scope},
};

const MIB: u64 = 1 << 20;

/// A run of 134 s at a limit of 2 GiB in which nothing happened.
pub(crate) fn quiet() -> Record {
    let started = UNIX_EPOCH + Duration::from_secs(1_772_356_336);
    let ended = started + Duration::from_secs(134);
    let mut record = Record::new(started, ended, 134_000_000, Verdict::Finished);
    record.host = Host {
        hostname: Some("workstation".into()),
        boot_id: Some("0c5e1a1e-7d35-4d0e-9a43-6a8f3f0b5a11".into()),
        kernel_release: Some("6.8.0-52-generic".into()),
    };
    record.command = Some(Command {
        program: Text::of_name(b"pytest"),
        arguments: None,
    });
    record.target = Target {
        cgroup_path: Some("/sys/fs/cgroup/memwatch-0123abcd".into()),
        cgroup_id: Some(7_431),
        memory_layout: Some(MemoryLayout::V2),
        limit_enforcer: Some(LimitEnforcer::Kernel),
        memory_max_bytes: Some(2048 * MIB),
        memory_high_bytes: None,
        uid: None,
    };
    record.exit_code = Some(0);
    record.peak_bytes = Some(1229 * MIB);
    record.stall_us = Some(412_000);
    record.stall_full_us = Some(93_000);
    record.faults = Faults {
        minor: Some(1_234_567),
        major: Some(312),
        pressed_minor: Some(51_200),
        pressed_major: Some(304),
    };
    record.reclaim = Reclaim {
        direct: Some(0),
        memcg: Some(14),
        stall_us: Some(38_400),
        scanned_pages: Some(9_120),
        reclaimed_pages: Some(8_447),
        kswapd_wakeups: Some(2),
    };
    record.refaults_pages = Some(51);
    record
        .settings
        .insert("on_pressure".to_owned(), "kill".into());
    schema::validate(&record);
    record
}

/// The same run with one worker of pytest-xdist killed.
pub(crate) fn killed() -> Record {
    let mut record = quiet();
    let worker = |pid, mib, growth_mib| Process {
        pid,
        comm: Comm::new(b"python3"),
        start_time_ticks: Some(1_234_500 + u64::from(pid)),
        ppid: Some(4242),
        pgid: Some(4242),
        rss_bytes: Some(mib * MIB),
        anon_bytes: Some(mib * MIB - 12 * MIB),
        growth_bytes: Some(growth_mib * MIB),
        stall_us: Some(0),
        major_faults: Some(0),
        minor_faults: Some(mib * 256),
        system_us: Some(40_000),
        swap_bytes: Some(0),
    };
    let rung = |rung, at_us| RungTaken {
        rung,
        at_us,
        pid: Some(4250),
        outcome: Outcome::Delivered,
    };
    record.interventions.push(Intervention {
        at_us: 12_345_000,
        rule: Rule::Exhaustion,
        observed: Quantity {
            value: 35_000,
            unit: Unit::Us,
            text: "limit full in 35ms (48 MiB left, filling at 1.3 GiB/s)".into(),
        },
        threshold: Quantity {
            value: 50_000,
            unit: Unit::Us,
            text: "50ms or less".into(),
        },
        duration_us: Some(250_000),
        rungs: vec![
            rung(Rung::Sigterm, 12_345_400),
            rung(Rung::Sigkill, 12_363_000),
        ],
        victim: Some(worker(4250, 1434, 800)),
        ground: Some(Ground::Growth),
        scope: Some(Scope::Process),
        rivals: vec![Rival {
            process: worker(4251, 206, 1),
            why_not: "grew 1.0 MiB, the victim 800 MiB".into(),
        }],
        rival_cgroups: Vec::new(),
        memory_before_bytes: Some(2000 * MIB),
        memory_after_bytes: Some(566 * MIB),
        recovery_us: Some(24_100),
        test: None,
        python_stack: Vec::new(),
    });
    record.victims.push(Victim {
        process: worker(4250, 1434, 800),
        signal: Signal::KILL,
        reason: "exhaustion: limit full in 35ms".into(),
        killed_by: KilledBy::Memwatch,
        at_us: Some(12_363_000),
    });
    record.peak_bytes = Some(2000 * MIB);
    record.verdict = Verdict::FinishedWithKills;
    record.exit_code = Some(1);
    record.kind = record.gravest();
    schema::validate(&record);
    record
}

/// A run in which everything happened, to processes with hostile names.
pub(crate) fn grave() -> Record {
    let mut record = killed();
    record.kernel_oom.push(KernelOomVictim {
        pid: 4300,
        comm: Comm::new(b"a\nb\x1b[31m\xff"),
        at_us: Some(20_000_000),
    });
    record.kernel_oom_kills = Some(3);
    let mut victim = record.victims[0].clone();
    victim.process.pid = 4300;
    victim.process.comm = record.kernel_oom[0].comm;
    victim.reason = "the kernel's OOM killer".into();
    victim.killed_by = KilledBy::KernelOom;
    victim.at_us = Some(20_000_000);
    record.victims.push(victim);
    record.hung_tasks.push(HungTask {
        tid: 611,
        comm: Comm::new(b"txg_sync"),
        at_us: Some(130_000_000),
    });
    record.blocked_tasks.push(BlockedTask {
        pid: 611,
        tid: 611,
        comm: Comm::new(b"txg_sync"),
        at_us: Some(8_000_000),
        lasted_us: Some(125_000_000),
        function: Some("cv_wait_common".into()),
        stack: vec!["cv_wait_common+0xa9/0x140 [spl]".into()],
    });
    record.takeover = Some(Takeover {
        peer_pid: Some(812),
        fault: Some(Fault::Stopped),
        noticed_after_us: Some(1_000_000),
        lasted_us: Some(4_200_000),
        units: vec!["user.slice".into()],
        kills: 1,
    });
    record.suite = Some(tested());
    record.flight = Some(flown());
    record.near_miss = Some(near_miss());
    record.machine = Some(machine());
    record.kernel_log.extend(kernel_log());
    record.interventions[0].test = Some(BlamedTest {
        id: "tests/test_b.py::test_index".into(),
        worker: Some("gw1".into()),
        phase: TestPhase::Call,
        elapsed_us: Some(4_200_000),
        growth_bytes: Some(12 * MIB),
        culprit: Some(Culprit {
            id: "tests/test_b.py::test_load".into(),
            growth_bytes: 900 * MIB,
            sure_permille: 970,
        }),
    });
    record.interventions[0].python_stack = vec!["  File \"t.py\", line 3 in test_index".into()];
    let mut second = record.interventions[0].clone();
    second.at_us = 60_000_000;
    second.rule = Rule::Stall;
    second.rival_cgroups = vec![RivalCgroup {
        cgroup_path: "/sys/fs/cgroup/user.slice/b.scope".into(),
        memory_bytes: 300 * MIB,
        growth_bytes: 2 * MIB,
    }];
    second.observed = Quantity {
        value: 412,
        unit: Unit::Permille,
        text: "stalled for 41% of 3.0s, 2.0 MiB from the limit".into(),
    };
    second.threshold = Quantity {
        value: 250,
        unit: Unit::Permille,
        text: "25% or more".into(),
    };
    second.duration_us = Some(3_000_000);
    second.memory_after_bytes = None;
    second.victim = None;
    second.ground = None;
    second.scope = None;
    second.rungs = [
        (Rung::Warn, Outcome::DryRun),
        (Rung::Freeze, Outcome::Refused { errno: libc::EPERM }),
    ]
    .map(|(rung, outcome)| RungTaken {
        rung,
        at_us: 60_000_100,
        pid: None,
        outcome,
    })
    .into();
    record.interventions.push(second);
    record.losses = Losses {
        ring_drops: 12,
        untracked_processes: 0,
        missed_looks: 3,
        longest_delay_us: 81_250,
        unreadable_files: 0,
        truncated_strings: 0,
        hung_helpers: 1,
        dropped_jobs: 0,
        blocked_tasks: 0,
        kernel_lines: 2,
    };
    record.features_lost.push(FeatureLost {
        feature: "BPF programs".into(),
        fallback: "PSI and /proc".into(),
        cost: "reclaim is not told per process".into(),
    });
    record
        .notes
        .push("what pid 4242 was charged before it was adopted stays where it was".into());
    if let Some(command) = &mut record.command {
        command.arguments = Some(vec!["tests/".into(), "-n".into(), "4".into()]);
    }
    record.leader_signal = Some(Signal::KILL);
    record.verdict = Verdict::KilledByKernelOom;
    record.exit_code = Some(137);
    schema::validate(&record);
    record
}

/// A look that went as far as looks go, and one that did not.
fn flown() -> Flight {
    use crate::host::{meminfo::MemInfo, memory::MemoryStat, psi::Psi};
    use crate::watch::replay::RecordedLook;
    use crate::watch::{MachineFacts, Member, TargetFacts, facts};

    let psi = Some(Psi {
        some_us: 412_000,
        full_us: 93_000,
    });
    let stat = MemoryStat {
        anon_bytes: 1900 * MIB,
        reclaimable_bytes: 60 * MIB,
        refault_pages: 51,
        swap_max_bytes: Some(0),
        ..MemoryStat::default()
    };
    let deep = RecordedLook {
        at_us: 512_340_000,
        target: TargetFacts {
            current_bytes: 2000 * MIB,
            limit_bytes: Some(2048 * MIB),
            stat: Some(stat),
            psi,
            io_psi: psi,
            reclaim: Some(facts::Reclaim::default()),
        },
        machine: Some(MachineFacts {
            meminfo: MemInfo {
                total_bytes: 32 << 30,
                available_bytes: 20 << 30,
                ..MemInfo::default()
            },
            arc: Some(facts::Arc {
                size_bytes: 1_323_119_696,
                c_min_bytes: 1_042_968_576,
            }),
            psi,
        }),
        members: Some(vec![Member {
            pid: 4250,
            comm: *b"a\nb\x1b[31m\xff\0\0\0\0\0\0\0",
            anon_bytes: 1422 * MIB,
            ..Member::default()
        }]),
        victim_gone: false,
    };
    let mut flat = RecordedLook {
        at_us: 512_345_000,
        machine: None,
        members: None,
        ..deep.clone()
    };
    flat.target.stat = None;
    Flight {
        began_us: 500_000_000,
        looks: vec![deep, flat],
        lost: 2,
    }
}

/// A leak that ended a little before memwatch would have ended it.
pub(crate) fn near_miss() -> NearMiss {
    NearMiss {
        at_us: 3_200_000,
        rule: Rule::Exhaustion,
        observed: Quantity {
            value: 90_000,
            unit: Unit::Us,
            text: "limit full in 90ms (120 MiB left, filling at 1.3 GiB/s)".into(),
        },
        threshold: Quantity {
            value: 50_000,
            unit: Unit::Us,
            text: "50ms or less".into(),
        },
        lasted_us: 300_000,
    }
}

/// 32 GB with a ZFS root and its swap on a volume.
pub(crate) fn machine() -> Machine {
    Machine {
        memory_total_bytes: Some(32_000 * MIB),
        memory_available_bytes: Some(700 * MIB),
        swap_total_bytes: Some(8192 * MIB),
        swap_free_bytes: Some(12 * MIB),
        swaps: vec![SwapState {
            path: "/dev/zd16".into(),
            size_bytes: 8192 * MIB,
            medium: Medium::Zvol,
        }],
        mglru: Some(true),
        some_permille: Some(820),
        full_permille: Some(611),
        arc: Some(ArcState {
            size_bytes: 1_323_119_696,
            c_bytes: 1_402_630_144,
            c_min_bytes: 1_042_968_576,
            c_max_bytes: 16_687_497_216,
            shrank: Some(false),
        }),
        oomd: Some("stopped by a signal or a debugger".into()),
    }
}

/// What the kernel says of a kill and of a task that hangs.
pub(crate) fn kernel_log() -> Vec<KernelLine> {
    let lines: [(i64, u8, &[u8]); 3] = [
        (
            -1_000,
            4,
            b"a\x1b[31m invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0",
        ),
        (
            20_000_000,
            3,
            b"Memory cgroup out of memory: Killed process 4300 (a\\nb)",
        ),
        (
            130_000_000,
            3,
            b"INFO: task txg_sync:611 blocked for more than 122 seconds.",
        ),
    ];
    let line = |(at_us, severity, text): (i64, u8, &[u8])| KernelLine {
        at_us,
        severity,
        text: Text::of_name(text),
    };
    lines.map(line).into()
}

/// Two tests: one that leaked, with a hostile name, and one in the process that was killed.
pub(crate) fn tested() -> Suite {
    let clean = suite::Test {
        id: Text::of_name(b"tests/test_a.py::test_open[\x1b[31m]"),
        line: Some(12),
        outcome: suite::Outcome::Passed,
        worker: Some("gw0".into()),
        pid: 4251,
        at_us: 2_000_000,
        wall_us: 1_500,
        cpu_us: Some(1_400),
        setup_us: Some(200),
        call_us: Some(1_200),
        teardown_us: Some(100),
        rss_before_bytes: Some(200 * MIB),
        rss_after_bytes: Some(203 * MIB),
        peak_bytes: Some(206 * MIB),
        children_peak_bytes: None,
        children_retained_bytes: None,
        minor_faults: Some(812),
        major_faults: Some(0),
        reclaim_us: Some(0),
        leaks: vec![suite::Leak {
            kind: suite::LeakKind::FileDescriptors,
            count: 1,
            names: vec!["/tmp/a.txt".into()],
        }],
        answered_us: None,
        ended_by_memwatch: None,
    };
    let killed = suite::Test {
        id: "tests/test_b.py::test_index".into(),
        outcome: suite::Outcome::Killed,
        worker: Some("gw1".into()),
        pid: 4250,
        peak_bytes: Some(1434 * MIB),
        rss_after_bytes: None,
        leaks: Vec::new(),
        ended_by_memwatch: Some("exhaustion: limit full in 35ms".into()),
        ..clean.clone()
    };
    Suite {
        pytest_version: Some("9.2.0".into()),
        python_version: Some("3.11.7".into()),
        root: Some("/home/dev/project".into()),
        workers: 2,
        selected: Some(589),
        tests: vec![clean, killed],
        not_run: vec![suite::NotRun {
            id: "tests/test_c.py::test_later".into(),
            pid: 4240,
        }],
        processes: vec![suite::TestProcess {
            pid: 4251,
            worker: Some("gw0".into()),
            tests: 1,
            rss_before_bytes: Some(200 * MIB),
            rss_after_bytes: Some(203 * MIB),
        }],
        grown_bytes: 3 * MIB,
        leaks_of_several: vec![suite::LeakOfSeveral {
            kind: suite::LeakKind::TemporaryFiles,
            name: "/tmp/b.txt".into(),
            tests: vec![
                "tests/test_a.py::test_open".into(),
                "tests/test_b.py::test_index".into(),
            ],
        }],
        lost: 0,
    }
}

/// What tests of the whole program read of it, who cannot come here.
#[test]
fn the_gravest_is_kept_for_other_tests() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/incidents/grave.json"
    );
    let kept = std::fs::read(path).unwrap_or_default();
    // What is no record is not this one either.
    let kept = Record::from_json(&kept).unwrap_or_else(|_| quiet());
    let mut grave = grave();
    // Each is another, and of its own time.
    grave.id = kept.id;
    grave.memwatch_version.clone_from(&kept.memwatch_version);
    let file = String::from_utf8_lossy(&grave.to_json()).into_owned();
    assert_eq!(kept, grave, "the file is to be:\n{file}");
}
