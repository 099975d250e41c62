//! Where findings are gathered: lines from places, what stands there and what to write instead, and the
//! comments that allow a call.

use super::call::{self, Names, Verdict};
use super::kind::Kind;
use super::shell::{self, Dialect};
use super::{Finding, Looked};

/// What allows a call, in a comment.
const ALLOW: &str = "memwatch: allow";
/// Goes before a command.
pub(super) const ATTACH: &str = "memwatch attach -- ";

/// One word of a list of arguments.
#[derive(Clone, Debug)]
pub(super) struct Argument {
    /// Without quotes; an expression as it is written.
    pub(super) text: String,
    /// Where it starts in the source, with its quote.
    pub(super) start: usize,
}

/// Gathers the findings of one file.
pub(super) struct Sink {
    pub(super) names: Names,
    line_starts: Vec<usize>,
    findings: Vec<(Finding, usize)>,
    mistake: Option<(usize, String)>,
}

impl Sink {
    pub(super) fn new(text: &str) -> Self {
        Self {
            names: Names::of(text),
            line_starts: line_starts(text),
            findings: Vec::new(),
            mistake: None,
        }
    }

    /// The line of a byte of the file; the first is 1.
    pub(super) fn line(&self, at: usize) -> usize {
        line_of(&self.line_starts, at)
    }

