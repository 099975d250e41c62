//! The wheel of memwatch's plugin for pytest, for those who want it installed: the same file that `memwatch
//! attach` puts on PYTHONPATH, with what pip needs to know about it. A wheel is a zip with a list of its
//! files; made here and not by a Python build tool, so that the same source gives the same bytes everywhere.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::workspace::root;

/// The plugin's version is the workspace's.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const PLUGIN: &str = "watchdog/src/pytest/memwatch_pytest.py";
/// As `memwatch attach` writes it. The name is the module's: pytest refuses one plugin under two names.
const ENTRY_POINTS: &str = "[pytest11]\nmemwatch_pytest = memwatch_pytest\n";
/// Beside the metadata; a field that names them came after version 2.1.
const LICENCES: [&str; 2] = ["LICENSE-MIT", "LICENSE-APACHE"];

/// Makes the wheel in a directory; its path.
///
/// # Errors
/// If a file of the repository cannot be read, or the wheel not be written.
pub(crate) fn make(into: &Path) -> Result<PathBuf> {
    let path = into.join(format!("pytest_memwatch-{VERSION}-py3-none-any.whl"));
    let bytes = pack(&files()?).context("cannot pack the wheel")?;
    fs::create_dir_all(into)
        .and_then(|()| fs::write(&path, bytes))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// What is in it, the list of its files last, as the format asks.
fn files() -> Result<Vec<(String, Vec<u8>)>> {
    let read = |name: &str| {
        let path = root().join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let info = format!("pytest_memwatch-{VERSION}.dist-info");
    let mut files = vec![("memwatch_pytest.py".to_owned(), read(PLUGIN)?)];
    for name in LICENCES {
        files.push((format!("{info}/licenses/{name}"), read(name)?));
    }
    let own = [
        ("METADATA", metadata()),
        ("WHEEL", wheel()),
        ("entry_points.txt", ENTRY_POINTS.to_owned()),
    ];
    for (name, text) in own {
        files.push((format!("{info}/{name}"), text.into_bytes()));
    }
    let record = format!("{info}/RECORD");
    let mut lines = String::new();
    for (name, bytes) in &files {
        let hash = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(bytes));
        lines += &format!("{name},sha256={hash},{}\n", bytes.len());
    }
    lines += &format!("{record},,\n");
    files.push((record, lines.into_bytes()));
    Ok(files)
}

fn metadata() -> String {
    let mut text = format!("Metadata-Version: 2.1\nName: pytest-memwatch\nVersion: {VERSION}\n");
    text += "\
Summary: memwatch's plugin for pytest: tells which test runs, measures it, and fails it when memwatch asks
License: MIT OR Apache-2.0
Classifier: Framework :: Pytest
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: 3
Requires-Python: >=3.8
Requires-Dist: pytest>=6.2
Description-Content-Type: text/plain

memwatch's plugin for pytest. `memwatch attach -- pytest` brings it along; installed, it knows its options
and its marker without memwatch, too, and does nothing then.
";
    text
}

fn wheel() -> String {
    format!(
        "Wheel-Version: 1.0\nGenerator: memwatch {VERSION}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
}

/// Not compressed, so that no library's version is in the bytes; one time for all, the first that a zip knows.
fn pack(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::DEFAULT)
        .unix_permissions(0o644);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name.as_str(), options)?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn run(command: &mut Command) -> String {
        let output = command.output().expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{command:?}: {said}");
        said
    }

    /// All files below a directory but compiled Python.
    fn below(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            if entry.file_type().expect("a type").is_dir() {
                found.extend(below(&entry.path()));
            } else if entry.path().extension().is_none_or(|end| end != "pyc") {
                found.push(entry.path());
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_same_source_gives_the_same_wheel() {
        assert_eq!(ENTRY_POINTS, memwatch::pytest::ENTRY_POINTS);
        let make = || pack(&files().expect("the files")).expect("a wheel");
        assert_eq!(make(), make());
    }

    /// Takes pytest from where `cargo xtask test` has put it, so that nothing is downloaded.
    #[test]
    fn pip_installs_the_wheel_pytest_loads_it_and_its_removal_leaves_nothing() {
        let python = crate::python::Python::with_packages(&["pytest"]).expect("a Python");
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let wheel = make(dir.path()).expect("a wheel");
        run(Command::new(python.program("python"))
            .args(["-m", "venv"])
            .arg(at("venv")));
        let fresh = at("venv/bin/python");
        // pytest and what it needs come from the other environment, by a file that Python reads at its start.
        let site = |python: &Path| {
            let code = "import sysconfig; print(sysconfig.get_path('purelib'))";
            run(Command::new(python).args(["-c", code]))
                .trim()
                .to_owned()
        };
        let link = PathBuf::from(site(&fresh)).join("pytest_of_another.pth");
        fs::write(link, site(&python.program("python"))).expect("a file");
        let pip = |arguments: &[&str]| {
            let mut pip = Command::new(&fresh);
            pip.args(["-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]);
            run(pip.args(arguments))
        };
        let before = below(&at("venv"));
        let wheel = wheel.to_str().expect("a path of ours");
        pip(&["install", "--no-index", wheel]);
        let empty = at("empty");
        fs::create_dir(&empty).expect("a directory");
        let pytest = |arguments: &[&str]| {
            let mut pytest = Command::new(&fresh);
            pytest.args(["-m", "pytest"]).args(arguments);
            let output = pytest.current_dir(&empty).output().expect("it starts");
            let said = [output.stdout, output.stderr].concat();
            (
                output.status.code(),
                String::from_utf8_lossy(&said).into_owned(),
            )
        };
        // 5: there are no tests.
        let (code, said) = pytest(&["--co"]);
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains(&format!("memwatch-{VERSION}")), "{said}");
        let (code, said) = pytest(&["--markers"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("@pytest.mark.memwatch"), "{said}");
        pip(&["uninstall", "--yes", "pytest-memwatch"]);
        assert_eq!(below(&at("venv")), before);
        assert!(!pytest(&["--co"]).1.contains("memwatch"));
    }
}
