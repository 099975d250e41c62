//! The curves: pressure, memory with its limits and the ARC, faults, reclaim; each a row on the shared time axis.

use maud::{Markup, html};

use super::plot::{self, Line};
use crate::incident::timeline::{Curve, Curves, Mark, Window, most};
use crate::incident::{Flight, Record, human};

/// A curve in a chart, and what it is called.
struct Named<'c> {
    curve: &'c Curve,
    name: &'static str,
    class: &'static str,
    is_area: bool,
}

/// A line across a chart.
struct Level {
    value: f64,
    name: String,
    class: &'static str,
}

struct Chart<'c> {
    title: &'static str,
    curves: Vec<Named<'c>>,
    levels: Vec<Level>,
    /// What the top stands for.
    top: f64,
    shown: fn(f64) -> String,
}

fn area<'c>(curve: &'c Curve, name: &'static str, class: &'static str) -> Named<'c> {
    Named {
        curve,
        name,
        class,
        is_area: true,
    }
}

fn line<'c>(curve: &'c Curve, name: &'static str, class: &'static str) -> Named<'c> {
    Named {
        curve,
        name,
        class,
        is_area: false,
    }
}

/// The two that show how it came to a kill.
pub(super) fn near(record: &Record, flight: &Flight, window: Window, marks: &[Mark]) -> Markup {
    let curves = Curves::of(flight).within(window);
    let pressure = pressure(
        "Target's pressure",
        &curves.target_some,
        &curves.target_full,
    );
    html! {
        (pressure.draw(window, marks))
        (target_memory(record, &curves).draw(window, marks))
    }
}

/// All charts for which something was recorded.
pub(super) fn all(record: &Record, flight: &Flight, window: Window, marks: &[Mark]) -> Markup {
    let curves = Curves::of(flight).within(window);
    let charts = [
        pressure(
            "Target's pressure",
            &curves.target_some,
            &curves.target_full,
        ),
        pressure(
            "Machine's pressure",
            &curves.machine_some,
            &curves.machine_full,
        ),
        target_memory(record, &curves),
        machine_memory(record, &curves),
        faults(&curves),
        reclaim(&curves),
    ];
    html! {
        @for chart in charts.iter().filter(|chart| chart.curves.iter().any(|it| it.curve.len() > 1)) {
            (chart.draw(window, marks))
        }
    }
}

fn pressure<'c>(title: &'static str, some: &'c Curve, full: &'c Curve) -> Chart<'c> {
    let top = most(some).max(most(full));
    let top = [0.05, 0.1, 0.25, 0.5]
        .into_iter()
        .find(|&step| top <= step)
        .unwrap_or(1.0);
    Chart {
        title,
        curves: vec![area(some, "some", "some"), area(full, "full", "full")],
        levels: Vec::new(),
        top,
        shown: |share| human::percent((share * 1000.0).round() as u64, 1000).unwrap_or_default(),
    }
}

fn target_memory<'c>(record: &Record, curves: &'c Curves) -> Chart<'c> {
    let last = |curve: &Curve| curve.last().map(|&(_, value)| value);
    let given = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
    let limit = last(&curves.limit_bytes).or(given(record.target.memory_max_bytes));
    let brake = last(&curves.high_bytes).or(given(record.target.memory_high_bytes));
    let held = most(&curves.current_bytes);
    // A limit far above what was ever held would leave no room for the curve.
    let limit = limit.filter(|&limit| limit <= held * 8.0);
    let top = [limit, brake.filter(|&it| it <= held * 8.0)]
        .into_iter()
        .flatten()
        .fold(held, f64::max)
        * 1.06;
    let level = |value: Option<f64>, name: &str, class| {
        value.map(|value| Level {
            value,
            name: format!("{name} {}", bytes(value)),
            class,
        })
    };
    let levels = [
        level(limit, "memory.max", "max"),
        level(brake, "memory.high", "high"),
    ];
    Chart {
        title: "Target's memory",
        curves: vec![
            area(&curves.current_bytes, "charged", "memory"),
            line(&curves.anon_bytes, "anonymous", "anon"),
            line(&curves.swap_bytes, "in swap", "swap"),
        ],
        levels: levels.into_iter().flatten().collect(),
        top,
        shown: bytes,
    }
}

