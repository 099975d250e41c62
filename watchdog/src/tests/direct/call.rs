//! Says of the words of one command whether they run pytest, through whatever stands before it, and where
//! `memwatch attach --` belongs. Which programs run others is `runners`'s.

use std::collections::HashSet;

use super::runners::{self, Runner};
use super::shell::{self, Dialect};

/// What a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It runs no pytest that can be seen.
    Other,
    /// `memwatch attach` runs it.
    Covered,
    /// It runs pytest; memwatch belongs before this word of it.
    Direct(usize),
}

/// What a file says about its own names.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Variables and functions that hold memwatch.
    covered: HashSet<String>,
}

/// `sh -c "bash -c ..."`, deeper than anybody writes.
const DEEPEST: usize = 8;

impl Names {
    /// Finds assignments, `X = memwatch attach --`, and functions, `pytest() { memwatch attach ...`.
    pub(super) fn of(text: &str) -> Self {
        let mut covered = HashSet::new();
        let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
        for line in text.lines().filter(|line| line.contains("memwatch")) {
            let mut line = line.trim_start();
            for word in ["export ", "alias ", "local ", "readonly ", "declare "] {
                line = line.strip_prefix(word).unwrap_or(line);
            }
            let end = line.find(|byte| !is_name(byte)).unwrap_or(line.len());
            let (name, rest) = line.split_at(end);
            let rest = rest.trim_start();
            let assigns = rest.starts_with(['=', ':', '?', '+']) && rest.contains('=');
            if !name.is_empty() && (assigns || rest.starts_with("()")) {
                covered.insert(name.to_owned());
            }
        }
        Self { covered }
    }

    fn covers(&self, name: &str) -> bool {
        self.covered.contains(name)
    }
}

/// Judges the words of a command, the first assignment included.
pub(super) fn judge(words: &[&str], names: &Names) -> Verdict {
    judge_below(words, names, 0)
}

fn judge_below(words: &[&str], names: &Names, depth: usize) -> Verdict {
    let assignments = words.iter().take_while(|word| is_assignment(word)).count();
    let before = assignments + prefixes(&words[assignments..]);
    let words = &words[before..];
    let Some((&head, rest)) = words.split_first() else {
        return Verdict::Other;
    };
    if depth >= DEEPEST {
        return Verdict::Other;
    }
    let name = base_name(head);
    if names.covers(name) {
        return Verdict::Covered;
    }
    if name == "memwatch" {
        return match below_memwatch(words, names, depth) {
            Verdict::Direct(at) => Verdict::Direct(before + at),
            other => other,
        };
    }
    let direct = |is: bool| {
        if is {
            Verdict::Direct(before)
        } else {
            Verdict::Other
        }
    };
    if is_pytest(head) {
        return direct(!asks_only(rest));
    }
    if let Some(variable) = expansion(head) {
        if names.covers(variable) || variable.to_ascii_lowercase().contains("memwatch") {
            return Verdict::Covered;
        }
        if names_pytest(variable) {
            return direct(!asks_only(rest));
        }
    }
    if is_python(head) {
        return direct(python_runs_pytest(rest));
    }
    let found = match runners::of(name) {
        Some(runner) => through(runner, name, words, names, depth),
        None if expansion(head).is_some() => {
            let skipped = 1 + usize::from(matches!(rest.first(), Some(&"run" | &"exec")));
            inner(words, skipped, names, depth)
        }
        None => after_dashes(name, words, names, depth),
    };
    match found {
        // Memwatch goes before the outermost program, except where that starts it elsewhere.
        Verdict::Direct(at) if runners::is_elsewhere(name) => Verdict::Direct(before + at),
        Verdict::Direct(_) => Verdict::Direct(before),
        other => other,
    }
}

/// What memwatch runs is covered, except in a container: that is its engine's child, not memwatch's.
fn below_memwatch(words: &[&str], names: &Names, depth: usize) -> Verdict {
    if !words.contains(&"attach") {
        return Verdict::Other;
    }
    let command = words.iter().position(|word| *word == "--");
    match command.map(|dashes| (dashes + 1, inner(words, dashes + 1, names, depth))) {
        // Not before the command, but within it.
        Some((first, Verdict::Direct(at))) if at > first => Verdict::Direct(at),
        _ => Verdict::Covered,
    }
}

/// Whether an assignment keeps a command that calls pytest, to be run later. `X="pytest numpy"` names packages, so one of its words must look like an argument; and what is kept in
/// a variable of pytest's name counts where it is used.
pub(super) fn keeps(word: &str, names: &Names) -> bool {
    let Some((name, value)) = word.split_once('=').filter(|_| is_assignment(word)) else {
        return false;
    };
    if names_pytest(name.trim_end_matches('+')) || names.covers(name) {
        return false;
    }
    let words: Vec<_> = value.split_ascii_whitespace().collect();
    let is_argument = |word: &&str| word.starts_with('-') || word.contains('/') && !is_pytest(word);
    let direct = matches!(judge(&words, names), Verdict::Direct(_));
    direct && words.iter().skip(1).any(is_argument)
}

