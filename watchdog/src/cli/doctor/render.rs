//! The two forms of a diagnosis: for a terminal and for scripts.

use std::fmt::Write;

use serde::Serialize;

use super::check::{Check, Group, Severity, exit_code};
use super::facts::MachineFacts;

/// Of [`json`]. Fields and checks may be added within a version; what is there keeps name and meaning.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    schema_version: u32,
    exit_code: u8,
    checks: Vec<Line<'a>>,
    facts: &'a MachineFacts,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    group: Group,
    /// "fine", "optional", "important" or "fatal".
    verdict: &'static str,
    found: &'a str,
    costs: Option<&'a str>,
    advice: Option<&'a str>,
    commands: &'a [String],
}

/// The machine form.
///
/// # Errors
/// A path in the facts is not UTF-8, which JSON cannot hold.
pub fn json(facts: &MachineFacts, checks: &[Check]) -> serde_json::Result<String> {
    let lines = checks.iter().map(|check| {
        let trouble = check.trouble.as_ref();
        let advice = trouble.and_then(|trouble| trouble.advice.as_ref());
        Line {
            id: check.id,
            group: check.group,
            verdict: verdict(check),
            found: &check.found,
            costs: trouble.map(|trouble| trouble.costs.as_str()),
            advice: advice.map(|advice| advice.text.as_str()),
            commands: advice.map_or(&[], |advice| &advice.commands),
        }
    });
    serde_json::to_string_pretty(&Report {
        schema_version: SCHEMA_VERSION,
        exit_code: exit_code(checks),
        checks: lines.collect(),
        facts,
    })
}

fn verdict(check: &Check) -> &'static str {
    match check.severity() {
        None => "fine",
        Some(Severity::Optional) => "optional",
        Some(Severity::Important) => "important",
        Some(Severity::Fatal) => "fatal",
    }
}

/// The terminal form: a line per check under its group's heading. What is fine or optional stays one
/// line, with `all` what is optional says what it costs, too.
pub fn terminal(checks: &[Check], all: bool, colour: bool) -> String {
    let paint = Paint(colour);
    let mut text = String::new();
    for group in checks.chunk_by(|a, b| a.group == b.group) {
        let _ = writeln!(text, "{}", paint.bold(heading(group[0].group)));
        for check in group {
            one(&mut text, check, all, paint);
        }
    }
    let _ = writeln!(text, "{}", paint.bold(&summary(checks)));
    text
}

fn one(text: &mut String, check: &Check, all: bool, paint: Paint) {
    let label = paint.severity(check.severity(), &format!("{:<9}", verdict(check)));
    let _ = writeln!(
        text,
        "  {label} {:<14} {}",
        check.id,
        printable(&check.found)
    );
    let Some(trouble) = &check.trouble else {
        return;
    };
    if trouble.severity == Severity::Optional && !all {
        return;
    }
    let indent = " ".repeat(27);
    let _ = writeln!(text, "{indent}costs you {}", printable(&trouble.costs));
    if let Some(advice) = &trouble.advice {
        let _ = writeln!(text, "{indent}do: {}", printable(&advice.text));
        for command in &advice.commands {
            let _ = writeln!(text, "{indent}  {}", printable(command));
        }
    }
}

fn heading(group: Group) -> &'static str {
    match group {
        Group::Kernel => "Kernel",
        Group::Pressure => "Pressure",
        Group::Cgroups => "Cgroups",
        Group::Rights => "Rights",
        Group::Memory => "Memory",
        Group::Peers => "Peers",
    }
}

fn summary(checks: &[Check]) -> String {
    let count = |severity| {
        checks
            .iter()
            .filter(|check| check.severity() == Some(severity))
            .count()
    };
    let optional = count(Severity::Optional);
    match (count(Severity::Fatal), count(Severity::Important)) {
        (0, 0) if optional == 0 => "memwatch protects here, with all it has.".into(),
        (0, 0) => format!(
            "memwatch protects here. Optional things missing: {optional} (--all says what they cost)."
        ),
        (0, important) => {
            format!("memwatch protects here, but with less. Important things missing: {important}.")
        }
        _ => "memwatch cannot protect here.".into(),
    }
}

/// Names of cgroups and files are other people's: nothing in them may drive the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn severity(self, severity: Option<Severity>, text: &str) -> String {
        let code = match severity {
            None => "32",
            Some(Severity::Optional) => "36",
            Some(Severity::Important) => "33",
            Some(Severity::Fatal) => "31",
        };
        self.with(code, text)
    }
}
