//! A made-up incident as large as one likes, in the shapes that real recordings have: a suite of tests in workers,
//! one of which grows until it is ended. For the pictures' tests, inside of the library and outside.

use std::time::{Duration, UNIX_EPOCH};

use memwatch::act::Outcome;
use memwatch::host::meminfo::MemInfo;
use memwatch::host::memory::MemoryStat;
use memwatch::host::psi::Psi;
use memwatch::host::swap::Medium;
use memwatch::incident::suite::{self, Suite, Test};
use memwatch::incident::{
    ArcState, BlamedTest, BlockedTask, Comm, Command, Culprit, Faults, Flight, Host, Intervention,
    KernelLine, KilledBy, LimitEnforcer, Machine, MemoryLayout, Process, Quantity, Reclaim, Record,
    Rival, Rule, RungTaken, Signal, SwapState, Target, TestPhase, Text, Unit, Verdict, Victim,
};
use memwatch::watch::facts::{self, Arc, MachineFacts, TargetFacts};
use memwatch::watch::replay::RecordedLook;
use memwatch::watch::victim::{Ground, Scope};
use memwatch::watch::{Member, Rung};

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000;
/// When the run began, on the clock of the looks.
const BEGAN_US: u64 = 5_000 * SECOND;
const LASTED_US: u64 = 96 * SECOND;
/// When the kill came.
const KILLED_US: u64 = 71_300_000;
const FIRST_PID: u32 = 4_250;

/// A run with so many processes, the first few of them workers, and so many tests.
pub(crate) fn storm(processes: u32, tests: usize) -> Record {
    let started = UNIX_EPOCH + Duration::from_secs(1_772_356_336);
    let ended = started + Duration::from_micros(LASTED_US);
    let mut record = Record::new(started, ended, LASTED_US, Verdict::FinishedWithKills);
    record.host = Host {
        hostname: Some("workstation".into()),
        boot_id: Some("0c5e1a1e-7d35-4d0e-9a43-6a8f3f0b5a11".into()),
        kernel_release: Some("6.8.0-52-generic".into()),
    };
    record.command = Some(Command {
        program: Text::of_name(b"pytest tests/ -n 4"),
        arguments: None,
    });
    record.target = Target {
        cgroup_path: Some("/sys/fs/cgroup/user.slice/user-1000.slice/memwatch-0123abcd".into()),
        cgroup_id: Some(7_431),
        memory_layout: Some(MemoryLayout::V2),
        limit_enforcer: Some(LimitEnforcer::Kernel),
        memory_max_bytes: Some(4096 * MIB),
        memory_high_bytes: Some(4011 * MIB),
        uid: None,
    };
    record.exit_code = Some(1);
    record.peak_bytes = Some(4056 * MIB);
    record.stall_us = Some(6_412_000);
    record.stall_full_us = Some(2_930_000);
    record.faults = Faults {
        minor: Some(12_345_678),
        major: Some(48_312),
        pressed_minor: Some(51_200),
        pressed_major: Some(41_304),
    };
    record.reclaim = Reclaim {
        direct: Some(0),
        memcg: Some(3_214),
        stall_us: Some(5_380_400),
        scanned_pages: Some(912_000),
        reclaimed_pages: Some(244_700),
        kswapd_wakeups: Some(2),
    };
    record.suite = Some(suite(processes, tests));
    record.flight = Some(flight(processes));
    intervene(&mut record, processes);
    surround(&mut record);
    for (name, value) in [
        ("growth_window", "500ms"),
        ("on_pressure", "kill"),
        ("stall_window", "3s"),
    ] {
        record.settings.insert(name.to_owned(), value.into());
    }
    record.kind = record.gravest();
    record
}

fn workers(processes: u32) -> u32 {
    processes.clamp(1, 8)
}

