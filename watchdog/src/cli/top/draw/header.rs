//! The lines above the table: the daemon, the machine's memory, swap and stall as bars, who guards, systemd-oomd,
//! and what was lost. How many there are goes by the room.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::super::model::Model;
use super::super::order::permille;
use super::glyphs::{Glyphs, columns, fit};
use super::table::age;
use crate::cli::status::{losses, share};
use crate::control::status::{GuardedBy, Oomd, Status, Target};
use crate::incident::{bytes, count};

/// From here on bars and words stand side by side.
const WIDE: usize = 70;
/// As long as a bar is where there are words beside it.
const BAR_SHARE: usize = 2;

/// All of them, each at most `width` wide.
pub(super) fn lines(model: &Model, now_us: i64, width: usize, height: usize) -> Vec<Line<'static>> {
    let status = &model.status;
    let glyphs = model.glyphs;
    let mut lines = vec![title(model, now_us, width)];
    if height < 8 {
        return lines;
    }
    let bars = bars(status);
    let words = words(status, glyphs);
    if width < WIDE {
        // The machine's memory and stall, and what is not as it should be.
        let most = if height < 16 { 2 } else { 4 };
        let of_all = if most == 2 {
            vec![0, 2]
        } else {
            vec![0, 1, 2, 3]
        };
        lines.extend(of_all.into_iter().map(|n| bars[n].line(glyphs, width)));
        let room = if height < 16 { 0 } else { 2 };
        let told = words.iter().filter(|it| it.is_notable).take(room);
        lines.extend(told.map(|it| it.line(glyphs, width)));
        return lines;
    }
    let left = width / BAR_SHARE;
    let right = width - left - 2;
    let rows = if height < 12 { 2 } else { 4 };
    let mut words = words;
    if rows < 4 {
        words.sort_by_key(|it| !it.is_notable);
    }
    let order: &[usize] = if rows < 4 { &[0, 2] } else { &[0, 1, 2, 3] };
    for (n, bar) in order.iter().enumerate() {
        let mut line = bars[*bar].line(glyphs, left);
        if let Some(word) = words.get(n) {
            line.push_span(Span::raw("  "));
            line.extend(word.line(glyphs, right).spans);
        }
        lines.push(line);
    }
    if rows == 4 {
        let rest = words.iter().skip(4);
        lines.extend(rest.map(|word| word.line(glyphs, width)));
    }
    lines
}

/// `memwatch 0.1.0, process 812, up 2d 3h`, and the time of day in UTC.
fn title(model: &Model, now_us: i64, width: usize) -> Line<'static> {
    let Status {
        memwatch,
        pid,
        since,
        ..
    } = &model.status;
    let memwatch = model.glyphs.shown(memwatch.as_str());
    let name = format!(
        "memwatch {memwatch}, process {pid}, up {}",
        age(since, now_us)
    );
    let of_day = now_us.div_euclid(1_000_000).rem_euclid(86_400);
    let clock = format!(
        "{:02}:{:02}:{:02}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    );
    let room = width.saturating_sub(clock.len() + 1);
    let name = fit(&name, room);
    let gap = " ".repeat(room.saturating_sub(columns(&name)) + 1);
    Line::from(vec![
        Span::styled(name, model.glyphs.key()),
        Span::raw(gap),
        Span::raw(clock),
    ])
}

struct Bar {
    label: &'static str,
    permille: Option<u32>,
    text: String,
    is_stall: bool,
}

impl Bar {
    fn line(&self, glyphs: Glyphs, width: usize) -> Line<'static> {
        let style = self.permille.map_or(glyphs.label(), |it| {
            if self.is_stall {
                glyphs.stalled(it)
            } else {
                glyphs.used(it)
            }
        });
        let mut line = Line::from(vec![Span::styled(
            format!("{:<5}", self.label),
            glyphs.label(),
        )]);
        line.extend(glyphs.bar(self.permille, &self.text, width.saturating_sub(5), style));
        line
    }
}