/// The words from `from` on, with places in `words`.
fn inner(words: &[&str], from: usize, names: &Names, depth: usize) -> Verdict {
    let rest = words.get(from..).unwrap_or_default();
    match judge_below(rest, names, depth + 1) {
        Verdict::Direct(at) => Verdict::Direct(from + at),
        other => other,
    }
}

fn through(runner: &Runner, name: &str, words: &[&str], names: &Names, depth: usize) -> Verdict {
    match runner {
        Runner::Command {
            subcommands,
            valued,
            positional,
        } => {
            if name == "hatch" && after_subcommand(words, &["test"], valued).is_some() {
                return Verdict::Direct(0);
            }
            let Some(mut at) = after_subcommand(words, subcommands, valued) else {
                return Verdict::Other;
            };
            for _ in 0..*positional {
                at = options(words, at, valued) + 1;
            }
            let at = options(words, at, valued);
            let mut verdict = inner(words, at, names, depth);
            // `hatch run test:pytest`
            if let (Verdict::Other, "hatch", Some(word)) = (verdict, name, words.get(at))
                && let Some((_, command)) = word.split_once(':')
                && is_pytest(command)
            {
                verdict = Verdict::Direct(at);
            }
            // `uv run -m pytest`
            if verdict == Verdict::Other && module_is_pytest(&words[..at.min(words.len())]) {
                verdict = Verdict::Direct(0);
            }
            verdict
        }
        Runner::Module { subcommand } => {
            let has = subcommand.is_empty() || words.get(1) == Some(subcommand);
            let script = words.iter().skip(2).any(|word| is_which_pytest(word));
            if has && (module_is_pytest(words) || script) {
                Verdict::Direct(0)
            } else {
                Verdict::Other
            }
        }
        Runner::Line { flags } => {
            let line = words.iter().enumerate().skip(1).find(|(at, _)| {
                flags.is_empty() || flags.iter().any(|flag| is_flag(words[at - 1], flag))
            });
            match line {
                Some((_, line)) if name != "eval" => of_line(line, names, depth),
                _ if name == "eval" => of_line(&words[1..].join(" "), names, depth),
                _ => Verdict::Other,
            }
        }
        Runner::Exec { flags } => {
            let at = words.iter().position(|word| flags.contains(word));
            at.map_or(Verdict::Other, |at| inner(words, at + 1, names, depth))
        }
        Runner::Itself if !asks_only(words) => Verdict::Direct(0),
        Runner::Itself => Verdict::Other,
        Runner::Never => Verdict::Other,
    }
}

/// A line that a shell gets as one word.
fn of_line(line: &str, names: &Names, depth: usize) -> Verdict {
    let mut verdict = Verdict::Other;
    for simple in shell::commands(line, Dialect::Plain) {
        let words: Vec<_> = simple.words.iter().map(|word| word.text.as_str()).collect();
        match judge_below(&words, names, depth + 1) {
            Verdict::Direct(_) => return Verdict::Direct(0),
            Verdict::Covered => verdict = Verdict::Covered,
            Verdict::Other => {}
        }
    }
    verdict
}

/// `unknown --option -- pytest`: what comes after the dashes is a command, except where it is names.
fn after_dashes(name: &str, words: &[&str], names: &Names, depth: usize) -> Verdict {
    if runners::takes_names(name) {
        return Verdict::Other;
    }
    let at = words.iter().position(|word| *word == "--");
    at.map_or(Verdict::Other, |at| inner(words, at + 1, names, depth))
}

/// Where the words after the subcommand start, if it stands there.
fn after_subcommand(words: &[&str], subcommands: &[&str], valued: &[&str]) -> Option<usize> {
    let mut at = 1;
    if subcommands.is_empty() {
        return Some(at);
    }
    // Two words make one subcommand: `docker compose run`, `uv tool run`.
    for _ in 0..3 {
        at = options(words, at, valued);
        let word = words.get(at)?;
        at += 1;
        if subcommands.contains(word) {
            return Some(at);
        }
        if !matches!(*word, "compose" | "tool" | "container" | "image") {
            return None;
        }
    }
    None
}

/// The first word from `at` on that is no option, nor the value of one, nor an assignment.
fn options(words: &[&str], mut at: usize, valued: &[&str]) -> usize {
    while let Some(word) = words.get(at) {
        if *word == "--" {
            return at + 1;
        }
        let is_option = word.len() > 1 && word.starts_with(['-', '+']);
        if !is_option && !is_assignment(word) {
            return at;
        }
        at += if valued.contains(word) { 2 } else { 1 };
    }
    at
}

fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else {
        return false;
    };
    let name = name.strip_suffix('+').unwrap_or(name);
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// How many of the words are a shell's own that a program's name follows.
fn prefixes(words: &[&str]) -> usize {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match *word {
            "command" if matches!(words.get(at + 1), Some(&"-v" | &"-V")) => return words.len(),
            "command" | "builtin" | "exec" | "call" | "&" => at += 1,
            _ => return at,
        }
    }
    at
}

