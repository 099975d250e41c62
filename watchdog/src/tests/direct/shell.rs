//! Splits shell text into simple commands and their words, with the place of each. Not a shell parser: it
//! must get through what is no whole script (recipes of a Makefile, lines of a CI file with `${{ }}` in
//! them, a script with a mistake), so it never gives up. That, and the places, are why no crate does this:
//! `shlex` knows no operators and no places, `brush-parser` takes valid bash only.

mod words;

/// One simple command: the words between two operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Simple {
    /// At least one.
    pub(super) words: Vec<Word>,
    /// Where its last word or redirection ends.
    pub(super) end: usize,
}

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Without quotes; expansions stand as they are written.
    pub(super) text: String,
    /// The byte where it starts.
    pub(super) start: usize,
    /// The byte after it.
    pub(super) end: usize,
    /// Whether a part of it was quoted, so that it is no reserved word.
    pub(super) quoted: bool,
}

/// Whose shell text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Plain,
    /// `$(X)` is a variable, and `$$` the shell's `$`.
    Make,
}

/// Deeper nesting than this is read as plain characters.
const DEEPEST: usize = 24;

/// The simple commands of `text`, those in substitutions and subshells included, in no certain order.
pub(super) fn commands(text: &str, dialect: Dialect) -> Vec<Simple> {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        at: 0,
        limit: text.len(),
        dialect,
        depth: 0,
        in_backticks: false,
        documents: Vec::new(),
        found: Vec::new(),
    };
    lexer.list(None);
    lexer.found
}

struct Lexer<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    limit: usize,
    dialect: Dialect,
    depth: usize,
    in_backticks: bool,
    documents: Vec<Document>,
    found: Vec<Simple>,
}

/// A here-document that starts on the next line.
struct Document {
    delimiter: String,
    is_indented: bool,
    /// It is a shell's input, so that what stands in it is run.
    is_script: bool,
}

