//! Lines that a process of pytest wrote about itself and about its tests, as the plugin's `tell` writes them.
//! Pure: bytes in, facts out. A line that is cut or that is no such line is counted and passed over.

use serde::Deserialize;
use std::collections::BTreeMap;

/// What one process told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// Its session, if it got so far.
    pub session: Option<Session>,
    /// How many tests it was to choose from.
    pub selected: Option<u64>,
    /// Their node ids; of workers of pytest-xdist, which have the same, their controller tells them.
    pub names: Vec<String>,
    /// Its tests, in the order in which they ended.
    pub tests: Vec<TestLine>,
    /// Collectors that memwatch had fail, and what they kept of the memory.
    pub collected: Vec<CollectorLine>,
    /// What was found to have been left behind when the session ended, by the serial of the test.
    pub leaks: BTreeMap<u64, Vec<LeakLine>>,
    /// The exit status of the session, if it ended.
    pub exit: Option<i64>,
    /// Lines that could not be read.
    pub unreadable: u64,
}

/// A session of pytest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Session {
    /// pytest's version.
    pub session: String,
    /// Python's.
    #[serde(default)]
    pub python: String,
    /// Worker of pytest-xdist; empty without.
    #[serde(default)]
    pub worker: String,
    /// A worker's controller; else the process that started it.
    #[serde(default)]
    pub parent: u32,
    /// Where the user has it write JUnit's XML.
    #[serde(default)]
    pub junit: Option<String>,
    /// The root directory of the tests.
    #[serde(default)]
    pub root: String,
}

/// A test that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct TestLine {
    /// Node id.
    pub test: String,
    /// Counts in its process.
    pub serial: u64,
    /// Where it is defined; 0 for not known.
    #[serde(default)]
    pub line: u32,
    /// On the monotonic clock.
    pub began_ns: u64,
    /// As the record names it; `None` if no phase reported.
    pub outcome: Option<String>,
    /// See `incident::suite::Test`, also for those below.
    #[serde(default)]
    pub wall_us: u64,
    /// CPU time.
    pub cpu_us: Option<u64>,
    /// Setup.
    pub setup_us: Option<u64>,
    /// The test itself.
    pub call_us: Option<u64>,
    /// Teardown.
    pub teardown_us: Option<u64>,
    /// Resident at the start.
    pub rss_before_bytes: Option<u64>,
    /// Resident at the end.
    pub rss_after_bytes: Option<u64>,
    /// The most meanwhile.
    pub peak_bytes: Option<u64>,
    /// What processes hold that it started and left.
    pub children_retained_bytes: Option<u64>,
    /// Those of them that are its process's own children.
    #[serde(default)]
    pub left: Vec<u32>,
    /// Faults answered from memory.
    pub minor_faults: Option<u64>,
    /// Faults that waited for a disk.
    pub major_faults: Option<u64>,
    /// Why memwatch had it fail, if it did.
    pub failed_by_memwatch: Option<String>,
    /// How long it took to fail from when it was asked to.
    pub answered_us: Option<u64>,
}

/// A collector, such as a module, that memwatch had fail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CollectorLine {
    /// Node id.
    pub collected: String,
    /// Resident before.
    pub rss_before_bytes: u64,
    /// Resident when it had failed.
    pub rss_after_bytes: u64,
}

/// Something left behind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LeakLine {
    /// As the record names it.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// Which.
    #[serde(default)]
    pub names: Vec<String>,
}

/// The fields by which a line is known, in the order in which they are tried.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Session(Session),
    Test(TestLine),
    Collector(CollectorLine),
    Leaks {
        leaks: Vec<LeakLine>,
        serial: u64,
    },
    Selected {
        selected: u64,
        #[serde(default)]
        names: Vec<String>,
    },
    Exit {
        exit: i64,
    },
}

impl Results {
    /// Reads what one process has written so far.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut results = Self::default();
        for line in bytes
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match serde_json::from_slice(line) {
                Ok(Line::Session(session)) => results.session = Some(session),
                Ok(Line::Test(test)) => results.tests.push(test),
                Ok(Line::Collector(collector)) => results.collected.push(collector),
                Ok(Line::Leaks { leaks, serial }) => {
                    results.leaks.entry(serial).or_default().extend(leaks);
                }
                Ok(Line::Selected { selected, names }) => {
                    results.selected = Some(selected);
                    results.names = names;
                }
                Ok(Line::Exit { exit }) => results.exit = Some(exit),
                Err(_) => results.unreadable += 1,
            }
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_of_line_is_known_and_a_cut_one_counted() {
        let text = br#"{"session":"9.2.0","python":"3.11.7","worker":"gw0","junit":null,"root":"/x"}
{"selected":2,"names":["t.py::a","t.py::b"]}
{"test":"t.py::a","serial":4,"began_ns":7,"outcome":"passed","call_us":61,"wall_us":365,"peak_bytes":null,"later":1}
{"leaks":[{"kind":"threads","count":1,"names":["t"]}],"serial":4}
{"collected":"t.py","serial":1,"rss_before_bytes":5,"rss_after_bytes":9}
{"exit":1}
{"test":"t.py::b","ser"#;
        let results = Results::parse(text);
        assert_eq!(results.session.map(|s| s.worker), Some("gw0".to_owned()));
        assert_eq!((results.selected, results.exit), (Some(2), Some(1)));
        assert_eq!(results.names, ["t.py::a", "t.py::b"]);
        assert_eq!(results.tests.len(), 1);
        assert_eq!(results.tests[0].call_us, Some(61));
        assert_eq!(results.leaks[&4][0].kind, "threads");
        assert_eq!(results.collected[0].rss_after_bytes, 9);
        assert_eq!(results.unreadable, 1);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = Results::parse(&bytes);
        }
    }
}
