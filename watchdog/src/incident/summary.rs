//! The end of a run, for the person who started it: how it ended, and, if anybody was stopped, who,
//! why, by which steps, why not the others, and what came back. Pure. `paragraph` lays it out;
//! names come escaped from `record`.

use nix::errno::Errno;

use super::{
    BlamedTest, BlockedTask, Culprit, Intervention, KilledBy, Losses, Outcome, Process, Record,
    Rule, RungTaken, Style, TestPhase, Verdict, diagnose, human,
    paragraph::{Paragraph, Tone},
    time_of,
};
use crate::watch::{
    Rung,
    victim::{Ground, Scope},
};

mod suite;
#[cfg(test)]
mod tests;

/// As many interventions, rivals and other victims as are told one by one; the record has all.
const TOLD: usize = 3;

/// What is printed when a run is over: every line ends with a newline and starts with `memwatch:`,
/// since the command's own output is around it.
#[must_use]
pub fn summary(record: &Record, style: Style) -> String {
    let mut page = Paragraph::new(style);
    let (tone, headline) = headline(record);
    page.headline(tone, &headline);
    for intervention in record.interventions.iter().take(TOLD) {
        tell_intervention(&mut page, intervention);
        page.gap();
    }
    if let Some(more @ 1..) = record.interventions.len().checked_sub(TOLD) {
        let times = if more == 1 { "time" } else { "times" };
        page.row(
            "",
            &format!("and {more} {times} more, which `--report FILE` keeps"),
        );
        page.gap();
    }
    tell_near_miss(&mut page, record);
    tell_diagnosis(&mut page, record);
    tell_bystanders(&mut page, record);
    suite::tell(&mut page, record);
    tell_totals(&mut page, record);
    tell_gaps(&mut page, record);
    page.finish()
}

/// How to see more of what happened, where it is kept under `name`.
#[must_use]
pub fn pointer(name: &str, style: Style) -> String {
    let mut page = Paragraph::new(style);
    page.row("more", &format!("memwatch incidents show {name}"));
    page.finish()
}

pub(super) fn headline(record: &Record) -> (Tone, String) {
    let (tone, what) = match record.verdict {
        Verdict::Finished => (Tone::Plain, "finished in"),
        Verdict::FinishedWithKills => (Tone::Warning, "finished in"),
        Verdict::Timeout => (Tone::Loss, "ran out of time and was ended after"),
        Verdict::KilledByMemwatch => (Tone::Loss, "was killed by memwatch after"),
        Verdict::KilledByGuard => (
            Tone::Loss,
            "was killed by memwatch's guard in the kernel after",
        ),
        Verdict::KilledByKernelOom => (Tone::Loss, "was killed by the kernel's OOM killer after"),
        Verdict::Signalled => (Tone::Warning, "was ended by a signal after"),
        Verdict::Ongoing => (Tone::Plain, "has gone on for"),
    };
    let who = record
        .command
        .as_ref()
        .map_or("the target", |command| command.program.as_str());
    let took = human::duration(record.duration_us);
    let how = match (record.exit_code, record.leader_signal) {
        (Some(code), Some(signal)) => format!(" ({signal}, exit code {code})"),
        (Some(code), None) => format!(" (exit code {code})"),
        (None, Some(signal)) => format!(" ({signal})"),
        (None, None) => String::new(),
    };
    let killed = match (record.victims.as_slice(), record.unnamed_kills()) {
        _ if record.verdict != Verdict::FinishedWithKills => String::new(),
        ([victim], 0) => format!("; {} was killed", named(&victim.process)),
        ([], 1) => "; 1 of its processes was killed".to_owned(),
        (victims, unnamed) => format!(
            "; {} of its processes were killed",
            victims.len() as u64 + unnamed
        ),
    };
    let dry = if record.dry_run {
        "; dry run, memwatch signalled nobody"
    } else {
        ""
    };
    (tone, format!("{who} {what} {took}{how}{killed}{dry}"))
}

