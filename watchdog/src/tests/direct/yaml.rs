//! YAML, and JSON as a part of it: CI files, compose files, pre-commit's configuration, Taskfiles,
//! package.json. Commands stand below certain keys.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::kind::Kind;
use super::place::{Sink, quoted};
use super::shell::Dialect;
use super::yaml_lines;

/// Keys whose value is lines for a shell, beside those that end in `script`.
const LINES: &[&str] = &[
    "run",
    "bash",
    "sh",
    "shell",
    "command",
    "commands",
    "cmd",
    "cmds",
    "entry",
    "entrypoint",
    "inline",
    "install",
    "before_install",
    "inlineScript",
    "postCreateCommand",
];
/// Keys whose value, if it is a list, is a program and its arguments.
const ARGUMENTS: &[&str] = &["command", "entrypoint"];

/// What is open where the parser is.
enum Open {
    Map { key: Option<String> },
    List { words: Vec<(String, usize)> },
}

/// Looks through the text.
pub(super) fn look(text: &str, kind: Kind, sink: &mut Sink) {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                sink.begin_anew(error.marker().line(), error.info().to_owned());
                if kind == Kind::Yaml {
                    yaml_lines::look(text, sink);
                }
                return;
            }
        };
        match event {
            Event::MappingStart(..) => open.push(Open::Map { key: None }),
            Event::SequenceStart(..) => open.push(Open::List { words: Vec::new() }),
            Event::MappingEnd => {
                open.pop();
                value_is_over(&mut open);
            }
            Event::SequenceEnd => {
                if let Some(Open::List { words }) = open.pop() {
                    list(&open, &words, kind, sink);
                }
                value_is_over(&mut open);
            }
            Event::Alias(_) => value_is_over(&mut open),
            Event::Scalar(value, style, ..) => match open.last_mut() {
                Some(Open::Map { key: key @ None }) => *key = Some(value.into_owned()),
                Some(Open::List { words }) if style != ScalarStyle::Literal => {
                    let word = (value.clone().into_owned(), span.start.line());
                    words.push(word);
                    if is_lines(&open, kind) && !is_arguments(&open) {
                        scalar(text, &value, style, span, sink);
                    }
                }
                _ => {
                    if is_lines(&open, kind) {
                        scalar(text, &value, style, span, sink);
                    }
                    value_is_over(&mut open);
                }
            },
            _ => {}
        }
    }
}

fn value_is_over(open: &mut [Open]) {
    if let Some(Open::Map { key }) = open.last_mut() {
        *key = None;
    }
}

/// The keys that are open, the innermost first.
fn keys(open: &[Open]) -> impl Iterator<Item = &str> {
    open.iter().rev().filter_map(|open| match open {
        Open::Map { key } => key.as_deref(),
        Open::List { .. } => None,
    })
}

fn is_lines(open: &[Open], kind: Kind) -> bool {
    let mut keys = keys(open);
    let Some(key) = keys.next() else { return false };
    if kind == Kind::PackageJson {
        return keys.next() == Some("scripts");
    }
    is_lines_key(key)
}

/// Whether the value of such a key is lines for a shell.
pub(super) fn is_lines_key(key: &str) -> bool {
    LINES.contains(&key) || key.to_ascii_lowercase().ends_with("script")
}

fn is_arguments(open: &[Open]) -> bool {
    keys(open)
        .next()
        .is_some_and(|key| ARGUMENTS.contains(&key))
}

/// The end of a list: one command, or, as Buildkite has it, lines.
fn list(open: &[Open], words: &[(String, usize)], kind: Kind, sink: &mut Sink) {
    let Some((_, line)) = words.first() else {
        return;
    };
    if !is_lines(open, kind) || !is_arguments(open) {
        return;
    }
    let texts: Vec<_> = words.iter().map(|(word, _)| quoted(word)).collect();
    if sink.list(
        (*line, words.last().map_or(*line, |(_, line)| *line)),
        &texts,
        None,
    ) {
        return;
    }
    let is_shell = words
        .iter()
        .any(|(word, _)| matches!(word.as_str(), "-c" | "-lc" | "-ec" | "-exc"));
    for (word, line) in words
        .iter()
        .filter(|(word, _)| word.contains(' ') && !is_shell)
    {
        sink.shell(word, *line, Dialect::Plain, None);
    }
}

fn scalar(text: &str, value: &str, style: ScalarStyle, span: Span, sink: &mut Sink) {
    // Of a block this is its first line that is not empty.
    let line = span.start.line();
    match style {
        ScalarStyle::Literal => {
            let empty = value.bytes().take_while(|byte| *byte == b'\n').count();
            let first = line.saturating_sub(empty);
            sink.shell(value, first, Dialect::Plain, None);
        }
        ScalarStyle::Folded => {
            let lines = sink.lines(text, line, span.end.line());
            let folded: Vec<_> = lines.lines().map(str::trim).collect();
            sink.shell(&fold(&folded), line, Dialect::Plain, None);
        }
        _ => sink.shell_between(value, (line, span.end.line().max(line))),
    }
}

/// Folded lines are one; the shell's own mark for that keeps their numbers.
pub(super) fn fold(lines: &[&str]) -> String {
    let mut folded = String::new();
    for line in lines {
        let continues = !folded.is_empty() && !folded.ends_with('\n');
        if line.is_empty() {
            folded.push_str(if continues { "\n\n" } else { "\n" });
            continue;
        }
        if continues {
            folded.push_str(if folded.ends_with('\\') {
                "\n"
            } else {
                " \\\n"
            });
        }
        folded.push_str(line);
    }
    folded
}
