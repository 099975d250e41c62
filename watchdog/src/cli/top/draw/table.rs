//! The table of targets: which columns there is room for, and a line for each target.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::super::model::{Look, Model};
use super::super::order::{Sort, used_permille};
use super::Shown;
use super::glyphs::{columns, fit};
use crate::cli::status::share;
use crate::control::status::{GuardedBy, Target};
use crate::incident::{Timestamp, bytes, count};

/// A column beside the target's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    User,
    Memory,
    Some,
    Full,
    History,
    Processes,
    Acts,
    Guard,
    Since,
}

/// From left to right; the name comes last and takes the rest.
const ORDER: [Column; 9] = [
    Column::User,
    Column::Memory,
    Column::Some,
    Column::Full,
    Column::History,
    Column::Processes,
    Column::Acts,
    Column::Guard,
    Column::Since,
];

/// Who gets room first.
const FIRST: [Column; 9] = [
    Column::Memory,
    Column::Full,
    Column::Some,
    Column::History,
    Column::Acts,
    Column::User,
    Column::Processes,
    Column::Since,
    Column::Guard,
];

/// Of a target's name.
const SHORTEST_NAME: usize = 11;
/// A name longer than this is rare, and room beyond it goes to the pictures.
const LONG_NAME: usize = 48;

impl Column {
    fn head(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::Memory => "MEMORY / LIMIT",
            Self::Some => "SOME",
            Self::Full => "FULL",
            Self::History => "HISTORY",
            Self::Processes => "PROC",
            Self::Acts => "ACTS",
            Self::Guard => "GUARD",
            Self::Since => "SINCE",
        }
    }

    fn width(self) -> usize {
        match self {
            Self::User | Self::History => 8,
            Self::Memory => 16,
            Self::Some | Self::Full => 5,
            Self::Processes | Self::Acts => 4,
            Self::Guard => 6,
            Self::Since => 6,
        }
    }

    fn is_sorted_by(self, sort: Sort) -> bool {
        matches!(
            (self, sort),
            (Self::User, Sort::User)
                | (Self::Memory, Sort::Memory | Sort::Used)
                | (Self::Full, Sort::Pressure)
                | (Self::Processes, Sort::Processes)
                | (Self::Acts, Sort::Interventions)
                | (Self::Since, Sort::Time)
        )
    }
}

/// The columns that there is room for, with their widths.
fn layout(width: usize) -> Vec<(Column, usize)> {
    let mut left = width.saturating_sub(SHORTEST_NAME);
    let mut taken = Vec::new();
    for column in FIRST {
        let wanted = column.width() + 1;
        if wanted > left {
            break;
        }
        left -= wanted;
        taken.push(column);
    }
    let mut columns: Vec<_> = ORDER
        .into_iter()
        .filter(|column| taken.contains(column))
        .map(|column| (column, column.width()))
        .collect();
    let mut spare = left.saturating_sub(LONG_NAME - SHORTEST_NAME);
    for (column, width) in &mut columns {
        let most = match column {
            Column::History => 32,
            Column::Memory | Column::User => 8,
            _ => 0,
        };
        let more = (spare / 2).min(most);
        *width += more;
        spare -= more;
    }
    columns
}

/// Draws it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, now_us: i64, area: Rect) -> Shown {
    let targets = model.targets();
    let at = model.at(&targets);
    let rows = usize::from(area.height).saturating_sub(1);
    let width = usize::from(area.width);
    let columns = layout(width);
    let mut lines = vec![head(model, &columns, width)];
    if targets.is_empty() {
        lines.extend(nothing(model));
    }
    // The one that one is at is always shown, as far up as may be.
    let from = at.saturating_sub(rows.saturating_sub(1));
    for (n, target) in targets.iter().enumerate().skip(from).take(rows) {
        let line = row(model, target, &columns, now_us, width);
        lines.push(if n == at {
            line.patch_style(model.glyphs.chosen())
        } else {
            line
        });
    }
    for (line, at) in lines.into_iter().zip(area.rows()) {
        frame.render_widget(line, at);
    }
    Shown {
        rows,
        lines: targets.len(),
    }
}

fn nothing(model: &Model) -> Vec<Line<'static>> {
    if model.status.targets.is_empty() {
        let attach = "Attach one: memwatch attach -- COMMAND";
        vec![Line::raw(""), Line::raw("No targets."), Line::raw(attach)]
    } else {
        let filter = model.glyphs.shown(&model.filter);
        vec![
            Line::raw(""),
            Line::raw(format!(
                "None of {} has {filter} in its name; Esc shows all.",
                model.status.targets.len()
            )),
        ]
    }
}

