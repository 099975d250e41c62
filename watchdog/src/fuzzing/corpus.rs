//! Every input that fuzzing has kept, each for a way through a parser or for a defect that it found, holds with every
//! `cargo test`: without the fuzzer, its compiler flags or its time.

use super::{TARGETS, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz")
}

#[test]
fn what_fuzzing_kept_still_holds() {
    for (target, checks) in TARGETS {
        let dir = fuzz_dir().join("corpus").join(target);
        let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let mut tried = BTreeSet::new();
        for entry in entries {
            let path = entry.expect("an entry").path();
            let input = fs::read(&path).expect("a file");
            tried.extend(input.first().map(|selector| usize::from(selector & 0x1f)));
            if let Err(panic) = std::panic::catch_unwind(|| run(target, &input)) {
                eprintln!("{} is what does not hold", path.display());
                std::panic::resume_unwind(panic);
            }
        }
        for (place, (name, _)) in checks.iter().enumerate() {
            assert!(
                tried.contains(&(place + 1)),
                "no input for {target}, {name}"
            );
        }
    }
}

#[test]
fn every_target_has_its_program() {
    let names = |dir: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz_dir().join(dir)).expect("a directory");
        let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
        entries
            .filter_map(|entry| stem(entry.ok()?.path()))
            .collect()
    };
    let targets = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("targets"), targets);
    assert_eq!(names("corpus"), targets);
}
