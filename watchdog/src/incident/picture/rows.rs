//! The rows beside the curves: what happened, and a lane for each process with its memory and its tests.

use maud::{Markup, html};

use super::plot::{self, Line, across, percent};
use crate::incident::suite::Outcome;
use crate::incident::summary::blocked_phrase;
use crate::incident::timeline::{Bar, Lane, Mark, Window};
use crate::incident::{Record, human};

/// Lanes that are shown at once; the others unfold.
const SHOWN: usize = 16;
/// Two marks that are nearer, as a share of the width, are drawn one below the other: a mark on a phone.
const NEAR: f64 = 0.055;
/// Rows of marks.
const DEEPEST: usize = 6;
/// Of the width: what is drawn of a test that took no time to speak of.
const NARROWEST: f64 = 0.0012;

/// What happened, above the curves.
pub(super) fn marks(window: Window, marks: &[Mark]) -> Markup {
    let placed = placed(window, marks);
    let deep = placed.iter().map(|it| it.row + 1).max().unwrap_or(0);
    html! {
        @if deep > 0 {
            div.row {
                div.caption { strong { "What happened" } }
                svg class={ "marks deep" (deep) } role="img" aria-label={ (marks.len()) " marks, listed below under Events" } {
                    (plot::grid(window))
                    (plot::through(window, marks))
                    @for it in &placed {
                        (plot::symbol_at(window, it.mark.at_us, it.row, it.mark.sort, &it.title()))
                    }
                }
            }
        }
    }
}

/// A mark, or several of a sort at one place.
struct Placed<'m> {
    mark: &'m Mark,
    more: usize,
    row: usize,
}

impl Placed<'_> {
    fn title(&self) -> String {
        let Mark {
            at_us, sort, text, ..
        } = self.mark;
        let more = match self.more {
            0 => String::new(),
            more => format!(" (and {more} more at this time)"),
        };
        format!("{} at {}: {text}{more}", sort.phrase(), plot::exact(*at_us))
    }
}

/// Where each is drawn, so that none covers another as long as there are rows.
fn placed(window: Window, marks: &[Mark]) -> Vec<Placed<'_>> {
    let mut placed: Vec<Placed<'_>> = Vec::new();
    let mut ends = [f64::MIN; DEEPEST];
    for mark in marks.iter().filter(|mark| window.holds(mark.at_us)) {
        let at = window.place(mark.at_us);
        let near = |it: &&mut Placed<'_>| {
            it.mark.sort == mark.sort && at - window.place(it.mark.at_us) < NEAR / 4.0
        };
        if let Some(same) = placed.iter_mut().rev().take(DEEPEST).find(near) {
            same.more += 1;
            continue;
        }
        let free = ends
            .iter()
            .position(|&end| end <= at)
            .unwrap_or(DEEPEST - 1);
        ends[free] = at + NEAR;
        placed.push(Placed {
            mark,
            more: 0,
            row: free,
        });
    }
    placed
}

/// All of a long run, small: its tests, what happened, and which part of it is drawn below.
pub(super) fn overview(whole: Window, close: Window, marks: &[Mark], lanes: &[Lane]) -> Markup {
    let tested: Vec<&Lane> = lanes
        .iter()
        .filter(|lane| !lane.bars.is_empty())
        .take(SHOWN)
        .collect();
    let (from, width) = (
        across(whole, close.from_us),
        percent(close.span_us() as f64 / whole.span_us() as f64),
    );
    html! {
        div.row.axis { div {} (plot::axis(whole)) }
        (self::marks(whole, marks))
        @for lane in &tested {
            div.row.thin {
                div.who { (lane.name()) }
                svg.strip role="img" aria-label={ (lane.name()) ": " (lane.bars.len()) " tests" } {
                    rect.recorded x=(from) width=(width) y="0" height="100%" {}
                    (plot::grid(whole))
                    (bars(whole, &lane.bars, 2))
                }
            }
        }
        @if tested.is_empty() {
            div.row.thin {
                div.who { "recorded" }
                svg.strip role="img" aria-label="The recorded part" {
                    (plot::grid(whole))
                    rect.recorded x=(from) width=(width) y="0" height="100%" {}
                }
            }
        }
    }
}

