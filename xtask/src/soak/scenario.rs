//! The scenarios: which command, under which limit, and how it must end.

use std::path::Path;

use super::judge::Ending;
use super::text;
use crate::python::Python;
use crate::workspace::{Release, root};

/// Names the file in which a hog leaves the pid of the process that ought to be ended.
pub(crate) const CULPRIT_FILE: &str = "MEMWATCH_CULPRIT_FILE";

/// One thing that is run under memwatch.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) limit: &'static str,
    pub(crate) command: Vec<String>,
    pub(crate) ending: Ending,
}

/// What scenarios are made of.
pub(crate) struct Programs<'a> {
    pub(crate) release: &'a Release,
    pub(crate) python: &'a Python,
    /// For files that scenarios make.
    pub(crate) scratch: &'a Path,
}

/// Every scenario, hogs first. `quick` leaves out what takes minutes.
pub(crate) fn all(programs: &Programs<'_>, quick: bool) -> Vec<Scenario> {
    let seconds = if quick { 5 } else { 20 };
    let mut scenarios = hogs(programs);
    scenarios.extend(innocents(programs, seconds));
    if !quick {
        scenarios.push(build_of_memwatch(programs));
    }
    scenarios
}

fn hogs(programs: &Programs<'_>) -> Vec<Scenario> {
    let hog = |name, limit, ending, arguments: &[&str]| Scenario {
        name,
        limit,
        command: workload(programs, arguments),
        ending,
    };
    let alone = Ending::LeaderKilled;
    // The workload's parent process answers 0 only if nobody but the culprit was ended.
    let in_family = Ending::ChildKilled { exit_code: 0 };
    vec![
        hog("leak-200M", "200M", alone, &["leak"]),
        hog("leak-2G", "2G", alone, &["leak"]),
        hog("leak-huge-pages", "2G", alone, &["leak", "--huge"]),
        hog("leak-slow", "100M", alone, &["leak", "--rate", "10M"]),
        hog(
            "fork-tree",
            "200M",
            in_family,
            &["fork-tree", "--bystander-size", "12M"],
        ),
        hog(
            "fork-tree-slow",
            "200M",
            in_family,
            &["fork-tree", "--rate", "50M"],
        ),
        hog("thrash", "200M", alone, &["thrash"]),
        hog(
            "thrash-threads",
            "200M",
            alone,
            &["thrash", "--threads", "4"],
        ),
        hog("setsid-leak", "200M", in_family, &["setsid-leak"]),
        hog("shm-write", "200M", alone, &["shm-leak"]),
        hog("shm-mapped", "200M", alone, &["shm-leak", "--mapped"]),
        Scenario {
            name: "pytest-worker",
            limit: "300M",
            command: {
                let mut command = pytest(programs.python);
                command.extend(["-p", "no:memwatch_pytest"].map(str::to_owned));
                command
            },
            // pytest's own code for "a test failed": the controller lived to say so.
            ending: Ending::ChildKilled { exit_code: 1 },
        },
        Scenario {
            name: "pytest-test",
            limit: "300M",
            command: pytest(programs.python),
            ending: Ending::TestEnded { exit_code: 1 },
        },
    ]
}

fn innocents(programs: &Programs<'_>, seconds: u32) -> Vec<Scenario> {
    let seconds = &seconds.to_string();
    let innocent = |name, limit, command| Scenario {
        name,
        limit,
        command,
        ending: Ending::Untouched,
    };
    let numpy_sort = vec![
        text(programs.python.program("python")),
        text(root().join("tests/workloads/numpy_sort.py")),
        format!("--bytes={}", (512_u64 << 20) * 60 / 100),
        format!("--seconds={seconds}"),
    ];
    let idle_shell = vec!["sh".to_owned(), "-c".to_owned(), format!("sleep {seconds}")];
    vec![
        innocent(
            "stream",
            "200M",
            workload(programs, &["stream", "--seconds", seconds]),
        ),
        innocent(
            "steady-90",
            "200M",
            workload(programs, &["steady", "--seconds", seconds]),
        ),
        innocent("burst", "200M", workload(programs, &["burst"])),
        innocent("idle-shell", "200M", idle_shell),
        innocent("numpy-sort", "512M", numpy_sort),
        innocent(
            "io-stall",
            "512M",
            workload(programs, &["io-stall", "--seconds", seconds]),
        ),
    ]
}

fn build_of_memwatch(programs: &Programs<'_>) -> Scenario {
    let build = "rm -rf \"$0\" && exec cargo build --release -p memwatch --target-dir \"$0\"";
    let target = text(programs.scratch.join("build"));
    Scenario {
        name: "self-build",
        limit: "3G",
        command: ["sh", "-c", build, &target].map(str::to_owned).to_vec(),
        ending: Ending::Untouched,
    }
}

/// pytest on the suite with one bad test, on two workers.
pub(crate) fn pytest(python: &Python) -> Vec<String> {
    let suite = text(root().join("tests/workloads/suite"));
    vec![text(python.program("pytest")), "-n2".to_owned(), suite]
}

fn workload(programs: &Programs<'_>, arguments: &[&str]) -> Vec<String> {
    let program = text(programs.release.workload.clone());
    let files = format!("--dir={}", programs.scratch.display());
    std::iter::once(program)
        .chain(arguments.iter().map(|&a| a.to_owned()))
        .chain([files])
        .collect()
}
