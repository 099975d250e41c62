//! What GitHub's pages show of a run: annotations beside the lines of tests, as commands on a stream of the
//! step, and a summary of the step. GitHub shows ten annotations of a kind for a step, and takes a summary of
//! up to 1 MiB.

use super::node::Node;
use crate::incident::suite::{Leak, Outcome, Suite, Test};
use crate::incident::{Record, bytes, duration};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// As many annotations are shown.
const ANNOTATIONS: usize = 10;
/// As many tests of a sort stand in the summary.
const ROWS: usize = 20;
/// The most that the summary of a step may be, with what others of the step have written.
const SUMMARY_BYTES: u64 = 1 << 20;

/// Lines for a stream of the step, of tests that memwatch failed or whose process was killed; `workspace` is
/// the directory that GitHub's paths start from. Empty if there is nothing to annotate.
#[must_use]
pub fn annotations(record: &Record, workspace: Option<&str>) -> String {
    let Some(suite) = &record.suite else {
        return String::new();
    };
    let mut lines = String::new();
    for test in ended(suite).take(ANNOTATIONS) {
        let node = Node::of(test.id.as_str());
        let file = from_workspace(suite, node.path, workspace);
        let line = test
            .line
            .map_or_else(String::new, |line| format!(",line={line}"));
        let (what, why) = (title(test), reason(test));
        let _ = writeln!(
            lines,
            "::error file={}{line},title={}::{}",
            property(&file),
            property(what),
            data(&format!("{}: {why}", test.id)),
        );
    }
    lines
}

fn ended(suite: &Suite) -> impl Iterator<Item = &Test> {
    let ended = |test: &&Test| test.ended_by_memwatch.is_some() || test.outcome == Outcome::Killed;
    suite.tests.iter().filter(ended)
}

fn title(test: &Test) -> &'static str {
    match test.outcome {
        Outcome::Killed => "memwatch: the process of this test was killed",
        _ => "memwatch: failed",
    }
}

fn reason(test: &Test) -> &str {
    test.ended_by_memwatch
        .as_ref()
        .map_or("", |why| why.as_str())
}

/// Where the tests' root is below the workspace, a file's path from there.
fn from_workspace(suite: &Suite, path: &str, workspace: Option<&str>) -> String {
    let root = suite.root.as_ref().map(|root| Path::new(root.as_str()));
    let below = root.and_then(|root| root.strip_prefix(workspace?).ok());
    below
        .unwrap_or(Path::new(""))
        .join(path)
        .to_string_lossy()
        .into_owned()
}

/// Text of a command.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// A property of a command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The summary of the step, in Markdown; empty without tests.
#[must_use]
pub fn summary(record: &Record) -> String {
    let Some(suite) = &record.suite else {
        return String::new();
    };
    let mut page = String::from("### memwatch\n\n");
    let peak = record
        .peak_bytes
        .map_or_else(String::new, |peak| format!(", peak {}", bytes(peak)));
    let passed = suite
        .tests
        .iter()
        .filter(|test| test.outcome == Outcome::Passed)
        .count();
    let _ = writeln!(
        page,
        "{} tests, {passed} passed, in {}{peak}\n",
        suite.tests.len(),
        duration(record.duration_us),
    );
    let ended: Vec<[String; 2]> = ended(suite)
        .map(|test| [code(test.id.as_str()), text(reason(test))])
        .collect();
    table(&mut page, ["failed or killed by memwatch", "why"], &ended);

    let mut by_growth: Vec<_> = suite
        .tests
        .iter()
        .filter(|t| t.growth_bytes() > Some(1 << 20))
        .collect();
    by_growth.sort_by_key(|test| std::cmp::Reverse(test.growth_bytes()));
    let grew: Vec<[String; 3]> = by_growth
        .into_iter()
        .take(10)
        .map(|test| {
            [
                code(test.id.as_str()),
                bytes(test.growth_bytes().unwrap_or(0)),
                duration(test.wall_us),
            ]
        })
        .collect();
    table(&mut page, ["most growth", "grew", "took"], &grew);

    let mut by_time: Vec<_> = suite.tests.iter().collect();
    by_time.sort_by_key(|test| std::cmp::Reverse(test.wall_us));
    let took: Vec<[String; 2]> = by_time
        .into_iter()
        .take(10)
        .map(|test| [code(test.id.as_str()), duration(test.wall_us)])
        .collect();
    table(&mut page, ["longest", "took"], &took);

    let left: Vec<[String; 2]> = suite
        .tests
        .iter()
        .filter(|test| !test.leaks.is_empty())
        .map(|test| {
            let phrases: Vec<_> = test.leaks.iter().map(Leak::phrase).collect();
            [code(test.id.as_str()), text(&phrases.join(", "))]
        })
        .collect();
    table(&mut page, ["left something behind", "what"], &left);
    page
}

