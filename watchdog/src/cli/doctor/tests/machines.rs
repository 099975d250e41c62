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
