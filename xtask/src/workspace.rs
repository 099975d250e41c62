//! Where things are in this repository, and how chores run other programs in it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The top directory of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// Where cargo builds; chores keep all that they make below it.
pub(crate) fn target_dir() -> PathBuf {
    let chosen = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    root().join(chosen.unwrap_or_else(|| "target".into()))
}

/// A cargo command in the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Runs a command with its output on the screen, under a headline with the time it took.
///
/// # Errors
/// If it cannot be started, or fails.
pub(crate) fn step(headline: &str, command: &mut Command) -> Result<()> {
    println!("\n── {headline}");
    let started = Instant::now();
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot start `{program}`"))?;
    if !status.success() {
        bail!("{headline}: `{program}` failed ({status})");
    }
    println!("── {headline}: {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// The programs as users get them: built for release, as timing is part of what they promise.
pub(crate) struct Release {
    pub(crate) memwatch: PathBuf,
    pub(crate) workload: PathBuf,
}

impl Release {
    /// # Errors
    /// If the build fails.
    pub(crate) fn build() -> Result<Self> {
        let mut build = cargo(&["build", "--release", "-p", "memwatch", "-p", "xtask"]);
        step(
            "build memwatch",
            build.args(["--bin", "memwatch", "--example", "workload"]),
        )?;
        let release = target_dir().join("release");
        Ok(Self {
            memwatch: release.join("memwatch"),
            workload: release.join("examples/workload"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::root;

    /// All source of the repository that is not below a build directory.
    fn source(dir: &std::path::Path, into: &mut String) {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() && name != "target" && name != ".git" {
                source(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&fs::read_to_string(&path).expect("text"));
            }
        }
    }

    #[test]
    fn every_test_that_the_specification_names_is_there() {
        let specification = fs::read_to_string(root().join("docs/SPECIFICATION.md")).expect("text");
        let mut code = String::new();
        source(root(), &mut code);
        let is_test = |word: &&str| word.matches('_').count() >= 3 && !word.contains(['/', '.']);
        let named: Vec<_> = specification
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(is_test)
            .collect();
        assert!(named.len() > 10, "{named:?}");
        for name in named {
            assert!(code.contains(&format!("fn {name}(")), "no test {name}");
        }
    }
    #[test]
    fn every_file_that_the_specification_names_is_there() {
        let specification = fs::read_to_string(root().join("docs/SPECIFICATION.md")).expect("text");
        let words = specification.split('`').skip(1).step_by(2);
        let named: Vec<_> = words.filter(|word| word.starts_with("tests/")).collect();
        assert!(named.len() > 5, "{named:?}");
        for name in named {
            assert!(root().join(name).exists(), "no {name}");
        }
    }
}