    /// The lines from `first` to the one before `end`; to the end of the text if that is its last, since then
    /// nothing comes after it.
    pub(super) fn lines<'t>(&self, text: &'t str, first: usize, end: usize) -> &'t str {
        let start = |line: usize| self.line_starts.get(line.wrapping_sub(1)).copied();
        let is_last = end >= self.line_starts.len();
        let end = if is_last { None } else { start(end) };
        let start = start(first).unwrap_or(text.len());
        &text[start..end.unwrap_or(text.len()).max(start)]
    }

    /// Keeps a finding that ends in the line `last`.
    pub(super) fn add(&mut self, mut finding: Finding, last: usize) {
        let lines = self.line_starts.len();
        finding.line = finding.line.clamp(1, lines);
        self.findings.push((finding, last.min(lines)));
    }

    /// The file is not as its format asks. Whose reader says so may have come to a line behind the last, or count
    /// others: to YAML a carriage return ends one, too.
    pub(super) fn mistake(&mut self, line: usize, why: String) {
        self.mistake = Some((line.clamp(1, self.line_starts.len()), why));
    }

    /// The same, and what was found until there will be found again.
    pub(super) fn begin_anew(&mut self, line: usize, why: String) {
        self.findings.clear();
        self.mistake(line, why);
    }

    /// Looks at shell text that starts in the line `first_line` and has the line ends of the file.
    pub(super) fn shell(
        &mut self,
        code: &str,
        first_line: usize,
        dialect: Dialect,
        also: Option<&'static str>,
    ) {
        let starts = line_starts(code);
        let lines = |at: usize| line_of(&starts, at) - 1;
        for simple in shell::commands(code, dialect) {
            for word in &simple.words {
                let written = &code[word.start..word.end];
                let Some((name, value)) = written.split_once('=') else {
                    continue;
                };
                // What a substitution gives is not kept but run, and found there.
                let is_run = dialect == Dialect::Plain && word.text.contains("=$(");
                if is_run || !call::keeps(&word.text, &self.names) {
                    continue;
                }
                let (quote, value) = value.split_at(usize::from(value.starts_with(['"', '\''])));
                let finding = Finding {
                    line: first_line + lines(word.start),
                    found: one_line(written),
                    instead: one_line(&format!("{name}={quote}{ATTACH}{value}")),
                    also,
                };
                self.add(finding, first_line + lines(word.end));
            }
            let words: Vec<_> = simple.words.iter().map(|word| word.text.as_str()).collect();
            let Some(before) = self.direct(&words) else {
                continue;
            };
            let (start, at) = (simple.words[0].start, simple.words[before].start);
            let end = simple.end.max(at);
            let finding = Finding {
                line: first_line + lines(at),
                found: one_line(&code[start..end]),
                instead: one_line(&format!("{}{ATTACH}{}", &code[start..at], &code[at..end])),
                also,
            };
            self.add(finding, first_line + lines(end));
        }
    }

    /// The same of text that stands in the lines from `first` to `last`, in which newlines may be written as escapes.
    pub(super) fn shell_between(&mut self, code: &str, (first, last): (usize, usize)) {
        let before = self.findings.len();
        self.shell(code, first, Dialect::Plain, None);
        for (finding, end) in &mut self.findings[before..] {
            finding.line = finding.line.min(last);
            *end = (*end).min(last);
        }
    }

    /// Looks at a list of arguments that stands in `source` from `start` to `end`, in the quotes `quote`.
    /// What it becomes goes through `finish`. Whether it was a call.
    pub(super) fn arguments(
        &mut self,
        source: &str,
        (start, end): (usize, usize),
        arguments: &[Argument],
        quote: char,
        finish: impl FnOnce(String) -> String,
        also: Option<&'static str>,
    ) -> bool {
        let words: Vec<_> = arguments
            .iter()
            .map(|argument| argument.text.as_str())
            .collect();
        let Some(before) = self.direct(&words) else {
            return false;
        };
        let at = arguments[before].start;
        // A call that is not closed may end before what was taken for its argument.
        let (Some(head), Some(tail)) = (source.get(start..at), source.get(at..end)) else {
            return false;
        };
        let words = ["memwatch", "attach", "--"].map(|word| format!("{quote}{word}{quote}, "));
        let instead = format!("{head}{}{tail}", words.concat());
        let finding = Finding {
            line: self.line(at),
            found: one_line(&source[start..end]),
            instead: finish(one_line(&instead)),
            also,
        };
        self.add(finding, self.line(end));
        true
    }

    /// Looks at a definition of make's that may keep a command.
    pub(super) fn kept(&mut self, name: &str, value: &str, line: usize) {
        let last = line + value.lines().count().saturating_sub(1);
        let value = one_line(value);
        if call::keeps(&format!("{name}={value}"), &self.names) {
            let finding = Finding {
                line,
                found: format!("{name} = {value}"),
                instead: format!("{name} = {ATTACH}{value}"),
                also: None,
            };
            self.add(finding, last);
        }
    }

    /// Where memwatch belongs among the words of a command, if they call pytest directly.
    pub(super) fn direct(&self, words: &[&str]) -> Option<usize> {
        match call::judge(words, &self.names) {
            Verdict::Direct(before) => Some(before),
            Verdict::Other | Verdict::Covered => None,
        }
    }

    /// Looks at a list of arguments between two lines: each word, and how it is written there. Whether it
    /// was a call.
    pub(super) fn list(
        &mut self,
        (line, last): (usize, usize),
        words: &[(&str, String)],
        also: Option<&'static str>,
    ) -> bool {
        let texts: Vec<_> = words.iter().map(|(text, _)| *text).collect();
        let Some(before) = self.direct(&texts) else {
            return false;
        };
        let shown = |words: &[&str]| format!("[{}]", words.join(", "));
        let written: Vec<_> = words.iter().map(|(_, written)| written.as_str()).collect();
        let (assignments, call) = written.split_at(before);
        let attach = ["\"memwatch\"", "\"attach\"", "\"--\""];
        let finding = Finding {
            line,
            found: shown(&written),
            instead: shown(&[assignments, &attach, call].concat()),
            also,
        };
        self.add(finding, last);
        true
    }

    pub(super) fn looked(mut self) -> Looked {
        self.findings.sort_by_key(|(finding, _)| finding.line);
        Looked {
            findings: self
                .findings
                .into_iter()
                .map(|(finding, _)| finding)
                .collect(),
            mistake: self.mistake,
        }
    }

    /// Drops what a comment allows.
    pub(super) fn allow(&mut self, kind: Kind, text: &str) {
        if !text.contains(ALLOW) {
            return;
        }
        let lines: Vec<_> = text.lines().collect();
        let line = |number: usize| {
            lines
                .get(number.wrapping_sub(1))
                .copied()
                .unwrap_or_default()
        };
        self.findings.retain(|(finding, last)| {
            let before = allowed(line(finding.line - 1), kind).is_some_and(|alone| alone);
            let inside = (finding.line..=*last).any(|number| allowed(line(number), kind).is_some());
            !before && !inside
        });
    }
}

/// Whether a line has the comment that allows; and then, whether it has nothing else.
fn allowed(line: &str, kind: Kind) -> Option<bool> {
    let at = line.find(ALLOW)?;
    let before = line[..at].trim_end_matches([' ', '\t', '"']);
    let mark = kind
        .comments()
        .iter()
        .find(|mark| before.ends_with(**mark))?;
    Some(before[..before.len() - mark.len()].trim().is_empty())
}

fn line_starts(text: &str) -> Vec<usize> {
    let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    std::iter::once(0)
        .chain(ends.map(|(at, _)| at + 1))
        .collect()
}

/// The line of a byte; the first is 1.
fn line_of(starts: &[usize], at: usize) -> usize {
    starts.partition_point(|start| *start <= at)
}

/// A word with how JSON writes it; TOML and YAML know that form, too.
pub(super) fn quoted(word: &str) -> (&str, String) {
    (word, serde_json::Value::from(word).to_string())
}

/// Text without line ends: as it would be written in one line.
pub(super) fn one_line(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim_end_matches('\r').trim());
    let lines = lines.map(|line| line.strip_suffix('\\').unwrap_or(line).trim_end());
    lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
