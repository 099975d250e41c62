//! What the model looks like: `header` above, `table` or a page of `text` in the middle, and here the whole and the
//! last line. Pure: the time comes as an argument. `glyphs` has colours and signs.

mod glyphs;
mod header;
mod table;
mod text;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use super::model::{Model, Typing, View};
use crate::incident::{duration, wrap};

pub(super) use glyphs::Glyphs;
use glyphs::fit;

/// What was drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Lines that the table or the page has room for.
    pub(super) rows: usize,
    /// Lines that there are.
    pub(super) lines: usize,
}

/// Less than this cannot be read.
const SMALLEST: (u16, u16) = (20, 4);

/// Draws all of it, at this time in microseconds since 1970.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now_us: i64) -> Shown {
    let area = frame.area();
    let glyphs = model.glyphs;
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        frame.render_widget(Line::raw("too small: q quits"), area);
        return Shown::default();
    }
    let above = header::lines(model, now_us, area.width.into(), area.height.into());
    let height = u16::try_from(above.len()).unwrap_or(u16::MAX);
    let below = last_lines(model, now_us, area.width.into(), area.height.into());
    let last = u16::try_from(below.len()).unwrap_or(u16::MAX);
    let parts = [
        Constraint::Length(height),
        Constraint::Min(0),
        Constraint::Length(last),
    ];
    let [top, middle, bottom] = Layout::vertical(parts).areas(area);
    for (line, at) in above.into_iter().zip(top.rows()) {
        frame.render_widget(line, at);
    }
    let shown = match model.view {
        View::Table => table::draw(frame, model, now_us, middle),
        View::Help(at) => page(frame, glyphs, "Help", text::help(glyphs), at, middle),
        View::Details(id, at) => {
            let lines = text::details(model, id, now_us, middle.width.into());
            page(frame, glyphs, "Details", lines, at, middle)
        }
        View::SortMenu(at) => {
            let lines = text::sorts(glyphs, at);
            let from = (at + 2).saturating_sub(middle.height.into());
            page(frame, glyphs, "Sort by", lines, from, middle)
        }
    };
    for (line, at) in below.into_iter().zip(bottom.rows()) {
        frame.render_widget(line, at);
    }
    shown
}

/// A page of text below its heading, from line `at` on.
fn page(
    frame: &mut Frame<'_>,
    glyphs: Glyphs,
    heading: &str,
    lines: Vec<Line<'static>>,
    at: usize,
    area: Rect,
) -> Shown {
    let shown = Shown {
        rows: usize::from(area.height).saturating_sub(1),
        lines: lines.len(),
    };
    let more = if shown.lines > shown.rows {
        " (arrows: further)"
    } else {
        ""
    };
    let heading = format!("{:<1$}", format!(" {heading}{more}"), area.width.into());
    let heading = Line::styled(heading, glyphs.heading());
    let at = at.min(shown.lines.saturating_sub(shown.rows));
    let lines = std::iter::once(heading).chain(lines.into_iter().skip(at));
    for (line, at) in lines.zip(area.rows()) {
        frame.render_widget(line, at);
    }
    shown
}

/// That nobody answers, as long as that is; what is typed, what there is to say, or which keys there are.
fn last_lines(model: &Model, now_us: i64, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some((why, since_us)) = &model.silence {
        let ago = u64::try_from(now_us.saturating_sub(*since_us)).unwrap_or(0);
        let why = model.glyphs.shown(why.as_str());
        let said = format!("NO ANSWER for {}: {why}", duration(ago));
        let said = wrap(&said, width).into_iter().take(height / 5);
        let line = |line| Line::styled(format!("{line:<width$}"), model.glyphs.alarm());
        lines.extend(said.map(line));
    }
    lines.push(last_line(model, width));
    lines
}

fn last_line(model: &Model, width: usize) -> Line<'static> {
    let glyphs = model.glyphs;
    let typed = |what: &str, text: &str| {
        let word = model
            .word
            .map_or(String::new(), |word| format!("   ({word})"));
        // The end of what is typed is what one looks at.
        let label = format!("{what}: ");
        let room = width.saturating_sub(label.len() + 1 + word.len());
        let text = glyphs.end_of(text, room);
        Line::from(vec![
            Span::styled(label, glyphs.key()),
            Span::raw(text),
            Span::styled("_", glyphs.cursor()),
            Span::raw(word),
        ])
    };
    match &model.typing {
        Typing::Search(text, _) => return typed("Search (F3 next)", text),
        Typing::Filter(text) => return typed("Filter", text),
        Typing::No => {}
    }
    if let Some(word) = model.word {
        return Line::styled(fit(word, width), glyphs.notice());
    }
    keys(model, width)
}

/// Only whole ones.
fn keys(model: &Model, width: usize) -> Line<'static> {
    let all: &[(&str, &str)] = match model.view {
        View::Table => &[
            ("F1", "Help"),
            ("F10", "Quit"),
            ("F3", "Search"),
            ("F4", "Filter"),
            ("F6", "Sort"),
            ("Enter", "Details"),
            ("i", "Incidents"),
        ],
        View::SortMenu(_) => &[("Enter", "Sort"), ("Esc", "Cancel")],
        View::Help(_) | View::Details(..) => &[("Esc", "Back")],
    };
    let mut spans = Vec::new();
    let mut taken = 0;
    for (key, what) in all {
        let what = format!("{what} ");
        taken += key.len() + what.len();
        if taken > width {
            break;
        }
        spans.push(Span::styled(*key, model.glyphs.key()));
        spans.push(Span::styled(what, model.glyphs.heading()));
    }
    let mut told = String::new();
    if model.is_held {
        told.push_str(" HELD (Z goes on)");
    }
    if !model.filter.is_empty() {
        told.push_str(" filter: ");
        told.push_str(&model.glyphs.shown(&model.filter));
    }
    spans.push(Span::styled(
        fit(&told, width.saturating_sub(taken)),
        model.glyphs.notice(),
    ));
    Line::from(spans)
}

#[cfg(test)]
#[path = "../draw_tests.rs"]
mod tests;
