//! A plot: SVG within the page, as wide as its place and so high as its class says. Places along the time are shares
//! of the width, so that text keeps its size on a phone and on a wall; curves alone are stretched.

use std::fmt::Write;

use maud::{Markup, html};

use crate::incident::timeline::{Curve, Mark, Sort, Window, thinned};

/// Width and height of the room in which curves are drawn before they are stretched.
const WIDE: f64 = 1000.0;
const HIGH: f64 = 100.0;
/// Of that height, so that a line on an edge is whole.
const MARGIN: f64 = 3.0;
/// A screen has hardly more columns for a curve.
const COLUMNS: usize = 400;
/// Times on an axis: as many as a phone has room for.
const TICKS: i64 = 5;
/// Half of a letter on an axis, as a share of a phone's width.
const HALF_LETTER: f64 = 0.0095;

/// A place along the time, as SVG takes it.
pub(super) fn across(window: Window, at_us: i64) -> String {
    percent(window.place(at_us).clamp(0.0, 1.0))
}

/// A share with a hundredth of a percent: a tenth of a pixel.
pub(super) fn percent(share: f64) -> String {
    let hundredths = (share * 10_000.0).round() / 100.0;
    format!("{hundredths}%")
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'c> {
    pub(super) curve: &'c Curve,
    /// Of the stroke, and of the area below with `is_area`.
    pub(super) class: &'static str,
    pub(super) is_area: bool,
}

/// Curves from zero to `top`.
pub(super) fn curves(window: Window, lines: &[Line<'_>], top: f64, columns: usize) -> Markup {
    html! {
        svg width="100%" height="100%" viewBox={ "0 0 " (WIDE) " " (HIGH) } preserveAspectRatio="none" {
            @for line in lines {
                @let thin = thinned(line.curve, window, columns);
                @if thin.len() > 1 {
                    @let path = path(&thin, window, top);
                    @if line.is_area {
                        path class={ "area " (line.class) } d={ (path) (closing(&thin, window)) } {}
                    }
                    path class=(line.class) d=(path) {}
                }
            }
        }
    }
}

/// As many columns as a large plot has.
pub(super) const fn columns() -> usize {
    COLUMNS
}

fn x(window: Window, at_us: i64) -> f64 {
    WIDE * window.place(at_us).clamp(-0.01, 1.01)
}

fn y(value: f64, top: f64) -> f64 {
    let share = if top > 0.0 {
        (value / top).clamp(0.0, 1.05)
    } else {
        0.0
    };
    HIGH - MARGIN - (HIGH - 2.0 * MARGIN) * share
}

fn path(curve: &Curve, window: Window, top: f64) -> String {
    let mut path = String::new();
    for (n, &(at, value)) in curve.iter().enumerate() {
        let verb = if n == 0 { 'M' } else { 'L' };
        let _ = write!(
            path,
            "{verb}{} {}",
            digits(x(window, at)),
            digits(y(value, top))
        );
    }
    path
}

fn closing(curve: &Curve, window: Window) -> String {
    let (first, last) = (
        curve.first().map_or(0, |p| p.0),
        curve.last().map_or(0, |p| p.0),
    );
    let bottom = digits(HIGH - MARGIN);
    format!(
        "L{} {bottom}L{} {bottom}Z",
        digits(x(window, last)),
        digits(x(window, first))
    )
}

/// A tenth of a unit is less than a pixel.
fn digits(value: f64) -> String {
    let tenths = (value * 10.0).round() / 10.0;
    tenths.to_string()
}

/// A level with its name, across the whole plot; none beyond its top.
pub(super) fn level(value: f64, top: f64, class: &str, name: &str) -> Markup {
    let at = percent(y(value, top) / HIGH);
    let is_low = value < top * 0.3;
    html! {
        @if value <= top {
            line class={ "level " (class) } x1="0" x2="100%" y1=(at) y2=(at) {}
            text class={ "level " (class) } x="100%" y=(at) dx="-4" dy=(if is_low { "-4" } else { "12" }) text-anchor="end" { (name) }
        }
    }
}

/// Lines at round times, and at the bottom.
pub(super) fn grid(window: Window) -> Markup {
    html! {
        @for at in window.ticks(TICKS) {
            @let x = across(window, at);
            line.grid x1=(x) x2=(x) y1="0" y2="100%" {}
        }
        line.base x1="0" x2="100%" y1="97%" y2="97%" {}
    }
}

/// What the top of a plot stands for.
pub(super) fn top_label(text: &str) -> Markup {
    html! { text.top x="4" y="12" { (text) } }
}

/// Lines through a plot at what happened.
pub(super) fn through(window: Window, marks: &[Mark]) -> Markup {
    let mut last = None;
    let shown = marks.iter().filter(|mark| window.holds(mark.at_us));
    // Marks that fall on one place are one line.
    let places = shown.filter_map(|mark| {
        let place = (across(window, mark.at_us), mark.sort);
        (last.replace(place.clone()) != Some(place.clone())).then_some(place)
    });
    let places: Vec<_> = places.collect();
    html! {
        @for (x, sort) in places {
            line class={ "through " (class_of(sort)) } x1=(x) x2=(x) y1="0" y2="100%" {}
        }
    }
}

/// The times, as text.
pub(super) fn axis(window: Window) -> Markup {
    let ticks = window.ticks(TICKS);
    html! {
        svg.times role="img" aria-label={ "Time from " (moment(window.from_us)) " to " (moment(window.to_us)) } {
            @for &at in &ticks {
                @let (place, text) = (window.place(at), moment(at));
                @let half = text.len() as f64 * HALF_LETTER;
                @let anchor = if place < half { "start" } else if place > 1.0 - half { "end" } else { "middle" };
                text x=(across(window, at)) y="13" text-anchor=(anchor) { (text) }
            }
        }
    }
}

/// The mark of a sort: a shape of its colour with its letter.
pub(super) fn symbol(sort: Sort) -> Markup {
    html! {
        svg.symbol width="18" height="18" viewBox="-9 -9 18 18" aria-hidden="true" { (shape(sort)) }
    }
}

/// A mark at its place: `row` rows down.
pub(super) fn symbol_at(window: Window, at_us: i64, row: usize, sort: Sort, title: &str) -> Markup {
    html! {
        svg x=(across(window, at_us)) y=(row * 19 + 10) width="1" height="1" overflow="visible" {
            g class="mark" { title { (title) } (shape(sort)) }
        }
    }
}

fn shape(sort: Sort) -> Markup {
    html! {
        @if sort.is_kill() {
            rect class=(class_of(sort)) x="-8" y="-8" width="16" height="16" rx="3" {}
        } @else {
            circle class=(class_of(sort)) r="8" {}
        }
        text.letter y="3.7" text-anchor="middle" { (sort.letter()) }
    }
}

pub(super) fn class_of(sort: Sort) -> &'static str {
    match sort {
        Sort::Met => "m-met",
        Sort::Near => "m-near",
        Sort::Warn => "m-warn",
        Sort::Abort => "m-abort",
        Sort::Freeze => "m-freeze",
        Sort::Sigint => "m-int",
        Sort::Sigterm => "m-term",
        Sort::Blocked => "m-blocked",
        Sort::Hung => "m-hung",
        Sort::Sigkill => "m-kill",
        Sort::Guard => "m-guard",
        Sort::KernelOom => "m-oom",
    }
}

