//! The machine whose freezes memwatch was made for, from its log; and what must not be made of less.

use super::super::{KernelLine, ServiceLine, Style, Takeover, sample, schema, summary};
use super::*;

const THIRD_FREEZE: &[u8] =
    include_bytes!("../../../../tests/fixtures/incidents/third-freeze.json");

fn third_freeze() -> Record {
    let record = Record::from_json(THIRD_FREEZE).expect("a record");
    schema::validate(&record);
    record
}

fn of(record: &Record) -> Diagnosis {
    diagnose(record).expect("a diagnosis")
}

fn found<'a>(diagnosis: &'a Diagnosis, part: &str) -> &'a Finding {
    let mut findings = diagnosis.findings.iter();
    findings
        .find(|finding| finding.what.as_str().contains(part))
        .unwrap_or_else(|| panic!("no `{part}` in {diagnosis:#?}"))
}

#[test]
fn the_third_freeze_is_told_as_it_was() {
    let record = third_freeze();
    let diagnosis = of(&record);
    let onset_us = diagnosis.onset_us.expect("an onset");
    assert_eq!(time_of(&record, onset_us).as_str(), "2026-03-01T09:09:16Z");

    let oomd = found(&diagnosis, "systemd-oomd lost");
    assert_eq!(
        (oomd.kind, oomd.since_us),
        (FindingKind::Sign, Some(onset_us))
    );
    assert_eq!(oomd.evidence.len(), 4, "{oomd:#?}");

    let blocked = found(&diagnosis, "tasks blocked since about 2026-03-01T09:10:32Z");
    for name in ["txg_sync", "gnome-shell", "zvol_tq-0", "ZFS wrote nothing"] {
        assert!(blocked.what.as_str().contains(name), "{blocked:#?}");
    }
    let since_us = blocked.since_us.expect("known");
    assert_eq!(time_of(&record, since_us).as_str(), "2026-03-01T09:10:32Z");

    assert_eq!(
        found(&diagnosis, "no memory limit").kind,
        FindingKind::Cause
    );
    let arc = found(&diagnosis, "ZFS ARC");
    assert_eq!(arc.kind, FindingKind::Risk);
    let figures = "arcstats: size 1323119696, c 1402630144, c_min 1042968576, c_max 16687497216";
    assert_eq!(arc.evidence, [Text::from(figures)]);
    let causes = diagnosis
        .findings
        .iter()
        .filter(|it| it.kind == FindingKind::Cause);
    assert_eq!(causes.count(), 1, "the limit alone");

    let commands: Vec<_> = diagnosis
        .advice
        .iter()
        .flat_map(|it| &it.commands)
        .collect();
    for command in [
        "memwatch attach --safe -- pytest ...",
        "memwatch attach --memory-max 16G -- pytest ...",
        "echo 3221225472 | sudo tee /sys/module/zfs/parameters/zfs_arc_max",
        "sudo systemctl enable --now memwatch",
        "sudo sysctl kernel.sysrq=244",
    ] {
        assert!(
            commands.iter().any(|it| *it == command),
            "{command}: {commands:#?}"
        );
    }
}

#[test]
fn the_summary_tells_it_word_for_word() {
    let style = Style {
        color: false,
        width: Some(100),
    };
    let expected = include_str!("third-freeze.txt");
    let told = summary(&third_freeze(), style);
    if std::env::var_os("BLESS").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/incident/diagnosis/third-freeze.txt"
        );
        std::fs::write(path, &told).expect("written");
    }
    assert_eq!(told, expected);
}

#[test]
fn without_evidence_there_is_no_diagnosis() {
    for record in [sample::quiet(), sample::killed(), sample::grave()] {
        assert_eq!(diagnose(&record), None);
    }
    let mut record = sample::quiet();
    record.target.memory_max_bytes = None;
    record.target.limit_enforcer = None;
    record.takeover = Some(Takeover::default());
    record.machine = third_freeze().machine;
    assert_eq!(diagnose(&record), None, "risks alone are the doctor's");
    let lines = &third_freeze().kernel_log;
    record.kernel_log = lines[2..3].to_vec();
    assert_eq!(
        diagnose(&record),
        None,
        "one task may wait for what is gone"
    );
    record.kernel_log = lines[2..4].to_vec();
    assert!(diagnose(&record).is_some());
    record.kernel_log.clear();
    record.kernel_log.push(KernelLine {
        at_us: 5,
        severity: 3,
        text: "python3 invoked oom-killer: gfp_mask=0xcc0".into(),
    });
    assert_eq!(diagnose(&record), None);
}

