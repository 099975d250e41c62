//! One fact turned over, one check that follows. The machine they start from has nothing wrong.

use super::*;
use crate::host::oomd::Oomd;
use crate::host::privileges::{Capability, HidePid};
use crate::host::swap::{Medium, SwapArea};
use crate::host::zfs::ArcStats;

fn healthy() -> MachineFacts {
    let mut facts = machine("ubuntu-24.04-zfs");
    facts.settings.sysrq_bits = Some(1);
    facts.arc.as_mut().unwrap().c_max_bytes = 4 << 30;
    facts.probes.bpf.kill_kfuncs = Feature::Works;
    assert_eq!(troubles(&diagnose(&facts)), [""; 0]);
    facts
}

/// What is wrong with the healthy machine after `turn`.
fn after(turn: impl FnOnce(&mut MachineFacts)) -> Vec<String> {
    let mut facts = healthy();
    turn(&mut facts);
    troubles(&diagnose(&facts))
}

fn refused() -> Feature {
    Feature::Missing("EPERM".into())
}

fn drop_capability(facts: &mut MachineFacts, capability: Capability) {
    facts.privileges.capabilities &= !(1 << capability as u8);
}

fn swap_on(path: &str, medium: Medium) -> Vec<SwapArea> {
    vec![SwapArea {
        path: path.into(),
        size_bytes: 1 << 30,
        medium,
    }]
}

#[test]
fn kernel() {
    assert_eq!(after(|f| f.kernel_release = Some("5.15.0".into())), [""; 0]);
    assert_eq!(
        after(|f| f.kernel_release = Some("5.14.21-leap".into())),
        ["Fatal kernel"]
    );
    assert_eq!(
        after(|f| f.kernel_release = Some("4.19".into())),
        ["Fatal kernel"]
    );
    assert_eq!(
        after(|f| f.kernel_release = Some("weird".into())),
        ["Optional kernel"]
    );
    assert_eq!(after(|f| f.kernel_release = None), ["Optional kernel"]);
    assert_eq!(
        after(|f| f.settings.mglru_bits = Some(0)),
        ["Optional mglru"]
    );
    assert_eq!(after(|f| f.settings.mglru_bits = None), ["Optional mglru"]);
    assert_eq!(
        after(|f| f.settings.hung_task_timeout_s = Some(0)),
        ["Optional hung_task"]
    );
    assert_eq!(
        after(|f| f.settings.sysrq_bits = Some(0)),
        ["Optional sysrq"]
    );
    assert_eq!(after(|f| f.settings.sysrq_bits = Some(64)), [""; 0]);
}

#[test]
fn bpf() {
    assert_eq!(after(|f| f.probes.bpf.btf = refused()), ["Optional btf"]);
    assert_eq!(
        after(|f| f.probes.bpf.fentry = refused()),
        ["Optional fentry"]
    );
    assert_eq!(
        after(|f| f.probes.bpf.kill_kfuncs = refused()),
        ["Optional kfuncs"]
    );
    assert_eq!(
        after(|f| f.probes.bpf.raw_tracepoint = refused()),
        ["Important bpf_programs"]
    );
    assert_eq!(
        after(|f| f.probes.bpf.perf_event = refused()),
        ["Important bpf_programs"]
    );
}

#[test]
fn pressure() {
    assert_eq!(after(|f| f.probes.psi = refused()), ["Important psi"]);
    assert_eq!(
        after(|f| f.probes.psi_triggers[0].outcome = refused()),
        ["Optional psi_triggers"]
    );
    let none = |f: &mut MachineFacts| {
        for trigger in &mut f.probes.psi_triggers {
            trigger.outcome = refused();
        }
    };
    assert_eq!(after(none), ["Optional psi_triggers"]);
}

#[test]
fn cgroups() {
    assert_eq!(
        after(|f| f.cgroups.layout.v2 = None),
        ["Important cgroup_v2"]
    );
    assert_eq!(
        after(|f| f.cgroups.limits = Limits::V1),
        ["Optional memory_limits"]
    );
    assert_eq!(
        after(|f| f.cgroups.limits = Limits::None),
        ["Important memory_limits"]
    );
    assert_eq!(
        after(|f| f.cgroups.target_parent = None),
        ["Important target_place"]
    );
}

#[test]
fn rights() {
    assert_eq!(after(|f| f.privileges.euid = 1000), ["Optional user"]);
    assert_eq!(
        after(|f| f.privileges.initial_user_namespace = false),
        ["Optional user"]
    );
    for capability in [
        Capability::Kill,
        Capability::SysPtrace,
        Capability::SysAdmin,
    ] {
        let lost = after(|f| drop_capability(f, capability));
        assert_eq!(lost, ["Optional capabilities"], "{capability:?}");
    }
    // SYS_ADMIN stands in for the two.
    assert_eq!(after(|f| drop_capability(f, Capability::Bpf)), [""; 0]);
    assert_eq!(after(|f| drop_capability(f, Capability::Perfmon)), [""; 0]);
    assert_eq!(
        after(|f| f.privileges.nofile = Some(256)),
        ["Optional open_files"]
    );
    assert_eq!(
        after(|f| f.unread.push("cannot read x".into())),
        ["Important unread_files"]
    );
}