fn machine_memory<'c>(record: &Record, curves: &'c Curves) -> Chart<'c> {
    let arc = record.machine.as_ref().and_then(|machine| machine.arc);
    let highest = [
        &curves.available_bytes,
        &curves.arc_bytes,
        &curves.machine_swap_bytes,
    ]
    .into_iter()
    .map(most)
    .fold(0.0, f64::max);
    let top = curves
        .machine_total_bytes
        .map_or(highest, |total| total as f64)
        .min(highest * 4.0)
        .max(highest)
        * 1.06;
    let c_max = arc
        .map(|arc| arc.c_max_bytes as f64)
        .filter(|&value| value <= top);
    Chart {
        title: "Machine's memory",
        curves: vec![
            area(&curves.available_bytes, "available", "available"),
            area(&curves.arc_bytes, "ZFS ARC", "arc"),
            line(&curves.arc_min_bytes, "ARC's floor", "arcmin"),
            line(&curves.machine_swap_bytes, "swap in use", "swap"),
        ],
        levels: c_max
            .map(|value| Level {
                value,
                name: format!("ARC's c_max {}", bytes(value)),
                class: "arc",
            })
            .into_iter()
            .collect(),
        top,
        shown: bytes,
    }
}

fn faults(curves: &Curves) -> Chart<'_> {
    Chart {
        title: "Faults a second",
        curves: vec![
            area(&curves.faults, "all", "faults"),
            line(&curves.major_faults, "major", "major"),
            line(&curves.refaults, "refaults", "refaults"),
        ],
        levels: Vec::new(),
        top: round_up(
            [&curves.faults, &curves.major_faults, &curves.refaults]
                .into_iter()
                .map(most)
                .fold(1.0, f64::max),
        ),
        shown: counted,
    }
}

fn reclaim(curves: &Curves) -> Chart<'_> {
    Chart {
        title: "Reclaim, pages a second",
        curves: vec![
            area(&curves.scanned, "looked at", "scanned"),
            line(&curves.reclaimed, "freed", "freed"),
        ],
        levels: Vec::new(),
        top: round_up(most(&curves.scanned).max(most(&curves.reclaimed)).max(1.0)),
        shown: counted,
    }
}

impl Chart<'_> {
    /// A chart in which there is nothing to see takes no room.
    fn nothing(&self) -> Markup {
        html! { div.row { div.caption { strong { (self.title) } } p.faint.none { "none" } } }
    }

    fn draw(&self, window: Window, marks: &[Mark]) -> Markup {
        let known: Vec<&Named<'_>> = self
            .curves
            .iter()
            .filter(|it| it.curve.len() > 1 && (most(it.curve) > 0.0 || it.class != "swap"))
            .collect();
        let lines: Vec<Line<'_>> = known
            .iter()
            .map(|it| Line {
                curve: it.curve,
                class: it.class,
                is_area: it.is_area,
            })
            .collect();
        let highest = |it: &Named<'_>| (self.shown)(most(it.curve));
        let said: Vec<String> = known
            .iter()
            .map(|it| format!("{} at most {}", it.name, highest(it)))
            .collect();
        // A name that would stand in another, or under the top's, is left to the keys.
        let is_near = |one: f64, other: f64| (one - other).abs() < self.top * 0.16;
        let names: Vec<&str> = self
            .levels
            .iter()
            .enumerate()
            .map(|(n, level)| {
                let is_hidden = self.levels[..n]
                    .iter()
                    .any(|it| is_near(it.value, level.value));
                if is_hidden { "" } else { level.name.as_str() }
            })
            .collect();
        let is_full = self
            .levels
            .iter()
            .any(|level| is_near(level.value, self.top));
        if known.iter().all(|it| most(it.curve) == 0.0) {
            return self.nothing();
        }
        html! {
            figure.row {
                figcaption {
                    strong { (self.title) }
                    ul.keys {
                        @for it in &known {
                            li { i class=(it.class) {} (it.name) " " span { "≤ " (highest(it)) } }
                        }
                        @for level in &self.levels { li { i class={ "dashed " (level.class) } {} (level.name) } }
                    }
                }
                svg.plot role="img" aria-label={ (self.title) ": " (said.join(", ")) } {
                    (plot::grid(window))
                    (plot::curves(window, &lines, self.top, plot::columns()))
                    (plot::through(window, marks))
                    @for (level, name) in self.levels.iter().zip(&names) {
                        (plot::level(level.value, self.top, level.class, name))
                    }
                    @if !is_full { (plot::top_label(&(self.shown)(self.top))) }
                }
            }
        }
    }
}

fn bytes(value: f64) -> String {
    human::bytes(value.max(0.0) as u64)
}

fn counted(value: f64) -> String {
    human::count(value.max(0.0).round() as u64)
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let ten = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|n| n * ten)
        .find(|&step| value <= step)
        .unwrap_or(value)
}
