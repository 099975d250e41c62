//! The words in which exporters speak of a record: those of its schema, one alone, one line, all that the terminal
//! says. Pure.

use crate::incident::{KilledBy, Kind, Record, Style, summary};
use serde::Serialize;

/// The word that a value without content is written as: `kernel_oom`.
pub(super) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}

/// What the terminal says of it, line by line; of a test, that it is one.
pub(super) fn body(record: &Record) -> String {
    if record.kind == Kind::Test {
        let notes = record.notes.iter().map(|note| note.as_str());
        return notes.collect::<Vec<_>>().join("\n");
    }
    let lines = summary(record, Style::default());
    let lines = lines
        .lines()
        .map(|line| line.strip_prefix("memwatch: ").unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// The one line for somebody who sees no other: whom it hit and why.
pub(super) fn headline(record: &Record) -> String {
    let about = match record.kind {
        Kind::Test | Kind::Takeover | Kind::HandBack | Kind::HardReset => {
            record.notes.first().map(|note| note.as_str().to_owned())
        }
        _ => victims(record).or_else(|| intervention(record)),
    };
    about.unwrap_or_else(|| body(record).lines().next().unwrap_or_default().to_owned())
}

fn victims(record: &Record) -> Option<String> {
    let victim = record.victims.first()?;
    let (name, pid) = (&victim.process.comm, victim.process.pid);
    let by = match victim.killed_by {
        KilledBy::Memwatch => "memwatch",
        KilledBy::Guard => "memwatch's guard in the kernel",
        KilledBy::KernelOom => "the kernel's OOM killer",
    };
    let more = match record.victims.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let would = if record.dry_run {
        "would have been"
    } else {
        "was"
    };
    Some(format!(
        "{name} (pid {pid}){more} {would} ended by {by}: {}",
        victim.reason
    ))
}

fn intervention(record: &Record) -> Option<String> {
    let last = record.interventions.last()?;
    let what = match record.kind {
        Kind::Warn => "warned of",
        Kind::Freeze => "frozen for",
        Kind::Abort => "a test was failed for",
        Kind::Timeout => "ended for",
        _ => "stepped in for",
    };
    let who = record.target.cgroup_path.as_ref();
    let who = who.map_or("the target", |path| path.as_str());
    Some(format!(
        "{who}: {what} {}: {}",
        word(&last.rule),
        last.observed.text
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;

    #[test]
    fn the_one_line_says_whom_it_hit_and_why() {
        let killed = sample::killed();
        let line = "python3 (pid 4250) was ended by memwatch: exhaustion: limit full in 35ms";
        assert_eq!(headline(&killed), line);
        assert!(
            headline(&sample::grave()).starts_with("python3 (pid 4250) (and 1 more) was ended")
        );
        let quiet = headline(&sample::quiet());
        assert_eq!(quiet, "pytest finished in 2m 14s (exit code 0)");
        let mut test = sample::quiet();
        test.kind = Kind::Test;
        test.notes.push("a test of the exporters".into());
        assert_eq!(headline(&test), "a test of the exporters");
        let mut warned = killed;
        warned.victims.clear();
        warned.kind = Kind::Warn;
        assert!(
            headline(&warned)
                .starts_with("/sys/fs/cgroup/memwatch-0123abcd: warned of exhaustion: limit full")
        );
    }
}
