//! Pages of text: the help, all about one target, and the menu of sorts.

use ratatui::text::{Line, Span};

use super::super::model::Model;
use super::super::order::{Sort, used_permille};
use super::glyphs::{Glyphs, columns, fit};
use super::table::{age, history, user};
use crate::cli::status::{share, to_the_second};
use crate::control::status::{GuardedBy, Target};
use crate::incident::{bytes, count, wrap};

const LABEL: usize = 12;
/// Below this a text beside its label cannot be read.
const NARROWEST: usize = 16;

const KEYS: [(&str, &str); 13] = [
    ("F1 h ?", "this page"),
    ("arrows", "choose a target; also PgUp, PgDn, Home, End"),
    ("Enter", "all about the chosen target"),
    ("i", "where its incidents are"),
    (
        "F3 /",
        "search: type a part of the name; F3 goes to the next",
    ),
    (
        "F4 \\",
        "filter: only what has this in its name or user; Esc ends it",
    ),
    ("F6 > <", "sort by any column"),
    ("P M T", "sort by pressure, by memory, by time"),
    ("I", "turn the order round"),
    ("Z", "hold everything as it is, and go on"),
    ("Ctrl-L", "draw all of it anew"),
    ("Ctrl-Z", "back to the shell; fg comes back here"),
    ("F10 q", "quit"),
];

const WORDS: [(&str, &str); 6] = [
    (
        "SOME",
        "share of the last seconds in which some task waited for memory",
    ),
    ("FULL", "the same, all tasks at once"),
    ("HISTORY", "SOME at each look, coloured by FULL"),
    ("ACTS", "how often memwatch has stepped in"),
    ("GUARD", "both: daemon and, if that is stuck, the kernel"),
    ("SINCE", "for how long it has been guarded"),
];

/// The help.
pub(super) fn help(glyphs: Glyphs) -> Vec<Line<'static>> {
    let row = |(key, what): &(&'static str, &'static str)| {
        Line::from(vec![
            Span::styled(format!("{key:<LABEL$}"), glyphs.key()),
            Span::raw(*what),
        ])
    };
    let signals =
        "memwatch top signals nobody, so F9 and k do nothing: memwatch acts by its rules.";
    let mut lines: Vec<_> = KEYS.iter().map(row).collect();
    lines.push(Line::raw(""));
    lines.extend(WORDS.iter().map(row));
    lines.push(Line::raw(""));
    lines.push(Line::raw(signals));
    lines
}

/// The menu of sorts.
pub(super) fn sorts(glyphs: Glyphs, at: usize) -> Vec<Line<'static>> {
    let line = |(n, sort): (usize, &Sort)| {
        if n == at {
            Line::styled(format!("> {:<16}", sort.name()), glyphs.chosen())
        } else {
            Line::raw(format!("  {}", sort.name()))
        }
    };
    Sort::ALL.iter().enumerate().map(line).collect()
}

/// All about a target.
pub(super) fn details(model: &Model, id: u64, now_us: i64, width: usize) -> Vec<Line<'static>> {
    let mut page = Page {
        glyphs: model.glyphs,
        width,
        lines: Vec::new(),
    };
    match model.target(id) {
        Some(target) => page.target(model, target, now_us),
        None => page.lines.push(Line::raw("It is guarded no more.")),
    }
    page.lines.push(Line::raw(""));
    let heard = model.heard.iter().filter(|(of, _)| *of == id);
    let heard: Vec<_> = heard.map(|(_, line)| line.as_str()).collect();
    if heard.is_empty() {
        page.row(
            "heard",
            "nothing since memwatch top began; only your own targets are told of",
        );
    }
    for (n, line) in heard.iter().enumerate() {
        page.row(if n == 0 { "heard" } else { "" }, line);
    }
    page.lines
}

/// A line in parts of so many columns: a path has no blanks to be wrapped at.
fn pieces(line: &str, room: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while columns(rest) > room {
        let piece = fit(rest, room);
        // A character that is wider than all there is.
        if piece.is_empty() {
            break;
        }
        rest = &rest[piece.len()..];
        pieces.push(piece);
    }
    pieces.push(rest.to_owned());
    pieces
}

struct Page {
    glyphs: Glyphs,
    width: usize,
    lines: Vec<Line<'static>>,
}

impl Page {
    fn row(&mut self, label: &str, text: &str) {
        let room = self.width.saturating_sub(LABEL).max(NARROWEST);
        let lines = wrap(&self.glyphs.shown(text), room);
        let lines = lines.iter().flat_map(|line| pieces(line, room));
        for (n, line) in lines.enumerate() {
            let label = if n == 0 { label } else { "" };
            self.lines.push(Line::from(vec![
                Span::styled(format!("{label:<LABEL$}"), self.glyphs.label()),
                Span::raw(line),
            ]));
        }
    }

    fn target(&mut self, model: &Model, target: &Target, now_us: i64) {
        let known = |share_of: Option<u32>| share_of.map_or("not told".to_owned(), share);
        self.row("target", target.cgroup.as_str());
        self.row("id", &target.id.to_string());
        self.row(
            "attached by",
            &match target.uid {
                None => "nobody: the configuration names it".to_owned(),
                Some(uid) => format!("{} (uid {uid})", user(model, target)),
            },
        );
        let since = to_the_second(&target.since);
        self.row(
            "guarded",
            &format!("for {}, since {since}", age(&target.since, now_us)),
        );
        self.row(
            "by",
            match target.guarded_by {
                GuardedBy::Daemon => "the daemon alone: if it is stuck or dead, nobody",
                GuardedBy::DaemonAndKernelGuard => {
                    "the daemon and, if that is stuck or dead, the guard in the kernel"
                }
            },
        );
        let current = target.current_bytes.map_or("not counted".to_owned(), bytes);
        let limit = target.limit_bytes.map_or("no limit".to_owned(), |limit| {
            format!("of {}", bytes(limit))
        });
        let part = used_permille(target).map_or(String::new(), |it| format!(", {}", share(it)));
        self.row("memory", &format!("{current} {limit}{part}"));
        let stall = format!(
            "some {}, full {}",
            known(target.some_permille),
            known(target.full_permille)
        );
        self.row("stall", &stall);
        let room = self.width.saturating_sub(LABEL);
        let mut line = Line::from(vec![Span::styled(
            format!("{:<LABEL$}", "some"),
            self.glyphs.label(),
        )]);
        let looks = model
            .history
            .get(&target.id)
            .map_or(0, std::collections::VecDeque::len);
        line.extend(history(model, target.id, looks.min(room)));
        self.lines.push(line);
        self.row("processes", &count(target.processes));
        self.row(
            "stepped in",
            &format!("{} times", count(target.interventions)),
        );
    }
}