fn tell_intervention(page: &mut Paragraph, it: &Intervention) {
    let (rule, at) = (rule_name(it.rule), human::duration(it.at_us));
    page.row("why", &format!("{rule} at {at}: {}", it.observed.text));
    let held = optional(it.duration_us, |us| {
        format!("; it held for {}", human::duration(us))
    });
    page.row("rule", &format!("{}{held}", it.threshold.text));
    if let Some(victim) = &it.victim {
        let ground = it.ground.map(ground_phrase);
        let scope = it.scope.map(scope_phrase);
        let about: Vec<_> = [ground, scope].into_iter().flatten().collect();
        let about = if about.is_empty() {
            String::new()
        } else {
            format!("; {}", about.join(", "))
        };
        page.row("victim", &format!("{}{about}", described(victim)));
    }
    if let Some(test) = &it.test {
        page.row("test", &test_phrase(test));
        if let Some(culprit) = test
            .culprit
            .as_ref()
            .filter(|culprit| culprit.id != test.id)
        {
            page.row("culprit", &culprit_phrase(culprit));
        }
    }
    for (n, rival) in it.rivals.iter().take(TOLD).enumerate() {
        let label = if n == 0 { "rivals" } else { "" };
        page.row(
            label,
            &format!("{}: {}", named(&rival.process), rival.why_not),
        );
    }
    if let Some(more @ 1..) = it.rivals.len().checked_sub(TOLD) {
        page.row("", &format!("and {more} more, further behind"));
    }
    for (n, rival) in it.rival_cgroups.iter().enumerate() {
        let label = if n == 0 && it.rivals.is_empty() {
            "rivals"
        } else {
            ""
        };
        let [held, grew] = [rival.memory_bytes, rival.growth_bytes].map(human::bytes);
        page.row(
            label,
            &format!("{}: {held}, grew {grew}", rival.cgroup_path),
        );
    }
    if !it.rungs.is_empty() {
        let rungs: Vec<_> = it
            .rungs
            .chunk_by(|one, other| (one.rung, one.outcome) == (other.rung, other.outcome))
            .map(|taken| rung_phrase(taken, it.at_us))
            .collect();
        page.row("rungs", &rungs.join(", "));
    }
    if let (Some(before), Some(after)) = (it.memory_before_bytes, it.memory_after_bytes) {
        let freed = human::bytes(before.saturating_sub(after));
        let took = optional(it.recovery_us, |us| format!(" in {}", human::duration(us)));
        let [before, after] = [before, after].map(human::bytes);
        page.row("freed", &format!("{freed}{took}, from {before} to {after}"));
    }
}

/// `exhaustion at 3.2s: limit full in 90ms (...); memwatch steps in at 50ms or less`
fn tell_near_miss(page: &mut Paragraph, record: &Record) {
    let Some(near) = &record.near_miss else {
        return;
    };
    let (rule, at) = (rule_name(near.rule), human::duration(near.at_us));
    let (observed, threshold) = (&near.observed.text, &near.threshold.text);
    page.row(
        "near",
        &format!("{rule} at {at}: {observed}; memwatch steps in at {threshold}"),
    );
}

/// `tests/test_b.py::test_index (gw1), in its call for 4.2s, grew 12 MiB`
pub(super) fn test_phrase(test: &BlamedTest) -> String {
    let worker = optional(test.worker.as_ref(), |it| format!(" ({it})"));
    let phase = match test.phase {
        TestPhase::Collect => "collected",
        TestPhase::Setup => "in its setup",
        TestPhase::Call => "running",
        TestPhase::Teardown => "in its teardown",
    };
    let elapsed = optional(test.elapsed_us, |us| {
        format!(" for {}", human::duration(us))
    });
    let grew = optional(test.growth_bytes, |bytes| {
        format!(", grew {}", human::bytes(bytes))
    });
    format!("{}{worker}, {phase}{elapsed}{grew}", test.id)
}

/// `tests/test_b.py::test_load grew 900 MiB, 97% of what its process grew in its tests`
pub(super) fn culprit_phrase(culprit: &Culprit) -> String {
    let grew = human::bytes(culprit.growth_bytes);
    let sure = optional(
        human::percent(u64::from(culprit.sure_permille), 1000),
        |share| format!(", {share} of what its process grew in its tests"),
    );
    format!("{} grew {grew}{sure}", culprit.id)
}

pub(super) fn rule_name(rule: Rule) -> &'static str {
    match rule {
        Rule::Exhaustion => "exhaustion",
        Rule::MachineExhaustion => "exhaustion of the machine",
        Rule::Stall => "stall",
        Rule::MachineStall => "stall with the machine short of memory",
        Rule::Timeout => "timeout",
        Rule::TestMemory => "memory limit of a test",
        Rule::TestTimeout => "time limit of a test",
        Rule::NoProgress => "no progress",
        Rule::Guard => "stall with the agent silent",
        Rule::OomdPressure => "pressure, by systemd-oomd's rule",
        Rule::OomdSwap => "memory and swap used up, by systemd-oomd's rule",
    }
}

