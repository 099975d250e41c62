//! What a record's evidence of a frozen machine comes to: since when it was frozen, what was lost, what was the
//! cause and what is a risk alone, and what to do about each. Pure, from what the record has; a record without
//! such evidence has no diagnosis. The commands are `advice`'s; `summary` and the pictures print it.

use super::{ArcState, Kind, Record, ServiceLine, Text, Timestamp, advice, human};
use crate::host::swap::Medium;

mod lines;
#[cfg(test)]
mod tests;

use lines::{blocked_for_s, watchdog_limit_us};

/// As many names and lines as are told of one finding.
const TOLD: usize = 4;

/// What the evidence comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// When it had begun at the latest, from the start of the run; `None` if nothing tells.
    pub onset_us: Option<i64>,
    /// What was found: signs first, then causes, then risks.
    pub findings: Vec<Finding>,
    /// What to do about it.
    pub advice: Vec<Advice>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it says.
    pub kind: FindingKind,
    /// In a sentence.
    pub what: Text,
    /// Since when, from the start of the run.
    pub since_us: Option<i64>,
    /// What it is taken from.
    pub evidence: Vec<Text>,
}

/// How much a finding says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// It shows that the machine was frozen.
    Sign,
    /// Without it this would not have come so far.
    Cause,
    /// It makes such a thing worse or likelier, and nothing shows that it did.
    Risk,
}

impl FindingKind {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Cause => "cause",
            Self::Risk => "risk",
        }
    }
}

/// What to do about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// In a phrase.
    pub what: &'static str,
    /// To be typed as they are; `COMMAND` and `...` stand for what was run.
    pub commands: Vec<String>,
}

/// What the evidence in `record` comes to; `None` if nothing in it says that the machine was frozen.
#[must_use]
pub fn diagnose(record: &Record) -> Option<Diagnosis> {
    let mut diagnosis = Diagnosis::default();
    let oomd_lost = diagnosis.watchdogs(record);
    diagnosis.blocked_tasks(record);
    if record.kind == Kind::HardReset {
        diagnosis.find(
            FindingKind::Sign,
            "the machine ended without being shut down",
            None,
            Vec::new(),
        );
    }
    if diagnosis.findings.is_empty() {
        return None;
    }
    let since = diagnosis.findings.iter().filter_map(|it| it.since_us);
    diagnosis.onset_us = since.min();
    diagnosis.no_limit(record);
    diagnosis.no_oomd(record, oomd_lost);
    diagnosis.arc(record);
    diagnosis.swap(record);
    diagnosis.advise(
        "be able to act when the machine is frozen (Alt+SysRq, docs/OPERATIONS.md)",
        vec![advice::allow_sysrq()],
    );
    diagnosis.findings.sort_by_key(|finding| finding.kind);
    Some(diagnosis)
}

/// The time of day, in UTC, that `at_us` from the start of the record's run was: `2026-03-01T09:09:16Z`.
#[must_use]
pub fn time_of(record: &Record, at_us: i64) -> Text {
    let second = record
        .started_at
        .unix_us()
        .and_then(|start| Timestamp::of_unix_us(start.saturating_add(at_us)));
    match second {
        Some(time) => {
            let time = time.to_string();
            let second = time
                .split_once('.')
                .map_or(time.as_str(), |(second, _)| second);
            format!("{}Z", second.trim_end_matches('Z')).into()
        }
        None => {
            let (before, us) = (at_us < 0, at_us.unsigned_abs());
            let side = if before { "before" } else { "after" };
            format!("{} {side} the start", human::duration(us)).into()
        }
    }
}

impl Diagnosis {
    fn find(
        &mut self,
        kind: FindingKind,
        what: impl Into<Text>,
        since_us: Option<i64>,
        evidence: Vec<Text>,
    ) {
        self.findings.push(Finding {
            kind,
            what: what.into(),
            since_us,
            evidence,
        });
    }

    fn advise(&mut self, what: &'static str, commands: Vec<String>) {
        self.advice.push(Advice { what, commands });
    }

    /// Services that systemd ended since they gave no sign of life: they, and with them likely all else, stood
    /// still from the last one on, which came so long before. Whether systemd-oomd is one of them.
    fn watchdogs(&mut self, record: &Record) -> bool {
        let mut oomd_lost = false;
        for line in &record.service_log {
            let Some(limit_us) = watchdog_limit_us(line.text.as_str()) else {
                continue;
            };
            let since_us = line.at_us.saturating_sub_unsigned(limit_us);
            let [since, at] = [since_us, line.at_us].map(|us| time_of(record, us));
            let unit = line.unit.as_str().trim_end_matches(".service");
            let is_oomd = unit == "systemd-oomd";
            let lost = if is_oomd { " lost: it" } else { "" };
            oomd_lost |= is_oomd;
            let what = format!(
                "{unit}{lost} gave no sign of life since {since} or before; systemd's watchdog of {} ended it at {at}",
                human::duration(limit_us),
            );
            let of_unit = record.service_log.iter().filter(|it| it.unit == line.unit);
            let told = of_unit.filter(|it| it.at_us >= line.at_us).take(TOLD);
            let line = |it: &ServiceLine| {
                let at = time_of(record, it.at_us);
                // systemd names the unit itself.
                match it.text.as_str().starts_with(it.unit.as_str()) {
                    true => format!("{at} {}", it.text).into(),
                    false => format!("{at} {}: {}", it.unit, it.text).into(),
                }
            };
            let evidence = told.map(line).collect();
            self.find(FindingKind::Sign, what, Some(since_us), evidence);
        }
        oomd_lost
    }