fn head(model: &Model, columns: &[(Column, usize)], width: usize) -> Line<'static> {
    let glyphs = model.glyphs;
    let style = |is_sorted| {
        if is_sorted {
            glyphs.sorted()
        } else {
            glyphs.heading()
        }
    };
    let mut spans = Vec::new();
    let mut taken = 0;
    for (column, width) in columns {
        let text = if matches!(column, Column::User | Column::Memory | Column::History) {
            format!("{:<width$}", column.head())
        } else {
            format!("{:>width$}", column.head())
        };
        spans.push(Span::styled(text, style(column.is_sorted_by(model.sort))));
        spans.push(Span::styled(" ", glyphs.heading()));
        taken += width + 1;
    }
    let name = format!("{:<1$}", "TARGET", width.saturating_sub(taken));
    spans.push(Span::styled(name, style(model.sort == Sort::Target)));
    Line::from(spans)
}

fn row(
    model: &Model,
    target: &Target,
    columns: &[(Column, usize)],
    now_us: i64,
    width: usize,
) -> Line<'static> {
    let mut spans = Vec::new();
    let mut taken = 0;
    for (column, width) in columns {
        spans.extend(cell(model, target, *column, *width, now_us));
        spans.push(Span::raw(" "));
        taken += width + 1;
    }
    let room = width.saturating_sub(taken);
    let name = model.glyphs.end_of(short_name(target), room);
    // The line that one is at is marked to its end.
    let rest = " ".repeat(room.saturating_sub(self::columns(&name)));
    spans.extend([Span::raw(name), Span::raw(rest)]);
    Line::from(spans)
}

/// Without what all of them have.
fn short_name(target: &Target) -> &str {
    let path = target.cgroup.as_str();
    path.strip_prefix("/sys/fs/cgroup/").unwrap_or(path)
}

fn cell(
    model: &Model,
    target: &Target,
    column: Column,
    width: usize,
    now_us: i64,
) -> Vec<Span<'static>> {
    let glyphs = model.glyphs;
    let right = |text: String| vec![Span::raw(format!("{:>width$}", fit(&text, width)))];
    let stall = |permille: Option<u32>| {
        let style = permille.map_or_else(Default::default, |it| glyphs.stalled(it));
        let text = permille.map_or("-".to_owned(), short_share);
        vec![Span::styled(format!("{text:>width$}"), style)]
    };
    match column {
        Column::User => {
            let user = fit(&user(model, target), width);
            let rest = " ".repeat(width - columns(&user));
            vec![Span::raw(user), Span::raw(rest)]
        }
        Column::Memory => {
            let used = used_permille(target);
            let style = used.map_or_else(Default::default, |it| glyphs.used(it));
            glyphs.bar(used, &memory(target), width, style)
        }
        Column::Some => stall(target.some_permille),
        Column::Full => stall(target.full_permille),
        Column::History => history(model, target.id, width),
        Column::Processes => right(count(target.processes)),
        Column::Acts => {
            let style = match target.interventions {
                0 => Default::default(),
                _ => glyphs.notice(),
            };
            let acts = count(target.interventions);
            vec![Span::styled(format!("{acts:>width$}"), style)]
        }
        Column::Guard => right(match target.guarded_by {
            GuardedBy::Daemon => "daemon".to_owned(),
            GuardedBy::DaemonAndKernelGuard => "both".to_owned(),
        }),
        Column::Since => right(age(&target.since, now_us)),
    }
}

/// Its name, else its number; nobody for what the configuration names.
pub(super) fn user(model: &Model, target: &Target) -> String {
    match target.uid {
        None => "-".to_owned(),
        Some(uid) => match model.users.get(&uid) {
            Some(name) => model.glyphs.shown(name.as_str()),
            None => uid.to_string(),
        },
    }
}

/// `512M/2.0G`.
fn memory(target: &Target) -> String {
    let current = target.current_bytes.map_or("?".to_owned(), compact);
    match target.limit_bytes {
        Some(limit) => format!("{current}/{}", compact(limit)),
        None => format!("{current}/-"),
    }
}

/// `1.4G` in place of `1.4 GiB`.
pub(super) fn compact(size: u64) -> String {
    bytes(size).replace(' ', "").replace("iB", "")
}

/// `100%` and not `100.0%`.
fn short_share(permille: u32) -> String {
    share(permille.min(1000))
}

/// `some` over time, in the colour of `full`.
pub(super) fn history(model: &Model, id: u64, width: usize) -> Vec<Span<'static>> {
    let Some(looks) = model.history.get(&id) else {
        return vec![Span::raw(" ".repeat(width))];
    };
    let shown = looks.len().min(width);
    let mut spans = vec![Span::raw(" ".repeat(width - shown))];
    spans.extend(looks.iter().skip(looks.len() - shown).map(|look: &Look| {
        let (some, full) = *look;
        let sign = model.glyphs.height(some).to_string();
        Span::styled(sign, model.glyphs.stalled(full.unwrap_or(0)))
    }));
    spans
}

/// How long ago that was, in at most six columns: `12s`, `3m12s`, `2h05m`, `5d03h`.
pub(super) fn age(since: &Timestamp, now_us: i64) -> String {
    let Some(since_us) = since.unix_us() else {
        return "?".to_owned();
    };
    let seconds = now_us.saturating_sub(since_us).max(0) / 1_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        86_400..8_640_000 => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
        _ => format!("{}d", seconds / 86_400),
    }
}