pub(super) fn ground_phrase(ground: Ground) -> &'static str {
    match ground {
        Ground::Growth => "it grew the most",
        Ground::Stall => "it stalled the most",
        Ground::MajorFaults => "it took the most major faults",
        Ground::SystemTime => "it was the busiest in the kernel",
        Ground::Size => "it held the most",
    }
}

pub(super) fn scope_phrase(scope: Scope) -> &'static str {
    match scope {
        Scope::Process => "taken with its children",
        Scope::Group => "taken with its process group",
        Scope::Target => "and it is the command itself",
    }
}

/// `SIGKILL after 18ms`, or `SIGTERM to 12 processes after 0s` for what went to many at once, counted
/// from the moment at which the rule was met.
pub(super) fn rung_phrase(alike: &[RungTaken], met_at_us: u64) -> String {
    let [taken, ..] = alike else {
        return String::new();
    };
    let whom = match alike.len() {
        1 => String::new(),
        many => format!(" to {many} processes"),
    };
    let rung = match taken.rung {
        Rung::Warn => "warning",
        Rung::Abort => "test failed",
        Rung::Freeze => "freeze",
        Rung::Sigint => "SIGINT",
        Rung::Sigterm => "SIGTERM",
        Rung::Sigkill => "SIGKILL",
    };
    let outcome = match taken.outcome {
        Outcome::Delivered => String::new(),
        Outcome::Gone => " (it was gone)".to_owned(),
        Outcome::Refused { errno } => format!(" (refused: {})", Errno::from_raw(errno).desc()),
        Outcome::DryRun => " (dry run)".to_owned(),
    };
    let after = human::duration(taken.at_us.saturating_sub(met_at_us));
    format!("{rung}{whom} after {after}{outcome}")
}

/// What the evidence of a frozen machine comes to, if there is any.
fn tell_diagnosis(page: &mut Paragraph, record: &Record) {
    let Some(diagnosis) = diagnose(record) else {
        return;
    };
    if let Some(onset_us) = diagnosis.onset_us {
        page.row(
            "onset",
            &format!("at or before {}", time_of(record, onset_us)),
        );
    }
    for finding in &diagnosis.findings {
        page.row(finding.kind.name(), finding.what.as_str());
        for line in &finding.evidence {
            page.row("", &format!("- {line}"));
        }
    }
    for advice in &diagnosis.advice {
        page.row("do", &format!("{}:", advice.what));
        for command in &advice.commands {
            page.command(command);
        }
    }
    page.gap();
}

/// Those who were killed without having been chosen, tasks that the kernel reported as hung, and those that
/// memwatch saw blocked for long.
fn tell_bystanders(page: &mut Paragraph, record: &Record) {
    let chosen = |pid| {
        let mut victims = record
            .interventions
            .iter()
            .filter_map(|it| it.victim.as_ref());
        victims.any(|victim| victim.pid == pid)
    };
    let others = record
        .victims
        .iter()
        .filter(|victim| !chosen(victim.process.pid));
    for victim in others.clone().take(TOLD) {
        let by = match victim.killed_by {
            KilledBy::Memwatch => "memwatch",
            KilledBy::Guard => "memwatch's guard in the kernel",
            KilledBy::KernelOom => "the kernel's OOM killer",
        };
        let at = optional(victim.at_us, |us| format!(" at {}", human::duration(us)));
        page.row("killed", &format!("{} by {by}{at}", named(&victim.process)));
    }
    if let Some(more @ 1..) = others.count().checked_sub(TOLD) {
        page.row("", &format!("and {more} more"));
    }
    if let unnamed @ 1.. = record.unnamed_kills() {
        let who = if unnamed == 1 { "process" } else { "processes" };
        page.row(
            "killed",
            &format!(
                "{} {who} by the kernel's OOM killer, unseen",
                human::count(unnamed)
            ),
        );
    }
    for task in record.hung_tasks.iter().take(TOLD) {
        let at = optional(task.at_us, |us| format!(" at {}", human::duration(us)));
        page.row(
            "hung",
            &format!(
                "{} (tid {}), reported by the kernel{at}",
                task.comm, task.tid
            ),
        );
    }
    if let Some(more @ 1..) = record.hung_tasks.len().checked_sub(TOLD) {
        page.row("", &format!("and {more} more"));
    }
    for task in record.blocked_tasks.iter().take(TOLD) {
        page.row("blocked", &blocked_phrase(task));
    }
    if let Some(more @ 1..) = record.blocked_tasks.len().checked_sub(TOLD) {
        page.row("", &format!("and {more} more"));
    }
}

