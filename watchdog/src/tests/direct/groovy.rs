//! Jenkinsfiles: the strings that `sh` gets.

use super::place::Sink;
use super::shell::Dialect;
use super::tokens::{self, Language, What};

/// Looks through the text.
pub(super) fn look(text: &str, sink: &mut Sink) {
    let tokens = tokens::of(text, Language::Groovy);
    for (at, token) in tokens.iter().enumerate() {
        if !matches!(token.what, What::Text { .. }) {
            continue;
        }
        let before = tokens[at.saturating_sub(12)..at].iter();
        let words: Vec<_> = before.map(|token| token.text(text)).collect();
        let is_step = match words[..] {
            [.., "sh"] | [.., "sh", "("] => true,
            [.., "script", ":"] => words.contains(&"sh"),
            _ => false,
        };
        if is_step {
            // In Groovy's string two backslashes are the shell's one.
            let code = token.inside(text).replace("\\\\\n", "\\\n");
            sink.shell(&code, sink.line(token.inside_start()), Dialect::Plain, None);
        }
    }
}
