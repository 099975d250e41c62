//! Python: `pytest.main(...)`, and what starts a program: subprocess, os, nox, invoke and the like.

use super::Finding;
use super::call::is_pytest;
use super::place::{ATTACH, Argument, Sink, one_line};
use super::shell::{self, Dialect};
use super::tokens::{self, Language, Token, What};

/// The last part of the names of functions that start a program.
const STARTERS: &[&str] = &[
    "run",
    "call",
    "check_call",
    "check_output",
    "Popen",
    "getoutput",
    "getstatusoutput",
    "system",
    "popen",
    "spawn",
    "spawnl",
    "spawnlp",
    "spawnv",
    "spawnvp",
    "execl",
    "execlp",
    "execv",
    "execvp",
    "execvpe",
    "execve",
    "posix_spawn",
    "posix_spawnp",
    "create_subprocess_exec",
    "create_subprocess_shell",
    "run_always",
    "run_command",
    "run_cmd",
    "sudo",
    "local",
    "sh",
    "shell",
    "execute",
];

const OR_AROUND: Option<&str> =
    Some("or leave it and run the program itself under memwatch attach");

/// Looks through the text.
pub(super) fn look(text: &str, sink: &mut Sink) {
    let tokens = tokens::of(text, Language::Python);
    let mut seen = 0;
    for at in 0..tokens.len() {
        let follows = |what: u8| tokens.get(at + 1).is_some_and(|token| token.is(what));
        match &tokens[at].what {
            What::Name if follows(b'(') => {
                let name = tokens[at].text(text);
                let defines = at > 0 && matches!(tokens[at - 1].text(text), "def" | "class");
                if defines {
                    continue;
                }
                let call = Call::of(text, &tokens, at);
                if matches!(name, "pytest.main" | "pytest.console_main") {
                    call.main(sink);
                } else if STARTERS.contains(&last_part(name)) && call.starts(name, sink) {
                    // Its lists are not looked at alone.
                    seen = seen.max(call.last);
                }
            }
            What::Other(b'[') if at >= seen && is_kept(text, &tokens[..at]) => {
                list_alone(text, &tokens, at, sink);
            }
            _ => {}
        }
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Whether what follows these tokens is put into a variable, or returned. In a test it is rather compared, or
/// given to a function of which nothing is known.
fn is_kept(text: &str, before: &[Token]) -> bool {
    match before {
        [.., token] if token.text(text) == "return" => true,
        [.., other, name, equals] if equals.is(b'=') => {
            name.what == What::Name && !other.is(b'(') && !other.is(b',')
        }
        [name, equals] => equals.is(b'=') && name.what == What::Name,
        _ => false,
    }
}

/// A list that is put into a variable first. `["pytest", "numpy"]` names packages, so one of its words must
/// look like an argument.
fn list_alone(text: &str, tokens: &[Token], at: usize, sink: &mut Sink) {
    let (items, last) = arguments(text, tokens, at);
    let words: Vec<_> = items.iter().map(|item| item.word(text)).collect();
    let is_argument = |word: &Argument| {
        word.text.starts_with('-') || word.text.contains('/') && !is_pytest(&word.text)
    };
    if words.iter().skip(1).any(is_argument) {
        let span = (tokens[at].start, tokens[last].end);
        sink.arguments(
            text,
            span,
            &words,
            quote(text, &words),
            |instead| instead,
            None,
        );
    }
}

/// One argument of a call or item of a list: its tokens.
struct Item<'t> {
    tokens: &'t [Token],
}

impl Item<'_> {
    fn word(&self, text: &str) -> Argument {
        let start = self.tokens[0].start;
        let end = self.tokens[self.tokens.len() - 1].end;
        let strings = self
            .tokens
            .iter()
            .all(|token| matches!(token.what, What::Text { .. }));
        let parts = self.tokens.iter().map(|token| token.inside(text));
        let text = if strings {
            parts.collect()
        } else {
            text[start..end].to_owned()
        };
        Argument { text, start }
    }

    fn is_keyword(&self) -> bool {
        matches!(self.tokens, [name, equals, ..] if name.what == What::Name && equals.is(b'='))
    }
}

/// What stands between the bracket at `at` and the one that closes it, whose place comes with it.
fn arguments<'t>(_text: &str, tokens: &'t [Token], at: usize) -> (Vec<Item<'t>>, usize) {
    let mut items = Vec::new();
    let mut depth = 0_usize;
    let mut start = at + 1;
    // Nobody writes longer calls by hand; the bound keeps junk from taking time.
    for next in at..tokens.len().min(at + 400) {
        match tokens[next].what {
            What::Other(b'(' | b'[' | b'{') => depth += 1,
            What::Other(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            What::Other(b',') if depth == 1 => {}
            _ => continue,
        }
        let is_end = depth == 0;
        if is_end || (depth == 1 && tokens[next].is(b',')) {
            if start < next {
                items.push(Item {
                    tokens: &tokens[start..next],
                });
            }
            start = next + 1;
        }
        if is_end {
            return (items, next);
        }
    }
    (items, at)
}

struct Call<'t> {
    text: &'t str,
    tokens: &'t [Token],
    items: Vec<Item<'t>>,
    start: usize,
    /// The token that closes it.
    last: usize,
}

impl<'t> Call<'t> {
    fn of(text: &'t str, tokens: &'t [Token], at: usize) -> Self {
        let (items, last) = arguments(text, tokens, at + 1);
        Self {
            text,
            tokens,
            items,
            start: tokens[at].start,
            last,
        }
    }

    fn end(&self) -> usize {
        self.tokens[self.last].end
    }

