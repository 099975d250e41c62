//! A record over time on a terminal: a line for each of pressure and memory, and one for what happened. What there is
//! to draw is `timeline`'s.

use super::timeline::{self, Curve, Curves, Mark, Window, marks};
use super::{Record, Style, human, paragraph::Paragraph};

/// Columns of the lines, if nobody knows how wide the terminal is, and at the most.
const USUAL: usize = 60;
const WIDEST: usize = 100;
/// What stands behind a line.
const NOTE: usize = 26;

const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The lines, in the summary's own column; empty if nothing was recorded and nothing happened.
#[must_use]
pub fn sparklines(record: &Record, style: Style) -> String {
    let marks = marks(record);
    if record.flight.is_none() && marks.is_empty() {
        return String::new();
    }
    // Lines are made as wide as their room, so that none is broken.
    let mut page = Paragraph::new(Style {
        width: None,
        ..style
    });
    let columns = Paragraph::new(style)
        .row_columns()
        .map_or(USUAL, |columns| columns.saturating_sub(NOTE))
        .clamp(10, WIDEST);
    let window = timeline::recorded(record).map_or(timeline::whole(record), |recorded| {
        let tail = recorded.span_us() / columns as i64 + 1;
        Window::new(recorded.from_us, recorded.to_us + tail)
    });
    page.gap();
    if let Some(flight) = &record.flight {
        let curves = Curves::of(flight);
        let limit = record.target.memory_max_bytes;
        let held = timeline::most(&curves.current_bytes);
        let of = limit.map_or(String::new(), |limit| {
            format!(" of {}", human::bytes(limit))
        });
        let top = limit.map_or(held, |limit| (limit as f64).max(held));
        let share = |curve: &Curve| {
            human::percent((timeline::most(curve) * 1000.0).round() as u64, 1000)
                .unwrap_or_default()
        };
        // What no target was there to tell, the machine does.
        let (some, full, whose) = match curves.target_some.is_empty() {
            true => (&curves.machine_some, &curves.machine_full, ", machine"),
            false => (&curves.target_some, &curves.target_full, ""),
        };
        let bytes = |curve: &Curve| human::bytes(timeline::most(curve) as u64);
        let lines = [
            (
                "memory",
                &curves.current_bytes,
                top,
                format!("up to {}{of}", human::bytes(held as u64)),
            ),
            ("some", some, 1.0, format!("up to {}{whose}", share(some))),
            ("full", full, 1.0, format!("up to {}{whose}", share(full))),
            (
                "avail",
                &curves.available_bytes,
                timeline::most(&curves.available_bytes),
                format!("up to {}", bytes(&curves.available_bytes)),
            ),
            (
                "arc",
                &curves.arc_bytes,
                timeline::most(&curves.arc_bytes),
                format!("up to {}", bytes(&curves.arc_bytes)),
            ),
        ];
        for (label, curve, top, note) in lines {
            if curve.len() > 1 {
                page.line(
                    label,
                    &format!("{} {note}", spark(curve, window, top, columns)),
                );
            }
        }
    }
    let happened = strip(&marks, window, columns);
    if !happened.trim().is_empty() {
        page.line("marks", &format!("{happened} {}", legend(&marks, window)));
    }
    page.line("time", &ends(window, columns));
    page.finish()
}

/// The most in each column. Between two looks a curve is a straight line.
fn spark(curve: &Curve, window: Window, top: f64, columns: usize) -> String {
    let width = window.span_us() as f64 / columns as f64;
    let mut drawn = String::new();
    for column in 0..columns {
        let from = window.from_us + (column as f64 * width) as i64;
        let to = window.from_us + ((column + 1) as f64 * width) as i64;
        let within = curve
            .iter()
            .filter(|&&(at, _)| (from..to).contains(&at))
            .map(|&(_, value)| value);
        let between = || {
            let after = curve.partition_point(|&(at, _)| at < from);
            let (before, after) = (curve.get(after.checked_sub(1)?)?, curve.get(after)?);
            let share = (from - before.0) as f64 / (after.0 - before.0).max(1) as f64;
            Some(before.1 + (after.1 - before.1) * share)
        };
        let value = within.reduce(f64::max).or_else(between);
        let level = value.map_or(0, |value| level(value, top));
        drawn.push(LEVELS[level]);
    }
    drawn
}

fn level(value: f64, top: f64) -> usize {
    if value <= 0.0 || top <= 0.0 {
        return 0;
    }
    let eighths = (value / top * 8.0).ceil().clamp(1.0, 8.0);
    eighths as usize
}

/// The gravest letter of each column.
fn strip(marks: &[Mark], window: Window, columns: usize) -> String {
    let mut gravest = vec![None; columns];
    for mark in marks.iter().filter(|mark| window.holds(mark.at_us)) {
        let column = ((window.place(mark.at_us) * columns as f64) as usize).min(columns - 1);
        gravest[column] = gravest[column].max(Some(mark.sort));
    }
    gravest
        .into_iter()
        .map(|sort| sort.map_or(" ", timeline::Sort::letter))
        .collect()
}

fn legend(marks: &[Mark], window: Window) -> String {
    let shown = |sort: &timeline::Sort| {
        marks
            .iter()
            .any(|mark| mark.sort == *sort && window.holds(mark.at_us))
    };
    let sorts = timeline::Sort::ALL.into_iter().filter(shown);
    let words: Vec<String> = sorts
        .map(|sort| format!("{} {}", sort.letter(), sort.phrase()))
        .collect();
    words.join(", ")
}

fn ends(window: Window, columns: usize) -> String {
    let shown = |us: i64| {
        format!(
            "{}{}",
            if us < 0 { "-" } else { "" },
            human::duration(us.unsigned_abs())
        )
    };
    let (from, to) = (shown(window.from_us), shown(window.to_us));
    let room = columns.saturating_sub(from.len());
    format!("{from}{to:>room$} from the start")
}
