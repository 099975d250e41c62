//! What a run's pytest told of its tests, and what memwatch measured of them: the part of the record that is
//! about tests. It is what the processes of the target say of themselves, so it is evidence and never
//! authority. Who reads it is `pytest`'s, who compares runs by it is `tests`'.

use serde::{Deserialize, Serialize};

use super::{Text, bytes, count};

/// The tests of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Suite {
    /// The version of pytest.
    pub pytest_version: Option<Text>,
    /// The version of Python.
    pub python_version: Option<Text>,
    /// The directory that the paths in node ids start from.
    pub root: Option<Text>,
    /// How many workers of pytest-xdist there were, replacements included; 0 without it.
    pub workers: u32,
    /// How many tests were chosen to run, if the collection came to its end.
    pub selected: Option<u64>,
    /// Each test that was begun, in the order in which they began. One that ran several times is there as
    /// often.
    pub tests: Vec<Test>,
    /// Tests that were chosen and not begun: the run ended before.
    pub not_run: Vec<NotRun>,
    /// The processes that ran them: those that grew the most over their tests, a hundred at most.
    pub processes: Vec<TestProcess>,
    /// By how much all processes together grew over their tests.
    pub grown_bytes: u64,
    /// Files that were left behind and that tests in more than one process may have made: the first hundred.
    pub leaks_of_several: Vec<LeakOfSeveral>,
    /// Results that could not be read, and results beyond the most that are kept.
    pub lost: u64,
}

/// One run of one test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// Its node id, as pytest shows it.
    pub id: Text,
    /// The line on which it is defined, in the file that its id names.
    pub line: Option<u32>,
    /// How it ended.
    pub outcome: Outcome,
    /// The worker of pytest-xdist that ran it; `None` without xdist.
    pub worker: Option<Text>,
    /// The process that ran it.
    pub pid: u32,
    /// When it began, from the start of the run.
    pub at_us: u64,
    /// How long it took, setup and teardown included.
    pub wall_us: u64,
    /// CPU time of its process meanwhile.
    pub cpu_us: Option<u64>,
    /// How long its setup took.
    pub setup_us: Option<u64>,
    /// How long the test itself took.
    pub call_us: Option<u64>,
    /// How long its teardown took.
    pub teardown_us: Option<u64>,
    /// What its process held resident when it began.
    pub rss_before_bytes: Option<u64>,
    /// And when it was over: what the process retained is the difference.
    pub rss_after_bytes: Option<u64>,
    /// The most that its process held resident at once meanwhile.
    pub peak_bytes: Option<u64>,
    /// The most that processes which it started held resident together, as memwatch saw them.
    pub children_peak_bytes: Option<u64>,
    /// What those of them held resident that were still there when it was over; `None` if none was.
    #[serde(default)]
    pub children_retained_bytes: Option<u64>,
    /// Page faults of its process that were answered from memory.
    pub minor_faults: Option<u64>,
    /// Page faults of its process that waited for a disk.
    pub major_faults: Option<u64>,
    /// Time that its process spent in reclaim, to the nearest look.
    pub reclaim_us: Option<u64>,
    /// What it left behind.
    #[serde(default)]
    pub leaks: Vec<Leak>,
    /// How long it took to fail from when memwatch asked it to; `None` if it was not asked, or did not answer.
    pub answered_us: Option<u64>,
    /// Why memwatch failed it or killed its process; `None` if it did not.
    pub ended_by_memwatch: Option<Text>,
}

/// A process over all the tests that it ran: what grows a little in each shows in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestProcess {
    /// The process.
    pub pid: u32,
    /// Its worker of pytest-xdist; `None` without xdist.
    pub worker: Option<Text>,
    /// How many runs of tests it began.
    pub tests: u64,
    /// What it held resident when its first test began.
    pub rss_before_bytes: Option<u64>,
    /// And when the last was over of which that is known.
    pub rss_after_bytes: Option<u64>,
}

impl TestProcess {
    /// By how much it grew over its tests, as far as that is known.
    #[must_use]
    pub fn grown_bytes(&self) -> u64 {
        let ends = self.rss_after_bytes.zip(self.rss_before_bytes);
        ends.map_or(0, |(after, before)| after.saturating_sub(before))
    }
}