/// What of a list has been read.
#[derive(Default)]
struct State {
    words: Vec<Word>,
    end: usize,
    cases: usize,
    in_pattern: bool,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        let at = self.at + ahead;
        if at < self.limit { self.bytes[at] } else { 0 }
    }

    fn starts_with(&self, what: &str) -> bool {
        self.bytes[self.at..self.limit].starts_with(what.as_bytes())
    }

    /// Reads commands until `end` closes the list, or nothing is left.
    fn list(&mut self, end: Option<u8>) {
        let mut state = State::default();
        while self.at < self.limit {
            let byte = self.bytes[self.at];
            if Some(byte) == end && !state.in_pattern {
                break;
            }
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.continuation() > 0 => self.at += self.continuation(),
                b'#' => self.comment(),
                b'\n' => {
                    self.at += 1;
                    self.finish(&mut state);
                    self.here_documents();
                }
                b';' => {
                    let is_case = state.cases > 0 && (self.peek(1) == b';' || self.peek(1) == b'&');
                    self.at += if is_case { 2 } else { 1 };
                    self.finish(&mut state);
                    state.in_pattern = is_case;
                }
                b'&' if self.peek(1) == b'>' => self.redirection(&mut state),
                b'&' | b'|' => {
                    self.at += 1;
                    self.finish(&mut state);
                }
                b'(' => self.parenthesis(&mut state),
                b')' => {
                    // The end of a pattern of `case`, or nothing that makes sense.
                    self.at += 1;
                    state.words.clear();
                    state.in_pattern = false;
                }
                b'<' | b'>' => self.redirection(&mut state),
                _ => self.add_word(&mut state),
            }
        }
        self.finish(&mut state);
    }

    fn comment(&mut self) {
        while self.at < self.limit && self.bytes[self.at] != b'\n' {
            self.at += 1;
        }
    }

    /// The length of a backslash with a line's end after it.
    fn continuation(&self) -> usize {
        match (self.peek(0), self.peek(1), self.peek(2)) {
            (b'\\', b'\n', _) => 2,
            (b'\\', b'\r', b'\n') => 3,
            _ => 0,
        }
    }

    fn add_word(&mut self, state: &mut State) {
        let before = self.at;
        let word = self.word();
        if self.at == before {
            self.at += 1; // A backtick that closes nothing.
            return;
        }
        if state.in_pattern {
            if word.text == "esac" {
                state.cases = state.cases.saturating_sub(1);
                state.in_pattern = false;
            }
            return;
        }
        let begins_case = word.text == "in" && !word.quoted && {
            let mut rest = state.words.iter().skip_while(|word| is_prefix(word));
            rest.next().is_some_and(|word| word.text == "case") && rest.next().is_some()
        };
        if word.text == "esac" && state.words.is_empty() {
            state.cases = state.cases.saturating_sub(1);
        }
        state.end = word.end;
        state.words.push(word);
        if begins_case {
            state.words.clear();
            state.cases += 1;
            state.in_pattern = true;
        }
    }

    fn parenthesis(&mut self, state: &mut State) {
        self.at += 1;
        if state.in_pattern {
            return;
        }
        let adjacent_array = state
            .words
            .last()
            .is_some_and(|word| word.end + 1 == self.at && word.text.ends_with('='));
        let is_function = state.words.len() == 1 && self.peek(0) == b')';
        if is_function {
            self.at += 1;
            state.words.clear();
        } else if adjacent_array {
            self.nested(b')', |lexer| {
                let found = lexer.found.len();
                lexer.list(Some(b')'));
                lexer.found.truncate(found);
            });
            state.end = self.at;
        } else {
            self.finish(state);
            self.nested(b')', |lexer| lexer.list(Some(b')')));
        }
    }

    /// Reads something nested with `inner`, and steps over what closes it.
    fn nested(&mut self, close: u8, inner: impl FnOnce(&mut Self)) {
        if self.depth >= DEEPEST {
            return;
        }
        self.depth += 1;
        let outside = std::mem::replace(&mut self.in_backticks, close == b'`');
        inner(self);
        self.in_backticks = outside;
        self.depth -= 1;
        if self.peek(0) == close {
            self.at += 1;
        }
    }

    fn redirection(&mut self, state: &mut State) {
        // The number of a descriptor is no word of the command.
        let is_number = |word: &Word| word.text.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(last) = state.words.last()
            && last.end == self.at
            && is_number(last)
        {
            state.words.pop();
        }
        if self.peek(1) == b'(' {
            self.at += 2;
            self.nested(b')', |lexer| lexer.list(Some(b')')));
            state.end = self.at;
            return;
        }
        let is_document = self.starts_with("<<") && !self.starts_with("<<<");
        while matches!(self.peek(0), b'<' | b'>' | b'&' | b'|') {
            self.at += 1;
        }
        let is_indented = is_document && self.peek(0) == b'-';
        if is_indented {
            self.at += 1;
        }
        while matches!(self.peek(0), b' ' | b'\t') {
            self.at += 1;
        }
        let target = self.word();
        state.end = state.end.max(target.end);
        if is_document && !target.text.is_empty() {
            let is_script = state.words.iter().any(|word| {
                let name = word.text.rsplit('/').next().unwrap_or_default();
                matches!(name, "sh" | "bash" | "dash" | "zsh" | "ksh" | "ssh")
            });
            self.documents.push(Document {
                delimiter: target.text,
                is_indented,
                is_script,
            });
        }
    }

    /// Steps over the here-documents that start here, and reads those that are scripts.
    fn here_documents(&mut self) {
        for document in std::mem::take(&mut self.documents) {
            let start = self.at;
            let mut line_at = start;
            let end = loop {
                if line_at >= self.limit {
                    break self.limit;
                }
                let rest = &self.bytes[line_at..self.limit];
                let length = rest.iter().position(|&byte| byte == b'\n');
                let line = rest[..length.unwrap_or(rest.len())].trim_ascii_end();
                let line = if document.is_indented {
                    line.trim_ascii_start()
                } else {
                    line
                };
                let next = line_at + length.map_or(rest.len(), |length| length + 1);
                if line == document.delimiter.as_bytes() {
                    self.at = next;
                    break line_at;
                }
                line_at = next;
            };
            if end == self.limit {
                self.at = self.limit;
            }
            if document.is_script && self.depth < DEEPEST {
                let (at, limit) = (self.at, self.limit);
                (self.at, self.limit) = (start, end);
                self.depth += 1;
                self.list(None);
                self.depth -= 1;
                (self.at, self.limit) = (at, limit);
            }
        }
    }

    /// Ends the command that was read.
    fn finish(&mut self, state: &mut State) {
        let words = std::mem::take(&mut state.words);
        let mut words: Vec<_> = words.into_iter().skip_while(is_prefix).collect();
        let Some(first) = words.first() else {
            return;
        };
        let is_syntax = matches!(
            first.text.as_str(),
            "for" | "select" | "case" | "function" | "[" | "[[" | "done" | "fi" | "esac"
        );
        if state.in_pattern || (is_syntax && !first.quoted) {
            return;
        }
        // `{ pytest; }` leaves a brace of its own; a word never ends a group.
        words.retain(|word| word.text != "}" || word.quoted);
        if !words.is_empty() {
            let end = state.end;
            self.found.push(Simple { words, end });
        }
    }
}

