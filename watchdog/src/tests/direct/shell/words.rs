//! Reads one word of shell text: quotes, expansions, substitutions and the braces of templates. What a command
//! is made of is `shell`'s.

use super::{Dialect, Lexer, Word};

/// How far the end of a template's braces is looked for.
const TEMPLATE_BYTES: usize = 300;

impl Lexer<'_> {
    pub(super) fn word(&mut self) -> Word {
        let start = self.at;
        let mut text = String::new();
        let mut quoted = false;
        while self.at < self.limit {
            match self.bytes[self.at] {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'|' | b'&' | b'(' | b')' | b'<' | b'>' => {
                    break;
                }
                b'\'' => {
                    quoted = true;
                    self.single_quoted(&mut text);
                }
                b'"' => {
                    quoted = true;
                    self.double_quoted(&mut text);
                }
                b'\\' if self.continuation() > 0 => self.at += self.continuation(),
                b'\\' => {
                    self.at += 1;
                    self.character(&mut text);
                }
                b'`' if self.in_backticks => break,
                b'`' | b'$' => self.expansion(&mut text),
                b'{' => self.braces(&mut text),
                _ => self.character(&mut text),
            }
        }
        Word {
            text,
            start,
            end: self.at,
            quoted,
        }
    }

    fn character(&mut self, text: &mut String) {
        if let Some(character) = self.text[self.at..self.limit].chars().next() {
            text.push(character);
            self.at += character.len_utf8();
        }
    }

    fn single_quoted(&mut self, text: &mut String) {
        self.at += 1;
        let rest = &self.text[self.at..self.limit];
        match rest.find('\'') {
            Some(length) => {
                text.push_str(&rest[..length]);
                self.at += length + 1;
            }
            // An apostrophe that closes nowhere is one.
            None => text.push('\''),
        }
    }

    fn double_quoted(&mut self, text: &mut String) {
        self.at += 1;
        while self.at < self.limit {
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return;
                }
                b'\\' if self.continuation() > 0 => self.at += self.continuation(),
                b'\\' if matches!(self.peek(1), b'"' | b'\\' | b'$' | b'`') => {
                    self.at += 1;
                    self.character(text);
                }
                b'`' if self.in_backticks => return,
                b'`' | b'$' => self.expansion(text),
                _ => self.character(text),
            }
        }
    }

    /// `$x`, `${x}`, `$(x)`, `` `x` ``: as written, and what a substitution runs is read.
    fn expansion(&mut self, text: &mut String) {
        let start = self.at;
        if self.peek(0) == b'`' {
            self.at += 1;
            self.nested(b'`', |lexer| lexer.list(Some(b'`')));
        } else {
            self.at += 1;
            let is_make = self.dialect == Dialect::Make && self.peek(0) != b'$';
            if self.dialect == Dialect::Make && self.peek(0) == b'$' {
                self.at += 1;
            }
            match self.peek(0) {
                b'(' if is_make => self.balanced(b'(', b')'),
                b'(' if self.peek(1) == b'(' => self.balanced(b'(', b')'),
                b'(' => {
                    self.at += 1;
                    self.nested(b')', |lexer| lexer.list(Some(b')')));
                }
                b'{' => self.balanced(b'{', b'}'),
                _ => {}
            }
        }
        text.push_str(&self.text[start..self.at]);
    }

    /// Steps over what is between `open`, which stands here, and its `close`; over `open` alone if there
    /// is none near.
    fn balanced(&mut self, open: u8, close: u8) {
        let mut depth = 0_usize;
        let near = self.limit.min(self.at + TEMPLATE_BYTES);
        for at in self.at..near {
            depth += usize::from(self.bytes[at] == open);
            if self.bytes[at] == close {
                depth -= 1;
                if depth == 0 {
                    self.at = at + 1;
                    return;
                }
            }
        }
        self.at += 1;
    }

    /// A template's `{{ x }}` or `{x y}` is one word, blanks and all. A shell's `{ x; }` has a blank first.
    fn braces(&mut self, text: &mut String) {
        let start = self.at;
        let line = &self.bytes[start..self.limit.min(start + TEMPLATE_BYTES)];
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let close: &[u8] = if line.starts_with(b"{{") { b"}}" } else { b"}" };
        let is_template = line.get(1).is_some_and(|byte| !byte.is_ascii_whitespace());
        let end = line
            .windows(close.len())
            .position(|window| window == close)
            .filter(|_| is_template);
        match end {
            Some(length) => {
                self.at = start + length + close.len();
                text.push_str(&self.text[start..self.at]);
            }
            None => self.character(text),
        }
    }
}
