//! The diagnosis of each fixture tree.

use super::*;
use crate::host::oomd::Oomd;

#[test]
fn a_hybrid_ci_machine_is_protected_without_the_extras() {
    let checks = diagnose(&machine("hybrid"));
    let expected = [
        "Optional fentry",
        "Optional mglru",
        "Optional sysrq",
        "Optional psi_triggers",
        "Optional memory_limits",
        "Optional own_group",
        "Optional oom_score",
        "Optional swap",
        "Optional init",
    ];
    assert_eq!(troubles(&checks), expected);
    assert_eq!(exit_code(&checks), 0);
    assert!(
        find(&checks, "cgroup_v2")
            .found
            .starts_with("hybrid, memory on v1; ")
    );
    assert_eq!(find(&checks, "psi_triggers").found, "windows from 2000 ms");
    assert_eq!(
        find(&checks, "oom_score").found,
        "Permission denied (os error 13)"
    );
    assert!(
        find(&checks, "own_group")
            .found
            .contains("not on cgroup v2")
    );
}

#[test]
fn ubuntu_on_zfs_is_told_to_cap_the_arc() {
    let facts = machine("ubuntu-24.04-zfs");
    assert_eq!(facts.oomd, Oomd::Active { pid: 812 });
    let checks = diagnose(&facts);
    // SysRq is 176 on Ubuntu: sync, remount and reboot, but no kill. Linux 6.8 lacks the kfuncs.
    assert_eq!(
        troubles(&checks),
        ["Optional kfuncs", "Optional sysrq", "Important zfs_arc"]
    );
    assert_eq!(exit_code(&checks), 1);

    let arc = find(&checks, "zfs_arc");
    assert_eq!(
        arc.found,
        "holds 1.2 GiB, may grow to 15.5 GiB (50 % of RAM)"
    );
    let trouble = arc.trouble.as_ref().unwrap();
    assert!(trouble.costs.contains("a risk"), "{}", trouble.costs);
    let commands = &trouble.advice.as_ref().unwrap().commands;
    assert_eq!(
        commands[0],
        "echo 3221225472 | sudo tee /sys/module/zfs/parameters/zfs_arc_max"
    );

    assert_eq!(facts.cgroups.limits, Limits::V2);
    let app_slice = "user.slice/user-1000.slice/user@1000.service/app.slice";
    let parent = fixture("ubuntu-24.04-zfs/sys/fs/cgroup").join(app_slice);
    assert_eq!(facts.cgroups.target_parent, Some(parent));
}

/// The machine whose freezes memwatch was made for, after the third: 32 GB, a ZFS root, systemd-oomd ended by its
/// watchdog.
#[test]
fn the_machine_of_the_third_freeze_is_told_its_risks_with_commands() {
    let facts = machine("third-freeze");
    let arc = facts.arc.expect("ZFS");
    assert_eq!(
        (arc.c_max_bytes, arc.c_bytes, arc.size_bytes),
        (16_687_497_216, 1_402_630_144, 1_323_119_696)
    );
    assert_eq!(facts.ram_bytes, Some(32_592_768 * 1024));
    assert_eq!(facts.swap[0].size_bytes, 8_388_604 * 1024);
    let checks = diagnose(&facts);
    assert_eq!(
        troubles(&checks),
        [
            "Optional kfuncs",
            "Optional sysrq",
            "Optional own_limit",
            "Important zfs_arc",
            "Optional systemd_oomd"
        ]
    );
    let costs = |id| {
        find(&checks, id)
            .trouble
            .as_ref()
            .expect("a trouble")
            .costs
            .as_str()
    };
    assert!(
        costs("zfs_arc").contains("a risk")
            && costs("zfs_arc").ends_with("it is the cause of nothing")
    );
    assert!(costs("own_limit").ends_with("a risk"));
    assert_eq!(find(&checks, "systemd_oomd").found, "not running");
    let told = terminal(&checks, true, false);
    for command in [
        "echo 3221225472 | sudo tee /sys/module/zfs/parameters/zfs_arc_max",
        "memwatch attach --safe -- COMMAND",
        "memwatch attach --memory-max 16G -- COMMAND",
        "sudo systemctl enable --now systemd-oomd",
        "sudo sysctl kernel.sysrq=240",
    ] {
        let lines = told.lines().map(str::trim);
        assert!(
            lines.into_iter().any(|line| line == command),
            "{command}:\n{told}"
        );
    }
}