/// The last part of a path; templates and variables in front do not matter.
fn base_name(word: &str) -> &str {
    let name = word.rsplit(['/', '\\']).next().unwrap_or(word);
    // `${PREFIX}pytest`
    let name = match name.rfind(['}', ')']) {
        Some(end) if name.starts_with('$') && end + 1 < name.len() => &name[end + 1..],
        _ => name,
    };
    name.strip_suffix(".exe").unwrap_or(name)
}

/// The variable of a word that is nothing but one: `$X`, `${X}`, `$(X)`, `${{ env.X }}`, `{{x}}`.
fn expansion(word: &str) -> Option<&str> {
    let inside = word.strip_prefix('$').or(word.strip_prefix("{{"))?;
    let name = inside
        .trim_matches(|byte: char| matches!(byte, '{' | '}' | '(' | ')' | ' ' | '$'))
        .trim_end_matches("[@]")
        .trim_end_matches("[*]")
        .split([':', '%', '#'])
        .next()?;
    let name = name.rsplit('.').next().unwrap_or(name);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (!name.is_empty() && name.bytes().all(is_name)).then_some(name)
}

/// Whether a variable's name says that it holds pytest.
fn names_pytest(variable: &str) -> bool {
    let name = variable.to_ascii_lowercase().replace("py_test", "pytest");
    let name = name.strip_prefix("run_").unwrap_or(&name);
    let ends = [
        "",
        "_cmd",
        "_command",
        "_bin",
        "_exe",
        "_executable",
        "_runner",
        "_run",
    ];
    name.strip_prefix("pytest")
        .is_some_and(|end| ends.contains(&end))
}

/// Whether a word is pytest's name or path.
pub(super) fn is_pytest(word: &str) -> bool {
    let name = base_name(word);
    let name = name
        .trim_end_matches(|byte: char| byte.is_ascii_digit() || byte == '.')
        .trim_end_matches('-');
    matches!(name, "pytest" | "py.test") && !word.ends_with('.') || is_which_pytest(word)
}

fn is_which_pytest(word: &str) -> bool {
    let word = word.trim_matches(|byte: char| matches!(byte, '$' | '(' | ')' | '`' | '"'));
    let word = word
        .strip_prefix("which ")
        .or(word.strip_prefix("command -v "));
    word.is_some_and(is_pytest)
}

/// Whether a word is a Python's name or path, or a variable that holds one.
pub(super) fn is_python(word: &str) -> bool {
    if let Some(variable) = expansion(word) {
        let name = variable.to_ascii_lowercase();
        return matches!(name.as_str(), "py" | "py3" | "pypy") || name.contains("python");
    }
    let name = base_name(word);
    let name = name.trim_end_matches(|byte: char| byte.is_ascii_digit() || byte == '.');
    word == "{envpython}"
        || matches!(name, "python" | "pypy" | "py" | "ipython" | "pythonw")
        || matches!(word, "sys.executable" | "{sys.executable}")
}

/// The words after `python`.
fn python_runs_pytest(words: &[&str]) -> bool {
    let mut at = 0;
    while let Some(&word) = words.get(at) {
        match word {
            "-c" => {
                let code = words.get(at + 1).copied().unwrap_or_default();
                return code.contains("pytest.main(") || code.contains("pytest.console_main(");
            }
            "-W" | "-X" => at += 1,
            _ if word.starts_with("-m") || ends_in_m(word) => {
                let glued = word.strip_prefix("-m").filter(|module| !module.is_empty());
                let module = glued.or(words.get(at + 1).copied()).unwrap_or_default();
                let rest = words.get(at + 1 + usize::from(glued.is_none())..);
                let rest = rest.unwrap_or_default();
                return match module {
                    "pytest" | "py.test" => !asks_only(rest),
                    _ if runners::runs_modules(module) => {
                        module_is_pytest(rest) || rest.iter().any(|word| is_which_pytest(word))
                    }
                    _ => false,
                };
            }
            _ if word.starts_with('-') => {}
            _ => return is_pytest(word) && !asks_only(&words[at + 1..]),
        }
        at += 1;
    }
    false
}

/// `-Im`, `-um`: short options together.
fn ends_in_m(word: &str) -> bool {
    word.len() > 2
        && !word.starts_with("--")
        && word.starts_with('-')
        && word.ends_with('m')
        && word[1..].bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// `-m pytest` somewhere.
fn module_is_pytest(words: &[&str]) -> bool {
    let at = words
        .windows(2)
        .position(|pair| matches!(pair[0], "-m" | "--module") && is_pytest(pair[1]));
    at.is_some_and(|at| !asks_only(&words[at + 2..]))
}

/// It runs no tests, only says something.
fn asks_only(arguments: &[&str]) -> bool {
    let asks = ["--version", "-V", "-VV", "--help", "-h", "--markers"];
    arguments.iter().any(|argument| asks.contains(argument))
}

/// `-c`, also as the last of several: `-lc`.
fn is_flag(word: &str, flag: &str) -> bool {
    word == flag
        || (flag == "-c"
            && word.len() > 2
            && word.starts_with('-')
            && !word.starts_with("--")
            && word.ends_with('c'))
}
