//! What a run of pytest is told of afterwards: what its tests used, what they left behind, and the files in
//! which that stands for others. Real suites under the real memwatch. Needs root, cgroups and a Python with
//! pytest and pytest-xdist.

#[path = "support/lab.rs"]
mod lab;

#[path = "pytest_reports/figures.rs"]
mod figures;
#[path = "pytest_reports/leaks.rs"]
mod leaks;
#[path = "pytest_reports/papers.rs"]
mod papers;

use lab::{Lab, Ran, python};
use serde_json::Value;
use std::fs;
use std::process::Command;

/// A directory of tests, and memwatch to run them with.
struct Suite {
    lab: Lab,
}

impl Suite {
    /// With these files. Temporary files of the tests have a directory of their own.
    fn of(files: &[(&str, &str)]) -> Self {
        let lab = Lab::new();
        for dir in ["suite", "tmp"] {
            fs::create_dir(lab.file(dir)).expect("room");
        }
        for (name, text) in files {
            fs::write(lab.file("suite").join(name), text).expect("room");
        }
        Self { lab }
    }

    /// pytest on it under `memwatch attach`, with options of both.
    fn command(&self, memwatch: &[&str], pytest: &[&str]) -> Command {
        let python = python();
        let suite = self.lab.file("suite").display().to_string();
        let run = [
            "--",
            &python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            &suite,
        ];
        let arguments = [memwatch, &run, pytest].concat();
        let mut command = self.lab.reporting(&arguments);
        command
            .env("TMPDIR", self.lab.file("tmp"))
            .env("OUT", self.lab.file("truth.json"))
            .env_remove("GITHUB_ACTIONS");
        command
    }

    fn run(&self, memwatch: &[&str], pytest: &[&str]) -> Ran {
        self.lab.run(self.command(memwatch, pytest))
    }
}

/// The record's entry of the test of that name.
fn test<'a>(ran: &'a Ran, name: &str) -> &'a Value {
    let tests = ran.report["suite"]["tests"].as_array();
    let found = tests.into_iter().flatten().find(|test| {
        let id = test["id"].as_str().unwrap_or_default();
        id.rsplit("::").next() == Some(name)
    });
    found.unwrap_or_else(|| panic!("no {name} in {ran:#?}"))
}