/// A test whose turn did not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRun {
    /// Its node id, as pytest shows it.
    pub id: Text,
    /// The process that was to run it; with pytest-xdist, that which hands the tests out.
    pub pid: u32,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should.
    Passed,
    /// The test itself failed.
    Failed,
    /// Its setup or teardown failed.
    Error,
    /// It was not run, on purpose.
    Skipped,
    /// It failed, as was expected.
    Xfailed,
    /// It passed, though it was expected to fail.
    Xpassed,
    /// Its process died under it.
    Killed,
    /// It had not ended when the run did, or nobody told how.
    Unknown,
}

/// Something that a test left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    /// What sort of thing.
    pub kind: LeakKind,
    /// How many; bytes, for memory.
    pub count: u64,
    /// Which, as far as they have names: the first few.
    #[serde(default)]
    pub names: Vec<Text>,
}

/// A file that appeared while tests ran in several processes: it was left behind, and nobody knows by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakOfSeveral {
    /// What sort of file.
    pub kind: LeakKind,
    /// Its path.
    pub name: Text,
    /// The tests that ran then: the first few.
    #[serde(default)]
    pub tests: Vec<Text>,
}

/// The sorts of things that a test can leave behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeakKind {
    /// Open file descriptors.
    FileDescriptors,
    /// Threads that run on.
    Threads,
    /// Child processes that run on.
    Children,
    /// Files in /dev/shm.
    SharedMemory,
    /// Files in the directory for temporary files, outside of pytest's own.
    TemporaryFiles,
    /// Memory that its process did not give back.
    Memory,
}

impl Outcome {
    /// The word that the record has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Error => "error",
            Self::Skipped => "skipped",
            Self::Xfailed => "xfailed",
            Self::Xpassed => "xpassed",
            Self::Killed => "killed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether something is wrong.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Error | Self::Killed)
    }
}

impl Leak {
    /// `2 threads`, `64 MiB of memory`.
    #[must_use]
    pub fn phrase(&self) -> String {
        let [one, many] = match self.kind {
            LeakKind::Memory => return format!("{} of memory", bytes(self.count)),
            LeakKind::FileDescriptors => ["open file descriptor", "open file descriptors"],
            LeakKind::Threads => ["thread", "threads"],
            LeakKind::Children => ["child process", "child processes"],
            LeakKind::SharedMemory => ["file in shared memory", "files in shared memory"],
            LeakKind::TemporaryFiles => ["temporary file", "temporary files"],
        };
        let what = if self.count == 1 { one } else { many };
        format!("{} {what}", count(self.count))
    }
}

impl LeakKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::FileDescriptors,
        Self::Threads,
        Self::Children,
        Self::SharedMemory,
        Self::TemporaryFiles,
        Self::Memory,
    ];

    /// As the record has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FileDescriptors => "file_descriptors",
            Self::Threads => "threads",
            Self::Children => "children",
            Self::SharedMemory => "shared_memory",
            Self::TemporaryFiles => "temporary_files",
            Self::Memory => "memory",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Test {
    /// How far its process grew at most while it ran, with the processes that it started.
    #[must_use]
    pub fn growth_bytes(&self) -> Option<u64> {
        let own = self.peak_bytes?.saturating_sub(self.rss_before_bytes?);
        Some(own + self.children_peak_bytes.unwrap_or(0))
    }

    /// What its process held on to when it was over, with the processes that it left.
    #[must_use]
    pub fn retained_bytes(&self) -> Option<u64> {
        let own = self.rss_after_bytes?.saturating_sub(self.rss_before_bytes?);
        Some(own + self.children_retained_bytes.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_has_the_records_word_for_a_name() {
        use Outcome::*;
        for outcome in [
            Passed, Failed, Error, Skipped, Xfailed, Xpassed, Killed, Unknown,
        ] {
            let word = serde_json::to_value(outcome).expect("a word");
            assert_eq!(word, outcome.name());
        }
    }
}