fn suite(processes: u32, tests: usize) -> Suite {
    let workers = workers(processes);
    let mut free = vec![1_500_000_u64; workers as usize];
    let tests = (0..tests).map(|n| {
        let mut worker = n as u32 % workers;
        if worker == 0 && free[0] > KILLED_US {
            worker = workers - 1;
        }
        let at_us = free[worker as usize];
        let room = (LASTED_US - 3_000_000) / (1 + tests as u64 / u64::from(workers));
        let wall_us = room * (3 + n as u64 * 7 % 9) / 8;
        let mut to_us = (at_us + wall_us).min(LASTED_US - 1_000);
        // The first worker dies in the test that runs at the kill, or else in its last.
        let is_last = n + workers as usize >= tests;
        let is_victim = worker == 0 && (is_last || to_us >= KILLED_US);
        if is_victim {
            to_us = KILLED_US;
        }
        free[worker as usize] = to_us + 2_000;
        let outcome = match n % 41 {
            _ if is_victim => suite::Outcome::Killed,
            7 => suite::Outcome::Failed,
            13 => suite::Outcome::Skipped,
            _ => suite::Outcome::Passed,
        };
        test(n, worker, (at_us, to_us.saturating_sub(at_us)), outcome)
    });
    Suite {
        pytest_version: Some("9.2.0".into()),
        python_version: Some("3.12.3".into()),
        root: Some("/home/dev/project".into()),
        workers,
        selected: Some(589),
        tests: tests.collect(),
        not_run: Vec::new(),
        processes: Vec::new(),
        grown_bytes: 0,
        leaks_of_several: Vec::new(),
        lost: 0,
    }
}

fn test(n: usize, worker: u32, (at_us, wall_us): (u64, u64), outcome: suite::Outcome) -> Test {
    let is_killed = outcome == suite::Outcome::Killed;
    let grew = if is_killed {
        2_600
    } else {
        3 + n as u64 * 37 % 90
    };
    Test {
        id: format!(
            "tests/unit/test_module_{:02}.py::TestIndex::test_search_{n}[{}]",
            n % 23,
            n * 7
        )
        .into(),
        line: Some(12),
        outcome,
        worker: Some(format!("gw{worker}").into()),
        pid: FIRST_PID + worker,
        at_us,
        wall_us,
        cpu_us: Some(wall_us * 4 / 5),
        setup_us: Some(wall_us / 10),
        call_us: Some(wall_us * 8 / 10),
        teardown_us: Some(wall_us / 10),
        rss_before_bytes: Some(180 * MIB),
        rss_after_bytes: (!is_killed).then_some(182 * MIB),
        peak_bytes: Some((180 + grew) * MIB),
        children_peak_bytes: None,
        children_retained_bytes: None,
        minor_faults: Some(812),
        major_faults: Some(0),
        reclaim_us: Some(0),
        leaks: Vec::new(),
        answered_us: None,
        ended_by_memwatch: is_killed.then(|| "exhaustion: limit full in 35ms".into()),
    }
}

/// By how much the victim has grown `at_us` into the run.
fn victim_mib(at_us: u64) -> u64 {
    let grown = at_us.saturating_sub(58 * SECOND) as f64 / SECOND as f64;
    180 + (grown * grown * 15.0) as u64
}

fn flight(processes: u32) -> Flight {
    let mut looks = Vec::new();
    let mut at_us = 0;
    let mut psi = Psi::default();
    let mut machine_psi = Psi::default();
    let mut stat = MemoryStat::default();
    let mut reclaim = facts::Reclaim::default();
    while at_us < LASTED_US {
        let is_tense = (62 * SECOND..KILLED_US + SECOND).contains(&at_us);
        let step = if is_tense { 100_000 } else { 500_000 };
        let members = members(processes, at_us);
        let anon: u64 = members.iter().map(|member| member.anon_bytes).sum();
        let current = (anon + 420 * MIB).min(4_090 * MIB);
        let press = (current as f64 / (4_096.0 * MIB as f64) - 0.8).max(0.0) * 5.0;
        let wave = 1.0 + (at_us as f64 / 1e6).sin() * 0.4;
        psi.some_us += (step as f64 * (press * 0.7 * wave).clamp(0.0, 0.97)) as u64;
        psi.full_us += (step as f64 * (press * 0.4 * wave).clamp(0.0, 0.9)) as u64;
        machine_psi.some_us += (step as f64 * (press * 0.2 * wave).clamp(0.0, 0.9)) as u64;
        machine_psi.full_us += (step as f64 * (press * 0.05 * wave).clamp(0.0, 0.9)) as u64;
        stat.anon_bytes = anon;
        stat.high_bytes = Some(4_011 * MIB);
        stat.faults += (9_000.0 * wave) as u64 * step / SECOND + 3_000;
        stat.major_faults += (5_000.0 * press * wave) as u64 * step / SECOND;
        stat.refault_pages += (8_000.0 * press * wave) as u64 * step / SECOND;
        stat.swap_bytes = (press * 300.0) as u64 * MIB;
        reclaim.stall_ns += (step as f64 * press * 900.0) as u64;
        reclaim.begins += (200.0 * press) as u64;
        reclaim.scanned_pages += (60_000.0 * press * wave) as u64 * step / SECOND;
        reclaim.reclaimed_pages += (17_000.0 * press * wave) as u64 * step / SECOND;
        let is_close = is_tense || looks.len() % 2 == 0;
        looks.push(RecordedLook {
            at_us: BEGAN_US + at_us,
            target: TargetFacts {
                current_bytes: current,
                limit_bytes: Some(4_096 * MIB),
                stat: is_close.then_some(stat),
                psi: Some(psi),
                io_psi: None,
                reclaim: Some(reclaim),
            },
            machine: is_close.then(|| machine(current, machine_psi)),
            members: is_close.then_some(members),
            victim_gone: false,
        });
        at_us += step;
    }
    Flight {
        began_us: BEGAN_US,
        looks,
        lost: 3,
    }
}

