//! The tables below the picture: tests, events, what is missing, settings.

use std::cmp::Reverse;

use maud::{Markup, html};

use super::evidence::known;
use super::rows::outcome_class;
use crate::incident::suite::{Suite, Test};
use crate::incident::summary::lost;
use crate::incident::timeline::marks;
use crate::incident::{Record, Text, human};

/// Tests that stand open.
const TESTS: usize = 12;
/// Events that stand open.
const EVENTS: usize = 30;

/// A table that may be wider than its page.
pub(super) fn scroll(name: &str, table: Markup) -> Markup {
    html! { div.scroll role="region" aria-label=(name) tabindex="0" { (table) } }
}

/// The tests: those that failed or grew the most first.
pub(super) fn tests(record: &Record) -> Markup {
    let Some(suite) = record
        .suite
        .as_ref()
        .filter(|suite| !suite.tests.is_empty())
    else {
        return html! {};
    };
    let mut tests: Vec<&Test> = suite.tests.iter().collect();
    tests.sort_by_key(|test| {
        let is_ours = test.ended_by_memwatch.is_some();
        (
            Reverse(is_ours),
            Reverse(test.outcome.is_failure()),
            Reverse(test.growth_bytes()),
        )
    });
    let (first, rest) = tests.split_at(tests.len().min(TESTS));
    html! {
        section {
            h2 { "Tests" }
            p.faint { (about(suite)) }
            (scroll("Tests", table(first)))
            @if !rest.is_empty() {
                details {
                    summary { (rest.len()) " more" }
                    (scroll("Further tests", table(rest)))
                }
            }
        }
    }
}

fn about(suite: &Suite) -> String {
    let mut parts = vec![format!("{} ran", suite.tests.len())];
    if let Some(selected) = suite.selected {
        parts[0] = format!("{} of {selected} ran", suite.tests.len());
    }
    let failed = suite
        .tests
        .iter()
        .filter(|test| test.outcome.is_failure())
        .count();
    parts.push(format!("{failed} failed"));
    if suite.workers > 0 {
        parts.push(format!("{} workers", suite.workers));
    }
    parts.extend(
        suite
            .pytest_version
            .as_ref()
            .map(|it| format!("pytest {it}")),
    );
    parts.extend(
        suite
            .python_version
            .as_ref()
            .map(|it| format!("Python {it}")),
    );
    if suite.lost > 0 {
        parts.push(format!("{} results lost", human::count(suite.lost)));
    }
    parts.join(", ")
}

fn table(tests: &[&Test]) -> Markup {
    html! {
        table {
            thead { tr { th { "Test" } th { "Outcome" } th { "Worker" } th.n { "Began" } th.n { "Took" } th.n { "Grew" } th.n { "Kept" } } }
            tbody {
                @for test in tests {
                    tr {
                        td.name {
                            (test.id)
                            @if let Some(why) = &test.ended_by_memwatch { " " em { (why) } }
                            @for leak in &test.leaks { " " em { "left " (leak.phrase()) } }
                        }
                        td { i class={ "dot " (outcome_class(test.outcome)) } {} (test.outcome.name()) }
                        td { @if let Some(worker) = &test.worker { (worker) } @else { (test.pid) } }
                        td.n { (human::duration(test.at_us)) }
                        td.n { (human::duration(test.wall_us)) }
                        td.n { (known(test.growth_bytes(), human::bytes)) }
                        td.n { (known(test.retained_bytes(), human::bytes)) }
                    }
                }
            }
        }
    }
}

/// All marks, as text.
pub(super) fn events(record: &Record) -> Markup {
    let marks = marks(record);
    let (first, rest) = marks.split_at(marks.len().min(EVENTS));
    let table = |marks: &[super::Mark]| {
        html! {
            table {
                thead { tr { th.n { "When" } th { "What" } th { "To whom, and why" } } }
                tbody {
                    @for mark in marks {
                        tr {
                            td.n { (super::plot::exact(mark.at_us)) }
                            td { (super::plot::symbol(mark.sort)) " " (mark.sort.phrase()) }
                            td { (mark.text) }
                        }
                    }
                }
            }
        }
    };
    html! {
        @if !marks.is_empty() {
            section {
                h2 { "Events" }
                (scroll("Events", table(first)))
                @if !rest.is_empty() {
                    details { summary { (rest.len()) " more" } (scroll("Further events", table(rest))) }
                }
            }
        }
    }
}

/// What a reader should not take for complete.
pub(super) fn gaps(record: &Record) -> Markup {
    let lost = lost(&record.losses);
    let late = record.losses.longest_delay_us;
    html! {
        @if lost.is_some() || !record.features_lost.is_empty() || !record.notes.is_empty() {
            section {
                h2 { "What is missing" }
                @if let Some(lost) = lost {
                    p { "Lost: " (lost) @if late > 0 { "; the latest look by " (human::duration(late)) } "." }
                }
                @if !record.features_lost.is_empty() {
                    (scroll("What is not offered here", html! {
                        table {
                            thead { tr { th { "Not offered here" } th { "Used instead" } th { "What that costs" } } }
                            tbody {
                                @for it in &record.features_lost { tr { td { (it.feature) } td { (it.fallback) } td { (it.cost) } } }
                            }
                        }
                    }))
                }
                @if !record.notes.is_empty() {
                    h4 { "Notes" }
                    ul { @for note in &record.notes { li { (note) } } }
                }
            }
        }
    }
}

/// Under which terms, where, and of what this is the record.
pub(super) fn settings(record: &Record) -> Markup {
    let command = record.command.as_ref();
    let arguments = command.and_then(|command| command.arguments.as_ref());
    let identity = [
        ("Verdict", Some(record.verdict.phrase().to_owned())),
        (
            "Command",
            command.map(|command| command.program.to_string()),
        ),
        (
            "Arguments",
            arguments.map(|words| {
                words
                    .iter()
                    .map(|word| word.as_str())
                    .collect::<Vec<_>>()
                    .join(" ")
            }),
        ),
        (
            "Cgroup",
            record.target.cgroup_path.as_ref().map(ToString::to_string),
        ),
        ("Began", Some(record.started_at.to_string())),
        ("Ended", Some(record.ended_at.to_string())),
        (
            "Host",
            record.host.hostname.as_ref().map(ToString::to_string),
        ),
        (
            "Kernel",
            record.host.kernel_release.as_ref().map(ToString::to_string),
        ),
        (
            "Boot",
            record.host.boot_id.as_ref().map(ToString::to_string),
        ),
        ("User", record.target.uid.map(|uid| format!("uid {uid}"))),
    ];
    html! {
        section {
            h2 { "Settings and identity" }
            div.two {
                dl.facts.mono {
                    @for (name, value) in identity {
                        @if let Some(value) = value { dt { (name) } dd { (value) } }
                    }
                }
                @if !record.settings.is_empty() {
                    details.card {
                        summary { (record.settings.len()) " settings in force" }
                        dl.facts.mono {
                            @for (name, value) in &record.settings { dt { (Text::from(name.as_str())) } dd { (setting(value)) } }
                        }
                    }
                }
            }
        }
    }
}

fn setting(value: &serde_json::Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    Text::from(text).to_string()
}
