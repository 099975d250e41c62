//! The pytests that tests run: each version that is promised, on the oldest and the newest Python of this
//! machine that it can use, and beside them what people run pytest with. An environment each, below the target
//! directory. What is tested with them is `tests/pytest_matrix.rs`'s.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::python::Python;
use crate::workspace::{step, target_dir};

/// A version of pytest, the packages of it, and the oldest and the newest Python 3 that it can use. A coverage of
/// its time is among them where one version had to be treated differently from the newest.
const VERSIONS: [(&str, &[&str], u32, u32); 4] = [
    ("6.2", &["pytest==6.2.*", "pytest-xdist"], 8, 10),
    (
        "7.4",
        &["pytest==7.4.*", "pytest-xdist", "coverage==7.4.*"],
        8,
        12,
    ),
    ("8.4", &["pytest==8.4.*", "pytest-xdist"], 9, 14),
    ("9", &["pytest>=9", "pytest-xdist"], 10, 14),
];

/// What suites use beside pytest, and two of its kind that bring their own tests.
const PLUGINS: [&str; 9] = [
    "pytest>=9",
    "pytest-xdist",
    "pytest-cov",
    "pytest-asyncio",
    "pytest-rerunfailures",
    "pytest-timeout",
    "hypothesis",
    "numpy",
    "pandas",
];

/// Packages whose sources bring tests that nobody here wrote.
const SOURCES: [&str; 3] = ["attrs==26.1.0", "more-itertools==11.2.1", "pluggy==1.7.0"];

/// What starts pytest for people.
const RUNNERS: [&str; 5] = ["pytest>=9", "tox>=4", "nox", "uv", "poetry"];

/// Makes the environments that are not there yet; the directory that holds them.
///
/// # Errors
/// If there is no Python, or a package cannot be had.
pub(crate) fn make() -> Result<PathBuf> {
    let home = target_dir().join("pytests");
    fs::create_dir_all(&home)?;
    let pythons = pythons();
    for (name, packages, oldest, newest) in VERSIONS {
        let usable: Vec<_> = pythons
            .iter()
            .filter(|(minor, _)| (oldest..=newest).contains(minor))
            .collect();
        let (Some(first), Some(last)) = (usable.first(), usable.last()) else {
            println!("── no Python 3.{oldest} to 3.{newest} here: pytest {name} is not tested");
            continue;
        };
        for (minor, python) in [first, last] {
            let place = home.join(format!("{name}-3.{minor}"));
            Python::environment(&place, python, packages)?;
        }
    }
    let (minor, newest) = pythons
        .last()
        .context("tests need a Python 3.10 or later")?;
    ensure!(*minor >= 10, "tests need a Python 3.10 or later");
    let plugins = Python::environment(&home.join("plugins"), newest, &PLUGINS)?;
    fetch_sources(&plugins, &home.join("sources"))?;
    Python::environment(&home.join("runners"), newest, &RUNNERS)?;
    Ok(home)
}

/// Unpacks those that are not there yet, each into a directory of its name.
fn fetch_sources(python: &Python, home: &Path) -> Result<()> {
    fs::create_dir_all(home)?;
    for package in SOURCES {
        let name = package.split("==").next().unwrap_or(package);
        let place = home.join(name);
        if place.is_dir() {
            continue;
        }
        let packed = home.join(format!("{name}.packed"));
        let mut download = Command::new(python.program("python"));
        download
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--disable-pip-version-check",
            ])
            .args(["--no-binary", ":all:", "--dest"])
            .arg(&packed)
            .arg(package);
        step(&format!("fetch the sources of {name}"), &mut download)?;
        let archive = fs::read_dir(&packed)?.next().context("an archive")??;
        let unpacked = home.join(format!("{name}.unpacked"));
        fs::create_dir_all(&unpacked)?;
        let mut unpack = Command::new("tar");
        unpack
            .arg("-xzf")
            .arg(archive.path())
            .arg("--strip-components=1")
            .arg("-C")
            .arg(&unpacked);
        step(&format!("unpack {name}"), &mut unpack)?;
        // Whole or not at all.
        fs::rename(&unpacked, &place)?;
        fs::remove_dir_all(&packed)?;
    }
    Ok(())
}

/// The Pythons of this machine by their minor version: those on PATH, and pyenv's.
fn pythons() -> Vec<(u32, PathBuf)> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = env::split_paths(&path).collect();
    let pyenv = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".pyenv")));
    let versions = pyenv.map(|root| fs::read_dir(root.join("versions")));
    for version in versions.into_iter().flatten().flatten().flatten() {
        places.push(version.path().join("bin"));
    }
    let find = |minor| {
        let name = format!("python3.{minor}");
        let mut all = places.iter().map(|place| place.join(&name));
        Some((minor, all.find(|python| can_make_environments(python))?))
    };
    (8..=14).filter_map(find).collect()
}

/// Not so a shim of pyenv for a version that is not chosen, or a Python of Debian's without its venv.
fn can_make_environments(python: &Path) -> bool {
    let mut probe = Command::new(python);
    python.is_file()
        && probe
            .args(["-c", "import ensurepip, venv"])
            .output()
            .is_ok_and(|output| output.status.success())
}