fn machine(current: u64, psi: Psi) -> MachineFacts {
    let available = (27_000 * MIB).saturating_sub(current * 2);
    MachineFacts {
        meminfo: MemInfo {
            total_bytes: 31_900 * MIB,
            available_bytes: available,
            swap_total_bytes: 8_192 * MIB,
            swap_free_bytes: 8_100 * MIB,
        },
        arc: Some(Arc {
            size_bytes: 6_000 * MIB - current,
            c_min_bytes: 1_000 * MIB,
        }),
        psi: Some(psi),
    }
}

fn members(processes: u32, at_us: u64) -> Vec<Member> {
    let member = |n: u32| {
        let is_worker = n < workers(processes);
        let base = if is_worker { 180 } else { 2 + u64::from(n % 7) };
        let wave = ((at_us / 100_000 + u64::from(n) * 13) % 40) * u64::from(is_worker);
        let mib = if n == 0 {
            victim_mib(at_us)
        } else {
            base + wave
        };
        let mut comm = [0; 16];
        let name: &[u8] = if is_worker { b"python3" } else { b"helper" };
        comm[..name.len()].copy_from_slice(name);
        Member {
            pid: FIRST_PID + n,
            ppid: 4_242,
            pgid: 4_242,
            start_ticks: 500_000 + u64::from(n),
            comm,
            anon_bytes: mib * MIB,
            shared_bytes: 11 * MIB,
            growth_bytes: if n == 0 { 340 * MIB } else { 0 },
            stall_ns: u64::from(n == 0) * 90_000_000,
            system_ticks: 3,
            ..Member::default()
        }
    };
    let alive = |n: &u32| *n != 0 || at_us < KILLED_US + 40_000;
    (0..processes).filter(alive).map(member).collect()
}