fn bars(status: &Status) -> [Bar; 4] {
    let machine = &status.machine;
    let used = machine.total_bytes.saturating_sub(machine.available_bytes);
    let swap = machine.swap_total_bytes.map(|total| {
        let used = total.saturating_sub(machine.swap_free_bytes.unwrap_or(total));
        (used, total)
    });
    let stall = |label, permille: Option<u32>| Bar {
        label,
        permille,
        text: permille.map_or("not told".to_owned(), share),
        is_stall: true,
    };
    [
        Bar {
            label: "Mem",
            permille: permille(used, machine.total_bytes),
            text: format!("{} / {}", bytes(used), bytes(machine.total_bytes)),
            is_stall: false,
        },
        Bar {
            label: "Swap",
            permille: swap.and_then(|(used, total)| permille(used, total)),
            text: match swap {
                None => "not told".to_owned(),
                Some((_, 0)) => "none".to_owned(),
                Some((used, total)) => format!("{} / {}", bytes(used), bytes(total)),
            },
            is_stall: false,
        },
        stall("some", machine.some_permille),
        stall("full", machine.full_permille),
    ]
}

/// In few words; `memwatch status` has the rest.
fn oomd(oomd: &Oomd) -> String {
    let units = match oomd.managed_units {
        0 => return oomd.state.to_string(),
        1 => "1 unit".to_owned(),
        n => format!("{} units", count(n)),
    };
    if oomd.taken_over {
        format!("taken over: {}; {units}", oomd.state)
    } else {
        format!("{}; {units} left to it", oomd.state)
    }
}

/// A label and what is to be said to it.
struct Word {
    label: &'static str,
    text: String,
    /// Whether it is not as it should be.
    is_notable: bool,
}

impl Word {
    fn line(&self, glyphs: Glyphs, width: usize) -> Line<'static> {
        let label = format!("{:<8}", self.label);
        let text = glyphs.start_of(&self.text, width.saturating_sub(label.len()));
        let style = if self.is_notable {
            glyphs.notice()
        } else {
            Style::new()
        };
        Line::from(vec![
            Span::styled(label, glyphs.label()),
            Span::styled(text, style),
        ])
    }
}

fn words(status: &Status, glyphs: Glyphs) -> Vec<Word> {
    let word = |label, text: String, is_notable| Word {
        label,
        text: glyphs.shown(&text),
        is_notable,
    };
    let targets = &status.targets;
    let sum = |figure: fn(&Target) -> u64| targets.iter().map(figure).fold(0, u64::saturating_add);
    let acts = sum(|it| it.interventions);
    let both = |it: &&Target| it.guarded_by == GuardedBy::DaemonAndKernelGuard;
    let both = targets.iter().filter(both).count();
    let alone = targets.len() - both;
    let lost = losses(&status.losses);
    let mut words = vec![
        word(
            "Targets",
            format!(
                "{}; processes {}; acts {}",
                targets.len(),
                count(sum(|it| it.processes)),
                count(acts)
            ),
            false,
        ),
        word(
            "Guard",
            match (both, alone) {
                (0, 0) => "nothing to guard".to_owned(),
                (_, 0) => "daemon and kernel".to_owned(),
                (0, _) => "daemon alone".to_owned(),
                _ => format!("both {both}; daemon alone {alone}"),
            },
            false,
        ),
        word("oomd", oomd(&status.oomd), status.oomd.taken_over),
        word(
            "Losses",
            if lost.is_empty() {
                "none".to_owned()
            } else {
                lost.join("; ")
            },
            !lost.is_empty(),
        ),
    ];
    if !status.features_lost.is_empty() {
        let without: Vec<_> = status
            .features_lost
            .iter()
            .map(|it| it.feature.as_str())
            .collect();
        words.push(word("Without", without.join("; "), false));
    }
    words
}