fn table<const COLUMNS: usize>(
    page: &mut String,
    head: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "| {} |\n|{}",
        head.join(" | "),
        "---|".repeat(COLUMNS)
    );
    for row in rows.iter().take(ROWS) {
        let _ = writeln!(page, "| {} |", row.join(" | "));
    }
    page.push('\n');
    if let Some(more @ 1..) = rows.len().checked_sub(ROWS) {
        let _ = writeln!(page, "and {more} more\n");
    }
}

/// A name, as it is. A record's text is one line; in a table a bar must not end the cell.
fn code(name: &str) -> String {
    let name: String = name.chars().take(300).collect();
    format!("<code>{}</code>", text(&name))
}

fn text(plain: &str) -> String {
    let mut safe = String::with_capacity(plain.len());
    for character in plain.chars().take(1000) {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // Whatever Markdown would take for its own.
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '~' | '!' | '#' | '@' => {
                let _ = write!(safe, "&#{};", u32::from(character));
            }
            plain => safe.push(plain),
        }
    }
    safe
}

/// Adds to the file that GitHub named for the step's summary, unless there is no room left in it.
///
/// # Errors
/// It is no file, or takes nothing.
pub fn append(path: &Path, summary: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .append(true)
        .create(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if about.len() + summary.len() as u64 >= SUMMARY_BYTES {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    file.write_all(summary.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;

    #[test]
    fn an_annotation_names_the_file_from_the_workspace_and_the_line() {
        let mut record = sample::grave();
        assert_eq!(
            annotations(&record, Some("/home/dev")),
            "::error file=project/tests/test_b.py,line=12,\
             title=memwatch%3A the process of this test was killed::\
             tests/test_b.py::test_index: exhaustion: limit full in 35ms\n"
        );
        let suite = record.suite.as_mut().expect("tests");
        let killed = suite.tests[1].clone();
        suite.tests.extend(std::iter::repeat_n(killed, 30));
        assert_eq!(annotations(&record, None).lines().count(), 10);
        assert_eq!(annotations(&sample::quiet(), None), "");
    }

    #[test]
    fn no_text_can_end_a_command_or_a_property() {
        assert_eq!(data("50%\r\nnext"), "50%25%0D%0Anext");
        assert_eq!(property("a,b:c"), "a%2Cb%3Ac");
    }

    #[test]
    fn no_name_breaks_out_of_its_cell_and_the_summary_is_bounded() {
        let mut record = sample::grave();
        let suite = record.suite.as_mut().expect("tests");
        suite.tests[0].id = "t.py::a[|<script>`]".into();
        let many = suite.tests[0].clone();
        suite.tests.extend(std::iter::repeat_n(many, 40_000));
        let page = summary(&record);
        assert!(page.len() < 100_000, "{}", page.len());
        assert!(
            page.contains("<code>t.py::a&#91;&#124;&lt;script&gt;&#96;&#93;</code>"),
            "{page}"
        );
    }

    #[test]
    fn a_summary_is_added_and_what_is_full_is_left() {
        let dir = tempfile::tempdir().expect("room");
        let path = dir.path().join("summary.md");
        std::fs::write(&path, "others\n").expect("room");
        append(&path, "ours\n").expect("room");
        assert_eq!(
            std::fs::read_to_string(&path).expect("there"),
            "others\nours\n"
        );
        std::fs::write(&path, vec![b'x'; 1 << 20]).expect("room");
        assert!(append(&path, "ours\n").is_err());
        assert!(append(dir.path(), "ours\n").is_err());
    }
}
