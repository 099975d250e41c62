//! `memwatch tests classify`: which tests are slow or memory-intensive, as a table, as JSON, and as a file of
//! markers that memwatch's pytest plugin applies.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::config::{Size, Span};
use crate::incident::{ReportFile, Text, bytes, duration};
use crate::tests::{Bounds, Classified, Marker, classify};

/// The long help.
pub(super) const ABOUT: &str = "\
Say which tests are slow or take much memory, and mark them for pytest.

A test's figures are the middle ones of all its runs, and of those alone in which it ran to its end, if there is \
one. With --write the markers go to a file that memwatch's pytest plugin applies, so that `pytest -m 'not \
memory_intensive'` and the like choose by them.";

/// Below the long help.
pub(super) const ABOUT_MORE: &str = "\
Examples:
  memwatch tests classify run.json
  memwatch tests classify --memory 500M --write markers.json run1.json run2.json

Exit codes:
  0     said, and written
  125   a record cannot be read or has no tests, or the file cannot be written";

/// Of the file of markers.
const MARKERS_VERSION: u32 = 1;

/// What is classified.
#[derive(Clone, Debug, Args)]
pub(super) struct ClassifyArgs {
    /// Records of runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// A test that takes so long is slow
    #[arg(long, value_name = "DURATION", default_value_t = slow())]
    slow: Span,
    /// A test during which its process grows by so much is memory-intensive
    #[arg(long, value_name = "SIZE", default_value_t = memory())]
    memory: Size,
    /// Name the fast ones, too
    #[arg(long)]
    all: bool,
    /// Print all tests as JSON
    #[arg(long)]
    json: bool,
    /// Write the markers to this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn slow() -> Span {
    Span::new(Bounds::SLOW).expect("a bound above zero")
}

fn memory() -> Size {
    Size::new(Bounds::MEMORY_BYTES).expect("a bound above zero")
}

/// The file that the plugin reads. It knows tests by pytest's own node ids, not as the record shows them.
#[derive(Debug, Serialize)]
struct Markers<'t> {
    version: u32,
    markers: BTreeMap<String, &'t [Marker]>,
}

/// Classifies; the exit code.
pub(super) fn run(args: &ClassifyArgs) -> anyhow::Result<ExitCode> {
    let file = args.write.as_deref().map(ReportFile::open).transpose()?;
    let runs = super::read_runs(&args.runs)?;
    let bounds = Bounds {
        slow: args.slow.duration(),
        memory_bytes: args.memory.bytes(),
    };
    let tests = classify(&runs, bounds);
    if let Some(file) = file {
        file.write_bytes(&markers(&tests))?;
    }
    super::print(&if args.json {
        serde_json::to_string_pretty(&tests)? + "\n"
    } else {
        page(&tests, args)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn markers(tests: &[Classified]) -> Vec<u8> {
    let marked = tests.iter().filter(|test| !test.markers.is_empty());
    let markers = Markers {
        version: MARKERS_VERSION,
        markers: marked
            .map(|test| (node_id(&test.id), &test.markers[..]))
            .collect(),
    };
    let mut json = serde_json::to_vec_pretty(&markers).expect("names for keys, and plain values");
    json.push(b'\n');
    json
}

/// As pytest has it.
fn node_id(id: &Text) -> String {
    String::from_utf8_lossy(&id.to_name()).into_owned()
}

fn page(tests: &[Classified], args: &ClassifyArgs) -> String {
    let mut shown: Vec<_> = tests.iter().collect();
    shown.retain(|test| args.all || !test.markers.is_empty());
    shown.sort_by_key(|test| (Reverse(test.memory_bytes), Reverse(test.wall_us)));
    let rows: Vec<_> = shown
        .into_iter()
        .map(|test| {
            let cells = [
                test.memory_bytes.map_or("-".to_owned(), bytes),
                duration(test.wall_us),
                named(&test.markers),
            ];
            (cells, test.id.to_string())
        })
        .collect();
    let with = |marker| {
        tests
            .iter()
            .filter(|test| test.markers.contains(&marker))
            .count()
    };
    let fast = tests.iter().filter(|test| test.markers.is_empty()).count();
    let mut page = if rows.is_empty() {
        String::new()
    } else {
        super::table(["MEMORY", "TIME", "MARKERS"], "TEST", &rows) + "\n"
    };
    page += &format!(
        "{} in {}: {} slow ({} or more), {} memory-intensive ({} or more), {fast} fast\n",
        super::counted(tests.len(), "test"),
        super::counted(args.runs.len(), "run"),
        with(Marker::Slow),
        args.slow,
        with(Marker::MemoryIntensive),
        bytes(args.memory.bytes()),
    );
    page
}

fn named(markers: &[Marker]) -> String {
    match markers {
        [] => "fast".to_owned(),
        markers => markers
            .iter()
            .map(|marker| marker.name())
            .collect::<Vec<_>>()
            .join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_pytests_own_node_ids_and_the_marked_tests_alone() {
        let test = |name: &str, markers: &[Marker]| Classified {
            id: Text::of_name(name.as_bytes()),
            wall_us: 1,
            memory_bytes: None,
            markers: markers.to_vec(),
        };
        let raw = "t.py::test_a[\\n\u{1b}\"]";
        let both = [Marker::Slow, Marker::MemoryIntensive];
        let file = markers(&[test("t.py::test_fast", &[]), test(raw, &both)]);
        let file: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
        let expected =
            serde_json::json!({ "version": 1, "markers": { raw: ["slow", "memory_intensive"] } });
        assert_eq!(file, expected);
    }

    #[test]
    fn a_marker_has_the_name_that_the_file_gives_it() {
        for marker in [Marker::Slow, Marker::MemoryIntensive] {
            assert_eq!(serde_json::to_value(marker).expect("a word"), marker.name());
        }
    }
}
