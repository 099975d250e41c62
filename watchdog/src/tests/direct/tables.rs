//! TOML: the scripts and tasks of pyproject.toml, pixi.toml, mise.toml and a Pipfile, and tox's commands.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ini;
use super::place::{Sink, one_line, quoted};
use super::shell::Dialect;

/// What a string below a key is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    Nothing,
    /// The values are scripts, by name.
    Scripts,
    /// The value is one of them.
    Script,
    /// tox's commands.
    Tox,
}

/// Looks through the text.
pub(super) fn look(text: &str, sink: &mut Sink) {
    let (document, errors) = DeTable::parse_recoverable(text);
    if let Some(error) = errors.first() {
        let at = error.span().map_or(0, |span| span.start);
        sink.mistake(sink.line(at), error.message().to_owned());
    }
    table(
        text,
        document.get_ref(),
        &mut Vec::new(),
        Below::Nothing,
        sink,
    );
}

fn table<'t>(
    text: &str,
    entries: &'t DeTable<'_>,
    path: &mut Vec<&'t str>,
    below: Below,
    sink: &mut Sink,
) {
    for (key, value) in entries {
        let key = key.get_ref().as_ref();
        path.push(key);
        let is_entry_points = matches!(path[..], ["project", ..] | ["tool", "poetry", ..]);
        let is = match (below, key) {
            (_, "legacy_tox_ini") => {
                legacy(text, value, sink);
                Below::Nothing
            }
            (Below::Nothing, "scripts" | "tasks") if !is_entry_points => Below::Scripts,
            (_, "commands" | "commands_pre" | "commands_post") => Below::Tox,
            (Below::Scripts, _) => Below::Script,
            (Below::Script, "cmd" | "shell" | "command" | "run") => Below::Script,
            _ => Below::Nothing,
        };
        look_at(text, value, path, is, sink);
        path.pop();
    }
}

fn look_at<'t>(
    text: &str,
    value: &'t Spanned<DeValue<'_>>,
    path: &mut Vec<&'t str>,
    below: Below,
    sink: &mut Sink,
) {
    let also = (below == Below::Tox).then_some(ini::TOX).flatten();
    match value.get_ref() {
        DeValue::Table(entries) => table(text, entries, path, below, sink),
        DeValue::String(line) if matches!(below, Below::Script | Below::Tox) => {
            let number = first_line(text, value.span(), sink);
            sink.shell(line, number, Dialect::Plain, also);
        }
        DeValue::Array(items) => {
            let words: Vec<_> = items.iter().map(|item| word(text, item)).collect();
            let has_lists = items.iter().any(|item| item.get_ref().as_array().is_some());
            let lines = (sink.line(value.span().start), sink.line(value.span().end));
            let named = path
                .last()
                .is_some_and(|key| matches!(*key, "cmd" | "commands"));
            if matches!(below, Below::Script | Below::Tox)
                && !has_lists
                && (named || below == Below::Tox)
                && sink.list(lines, &words, also)
            {
                return;
            }
            for item in items.iter() {
                // Of a task's list the words that stand alone name other tasks.
                let is_name = item
                    .get_ref()
                    .as_str()
                    .is_some_and(|line| !line.contains(' '));
                let lists_tasks = below == Below::Script && !path.contains(&"hatch");
                if !(is_name && (lists_tasks || below == Below::Tox)) {
                    look_at(text, item, path, below, sink);
                }
            }
        }
        _ => {}
    }
}

/// A word of a list; one of tox's tables is shown as it is written.
fn word<'t>(text: &'t str, item: &'t Spanned<DeValue<'_>>) -> (&'t str, String) {
    match item.get_ref().as_str() {
        Some(word) => quoted(word),
        None => {
            let written = &text[item.span()];
            (written, one_line(written))
        }
    }
}

fn legacy(text: &str, value: &Spanned<DeValue<'_>>, sink: &mut Sink) {
    if let Some(ini) = value.get_ref().as_str() {
        let before = first_line(text, value.span(), sink) - 1;
        ini::look_from(ini, before, sink);
    }
}

/// A string of several lines may start in the line after its quotes.
fn first_line(text: &str, span: Range<usize>, sink: &Sink) -> usize {
    let raw = text[span.clone()].trim_start_matches(['"', '\'']);
    let is_long = text[span.clone()].starts_with("\"\"\"") || text[span.clone()].starts_with("'''");
    let starts_below = is_long && raw.trim_start_matches('\r').starts_with('\n');
    sink.line(span.start) + usize::from(starts_below)
}