fn intervene(record: &mut Record, processes: u32) {
    let process = |n: u32, mib: u64, growth: u64| Process {
        pid: FIRST_PID + n,
        comm: Comm::new(b"python3"),
        start_time_ticks: Some(500_000 + u64::from(n)),
        ppid: Some(4_242),
        pgid: Some(4_242),
        rss_bytes: Some((mib + 11) * MIB),
        anon_bytes: Some(mib * MIB),
        growth_bytes: Some(growth * MIB),
        stall_us: Some(if n == 0 { 90_000 } else { 1_200 }),
        major_faults: Some(if n == 0 { 3_120 } else { 4 }),
        swap_bytes: Some(if n == 0 { 240 * MIB } else { 0 }),
        ..Process::default()
    };
    let rung = |rung, at_us| RungTaken {
        rung,
        at_us,
        pid: Some(FIRST_PID),
        outcome: Outcome::Delivered,
    };
    let rival = |n: u32| Rival {
        process: process(n, 180 + u64::from(n), 1),
        why_not: "grew 1.0 MiB, the victim 340 MiB".into(),
    };
    let killed = record.suite.as_ref().and_then(|suite| {
        let mut tests = suite.tests.iter();
        tests
            .find(|test| test.outcome == suite::Outcome::Killed)
            .map(|test| test.id.clone())
    });
    record.interventions.push(Intervention {
        at_us: KILLED_US - 420_000,
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
            rung(Rung::Abort, KILLED_US - 420_000),
            rung(Rung::Sigterm, KILLED_US - 20_000),
            rung(Rung::Sigkill, KILLED_US),
        ],
        victim: Some(process(0, victim_mib(KILLED_US), 340)),
        ground: Some(Ground::Growth),
        scope: Some(Scope::Process),
        rivals: (1..processes.min(12)).map(rival).collect(),
        rival_cgroups: Vec::new(),
        memory_before_bytes: Some(4_048 * MIB),
        memory_after_bytes: Some(1_246 * MIB),
        recovery_us: Some(24_100),
        test: killed.map(|id| BlamedTest {
            id: id.clone(),
            worker: Some("gw0".into()),
            phase: TestPhase::Call,
            elapsed_us: Some(4_200_000),
            growth_bytes: Some(2_600 * MIB),
            culprit: Some(Culprit {
                id,
                growth_bytes: 2_600 * MIB,
                sure_permille: 970,
            }),
        }),
        python_stack: [
            "Thread 0x00007f3a1c7fe740 (most recent call first):",
            "  File \"/home/dev/project/index.py\", line 88 in _grow",
            "  File \"/home/dev/project/index.py\", line 41 in add",
            "  File \"/home/dev/project/tests/unit/test_module_04.py\", line 12 in test_search",
        ]
        .map(Text::from)
        .into(),
    });
    record.victims.push(Victim {
        process: process(0, victim_mib(KILLED_US), 340),
        signal: Signal::KILL,
        reason: "exhaustion: limit full in 35ms".into(),
        killed_by: KilledBy::Memwatch,
        at_us: Some(KILLED_US),
    });
}

/// What the kernel and the machine have to do with it.
fn surround(record: &mut Record) {
    record.blocked_tasks.push(BlockedTask {
        pid: 611,
        tid: 611,
        comm: Comm::new(b"txg_sync"),
        at_us: Some(66_000_000),
        lasted_us: Some(12_000_000),
        function: Some("cv_wait_common".into()),
        stack: [
            "cv_wait_common+0xa9/0x140 [spl]",
            "txg_sync_thread+0x2bd/0x4a0 [zfs]",
            "kthread+0xe6/0x110",
        ]
        .map(Text::from)
        .into(),
    });
    record.machine = Some(Machine {
        memory_total_bytes: Some(31_900 * MIB),
        memory_available_bytes: Some(18_900 * MIB),
        swap_total_bytes: Some(8_192 * MIB),
        swap_free_bytes: Some(8_100 * MIB),
        swaps: vec![SwapState {
            path: "/dev/zd0".into(),
            size_bytes: 8_192 * MIB,
            medium: Medium::Zvol,
        }],
        mglru: Some(true),
        some_permille: Some(112),
        full_permille: Some(31),
        arc: Some(ArcState {
            size_bytes: 1_323_119_696,
            c_bytes: 1_402_630_144,
            c_min_bytes: 1_043_000_000,
            c_max_bytes: 16_687_497_216,
            shrank: Some(true),
        }),
        oomd: Some("well".into()),
    });
    let line = |at_us, severity, text: &str| KernelLine {
        at_us,
        severity,
        text: text.into(),
    };
    record.kernel_log = vec![
        line(
            -3_100_000,
            6,
            "perf: interrupt took too long (2512 > 2500), lowering kernel.perf_event_max_sample_rate",
        ),
        line(
            70_100_000,
            3,
            "INFO: task txg_sync:611 blocked for more than 122 seconds.",
        ),
        line(
            70_100_020,
            4,
            "      Tainted: P           O       6.8.0-52-generic #53-Ubuntu",
        ),
    ];
    record.features_lost.push(memwatch::incident::FeatureLost {
        feature: "kernel functions for signals".into(),
        fallback: "the process in reclaim".into(),
        cost: "the guard may hit another member than the one that was named".into(),
    });
    record
        .notes
        .push("1 process of the target runs on, without a guard".into());
    record.losses.missed_looks = 3;
    record.losses.longest_delay_us = 81_250;
}