/// A reserved word after which a command stands.
fn is_prefix(word: &Word) -> bool {
    !word.quoted
        && matches!(
            word.text.as_str(),
            "if" | "then" | "elif" | "else" | "while" | "until" | "do" | "!" | "{" | "}" | "time"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str, dialect: Dialect) -> Vec<String> {
        let mut found = commands(text, dialect);
        found.sort_by_key(|simple| simple.words[0].start);
        let joined = |simple: &Simple| {
            let words: Vec<_> = simple.words.iter().map(|word| word.text.as_str()).collect();
            words.join("|")
        };
        found.iter().map(joined).collect()
    }

    #[test]
    fn text_becomes_commands() {
        let table: &[(&str, &[&str])] = &[
            ("a b && c; d | e & f", &["a|b", "c", "d", "e", "f"]),
            ("a 'b c' \"d e\" f\\ g", &["a|b c|d e|f g"]),
            ("a \\\n  b\nc # d e\n#f\ng", &["a|b", "c", "g"]),
            ("x $(a b) \"`c d`\"", &["x|$(a b)|`c d`", "a|b", "c|d"]),
            ("if a; then b; else c; fi", &["a", "b", "c"]),
            ("for x in a b; do c $x; done", &["c|$x"]),
            ("case $x in a|b) c;; (d) e ;; esac; f", &["c", "e", "f"]),
            ("case $x in\n a) c\n ;;\nesac\nf", &["c", "f"]),
            ("(a; b) && { c; }", &["a", "b", "c"]),
            ("f() { a; }\nf", &["a", "f"]),
            ("a >b 2>&1 <c d", &["a|d"]),
            ("a &> b; c >| d", &["a", "c"]),
            ("cat <<E\na b\nE\nc", &["cat", "c"]),
            ("bash -s <<-'E'\n\ta b\n\tE\nc", &["bash|-s", "a|b", "c"]),
            ("x=(a b) y=1 c", &["x=|y=1|c"]),
            ("a {posargs:b c} {{ d }}", &["a|{posargs:b c}|{{ d }}"]),
            ("${{ m.x }} a", &["${{ m.x }}|a"]),
            ("diff <(a) <(b)", &["diff", "a", "b"]),
            ("it's a b\nc d", &["it's|a|b", "c|d"]),
            ("a $((1 + 2)) b", &["a|$((1 + 2))|b"]),
            ("[ -x a ] && b", &["b"]),
        ];
        for (text, wanted) in table {
            assert_eq!(words(text, Dialect::Plain), *wanted, "{text}");
        }
    }

    #[test]
    fn make_has_variables_of_its_own() {
        assert_eq!(
            words("$(PY) -m a $$(b)", Dialect::Make),
            ["$(PY)|-m|a|$$(b)", "b"]
        );
    }

    #[test]
    fn deep_nesting_ends() {
        for part in [
            "$(",
            "\"$(",
            "`\"",
            "(",
            "{",
            "${",
            "<(",
            "case a in ",
            "<<a\n",
        ] {
            commands(&part.repeat(20_000), Dialect::Plain);
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[ab'\"`$(){}<>|&;#\\\\\n =é-]{0,200}") {
            for dialect in [Dialect::Plain, Dialect::Make] {
                for simple in commands(&text, dialect) {
                    for word in simple.words {
                        prop_assert!(text.get(word.start..word.end).is_some());
                    }
                }
            }
        }
    }
}