/// Tasks that were in uninterruptible sleep for long: a bar for as long as each was.
pub(super) fn blocked(window: Window, record: &Record) -> Markup {
    let end = i64::try_from(record.duration_us).unwrap_or(i64::MAX);
    let spans = record.blocked_tasks.iter().filter_map(|task| {
        let from = i64::try_from(task.at_us?).ok()?;
        let lasted = task
            .lasted_us
            .map(|us| i64::try_from(us).unwrap_or(i64::MAX));
        let to = lasted.map_or(end, |us| from.saturating_add(us));
        (from <= window.to_us && to >= window.from_us).then_some((task, from, to))
    });
    let spans: Vec<_> = spans.collect();
    html! {
        @if !spans.is_empty() {
            h3 { "Blocked tasks" }
            @for (task, from, to) in spans.iter().take(SHOWN) {
                @let (begin, over) = (window.place(*from).clamp(0.0, 1.0), window.place(*to).clamp(0.0, 1.0));
                div.row.thin {
                    div.who { strong { (task.comm) } " " (task.tid) @if let Some(function) = &task.function { " in " (function) } }
                    svg.strip role="img" aria-label=(blocked_phrase(task)) {
                        (plot::grid(window))
                        rect.span.m-blocked x=(percent(begin)) width=(percent((over - begin).max(NARROWEST))) y="2" height="9" rx="1.5" {
                            title { (blocked_phrase(task)) }
                        }
                    }
                }
            }
            @if spans.len() > SHOWN { p.faint { "And " (spans.len() - SHOWN) " more, listed below." } }
        }
    }
}

/// A lane for each process.
pub(super) fn lanes(window: Window, lanes: &[Lane]) -> Markup {
    let top = lanes.iter().map(|lane| lane.peak_bytes).max().unwrap_or(0);
    let (first, rest) = lanes.split_at(lanes.len().min(SHOWN));
    html! {
        @if !lanes.is_empty() {
            h3 { "Processes" }
            p.faint {
                "Anonymous memory of each, all on one scale up to " (human::bytes(top))
                @if lanes.iter().any(|lane| !lane.bars.is_empty()) { "; below it, its tests" }
                ". Those that matter come first."
            }
            div.row.axis { div {} (plot::axis(window)) }
            @for lane in first { (self::lane(window, lane, top)) }
            @if !rest.is_empty() {
                details {
                    summary { (rest.len()) " more, the largest with " (human::bytes(rest.iter().map(|lane| lane.peak_bytes).max().unwrap_or(0))) }
                    @for lane in rest { (self::lane(window, lane, top)) }
                }
            }
        }
    }
}

fn lane(window: Window, lane: &Lane, top: u64) -> Markup {
    let line = Line {
        curve: &lane.anon_bytes,
        class: if lane.is_victim { "victim" } else { "anon" },
        is_area: true,
    };
    let has_tests = !lane.bars.is_empty();
    html! {
        div.row.lane {
            div.who {
                strong { (lane.name()) } " " span.faint { (lane.pid) }
                @if lane.is_victim { " " span.badge.grave { "victim" } }
                @else if lane.is_rival { " " span.badge { "nearest rival" } }
                " " span.faint.size {
                    @if lane.peak_bytes > 0 { (human::bytes(lane.peak_bytes)) }
                    @if has_tests { ", " (lane.bars.len()) (if lane.bars.len() == 1 { " test" } else { " tests" }) }
                }
            }
            svg class=(if has_tests { "lane tested" } else { "lane" }) role="img"
                aria-label={ (lane.name()) ", process " (lane.pid) ", at most " (human::bytes(lane.peak_bytes)) } {
                (plot::grid(window))
                svg width="100%" height=(if has_tests { "28" } else { "30" }) {
                    (plot::curves(window, &[line], top as f64 * 1.05, 120))
                }
                @if has_tests { (bars(window, &lane.bars, 30)) }
                @for mark in lane.marks.iter().filter(|mark| window.holds(mark.at_us)) {
                    @let x = across(window, mark.at_us);
                    line class={ "through strong " (plot::class_of(mark.sort)) } x1=(x) x2=(x) y1="0" y2="100%" {
                        title { (mark.sort.phrase()) " at " (plot::exact(mark.at_us)) ": " (mark.text) }
                    }
                }
            }
        }
    }
}

fn bars(window: Window, bars: &[Bar], y: u32) -> Markup {
    let shown = bars
        .iter()
        .filter(|bar| bar.from_us <= window.to_us && bar.to_us >= window.from_us);
    html! {
        @for bar in shown {
            @let from = window.place(bar.from_us).clamp(0.0, 1.0);
            @let to = window.place(bar.to_us).clamp(0.0, 1.0);
            rect class={ "test " (outcome_class(bar.outcome)) } x=(percent(from)) y=(y)
                width=(percent((to - from).max(NARROWEST))) height="9" rx="1.5" {
                title {
                    (bar.id) ": " (bar.outcome.name()) ", "
                    (human::duration(u64::try_from(bar.to_us - bar.from_us).unwrap_or(0)))
                }
            }
        }
    }
}

pub(super) fn outcome_class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed | Outcome::Xpassed => "t-ok",
        Outcome::Failed | Outcome::Error => "t-bad",
        Outcome::Killed => "t-killed",
        Outcome::Skipped | Outcome::Xfailed | Outcome::Unknown => "t-none",
    }
}

impl Lane {
    /// What a reader knows it by: its worker, or else its own name.
    fn name(&self) -> String {
        let comm = self.comm.map(|comm| comm.to_string());
        match (&self.worker, comm) {
            (Some(worker), _) => worker.to_string(),
            (None, Some(comm)) => comm,
            (None, None) => "process".to_owned(),
        }
    }
}
