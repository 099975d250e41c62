//! An incident as one HTML page that needs nothing else: no script, no network, a style of its own. Above, all of it
//! on one time axis (`charts`, `rows`), below, what was found and done (`evidence`, `tables`). maud escapes what is put
//! into it, so that no name is more than its name. What is drawn where is `timeline`'s.

mod charts;
mod evidence;
mod plot;
mod rows;
mod tables;
#[cfg(test)]
mod tests;

use maud::{Markup, html};

use crate::page::frame;

use super::summary::{headline, rung_phrase};
use super::timeline::{self, Mark, Window, lanes, marks};
use super::{Record, Text, Timestamp, human};

const STYLE: &str = include_str!("style.css");

/// The page of `record`.
#[must_use]
pub fn page(record: &Record) -> String {
    let (_, headline) = headline(record);
    let body = html! {
        (top(record, &headline))
        main {
            (over_time(record))
            (evidence::interventions(record))
            (evidence::kernel(record))
            (evidence::machine(record))
            (tables::tests(record))
            (tables::events(record))
            (tables::gaps(record))
            (tables::settings(record))
        }
        footer {
            p { "Incident " code { (record.id) } ", made by memwatch " (Text::from(record.memwatch_version.as_str())) "." }
        }
    };
    frame(&headline, STYLE, &body)
}

/// What one must know at once.
fn top(record: &Record, headline: &str) -> Markup {
    let kind = record.kind;
    html! {
        header {
            p.kind {
                span.badge.grave[is_grave(record)] { (kind.phrase()) }
                @if record.dry_run { " " span.badge { "dry run" } }
                " " time { (second(&record.started_at)) }
                @if let Some(host) = &record.host.hostname { " on " (host) }
            }
            h1 { (headline) }
            @if let Some(why) = why(record) { p.why { (why) } }
            dl.tiles {
                @for (name, value, more) in tiles(record) {
                    div { dt { (name) } dd { strong { (value) } @if !more.is_empty() { " " span { (more) } } } }
                }
            }
        }
    }
}

fn is_grave(record: &Record) -> bool {
    use super::Kind;
    matches!(
        record.kind,
        Kind::Kill | Kind::KernelOom | Kind::Timeout | Kind::HardReset | Kind::Hang
    )
}

/// The first thing that was done, or how near it came, in a sentence.
fn why(record: &Record) -> Option<String> {
    let Some(first) = record.interventions.first() else {
        let near = record.near_miss.as_ref()?;
        let at = human::duration(near.at_us);
        let (observed, threshold) = (&near.observed.text, &near.threshold.text);
        return Some(format!(
            "{at} into the run: {observed}; memwatch steps in at {threshold}. It got away by itself."
        ));
    };
    let alike: Vec<_> = first
        .rungs
        .chunk_by(|one, other| (one.rung, one.outcome) == (other.rung, other.outcome))
        .map(|taken| rung_phrase(taken, first.at_us))
        .collect();
    let rungs = if alike.is_empty() {
        String::new()
    } else {
        format!("; {}", alike.join(", "))
    };
    let at = human::duration(first.at_us);
    Some(format!(
        "{at} into the run: {}{rungs}.",
        first.observed.text
    ))
}

/// A figure, its value, and what that is to be held against.
fn tiles(record: &Record) -> Vec<(&'static str, String, String)> {
    let mut tiles = Vec::new();
    let mut tile = |name, value: Option<String>, more: Option<String>| {
        if let Some(value) = value {
            tiles.push((name, value, more.unwrap_or_default()));
        }
    };
    let limit = record.target.memory_max_bytes;
    tile(
        "Most memory",
        record.peak_bytes.map(human::bytes),
        Some(limit.map_or("no limit".to_owned(), |limit| {
            format!("of {}", human::bytes(limit))
        })),
    );
    let share =
        |us| human::percent(us, record.duration_us).map(|share| format!("{share} of the time"));
    tile(
        "Some stalled",
        record.stall_us.map(human::duration),
        record.stall_us.and_then(share),
    );
    tile(
        "All stalled",
        record.stall_full_us.map(human::duration),
        record.stall_full_us.and_then(share),
    );
    let minor = record
        .faults
        .minor
        .map(|n| format!("and {} minor", human::count(n)));
    tile("Major faults", record.faults.major.map(human::count), minor);
    let reclaim = [record.reclaim.direct, record.reclaim.memcg]
        .into_iter()
        .flatten()
        .reduce(u64::saturating_add);
    let took = record
        .reclaim
        .stall_us
        .map(|us| format!("times, {}", human::duration(us)));
    tile("Reclaimed", reclaim.map(human::count), took);
    let ended = record.victims.len() as u64 + record.unnamed_kills();
    let named = record
        .victims
        .first()
        .map(|victim| format!("{} ({})", victim.process.comm, victim.process.pid));
    tile("Ended", Some(human::count(ended)), named);
    tile(
        "Took",
        Some(human::duration(record.duration_us)),
        record.exit_code.map(|code| format!("exit code {code}")),
    );
    tiles
}

fn over_time(record: &Record) -> Markup {
    let marks = marks(record);
    let lanes = lanes(record, &marks);
    let whole = timeline::whole(record);
    let close = timeline::close(record);
    let began = second(&record.started_at);
    html! {
        section.time {
            h2 { "Over time" }
            p.faint { "Times are from the start, " time { (began) } "." }
            (legend(&marks))
            @if let Some(close) = close {
                h3 { "All of it" }
                (rows::overview(whole, close, &marks, &lanes))
                h3 { "The recorded part" }
            }
            @let window = close.unwrap_or(whole);
            (axis(window))
            (rows::marks(window, &marks))
            @if let Some(flight) = &record.flight {
                (charts::all(record, flight, window, &marks))
                @if let Some(near) = timeline::around_kill(record, &marks) {
                    details.near {
                        summary { "Closer: the seconds around the first kill" }
                        (axis(near))
                        (rows::marks(near, &marks))
                        (charts::near(record, flight, near, &marks))
                    }
                }
                @if flight.lost > 0 { p.faint { (human::count(flight.lost)) " looks found no room and are missing." } }
            } @else {
                p.faint { "No looks were recorded with this incident, so that there are no curves." }
            }
            (rows::blocked(window, record))
            (rows::lanes(window, &lanes))
        }
    }
}

/// Which sorts of marks there are.
fn legend(marks: &[Mark]) -> Markup {
    let sorts: Vec<_> = timeline::Sort::ALL
        .into_iter()
        .filter(|sort| marks.iter().any(|mark| mark.sort == *sort))
        .collect();
    html! {
        @if !sorts.is_empty() {
            ul.legend aria-label="Marks" {
                @for sort in sorts {
                    li { (plot::symbol(sort)) " " (sort.phrase()) }
                }
            }
        }
    }
}

/// The times that all rows below share.
fn axis(window: Window) -> Markup {
    html! {
        div.row.axis {
            div {}
            (plot::axis(window))
        }
    }
}

fn second(time: &Timestamp) -> String {
    let time = time.to_string().replacen('T', " ", 1);
    match time.split_once('.') {
        Some((second, _)) => format!("{second} UTC"),
        None => time,
    }
}
