//! Lines in memwatch's own column, since they stand among those of the command: a prefix, a label, a
//! text wrapped beside it. What the texts say is `summary`'s.

/// How a summary is to look; the caller knows the terminal and `NO_COLOR`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether to use colours.
    pub color: bool,
    /// Columns to wrap at; `None` leaves lines as long as they are.
    pub width: Option<usize>,
}

/// How grave a headline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Warning,
    Loss,
}

const PREFIX: &str = "memwatch: ";
const LABEL_COLUMNS: usize = 11;
/// Below this a column of text is harder to read than a line that the terminal wraps.
const NARROWEST: usize = 30;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const BOLD_YELLOW: &str = "\x1b[1;33m";
const BOLD_RED: &str = "\x1b[1;31m";
const RESET: &str = "\x1b[0m";

/// The lines so far.
pub(super) struct Paragraph {
    style: Style,
    lines: String,
}

impl Paragraph {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            lines: String::new(),
        }
    }

    /// The sentence that the rest explains.
    pub(super) fn headline(&mut self, tone: Tone, text: &str) {
        let paint = match tone {
            Tone::Plain => BOLD,
            Tone::Warning => BOLD_YELLOW,
            Tone::Loss => BOLD_RED,
        };
        for line in wrap(text, self.room(0)) {
            self.paint(DIM, PREFIX);
            self.paint(paint, &line);
            self.lines.push('\n');
        }
    }

    /// A text beside its label.
    pub(super) fn row(&mut self, label: &str, text: &str) {
        for (n, line) in wrap(text, self.room(LABEL_COLUMNS)).iter().enumerate() {
            let label = if n == 0 { label } else { "" };
            self.paint(DIM, PREFIX);
            self.paint(DIM, &format!("  {label:<0$}", LABEL_COLUMNS - 2));
            self.lines.push_str(line);
            self.lines.push('\n');
        }
    }

    /// A text beside its label, as wide as it is and with all its blanks.
    pub(super) fn line(&mut self, label: &str, text: &str) {
        self.paint(DIM, PREFIX);
        self.paint(DIM, &format!("  {label:<0$}", LABEL_COLUMNS - 2));
        self.lines.push_str(text.trim_end());
        self.lines.push('\n');
    }

    /// A command below a row, on one line however long that is: it is to be copied.
    pub(super) fn command(&mut self, command: &str) {
        self.paint(DIM, PREFIX);
        self.lines.push_str(&" ".repeat(LABEL_COLUMNS + 2));
        self.lines.push_str(command);
        self.lines.push('\n');
    }

    /// Columns that a line of a row has; `None` for as many as it takes.
    pub(super) fn row_columns(&self) -> Option<usize> {
        self.style.width.map(|_| self.room(LABEL_COLUMNS))
    }

    /// A line between two blocks.
    pub(super) fn gap(&mut self) {
        self.paint(DIM, PREFIX.trim_end());
        self.lines.push('\n');
    }

    /// All lines, each with its newline.
    pub(super) fn finish(self) -> String {
        self.lines
    }

    fn room(&self, taken: usize) -> usize {
        self.style.width.map_or(usize::MAX, |width| {
            width.saturating_sub(PREFIX.len() + taken).max(NARROWEST)
        })
    }

    fn paint(&mut self, paint: &str, text: &str) {
        if self.style.color {
            self.lines.extend([paint, text, RESET]);
        } else {
            self.lines.push_str(text);
        }
    }
}

/// Breaks `text` at blanks. A word that is wider than `room` gets a line of its own.
pub(crate) fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let width = columns(word);
        if used > 0 && used + 1 + width > room {
            lines.push(String::new());
            used = 0;
        } else if used > 0 {
            lines.last_mut().expect("there is always a line").push(' ');
            used += 1;
        }
        lines
            .last_mut()
            .expect("there is always a line")
            .push_str(word);
        used += width;
    }
    lines
}

/// Columns that `text` takes at the most: outside ASCII a character may be two wide.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colour_changes_nothing_but_colour() {
        let lines = |color| {
            let mut paragraph = Paragraph::new(Style {
                color,
                width: Some(50),
            });
            paragraph.headline(
                Tone::Loss,
                "pytest was killed by memwatch after 12.4s (exit code 137)",
            );
            paragraph.gap();
            paragraph.row("why", "because of a text that is longer than its line");
            paragraph.finish()
        };
        let plain = "\
memwatch: pytest was killed by memwatch after
memwatch: 12.4s (exit code 137)
memwatch:
memwatch:   why      because of a text that is
memwatch:            longer than its line
";
        assert_eq!(lines(false), plain);
        let coloured = lines(true);
        assert!(
            coloured.starts_with("\x1b[2mmemwatch: \x1b[0m\x1b[1;31mpytest"),
            "{coloured:?}"
        );
        let bare = [BOLD_RED, DIM, RESET]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(bare, plain);
    }

    proptest! {
        #[test]
        fn wrapping_keeps_every_word_and_the_width(words in prop::collection::vec("[a-z]{1,30}", 1..30)) {
            let text = words.join(" ");
            let lines = wrap(&text, 30);
            prop_assert!(lines.iter().all(|line| columns(line) <= 30));
            prop_assert_eq!(lines.join(" "), text);
        }
    }
}
