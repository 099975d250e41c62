//! The history of a project as one HTML page that needs nothing else: no script, no network, a style of its own.
//! maud escapes what is put into it, so that no test's name is more than its name. The curves are `chart`'s.

mod chart;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use maud::{Markup, html};

use self::chart::{Chart, Point};
use crate::incident::suite::Outcome;
use crate::incident::{Text, Timestamp, bytes, duration};
use crate::page::frame;
use crate::tests::{Figure, Measured, Run, Worse, worsenings};

const STYLE: &str = include_str!("style.css");
/// Regressions that are listed; the tests' curves show them all.
const LISTED: usize = 100;

/// The page of `project`'s runs, the oldest first.
#[must_use]
pub fn page(project: &Text, runs: &[Run]) -> String {
    let worse = worsenings(runs);
    let rows = rows(runs, &worse);
    let numbers: BTreeMap<&Text, usize> = rows
        .iter()
        .enumerate()
        .map(|(n, row)| (row.id, n))
        .collect();
    let title = format!("Tests of {project}");
    let body = html! {
        header {
            h1 { (title) }
            p { (span(runs)) ", " (rows.len()) " tests" }
        }
        main {
            section.suite {
                (whole(runs, Figure::Memory, "Most memory at once", |run| run.peak_bytes))
                (whole(runs, Figure::Time, "Time of all tests", |run| Some(run.total_us())))
            }
            (regressions(runs, &worse, &numbers))
            (tests(&rows))
        }
        footer {
            p {
                "A red dot is a run in which a test is worse than in the ten before, by half of its memory \
                 or three fifths of its time and by more than the noise. A cross is a run in which it \
                 failed. Made by memwatch " (env!("CARGO_PKG_VERSION")) "."
            }
        }
    };
    frame(&title, STYLE, &body)
}

/// A test over all runs.
struct Row<'r> {
    id: &'r Text,
    last: &'r Measured,
    is_gone: bool,
    memory: Vec<Option<Point>>,
    time: Vec<Option<Point>>,
    latest_regression: Option<usize>,
}

/// Those that got worse last come first, then by memory.
fn rows<'r>(runs: &'r [Run], worse: &[Worse]) -> Vec<Row<'r>> {
    let mut tests: BTreeMap<&Text, Vec<Option<&Measured>>> = BTreeMap::new();
    for (n, run) in runs.iter().enumerate() {
        for (id, test) in &run.tests {
            tests.entry(id).or_insert_with(|| vec![None; runs.len()])[n] = Some(test);
        }
    }
    let marked: HashSet<(usize, &Text, Figure)> = worse
        .iter()
        .map(|it| (it.run, &it.change.id, it.change.figure))
        .collect();
    let mut latest: BTreeMap<&Text, usize> = BTreeMap::new();
    for it in worse.iter().filter(|it| it.is_new) {
        latest.insert(&it.change.id, it.run);
    }
    let mut rows: Vec<Row<'r>> = tests
        .into_iter()
        .filter_map(|(id, tests)| {
            let points = |figure, value: &dyn Fn(&Measured) -> Option<u64>| {
                let point = |(n, test): (usize, &Option<&Measured>)| {
                    let test = (*test)?;
                    Some(Point {
                        value: value(test)?,
                        is_worse: marked.contains(&(n, id, figure)),
                        is_failed: test.outcome.is_failure(),
                    })
                };
                tests.iter().enumerate().map(point).collect()
            };
            Some(Row {
                id,
                last: tests.iter().rev().find_map(|test| *test)?,
                is_gone: tests.last()?.is_none(),
                memory: points(Figure::Memory, &|test| test.memory_bytes),
                time: points(Figure::Time, &|test| Some(test.wall_us)),
                latest_regression: latest.get(id).copied(),
            })
        })
        .collect();
    rows.sort_by_key(|row| {
        (
            Reverse(row.latest_regression),
            Reverse(row.last.memory_bytes),
        )
    });
    rows
}