#[test]
fn a_limited_run_and_another_service_are_told_as_what_they_are() {
    let mut record = third_freeze();
    record.target.memory_max_bytes = Some(4 << 30);
    for line in &mut record.service_log {
        line.unit = "systemd-journald.service".into();
    }
    let diagnosis = of(&record);
    let whats: Vec<_> = diagnosis
        .findings
        .iter()
        .map(|it| it.what.as_str())
        .collect();
    let all = whats.join("\n");
    assert!(
        !all.contains("no memory limit") && !all.contains("lost"),
        "{all}"
    );
    found(
        &diagnosis,
        "systemd-journald gave no sign of life since 2026-03-01T09:09:16Z",
    );
    let oomd = found(&diagnosis, "systemd-oomd was not running when measured");
    assert_eq!(oomd.kind, FindingKind::Risk);
}

#[test]
fn an_arc_that_holds_much_is_judged_by_whether_it_gave_back() {
    let mut record = third_freeze();
    let mut verdict = |size_gib: u64, shrank| {
        let machine = record.machine.as_mut().expect("told");
        let arc = machine.arc.as_mut().expect("ZFS");
        arc.size_bytes = size_gib << 30;
        arc.shrank = shrank;
        found(&of(&record), "ZFS ARC").kind
    };
    assert_eq!(verdict(14, Some(false)), FindingKind::Cause);
    assert_eq!(verdict(14, Some(true)), FindingKind::Risk);
    assert_eq!(verdict(14, None), FindingKind::Risk);
    assert_eq!(
        verdict(1, Some(false)),
        FindingKind::Risk,
        "it had nothing to give"
    );
    let machine = record.machine.as_mut().expect("told");
    machine.arc.as_mut().expect("ZFS").c_max_bytes = 4 << 30;
    let capped = of(&record);
    assert!(
        !capped
            .findings
            .iter()
            .any(|it| it.what.as_str().contains("ARC"))
    );
}

#[test]
fn swap_on_a_zfs_volume_is_a_risk() {
    let mut record = third_freeze();
    let machine = record.machine.as_mut().expect("told");
    machine.swaps[0].medium = Medium::Zvol;
    assert_eq!(
        found(&of(&record), "swap on a ZFS volume").kind,
        FindingKind::Risk
    );
}

#[test]
fn a_reset_alone_has_no_onset_and_times_without_a_start_are_counted_from_it() {
    let mut record = sample::quiet();
    record.kind = Kind::HardReset;
    let diagnosis = of(&record);
    assert_eq!(diagnosis.onset_us, None);
    record.started_at = serde_json::from_str("\"once\"").expect("a text");
    assert_eq!(
        time_of(&record, -5_000_000).as_str(),
        "5.0s before the start"
    );
    assert_eq!(
        time_of(&record, i64::MAX).as_str(),
        "2562047788h 00m after the start"
    );
}

#[test]
fn no_line_of_a_log_makes_it_panic_or_speak() {
    let mut record = third_freeze();
    record.kernel_log.push(KernelLine {
        at_us: i64::MIN,
        severity: 3,
        text: "INFO: task \x1b[2J\n:1 blocked for more than 18446744073709551615 seconds.".into(),
    });
    record.service_log.push(ServiceLine {
        at_us: i64::MIN,
        unit: "systemd-oomd.service\n".into(),
        text: "Watchdog timeout (limit 99999d)!".into(),
    });
    let told = summary(&record, Style::default());
    assert!(
        !told.contains(|c: char| c.is_control() && c != '\n'),
        "{told:?}"
    );
    assert!(told.lines().all(|line| line.starts_with("memwatch:")));
}
