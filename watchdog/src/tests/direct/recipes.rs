//! Makefiles and justfiles: commands stand in recipes, below the name of what they make.

use super::place::Sink;
use super::shell::Dialect;

/// Looks through a Makefile.
pub(super) fn make(text: &str, sink: &mut Sink) {
    for (number, line) in logical_lines(text) {
        if let Some(recipe) = line.strip_prefix('\t') {
            sink.shell(without_marks(recipe), number, Dialect::Make, None);
        } else if let Some((name, value)) = definition(line) {
            sink.kept(name, value, number);
        } else if let Some((_, shell)) = line.split_once("$(shell ") {
            let end = shell.rfind(')').unwrap_or(shell.len());
            sink.shell(&shell[..end], number, Dialect::Make, None);
        } else if let Some((head, recipe)) = line.split_once(';')
            && head.contains(':')
            && !head.contains(['=', '#'])
        {
            sink.shell(without_marks(recipe), number, Dialect::Make, None);
        }
    }
}

/// `NAME = value`, without what make does when. What `$(shell ...)` gives is not kept but run.
fn definition(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end_matches([' ', '\t', ':', '?', '+']);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!line.contains("$(shell ") && !name.is_empty() && name.bytes().all(is_name))
        .then_some((name, value.trim()))
}

/// Looks through a justfile.
pub(super) fn just(text: &str, sink: &mut Sink) {
    for (number, line) in logical_lines(text) {
        let is_recipe = line.starts_with([' ', '\t']);
        if is_recipe && !line.trim_start().starts_with('#') {
            sink.shell(
                without_marks(line.trim_start()),
                number,
                Dialect::Plain,
                None,
            );
        }
    }
}

/// `@`, `-` and `+` tell make and just what to do with the line.
fn without_marks(recipe: &str) -> &str {
    recipe.trim_start_matches(['@', '-', '+', ' ', '\t'])
}

/// Lines with those that continue them, and the number of the first.
fn logical_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    let mut number = 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut length = 0;
        let mut lines = 0;
        for line in rest.split_inclusive('\n') {
            length += line.len();
            lines += 1;
            if !line.trim_end_matches(['\n', '\r']).ends_with('\\') {
                break;
            }
        }
        let (logical, next) = rest.split_at(length);
        rest = next;
        number += lines;
        Some((number - lines, logical))
    })
}