    /// `pytest.main(...)`.
    fn main(&self, sink: &mut Sink) {
        let source = |start: usize, end: usize| &self.text[start..end];
        let arguments = match self
            .items
            .iter()
            .find(|item| !item.is_keyword() || item.tokens[0].text(self.text) == "args")
        {
            None => String::new(),
            Some(item) => {
                let tokens = if item.is_keyword() {
                    &item.tokens[2..]
                } else {
                    item.tokens
                };
                let (first, last) = (&tokens[0], &tokens[tokens.len() - 1]);
                if first.is(b'[') && last.is(b']') {
                    let inside = source(first.end, last.start).trim();
                    let comma = if inside.is_empty() { "" } else { ", " };
                    format!("{comma}{}", inside.trim_end_matches(','))
                } else {
                    format!(", *{}", source(first.start, last.end))
                }
            }
        };
        let instead = format!(
            "subprocess.call([\"memwatch\", \"attach\", \"--\", sys.executable, \"-m\", \"pytest\"{}])",
            one_line(&arguments)
        );
        let finding = Finding {
            line: sink.line(self.start),
            found: one_line(source(self.start, self.end())),
            instead,
            also: OR_AROUND,
        };
        sink.add(finding, sink.line(self.end()));
    }

    /// A call that starts a program. Whether it says which one.
    fn starts(&self, name: &str, sink: &mut Sink) -> bool {
        let items: Vec<_> = self
            .items
            .iter()
            .filter(|item| !item.is_keyword())
            .collect();
        let Some(&first) = items.first() else {
            return false;
        };
        let text = self.text;
        let span = (self.start, self.end());
        // The program's name comes before its arguments.
        let replaces =
            last_part(name).starts_with("exec") || last_part(name).starts_with("posix_spawn");
        if let (true, Some(list)) = (replaces, items.get(1))
            && list.tokens[0].is(b'[')
        {
            let words = self.list(list);
            let quote = quote(text, &words);
            let shown = |instead: String| {
                let list = instead.find('[').map_or("", |at| &instead[at..]);
                format!("{name}({quote}memwatch{quote}, {list}")
            };
            sink.arguments(text, span, &words, quote, shown, None);
            return true;
        }
        if first.tokens[0].is(b'[') || first.tokens[0].is(b'(') {
            let words = self.list(first);
            sink.arguments(
                text,
                span,
                &words,
                quote(text, &words),
                |instead| instead,
                None,
            );
            return true;
        }
        let string = first
            .tokens
            .iter()
            .find(|token| matches!(token.what, What::Text { .. }));
        let is_split = first.tokens[0].text(text).ends_with("shlex.split");
        match string {
            Some(string)
                if (is_split || string.start == first.tokens[0].start)
                    && string.inside(text).trim().contains(' ') =>
            {
                self.line(string, sink);
                true
            }
            _ => self.words(name, &items, sink),
        }
    }

    /// `session.run("pytest", "-x")`.
    fn words(&self, name: &str, items: &[&Item<'_>], sink: &mut Sink) -> bool {
        let words: Vec<_> = items.iter().map(|item| item.word(self.text)).collect();
        let is_nox = name.starts_with("session.") || name.contains(".session.");
        let is_external = self
            .items
            .iter()
            .any(|item| item.tokens[0].text(self.text) == "external");
        let finish = |instead: String| {
            if !is_nox || is_external {
                return instead;
            }
            let bare = instead
                .trim_end_matches(')')
                .trim_end()
                .trim_end_matches(',');
            format!("{bare}, external=True)")
        };
        let takes_one = matches!(
            last_part(name),
            "system" | "popen" | "getoutput" | "getstatusoutput" | "local" | "sudo"
        );
        let alone = words.len() == 1
            && !is_nox
            && matches!(items[0].tokens, [token] if matches!(token.what, What::Text { .. }));
        if (takes_one || alone)
            && let Some(string) = items[0].tokens.first()
            && matches!(string.what, What::Text { .. })
        {
            self.line(string, sink);
            return true;
        }
        let span = (self.start, self.end());
        sink.arguments(
            self.text,
            span,
            &words,
            quote(self.text, &words),
            finish,
            None,
        )
    }

    fn list(&self, item: &Item<'_>) -> Vec<Argument> {
        let offset = item.tokens[0].start;
        let at = self.tokens.partition_point(|token| token.start < offset);
        let (items, _) = arguments(self.text, self.tokens, at);
        items.iter().map(|item| item.word(self.text)).collect()
    }

    /// One string with a whole command line.
    fn line(&self, string: &Token, sink: &mut Sink) {
        let inside = string.inside(self.text);
        let begin = string.inside_start();
        // A call that is not closed may end before what was taken for its argument.
        let span = self.start..=self.end();
        let mut places: Vec<_> = shell::commands(inside, Dialect::Plain)
            .iter()
            .filter_map(|simple| {
                let words: Vec<_> = simple.words.iter().map(|word| word.text.as_str()).collect();
                sink.direct(&words)
                    .map(|before| begin + simple.words[before].start)
            })
            .filter(|place| span.contains(place))
            .collect();
        places.sort_unstable();
        let Some(&first) = places.first() else { return };
        let mut instead = self.text[self.start..self.end()].to_owned();
        for place in places.iter().rev() {
            instead.insert_str(place - self.start, ATTACH);
        }
        let finding = Finding {
            line: sink.line(first),
            found: one_line(&self.text[self.start..self.end()]),
            instead: one_line(&instead),
            also: None,
        };
        sink.add(finding, sink.line(self.end()));
    }
}

/// The quote that the words stand in.
fn quote(text: &str, words: &[Argument]) -> char {
    let first = words.iter().map(|word| text.as_bytes()[word.start]);
    let quotes = first.filter(|byte| matches!(byte, b'"' | b'\''));
    quotes.map(char::from).next().unwrap_or('"')
}