    /// Tasks that the kernel's log reports as blocked, and those that memwatch saw.
    fn blocked_tasks(&mut self, record: &Record) {
        let mut tasks: Vec<(i64, String)> = Vec::new();
        let mut evidence: Vec<Text> = Vec::new();
        for line in &record.kernel_log {
            let Some((name, seconds)) = blocked_for_s(line.text.as_str()) else {
                continue;
            };
            let us = seconds.saturating_mul(1_000_000);
            tasks.push((line.at_us.saturating_sub_unsigned(us), name.to_owned()));
            if evidence.len() < TOLD {
                evidence
                    .push(format!("{} kernel: {}", time_of(record, line.at_us), line.text).into());
            }
        }
        for task in &record.blocked_tasks {
            if let Some(at_us) = task.at_us.and_then(|us| i64::try_from(us).ok()) {
                tasks.push((at_us, task.comm.to_string()));
            }
        }
        let mut names: Vec<&str> = Vec::new();
        for (_, name) in &tasks {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        // One alone may wait for a server that is gone, and is told where it stands; memwatch's own sight of tasks
        // goes with the kernel's.
        if evidence.is_empty() || names.len() < 2 {
            return;
        }
        let since_us = tasks.iter().map(|(since_us, _)| *since_us).min();
        let more = match names.len().saturating_sub(TOLD) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let zfs = if names.contains(&"txg_sync") {
            "; txg_sync is among them, so ZFS wrote nothing any more"
        } else {
            ""
        };
        let since = time_of(record, since_us.unwrap_or_default());
        let what = format!(
            "tasks blocked since about {since}: {}{more}{zfs}",
            names[..names.len().min(TOLD)].join(", ")
        );
        self.find(FindingKind::Sign, what, since_us, evidence);
    }

    fn no_limit(&mut self, record: &Record) {
        let is_run = record.command.is_some() || record.target.cgroup_path.is_some();
        let is_limited =
            record.target.memory_max_bytes.is_some() || record.target.limit_enforcer.is_some();
        if !is_run || is_limited {
            return;
        }
        let program = record.command.as_ref().map(|it| it.program.as_str());
        let who = program.unwrap_or("the target");
        let held = record.peak_bytes.map_or(String::new(), |peak| {
            format!("; it held up to {}", human::bytes(peak))
        });
        let what = format!(
            "{who} ran with no memory limit: nothing kept it from taking all memory of the machine{held}"
        );
        self.find(FindingKind::Cause, what, None, Vec::new());
        let ram = record.machine.as_ref().and_then(|it| it.memory_total_bytes);
        self.advise("run it with a limit", advice::limit_run(program, ram));
    }

    fn no_oomd(&mut self, record: &Record, was_lost: bool) {
        let measured = record.machine.as_ref().and_then(|it| it.oomd.as_ref());
        let is_well = |state: &&Text| state.as_str() == "well";
        let ails = measured.filter(|state| !is_well(state));
        if let Some(state) = ails.filter(|_| !was_lost) {
            let what =
                format!("systemd-oomd was {state} when measured: it ends nothing that eats memory");
            self.find(FindingKind::Risk, what, None, Vec::new());
        }
        if was_lost || ails.is_some() {
            self.advise(
                "have somebody act who is awake: memwatch takes over when systemd-oomd is lost",
                advice::replace_oomd().to_vec(),
            );
        }
    }

    fn arc(&mut self, record: &Record) {
        let Some(machine) = &record.machine else {
            return;
        };
        let (Some(arc), Some(ram)) = (machine.arc, machine.memory_total_bytes) else {
            return;
        };
        if !advice::is_arc_risk(arc.c_max_bytes, ram) {
            return;
        }
        let (kind, verdict) = arc_verdict(&arc, ram);
        let share = human::percent(arc.c_max_bytes, ram).unwrap_or_default();
        let what = format!(
            "the ZFS ARC may grow to {} ({share} of memory); {verdict}",
            human::bytes(arc.c_max_bytes)
        );
        let figures = format!(
            "arcstats: size {}, c {}, c_min {}, c_max {}",
            arc.size_bytes, arc.c_bytes, arc.c_min_bytes, arc.c_max_bytes
        );
        self.find(kind, what, None, vec![figures.into()]);
        self.advise(
            "cap the ARC, now and at every boot",
            advice::cap_arc(arc.c_min_bytes, ram).to_vec(),
        );
    }

    /// ZFS allocates memory to write, so swapping to it can wait for itself.
    fn swap(&mut self, record: &Record) {
        let swaps = record.machine.iter().flat_map(|machine| &machine.swaps);
        let zvols: Vec<_> = swaps.filter(|it| it.medium == Medium::Zvol).collect();
        let Some(zvol) = zvols.first() else {
            return;
        };
        let what = format!(
            "{} is swap on a ZFS volume: ZFS needs memory to write it",
            zvol.path
        );
        self.find(FindingKind::Risk, what, None, Vec::new());
        self.advise(
            "swap to a partition or to zram instead",
            vec!["swapon --show".to_owned()],
        );
    }
}

/// Whether the ARC is to blame, and why or why not.
fn arc_verdict(arc: &ArcState, ram: u64) -> (FindingKind, String) {
    let size = human::bytes(arc.size_bytes);
    if advice::is_arc_small(arc.size_bytes, ram) {
        let aim = human::bytes(arc.c_bytes);
        let why = format!(
            "it held {size} and aimed at {aim} when measured, so it is a risk, and not a cause that was seen"
        );
        return (FindingKind::Risk, why);
    }
    match arc.shrank {
        Some(false) => (
            FindingKind::Cause,
            format!("it held {size} and gave nothing back under pressure"),
        ),
        Some(true) => (
            FindingKind::Risk,
            format!("it held {size} when measured, and gave memory back"),
        ),
        None => (
            FindingKind::Risk,
            format!("it held {size} when measured; whether it gave memory back was not seen"),
        ),
    }
}