/// A moment from the start of the run, as short as it is exact: `-2m`, `0`, `1m 30s`, `250ms`.
pub(super) fn moment(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    let (seconds, rest) = (us / 1_000_000, us % 1_000_000);
    let (hours, minutes, left) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let ms = rest / 1000;
    let part = match ms {
        0 => String::new(),
        ms => format!(".{}", format!("{ms:03}").trim_end_matches('0')),
    };
    let text = match (hours, minutes, left, ms) {
        (0, 0, 0, 0) => return "0".to_owned(),
        (0, 0, 0, ms) => format!("{ms}ms"),
        (0, 0, s, _) => format!("{s}{part}s"),
        (0, m, 0, 0) => format!("{m}m"),
        (0, m, s, _) => format!("{m}m {s:02}{part}s"),
        (h, 0, 0, 0) => format!("{h}h"),
        (h, m, 0, 0) => format!("{h}h {m:02}m"),
        (h, m, s, _) => format!("{h}h {m:02}m {s:02}{part}s"),
    };
    format!("{sign}{text}")
}

/// A moment from the start of the run to the millisecond: `1m 10.880s`.
pub(super) fn exact(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let ms = (us.unsigned_abs() + 500) / 1000;
    let (hours, minutes, seconds, ms) =
        (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let text = match (hours, minutes) {
        (0, 0) => format!("{seconds}.{ms:03}s"),
        (0, _) => format!("{minutes}m {seconds:02}.{ms:03}s"),
        _ => format!("{hours}h {minutes:02}m {seconds:02}.{ms:03}s"),
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_as_short_as_they_are_exact() {
        const S: i64 = 1_000_000;
        for (us, short, long) in [
            (0, "0", "0.000s"),
            (250_000, "250ms", "0.250s"),
            (2_500_000, "2.5s", "2.500s"),
            (-30 * S, "-30s", "-30.000s"),
            (90 * S, "1m 30s", "1m 30.000s"),
            (70_880_400, "1m 10.88s", "1m 10.880s"),
            (7_200 * S, "2h", "2h 00m 00.000s"),
            (
                i64::MIN,
                "-2562047788h 00m 54.775s",
                "-2562047788h 00m 54.776s",
            ),
        ] {
            assert_eq!(
                (moment(us).as_str(), exact(us).as_str()),
                (short, long),
                "{us}"
            );
        }
    }

    #[test]
    fn a_curve_is_drawn_within_its_plot() {
        let window = Window::new(0, 1_000_000);
        let curve = vec![
            (-500_000, 1.0),
            (0, 0.0),
            (500_000, 50.0),
            (1_000_000, 100.0),
            (9_000_000, 900.0),
        ];
        let line = Line {
            curve: &curve,
            class: "some",
            is_area: false,
        };
        let drawn = curves(window, &[line], 100.0, 10).into_string();
        assert!(
            drawn.contains("M-10 96.1L0 97L500 50L1000 3L1010 -1.7"),
            "{drawn}"
        );
    }
}
