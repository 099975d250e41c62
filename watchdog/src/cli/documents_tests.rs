//! The command lines of memwatch's in the documents: a reader who types one must not be told that it is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};

use super::Cli;

fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = fs::read_dir(root.join("docs")).expect("documents");
    let mut paths: Vec<_> = docs.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "md"));
    // What was, is not to be typed any more.
    paths.push(root.join("README.md"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a document");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// The lines of a document's code, indented or fenced, with those that go on put together.
fn code(document: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut fenced, mut goes_on) = (false, false);
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if !fenced && !line.starts_with("    ") {
            goes_on = false;
            continue;
        }
        let text = line.trim();
        let (text, more) = match text.strip_suffix('\\') {
            Some(begun) => (begun, true),
            None => (text, false),
        };
        match lines.last_mut() {
            Some(last) if goes_on => *last = format!("{last}{text}"),
            _ => lines.push(text.to_owned()),
        }
        goes_on = more;
    }
    lines
}

/// The words of each call of memwatch in a line for the shell: up to an operator, from where nothing but what
/// runs it stands before.
fn calls(line: &str) -> Vec<Vec<String>> {
    let Some(words) = shlex::split(line) else {
        return Vec::new();
    };
    let is_operator = |word: &str| matches!(word, "|" | "||" | "&&" | ";" | "&");
    let mut calls = Vec::new();
    for part in words.split(|word| is_operator(word)) {
        let runs = |word: &String| {
            word == "$"
                || word == "sudo"
                || word == "IMAGE"
                || word == "-"
                || word == "run:"
                || word.contains('=')
        };
        let starts = part.iter().position(|word| word == "memwatch");
        let Some(at) = starts
            .filter(|&at| part[..at].iter().all(runs) || part[..at].contains(&"IMAGE".to_owned()))
        else {
            continue;
        };
        let ends = |word: &&String| !word.starts_with(['>', '<']) && !word.starts_with("2>");
        let call: Vec<String> = part[at..].iter().take_while(ends).cloned().collect();
        // A sentence that begins with its name, as memwatch's own output does.
        if call.len() > 1 && !call[1].ends_with(':') {
            calls.push(call);
        }
    }
    calls
}

fn subcommands() -> Vec<String> {
    let command = Cli::command();
    let names = command.get_subcommands().map(Command::get_name);
    names.map(str::to_owned).collect()
}

#[test]
fn every_command_line_in_the_documents_parses() {
    let mut seen = 0;
    for (path, text) in documents() {
        for line in code(&text) {
            for call in calls(&line) {
                seen += 1;
                let parsed = Cli::parse_arguments(&call);
                if let Err(error) = parsed {
                    panic!("{}: `{line}`: {error}", path.display());
                }
            }
        }
    }
    assert!(seen > 40, "only {seen} were found");
}

/// What stands between backquotes in a document's sentences.
fn quoted(document: &str) -> Vec<String> {
    let mut prose = String::new();
    let mut fenced = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with("    ") {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    let parts = prose.split('`').skip(1).step_by(2);
    parts.map(|part| part.replace('\n', " ")).collect()
}

#[test]
fn every_option_that_a_sentence_names_is_there() {
    let names = subcommands();
    let mut root = Cli::command();
    root.build();
    let mut seen = 0;
    for (path, text) in documents() {
        for phrase in quoted(&text) {
            let mut words = phrase.split_whitespace().peekable();
            if words.next() != Some("memwatch") {
                continue;
            }
            let mut command = &root;
            while let Some(next) = words.peek().and_then(|word| command.find_subcommand(word)) {
                command = next;
                words.next();
            }
            if std::ptr::eq(command, &raw const root) {
                let word = words.peek().copied().unwrap_or_default();
                let is_word = !word.is_empty() && word.bytes().all(|it| it.is_ascii_lowercase());
                assert!(
                    !is_word,
                    "{}: `{phrase}`: none of {names:?}",
                    path.display()
                );
                continue;
            }
            seen += 1;
            for word in words.take_while(|word| *word != "--") {
                let Some(long) = word.strip_prefix("--") else {
                    continue;
                };
                let long = long.split(['=', '`', ',']).next().unwrap_or_default();
                let known = command
                    .get_arguments()
                    .any(|it| it.get_long() == Some(long));
                assert!(known, "{}: `{phrase}`: no --{long}", path.display());
            }
        }
    }
    assert!(seen > 40, "only {seen} were found");
}

#[test]
fn lines_are_found_as_a_reader_would_type_them() {
    let found = |line: &str| {
        calls(line)
            .into_iter()
            .map(|call| call.join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(found("$ memwatch status # once"), ["memwatch status"]);
    assert_eq!(
        found("sudo memwatch doctor --json | jq -r '.checks[]' && memwatch top"),
        ["memwatch doctor --json", "memwatch top"]
    );
    assert_eq!(
        found("FOO=1 memwatch guard list > file"),
        ["memwatch guard list"]
    );
    for none in [
        "memwatch: pytest finished in 2m",
        "apt install memwatch",
        "systemctl status memwatch",
        "it's",
    ] {
        assert_eq!(found(none), Vec::<String>::new(), "{none}");
    }
    let text = "    memwatch attach \\\n        -- x\nno code\n```sh\nmemwatch top\n```\n";
    assert_eq!(code(text), ["memwatch attach -- x", "memwatch top"]);
}
