//! Dockerfiles: RUN, CMD, ENTRYPOINT and HEALTHCHECK, as a shell's line or as a list.

use super::place::{Sink, quoted};
use super::shell::Dialect;

const ALSO: Option<&str> =
    Some("the image needs memwatch, and the container a limit (docker run --memory)");

/// Looks through a Dockerfile.
pub(super) fn look(text: &str, sink: &mut Sink) {
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let mut document = None;
        // An instruction goes on after a backslash; comments in between do not end it.
        for line in text[start..].split_inclusive('\n') {
            at += line.len();
            let bare = line.trim_end();
            document = document.or_else(|| delimiter(bare));
            let is_comment = bare.trim_start().starts_with('#') && at > start + line.len();
            if !bare.ends_with('\\') && !is_comment {
                break;
            }
        }
        if let Some(delimiter) = document {
            for line in text[at..].split_inclusive('\n') {
                at += line.len();
                if line.trim() == delimiter {
                    break;
                }
            }
        }
        instruction(text, start, at, sink);
    }
}

/// Of a here-document: `RUN <<EOF`.
fn delimiter(line: &str) -> Option<&str> {
    let words = line.split_once("<<")?.1.trim_start_matches('-');
    let word = words.split_ascii_whitespace().next()?;
    Some(word.trim_matches(['"', '\'']))
}

fn instruction(text: &str, start: usize, end: usize, sink: &mut Sink) {
    let mut at = start + leading_blanks(&text[start..end]);
    let mut word = next_word(text, &mut at, end).to_ascii_uppercase();
    while matches!(word.as_str(), "HEALTHCHECK" | "ONBUILD")
        || (word.starts_with("--") && word.len() > 2)
    {
        word = next_word(text, &mut at, end).to_ascii_uppercase();
    }
    if !matches!(word.as_str(), "RUN" | "CMD" | "ENTRYPOINT") {
        return;
    }
    while text[at..end].starts_with("--") {
        next_word(text, &mut at, end);
    }
    let rest = &text[at..end];
    if rest.starts_with('[') {
        // As Docker does, what is no list is a line for the shell.
        let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<Vec<String>>();
        if let Some(Ok(words)) = strings.next() {
            let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
            sink.list((sink.line(at), sink.line(end - 1)), &words, ALSO);
        }
    } else if rest.starts_with("<<") {
        let body = rest.split_once('\n').map_or("", |(_, body)| body);
        sink.shell(body, sink.line(end - body.len()), Dialect::Plain, ALSO);
    } else {
        sink.shell(rest, sink.line(at), Dialect::Plain, ALSO);
    }
}

fn leading_blanks(text: &str) -> usize {
    text.len() - text.trim_start_matches([' ', '\t']).len()
}

/// The word at `at`, which moves to the one after it, over the end of a continued line, too.
fn next_word<'t>(text: &'t str, at: &mut usize, end: usize) -> &'t str {
    let rest = &text[*at..end];
    let length = rest.find(|byte: char| byte.is_ascii_whitespace());
    let word = &rest[..length.unwrap_or(rest.len())];
    *at += word.len();
    loop {
        let rest = &text[*at..end];
        let blanks = leading_blanks(rest);
        let rest = &rest[blanks..];
        let continued = ["\\\n", "\\\r\n"]
            .into_iter()
            .find(|end| rest.starts_with(end));
        *at += blanks + continued.map_or(0, str::len);
        if continued.is_none() {
            return word;
        }
    }
}
