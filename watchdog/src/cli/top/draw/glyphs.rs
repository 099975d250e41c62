//! Colours and signs, as far as the terminal has them. Without colours everything that they say is said by
//! something else, too.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// What may be drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Glyphs {
    /// Whether colours may be used.
    pub(in super::super) has_color: bool,
    /// Whether the terminal knows more than ASCII.
    pub(in super::super) is_unicode: bool,
}

/// From nothing to everything.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

impl Glyphs {
    fn colored(self, color: Color) -> Style {
        if self.has_color {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    /// Of a column's head and of labels in the last line.
    pub(super) fn heading(self) -> Style {
        if self.has_color {
            Style::new().fg(Color::Black).bg(Color::Cyan)
        } else {
            Style::new().add_modifier(Modifier::REVERSED)
        }
    }

    /// Of the head of the column that is sorted by.
    pub(super) fn sorted(self) -> Style {
        if self.has_color {
            Style::new().fg(Color::Black).bg(Color::Green)
        } else {
            let both = Modifier::REVERSED | Modifier::UNDERLINED;
            Style::new().add_modifier(both)
        }
    }

    /// Of a key in the last line.
    pub(super) fn key(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Of the line that one is at.
    pub(super) fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of the place where text is typed.
    pub(super) fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of a label.
    pub(super) fn label(self) -> Style {
        self.colored(Color::Cyan)
    }

    /// Of something worth a look.
    pub(super) fn notice(self) -> Style {
        self.colored(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// Of what must not be overlooked.
    pub(super) fn alarm(self) -> Style {
        if self.has_color {
            Style::new().fg(Color::White).bg(Color::Red)
        } else {
            Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD)
        }
    }

    /// Of a share: well, so so, or bad from these on.
    pub(super) fn graded(self, permille: u32, so_so: u32, bad: u32) -> Style {
        match permille {
            permille if permille >= bad => self.colored(Color::Red).add_modifier(Modifier::BOLD),
            permille if permille >= so_so => self.colored(Color::Yellow),
            _ => self.colored(Color::Green),
        }
    }

    /// Of memory that is used, of what there is.
    pub(super) fn used(self, permille: u32) -> Style {
        self.graded(permille, 700, 900)
    }

    /// Of time in which tasks waited for memory.
    pub(super) fn stalled(self, permille: u32) -> Style {
        self.graded(permille, 50, 200)
    }

    /// A bar of a share, with a text at its right end: `[|||||    512M/2.0G]`.
    pub(super) fn bar(
        self,
        permille: Option<u32>,
        text: &str,
        width: usize,
        style: Style,
    ) -> Vec<Span<'static>> {
        let room = width.saturating_sub(2);
        let text = fit(text, room);
        let filled = permille.map_or(0, |it| (room * it.min(1000) as usize).div_ceil(1000));
        let strokes = room - text.chars().count();
        let mut inside: Vec<char> = (0..strokes)
            .map(|at| if at < filled { '|' } else { ' ' })
            .collect();
        inside.extend(text.chars());
        let (full, empty) = inside.split_at(filled.min(inside.len()));
        vec![
            Span::raw("["),
            Span::styled(full.iter().collect::<String>(), style),
            Span::raw(empty.iter().collect::<String>()),
            Span::raw("]"),
        ]
    }

    /// One column of a picture of a share over time; a blank where nothing is known.
    pub(super) fn height(self, permille: Option<u32>) -> char {
        let signs = if self.is_unicode { BLOCKS } else { ASCII };
        match permille {
            None => ' ',
            Some(0) => signs[0],
            // What is there at all is more than nothing.
            Some(some) => signs[(1 + (some.min(1000) as usize) * 6 / 1000).min(7)],
        }
    }

    /// A text of somebody else's, as it may be shown here: it holds no control characters to begin with.
    pub(super) fn shown(self, text: &str) -> String {
        let plain = |c: char| !c.is_control() && (self.is_unicode || c.is_ascii());
        if text.chars().all(plain) {
            return text.to_owned();
        }
        let mut shown = String::with_capacity(text.len());
        for c in text.chars() {
            if plain(c) {
                shown.push(c);
            } else {
                shown.extend(c.escape_unicode());
            }
        }
        shown
    }

    /// The beginning of a text of ours in so many columns, marked where it is cut.
    pub(super) fn start_of(self, text: &str, room: usize) -> String {
        if columns(text) <= room {
            return text.to_owned();
        }
        let mark = if self.is_unicode { '…' } else { '~' };
        let mut start = fit(text, room.saturating_sub(1));
        start.extend((room > 0).then_some(mark));
        start
    }

    /// The end of somebody else's text in so many columns: of a path it tells more than the beginning.
    pub(super) fn end_of(self, text: &str, room: usize) -> String {
        let text = self.shown(text);
        if columns(&text) <= room {
            return text;
        }
        let mark = if self.is_unicode { '…' } else { '~' };
        let mut end = text.as_str();
        while columns(end) + 1 > room {
            let mut chars = end.chars();
            if chars.next().is_none() {
                return String::new();
            }
            end = chars.as_str();
        }
        format!("{mark}{end}")
    }
}

/// As many columns as the terminal takes for it.
pub(super) fn columns(text: &str) -> usize {
    Line::raw(text).width()
}

/// The beginning of a text in so many columns.
pub(super) fn fit(text: &str, room: usize) -> String {
    let mut kept = text;
    while columns(kept) > room {
        let Some((end, _)) = kept.char_indices().next_back() else {
            break;
        };
        kept = &kept[..end];
    }
    kept.to_owned()
}
