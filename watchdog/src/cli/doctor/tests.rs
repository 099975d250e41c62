//! Diagnoses of whole machines, of single facts turned over, and of the machine that runs the test.

mod machines;
mod rules;
mod this_machine;

use std::path::{Path, PathBuf};

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/doctor")
        .join(name)
}

/// A machine kept as a file tree; what only a running kernel can tell lies in its `probes.json`.
fn machine(name: &str) -> MachineFacts {
    let root = fixture(name);
    let probes = std::fs::read(root.join("probes.json")).unwrap();
    MachineFacts::read(&root, serde_json::from_slice(&probes).unwrap())
}

fn severity_of(checks: &[Check], id: &str) -> Option<Severity> {
    find(checks, id).severity()
}

fn find<'a>(checks: &'a [Check], id: &str) -> &'a Check {
    checks
        .iter()
        .find(|check| check.id == id)
        .unwrap_or_else(|| panic!("no check {id}"))
}

/// Every check that is not fine, as "severity id".
fn troubles(checks: &[Check]) -> Vec<String> {
    checks
        .iter()
        .filter_map(|check| Some(format!("{:?} {}", check.severity()?, check.id)))
        .collect()
}