#[test]
fn the_tightest_limit_on_the_way_up_is_the_one_of_what_is_started() {
    let mut facts = machine("third-freeze");
    assert_eq!(facts.cgroups.own_limit, Some(OwnLimit::None));
    facts.cgroups.own_limit = Some(OwnLimit::Bytes(4 << 30));
    let checks = diagnose(&facts);
    assert_eq!(
        find(&checks, "own_limit").found,
        "4.0 GiB for what is started here"
    );
    assert_eq!(severity_of(&checks, "own_limit"), None);
    assert_eq!(machine("hybrid").cgroups.own_limit, None, "nothing tells");
}

#[test]
fn kernel_5_4_is_too_old_and_has_no_v2() {
    let checks = diagnose(&machine("kernel-5.4"));
    assert_eq!(severity_of(&checks, "kernel"), Some(Severity::Fatal));
    assert_eq!(severity_of(&checks, "cgroup_v2"), Some(Severity::Important));
    assert_eq!(find(&checks, "cgroup_v2").found, "v1 only");
    assert_eq!(exit_code(&checks), 2);
}

#[test]
fn without_psi_memwatch_protects_with_less() {
    let checks = diagnose(&machine("no-psi"));
    let important: Vec<_> = checks
        .iter()
        .filter(|c| c.severity() == Some(Severity::Important))
        .map(|c| c.id)
        .collect();
    assert_eq!(important, ["psi"]);
    assert!(
        checks.iter().all(|check| check.id != "psi_triggers"),
        "one loss is told once"
    );
    assert_eq!(exit_code(&checks), 1);
}

#[test]
fn a_bare_container_is_protected_with_less_from_inside() {
    let checks = diagnose(&machine("container"));
    for id in ["target_place", "bpf_programs", "memlock"] {
        assert_eq!(severity_of(&checks, id), Some(Severity::Important), "{id}");
    }
    assert_eq!(find(&checks, "user").found, "root of a user namespace");
    assert_eq!(exit_code(&checks), 1);
}

#[test]
fn both_forms_carry_the_same_diagnosis() {
    let facts = machine("ubuntu-24.04-zfs");
    let checks = diagnose(&facts);
    let report: serde_json::Value = serde_json::from_str(&json(&facts, &checks).unwrap()).unwrap();
    assert_eq!(
        (&report["schema_version"], &report["exit_code"]),
        (&1.into(), &1.into())
    );
    assert_eq!(report["facts"]["arc"]["c_max_bytes"], 16_687_497_216_u64);
    let plain = terminal(&checks, true, false);
    assert!(!plain.contains('\x1b'));
    for (line, check) in report["checks"].as_array().unwrap().iter().zip(&checks) {
        assert_eq!(line["id"], check.id);
        assert!(
            plain.contains(&check.found),
            "{} is missing in:\n{plain}",
            check.found
        );
        let costs = check.trouble.as_ref().map(|trouble| trouble.costs.as_str());
        assert_eq!(line["costs"].as_str(), costs);
        assert!(costs.is_none_or(|costs| plain.contains(costs)));
    }
    let coloured = terminal(&checks, true, true);
    let stripped = [
        "\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m",
    ]
    .iter()
    .fold(coloured, |text, code| text.replace(code, ""));
    assert_eq!(stripped, plain);
}

#[test]
fn the_terminal_keeps_optional_things_short_unless_asked() {
    let checks = diagnose(&machine("ubuntu-24.04-zfs"));
    let short = terminal(&checks, false, false);
    assert!(
        short.contains("zfs_arc_max") && !short.contains("kernel.sysrq=240"),
        "{short}"
    );
    assert!(terminal(&checks, true, false).contains("sudo sysctl kernel.sysrq=240"));
}

#[test]
fn names_cannot_drive_the_terminal() {
    let mut facts = machine("hybrid");
    facts.unread = vec!["cannot read /x\x1b[2J\ny".into()];
    let text = terminal(&diagnose(&facts), false, false);
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.contains("/x\\u{1b}[2J\\ny"), "{text}");
}
