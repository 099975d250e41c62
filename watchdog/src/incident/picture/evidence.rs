//! What was found and done: each intervention with its candidates and stacks, what the kernel said, and how it stood
//! with the machine. The words are the summary's where it has them.

use maud::{Markup, html};

use super::tables::scroll;
use crate::incident::summary::{
    blocked_phrase, culprit_phrase, ground_phrase, rule_name, rung_phrase, scope_phrase,
    test_phrase,
};
use crate::incident::{
    ArcState, BlockedTask, Intervention, KernelLine, Machine, Process, Record, human,
};

/// Interventions that stand open, and rivals in each.
const OPEN: usize = 3;
const RIVALS: usize = 8;

/// What memwatch did, and why.
pub(super) fn interventions(record: &Record) -> Markup {
    html! {
        @if !record.interventions.is_empty() {
            section {
                h2 { "What memwatch did" }
                @for (n, it) in record.interventions.iter().enumerate() {
                    details.card open[n < OPEN] {
                        summary { strong { (human::duration(it.at_us)) } " " (rule_name(it.rule)) ": " (it.observed.text) }
                        (intervention(it))
                    }
                }
            }
        }
    }
}

fn intervention(it: &Intervention) -> Markup {
    let rungs: Vec<String> = it
        .rungs
        .chunk_by(|one, other| (one.rung, one.outcome) == (other.rung, other.outcome))
        .map(|taken| rung_phrase(taken, it.at_us))
        .collect();
    let freed = it
        .memory_before_bytes
        .zip(it.memory_after_bytes)
        .map(|(before, after)| {
            let took = it
                .recovery_us
                .map_or(String::new(), |us| format!(" in {}", human::duration(us)));
            let freed = human::bytes(before.saturating_sub(after));
            format!(
                "{freed}{took}, from {} to {}",
                human::bytes(before),
                human::bytes(after)
            )
        });
    html! {
        dl.facts {
            dt { "Rule" } dd {
                (it.threshold.text)
                @if let Some(held) = it.duration_us { "; it held for " (human::duration(held)) }
            }
            @if !rungs.is_empty() { dt { "Rungs" } dd { (rungs.join(", ")) } }
            @if let Some(freed) = freed { dt { "Freed" } dd { (freed) } }
            @if let Some(test) = &it.test {
                dt { "Test" } dd.name { (test_phrase(test)) }
                @if let Some(culprit) = &test.culprit { dt { "Culprit" } dd.name { (culprit_phrase(culprit)) } }
            }
        }
        (candidates(it))
        @if !it.python_stack.is_empty() {
            h4 { "Python stacks" }
            pre tabindex="0" { @for line in &it.python_stack { (line) "\n" } }
        }
    }
}

/// Who was chosen, and why not the others.
fn candidates(it: &Intervention) -> Markup {
    let about: Vec<&str> = [it.ground.map(ground_phrase), it.scope.map(scope_phrase)]
        .into_iter()
        .flatten()
        .collect();
    let (first, rest) = it.rivals.split_at(it.rivals.len().min(RIVALS));
    html! {
        @if it.victim.is_some() || !it.rivals.is_empty() {
            h4 { "Candidates" }
            (scroll("Candidates", html! {
                table.candidates {
                    thead { tr { th { "Process" } th.n { "Holds" } th.n { "Grew" } th.n { "Stalled" } th.n.more { "In swap" } th.n.more { "Major faults" } th { "Why, or why not" } } }
                    tbody {
                        @if let Some(victim) = &it.victim {
                            (candidate(victim, html! { strong { "chosen" } @if !about.is_empty() { ": " (about.join(", ")) } }, true))
                        }
                        @for rival in first { (candidate(&rival.process, html! { (rival.why_not) }, false)) }
                    }
                    @if !rest.is_empty() {
                        tbody { tr { td colspan="7" { "and " (rest.len()) " more, further behind, which the record has" } } }
                    }
                }
            }))
        }
        @if !it.rival_cgroups.is_empty() {
            h4 { "Other cgroups" }
            (scroll("Other cgroups", html! {
                table {
                    thead { tr { th { "Cgroup" } th.n { "Holds" } th.n { "Grew" } } }
                    tbody { @for rival in &it.rival_cgroups { tr {
                        td.name { (rival.cgroup_path) }
                        td.n { (human::bytes(rival.memory_bytes)) }
                        td.n { (human::bytes(rival.growth_bytes)) }
                    } } }
                }
            }))
        }
    }
}

fn candidate(process: &Process, why: Markup, is_victim: bool) -> Markup {
    let held = process.rss_bytes.or(process.anon_bytes);
    html! {
        tr.chosen[is_victim] {
            td { (process.comm) " " span.faint { (process.pid) } }
            td.n { (known(held, human::bytes)) }
            td.n { (known(process.growth_bytes, human::bytes)) }
            td.n { (known(process.stall_us, human::duration)) }
            td.n.more { (known(process.swap_bytes, human::bytes)) }
            td.n.more { (known(process.major_faults, human::count)) }
            td { (why) }
        }
    }
}

/// Not known is never zero.
pub(super) fn known(value: Option<u64>, show: fn(u64) -> String) -> String {
    value.map_or("-".to_owned(), show)
}