fn span(runs: &[Run]) -> String {
    match runs {
        [] => "No runs".to_owned(),
        [one] => format!("1 run, {}", day(&one.started_at)),
        [first, .., last] => {
            let (first, last) = (day(&first.started_at), day(&last.started_at));
            format!("{} runs, {first} to {last}", runs.len())
        }
    }
}

/// A curve of the runs as wholes.
fn whole(runs: &[Run], figure: Figure, title: &str, value: impl Fn(&Run) -> Option<u64>) -> Markup {
    let point = |run: &Run| {
        Some(Point {
            value: value(run)?,
            is_worse: false,
            is_failed: false,
        })
    };
    let points: Vec<_> = runs.iter().map(point).collect();
    let values = || points.iter().flatten().map(|point| point.value);
    let said =
        |value: Option<u64>| value.map_or("not known".to_owned(), |value| shown(figure, value));
    html! {
        figure {
            figcaption { (title) ": " strong { (said(values().next_back())) } ", at most " (said(values().max())) }
            (Chart::LARGE.draw(&points, title, |value| shown(figure, value)))
        }
    }
}

fn regressions(runs: &[Run], worse: &[Worse], numbers: &BTreeMap<&Text, usize>) -> Markup {
    let mut listed: Vec<_> = worse.iter().filter(|it| it.is_new).collect();
    listed.sort_by_key(|it| Reverse(it.run));
    let count = listed.len();
    html! {
        section {
            h2 { "Regressions (" (count) ")" }
            @if listed.is_empty() {
                p { "None." }
            } @else {
                ol.regressions reversed {
                    @for it in listed.iter().take(LISTED) {
                        li {
                            time { (minute(&runs[it.run].started_at)) } " "
                            span.what { (it.change.figure) " "
                                (shown(it.change.figure, it.change.base)) " → "
                                strong { (shown(it.change.figure, it.change.new)) }
                            } " "
                            a href={ "#t" (numbers.get(&it.change.id).copied().unwrap_or(0)) } { (it.change.id) }
                        }
                    }
                }
                @if count > LISTED {
                    p { "And " (count - LISTED) " older ones." }
                }
            }
        }
    }
}

fn tests(rows: &[Row<'_>]) -> Markup {
    html! {
        section {
            h2 { "Tests" }
            div.tests role="table" aria-label="Tests" {
                div.row.heads role="row" {
                    span role="columnheader" { "Test" }
                    span role="columnheader" { "Memory" }
                    span role="columnheader" { "Time" }
                }
                @for (n, row) in rows.iter().enumerate() {
                    div.row role="row" id={ "t" (n) } {
                        div.name role="cell" {
                            (row.id)
                            @if let Some(note) = note(row) { " " em { (note) } }
                        }
                        (cell(Figure::Memory, row.last.memory_bytes, &row.memory))
                        (cell(Figure::Time, Some(row.last.wall_us), &row.time))
                    }
                }
            }
        }
    }
}

fn cell(figure: Figure, last: Option<u64>, points: &[Option<Point>]) -> Markup {
    html! {
        div.figure role="cell" {
            span.value { (last.map_or("-".to_owned(), |last| shown(figure, last))) }
            (Chart::SMALL.draw(points, &figure.to_string(), |value| shown(figure, value)))
        }
    }
}

/// What else there is to say of a test's last run.
fn note(row: &Row<'_>) -> Option<&'static str> {
    match row.last.outcome {
        _ if row.is_gone => Some("gone"),
        Outcome::Passed => None,
        outcome => Some(outcome.name()),
    }
}

fn shown(figure: Figure, value: u64) -> String {
    match figure {
        Figure::Memory => bytes(value),
        Figure::Time => duration(value),
    }
}

fn day(time: &Timestamp) -> String {
    let time = time.to_string();
    time.split('T').next().unwrap_or_default().to_owned()
}

fn minute(time: &Timestamp) -> String {
    let time = time.to_string().replacen('T', " ", 1);
    match time.rsplit_once(':') {
        Some((minute, _)) => minute.to_owned(),
        None => time,
    }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod page_tests;