#[test]
fn what_memwatch_does_for_itself() {
    assert_eq!(after(|f| f.probes.own.kill = refused()), ["Important kill"]);
    assert_eq!(
        after(|f| f.probes.own.memory_lock = refused()),
        ["Important memlock"]
    );
    assert_eq!(
        after(|f| f.probes.own.realtime = refused()),
        ["Optional realtime"]
    );
    assert_eq!(
        after(|f| f.probes.own.oom_score = refused()),
        ["Optional oom_score"]
    );
    assert_eq!(
        after(|f| f.probes.kernel_log = refused()),
        ["Optional kernel_log"]
    );
    assert_eq!(
        after(|f| f.cgroups.own_group = refused()),
        ["Optional own_group"]
    );
}

#[test]
fn locked_memory_takes_the_capability_or_the_limit() {
    let without = |memlock| {
        after(|f| {
            f.privileges.memlock_bytes = memlock;
            drop_capability(f, Capability::IpcLock);
        })
    };
    assert_eq!(
        without(Some(8 << 20)),
        ["Optional capabilities", "Important memlock"]
    );
    assert_eq!(without(Some(1 << 30)), ["Optional capabilities"]);
    assert_eq!(without(None), ["Optional capabilities"]);
    assert_eq!(after(|f| f.privileges.memlock_bytes = Some(0)), [""; 0]);
}

#[test]
fn hidepid_matters_without_ptrace_only() {
    for hidepid in [HidePid::NoAccess, HidePid::Invisible] {
        assert_eq!(after(|f| f.privileges.hidepid = hidepid), [""; 0]);
        let lost = after(|f| {
            f.privileges.hidepid = hidepid;
            drop_capability(f, Capability::SysPtrace);
        });
        assert_eq!(lost, ["Optional capabilities", "Optional hidepid"]);
    }
}

#[test]
fn memory() {
    // Without swap systemd-oomd is of little use, which is a finding of its own.
    assert_eq!(
        after(|f| f.swap.clear()),
        ["Optional swap", "Optional systemd_oomd"]
    );
    assert_eq!(
        after(|f| f.swap = swap_on("/dev/zram0", Medium::Zram)),
        [""; 0]
    );
    assert_eq!(
        after(|f| f.swap = swap_on("/dev/zd0", Medium::Zvol)),
        ["Important zvol_swap"]
    );
    assert_eq!(after(|f| f.ram_bytes = None), ["Fatal ram"]);
    assert_eq!(after(|f| f.arc = None), [""; 0]);
}

#[test]
fn the_arc_is_a_risk_from_a_quarter_of_ram_and_advised_above_its_floor() {
    let ram = healthy().ram_bytes.unwrap();
    let with = |c_max_bytes, c_min_bytes| {
        let mut facts = healthy();
        facts.arc = Some(ArcStats {
            size_bytes: 0,
            c_bytes: 0,
            c_min_bytes,
            c_max_bytes,
        });
        diagnose(&facts)
    };
    assert_eq!(severity_of(&with(ram / 4, 1), "zfs_arc"), None);
    let risky = with(ram / 4 + 1, 5 << 30);
    let advice = find(&risky, "zfs_arc")
        .trouble
        .as_ref()
        .unwrap()
        .advice
        .as_ref()
        .unwrap();
    assert!(
        advice.commands[0].starts_with(&format!("echo {} |", 5u64 << 30)),
        "{advice:?}"
    );
}

#[test]
fn peers() {
    assert_eq!(
        after(|f| f.oomd = Oomd::NotInstalled),
        ["Optional systemd_oomd"]
    );
    assert_eq!(
        after(|f| f.oomd = Oomd::NotRunning),
        ["Optional systemd_oomd"]
    );
    assert_eq!(
        after(|f| f.oomd = Oomd::Stopped { pid: 812 }),
        ["Important systemd_oomd"]
    );
    assert_eq!(
        after(|f| f.oomd = Oomd::Stalled { pid: 812 }),
        ["Important systemd_oomd"]
    );
    assert_eq!(after(|f| f.init.systemd = false), ["Optional init"]);

    let mut stopped = healthy();
    stopped.oomd = Oomd::Stopped { pid: 812 };
    let checks = diagnose(&stopped);
    let trouble = find(&checks, "systemd_oomd").trouble.as_ref().unwrap();
    assert_eq!(
        trouble.advice.as_ref().unwrap().commands,
        ["sudo kill -CONT 812"]
    );
}
