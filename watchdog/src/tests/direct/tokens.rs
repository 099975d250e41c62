//! Names, strings and brackets of Python and Groovy, with their places; enough to see what a call is given.
//! Not their parsers: those give up on a file with a mistake, and are larger than all of memwatch.

/// Whose text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Python,
    Groovy,
}

/// A name, a string, or one other byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) what: What,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// With the dots in it: `subprocess.run`.
    Name,
    /// A string; so many bytes stand before and after what is in it.
    Text {
        before: usize,
        after: usize,
    },
    Other(u8),
}

impl Token {
    pub(super) fn is(&self, byte: u8) -> bool {
        self.what == What::Other(byte)
    }

    /// As it is written.
    pub(super) fn text<'t>(&self, text: &'t str) -> &'t str {
        &text[self.start..self.end]
    }

    /// What stands between the quotes, escapes as they are written.
    pub(super) fn inside<'t>(&self, text: &'t str) -> &'t str {
        match self.what {
            What::Text { before, after } => &text[self.start + before..self.end - after],
            _ => self.text(text),
        }
    }

    /// Where `inside` starts.
    pub(super) fn inside_start(&self) -> usize {
        match self.what {
            What::Text { before, .. } => self.start + before,
            _ => self.start,
        }
    }
}

/// The tokens of `text`, without blanks and comments.
pub(super) fn of(text: &str, language: Language) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let rest = &bytes[at..];
        let is_comment = match language {
            Language::Python => rest[0] == b'#',
            Language::Groovy => rest.starts_with(b"//"),
        };
        if is_comment {
            at += rest
                .iter()
                .position(|&byte| byte == b'\n')
                .unwrap_or(rest.len());
        } else if language == Language::Groovy && rest.starts_with(b"/*") {
            let end = text[at..].find("*/");
            at += end.map_or(rest.len(), |end| end + 2);
        } else if rest[0].is_ascii_whitespace() {
            at += 1;
        } else if matches!(rest[0], b'"' | b'\'') {
            let what;
            (what, at) = string(bytes, start, at);
            tokens.push(Token {
                what,
                start,
                end: at,
            });
        } else if is_name(rest[0]) {
            let length = rest.iter().position(|&byte| !is_name(byte) && byte != b'.');
            at += length.unwrap_or(rest.len());
            // A prefix: f"", rb''.
            let is_prefix = at - start <= 2 && language == Language::Python;
            let what = match bytes.get(at) {
                Some(b'"' | b'\'') if is_prefix => {
                    let what;
                    (what, at) = string(bytes, start, at);
                    what
                }
                _ => What::Name,
            };
            tokens.push(Token {
                what,
                start,
                end: at,
            });
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
            tokens.push(Token {
                what: What::Other(rest[0]),
                start,
                end: at,
            });
        }
    }
    tokens
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The string whose quotes stand at `quotes`, and where it ends. One that does not end in its line, or
/// nowhere, is a quote alone.
fn string(bytes: &[u8], start: usize, quotes: usize) -> (What, usize) {
    let quote = bytes[quotes];
    let is_long = bytes[quotes..].starts_with(&[quote; 3]);
    let marks = if is_long { 3 } else { 1 };
    let mut at = quotes + marks;
    while at < bytes.len() {
        if bytes[at] == b'\\' {
            at += 2;
            continue;
        }
        if bytes[at] == b'\n' && !is_long {
            break;
        }
        if bytes[at..].starts_with(&[quote; 3][..marks]) {
            let before = quotes + marks - start;
            return (
                What::Text {
                    before,
                    after: marks,
                },
                at + marks,
            );
        }
        at += 1;
    }
    (What::Other(quote), quotes + 1)
}