/// `txg_sync (tid 611) in uninterruptible sleep from 8.0s on, for 2m 05s, in cv_wait_common`
pub(super) fn blocked_phrase(task: &BlockedTask) -> String {
    let BlockedTask { comm, tid, .. } = task;
    let at = optional(task.at_us, |us| format!(" from {} on", human::duration(us)));
    let lasted = optional(task.lasted_us, |us| {
        format!(", for {}", human::duration(us))
    });
    let function = optional(task.function.as_ref(), |it| format!(", in {it}"));
    format!("{comm} (tid {tid}) in uninterruptible sleep{at}{lasted}{function}")
}

fn tell_totals(page: &mut Paragraph, record: &Record) {
    let share = |part, whole| optional(human::percent(part, whole), |it| format!(" ({it})"));
    let peak = record
        .peak_bytes
        .map(|peak| match record.target.memory_max_bytes {
            Some(max) => {
                format!(
                    "peak {} of {}{}",
                    human::bytes(peak),
                    human::bytes(max),
                    share(peak, max)
                )
            }
            None => format!("peak {}, no limit", human::bytes(peak)),
        });
    let stalled = record.stall_us.map(|us| {
        format!(
            "stalled for {}{}",
            human::duration(us),
            share(us, record.duration_us)
        )
    });
    row_of_two(page, "memory", peak, stalled);

    let faults: Vec<String> = [
        (record.faults.minor, "minor"),
        (record.faults.major, "major"),
    ]
    .into_iter()
    .filter_map(|(n, kind)| Some(format!("{} {kind}", human::count(n?))))
    .collect();
    let faults = (!faults.is_empty()).then(|| faults.join(", "));
    row_of_two(page, "faults", faults, reclaimed(record));
}

fn reclaimed(record: &Record) -> Option<String> {
    let kinds = [record.reclaim.direct, record.reclaim.memcg];
    let times = kinds.into_iter().flatten().reduce(u64::saturating_add)?;
    if times == 0 {
        return Some("no reclaim".to_owned());
    }
    let took = optional(record.reclaim.stall_us, |us| {
        format!(" in {}", human::duration(us))
    });
    let word = if times == 1 { "time" } else { "times" };
    Some(format!("reclaimed {} {word}{took}", human::count(times)))
}

/// What a reader should not take for complete.
fn tell_gaps(page: &mut Paragraph, record: &Record) {
    if let Some(lost) = lost(&record.losses) {
        page.row("lost", &lost);
    }
    // A run in which nothing happened owes no account of the evidence it would have had.
    if !record.interventions.is_empty() {
        for it in &record.features_lost {
            page.row(
                "without",
                &format!("{}, {} instead: {}", it.feature, it.fallback, it.cost),
            );
        }
    }
    for note in &record.notes {
        page.row("note", note.as_str());
    }
}

pub(super) fn lost(losses: &Losses) -> Option<String> {
    let parts: Vec<String> = [
        (losses.ring_drops, "events dropped"),
        (losses.untracked_processes, "processes not counted"),
        (losses.missed_looks, "looks came late"),
        (losses.unreadable_files, "files not readable"),
        (losses.truncated_strings, "strings cut"),
        (losses.hung_helpers, "helper threads hung"),
        (losses.dropped_jobs, "jobs of theirs dropped"),
        (losses.blocked_tasks, "blocked tasks not told"),
        (
            losses.kernel_lines,
            "lines of the kernel's log not read or kept",
        ),
    ]
    .into_iter()
    .filter(|&(n, _)| n > 0)
    .map(|(n, what)| format!("{} {what}", human::count(n)))
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Two halves of one line, of which either may not be known.
fn row_of_two(page: &mut Paragraph, label: &str, one: Option<String>, other: Option<String>) {
    let known: Vec<String> = [one, other].into_iter().flatten().collect();
    if !known.is_empty() {
        page.row(label, &known.join("; "));
    }
}

/// A phrase about what may not be known, or nothing.
fn optional<T>(known: Option<T>, phrase: impl FnOnce(T) -> String) -> String {
    known.map(phrase).unwrap_or_default()
}

fn named(process: &Process) -> String {
    format!("{} (pid {})", process.comm, process.pid)
}

fn described(process: &Process) -> String {
    let size = optional(process.rss_bytes, |size| {
        format!(", {}", human::bytes(size))
    });
    let grown = process.growth_bytes.filter(|&grown| grown > 0);
    let grown = optional(grown, |grown| format!(", grew {}", human::bytes(grown)));
    [named(process), size, grown].concat()
}
