//! YAML line by line, for files that `yaml`'s parser gives up on: templates of Helm and Jinja, and lists whose
//! closing bracket is out of line, which other parsers let pass. Knows keys, blocks and lists of lines; what
//! is written in brackets it does not read.

use super::place::Sink;
use super::shell::Dialect;
use super::yaml::{fold, is_lines_key};

/// A line without its indentation.
#[derive(Clone, Copy)]
struct Line<'t> {
    number: usize,
    indent: usize,
    bare: &'t str,
}

/// Looks through the text.
pub(super) fn look(text: &str, sink: &mut Sink) {
    let lines = (1..).zip(text.lines()).map(|(number, line)| Line {
        number,
        indent: line.len() - line.trim_start_matches(' ').len(),
        bare: line.trim(),
    });
    let lines: Vec<_> = lines.collect();
    // The list of lines that is open: where its key stands.
    let mut list: Option<usize> = None;
    let mut at = 0;
    while let Some(&line) = lines.get(at) {
        at += 1;
        if line.bare.is_empty() || line.bare.starts_with('#') {
            continue;
        }
        let item = line.bare.strip_prefix("- ");
        let inside = item.unwrap_or(line.bare).trim_start();
        // A list may stand as deep as its key.
        if list.is_some_and(|key| line.indent < key || (line.indent == key && item.is_none())) {
            list = None;
        }
        let key = line.indent + line.bare.len() - inside.len();
        let value = match inside.split_once(':') {
            Some((name, value)) if is_lines_key(name.trim_matches(['"', '\''])) => value.trim(),
            _ if list.is_some() && item.is_some() => inside,
            _ => continue,
        };
        if value.starts_with(['|', '>']) {
            let block = block(&lines[at..], line.indent);
            at += block.len();
            code(value, block, sink);
        } else if value.is_empty() {
            list = Some(key);
        } else {
            sink.shell(unquoted(value), line.number, Dialect::Plain, None);
        }
    }
}

/// The lines that are deeper than `indent`.
fn block<'l, 't>(lines: &'l [Line<'t>], indent: usize) -> &'l [Line<'t>] {
    let outside = |line: &Line<'_>| !line.bare.is_empty() && line.indent <= indent;
    &lines[..lines.iter().position(outside).unwrap_or(lines.len())]
}

fn code(mark: &str, block: &[Line<'_>], sink: &mut Sink) {
    let Some(first) = block.first() else { return };
    let bare: Vec<_> = block.iter().map(|line| line.bare).collect();
    let code = if mark.starts_with('>') {
        fold(&bare)
    } else {
        bare.join("\n")
    };
    sink.shell(&code, first.number, Dialect::Plain, None);
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        let inside = value
            .strip_prefix(quote)
            .and_then(|value| value.strip_suffix(quote));
        if let Some(inside) = inside {
            return inside;
        }
    }
    value
}