/// What the kernel did and said by itself.
pub(super) fn kernel(record: &Record) -> Markup {
    let is_quiet = record.kernel_oom.is_empty()
        && record.unnamed_kills() == 0
        && record.hung_tasks.is_empty()
        && record.blocked_tasks.is_empty()
        && record.kernel_log.is_empty();
    html! {
        @if !is_quiet {
            section {
                h2 { "The kernel" }
                ul {
                    @for victim in &record.kernel_oom {
                        li { "The OOM killer took " strong { (victim.comm) " (" (victim.pid) ")" } (at(victim.at_us)) "." }
                    }
                    @if let unseen @ 1.. = record.unnamed_kills() {
                        li { "The OOM killer took " (human::count(unseen)) " more, unseen." }
                    }
                    @for task in &record.hung_tasks {
                        li { "Reported as hung: " strong { (task.comm) } " (tid " (task.tid) ")" (at(task.at_us)) "." }
                    }
                }
                @for task in &record.blocked_tasks { (blocked(task)) }
                @if !record.kernel_log.is_empty() {
                    h4 { "Its log" }
                    pre tabindex="0" { @for line in &record.kernel_log { (kernel_line(line)) "\n" } }
                }
            }
        }
    }
}

fn blocked(task: &BlockedTask) -> Markup {
    html! {
        @if task.stack.is_empty() {
            p { (blocked_phrase(task)) }
        } @else {
            details.card open {
                summary { (blocked_phrase(task)) }
                pre tabindex="0" { @for line in &task.stack { (line) "\n" } }
            }
        }
    }
}

fn kernel_line(line: &KernelLine) -> Markup {
    let seconds = line.at_us as f64 / 1e6;
    html! { span.sev.grave[line.severity <= 3] { (format!("{seconds:>10.3}")) } " " (line.text) }
}

fn at(us: Option<u64>) -> String {
    us.map_or(String::new(), |us| format!(" at {}", human::duration(us)))
}

/// The machine when the record was made, systemd-oomd among it.
pub(super) fn machine(record: &Record) -> Markup {
    let rows = [
        record
            .machine
            .as_ref()
            .map(about_machine)
            .unwrap_or_default(),
        about_takeover(record),
    ]
    .concat();
    html! {
        @if !rows.is_empty() {
            section {
                h2 { "The machine" }
                dl.facts {
                    @for (name, value) in &rows { dt { (name) } dd { (value) } }
                }
            }
        }
    }
}

type Row = (&'static str, String);

fn about_machine(machine: &Machine) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let of = |part: Option<u64>, whole: Option<u64>, word: &str| {
        let part = part?;
        let whole = whole.map_or(String::new(), |whole| {
            format!(" of {}", human::bytes(whole))
        });
        Some(format!("{}{whole} {word}", human::bytes(part)))
    };
    rows.extend(
        of(
            machine.memory_available_bytes,
            machine.memory_total_bytes,
            "available",
        )
        .map(|it| ("Memory", it)),
    );
    match machine.swap_total_bytes {
        Some(0) => rows.push(("Swap", "none".to_owned())),
        total => rows.extend(of(machine.swap_free_bytes, total, "free").map(|it| ("Swap", it))),
    }
    for area in &machine.swaps {
        let medium = serde_json::to_value(area.medium).ok();
        let medium = medium
            .and_then(|it| Some(it.as_str()?.to_owned()))
            .unwrap_or_default();
        rows.push((
            "Swap area",
            format!(
                "{} on {medium}, {}",
                area.path,
                human::bytes(area.size_bytes)
            ),
        ));
    }
    let share = |permille: Option<u32>| permille.and_then(|it| human::percent(it.into(), 1000));
    if let Some((some, full)) = share(machine.some_permille).zip(share(machine.full_permille)) {
        rows.push((
            "Pressure",
            format!("some {some}, full {full} of the last ten seconds"),
        ));
    }
    if let Some(mglru) = machine.mglru {
        rows.push((
            "Page ageing",
            if mglru {
                "by generations (MGLRU)"
            } else {
                "by two lists"
            }
            .to_owned(),
        ));
    }
    rows.extend(machine.arc.as_ref().map(|arc| ("ZFS ARC", about_arc(arc))));
    rows.extend(
        machine
            .oomd
            .as_ref()
            .map(|oomd| ("systemd-oomd", oomd.to_string())),
    );
    rows
}

fn about_arc(arc: &ArcState) -> String {
    let shrank = match arc.shrank {
        Some(true) => "; it gave memory back under pressure",
        Some(false) => "; it gave nothing back under pressure",
        None => "",
    };
    format!(
        "{}, aims at {} (c), between {} (c_min) and {} (c_max){shrank}",
        human::bytes(arc.size_bytes),
        human::bytes(arc.c_bytes),
        human::bytes(arc.c_min_bytes),
        human::bytes(arc.c_max_bytes),
    )
}

fn about_takeover(record: &Record) -> Vec<Row> {
    let Some(takeover) = &record.takeover else {
        return Vec::new();
    };
    let mut rows: Vec<Row> = Vec::new();
    if let Some(fault) = takeover.fault {
        let after = takeover.noticed_after_us.map_or(String::new(), |us| {
            format!(", for {} when memwatch took over", human::duration(us))
        });
        rows.push(("Taken over since it", format!("{}{after}", fault.phrase())));
    }
    rows.extend(
        takeover
            .lasted_us
            .map(|us| ("In its place for", human::duration(us))),
    );
    if !takeover.units.is_empty() {
        let units: Vec<&str> = takeover.units.iter().map(|unit| unit.as_str()).collect();
        rows.push(("Its units", units.join(", ")));
    }
    rows
}
