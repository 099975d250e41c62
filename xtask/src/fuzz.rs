//! `cargo xtask fuzz`: made-up input for every parser that reads what others wrote. What must hold is said by
//! `memwatch::fuzzing`, the programs are in `tests/fuzz`; this builds and runs them, and keeps what they find.
//!
//! The engine is libFuzzer, from a crate. Its compiler flags are stable ones, so that the toolchain that builds memwatch
//! does, without cargo-fuzz; a C++ compiler is needed for the engine itself.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::packages::apt_install;
use crate::workspace::{cargo, root, step, target_dir};

/// What has the compiler count the ways that an input takes, as cargo-fuzz says it.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

/// What no input may take. Most need some 40 MiB and less than a millisecond.
const LIMITS: &[&str] = &["-rss_limit_mb=1024", "-malloc_limit_mb=256", "-timeout=10"];

/// The longest input that is kept in the repository by itself.
const KEPT_BYTES: u64 = 512;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these targets; all of them if none is named.
    targets: Vec<String>,
    /// How long each is run.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How many are run at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    at_a_time: u8,
    /// Afterwards put what reaches more of the code into the corpus in `tests/fuzz`, as few inputs as do.
    #[arg(long)]
    keep: bool,
}

/// Builds the targets and runs them.
///
/// # Errors
/// If something does not hold; what it was is kept.
pub(crate) fn run(args: &Args) -> Result<()> {
    let all = targets()?;
    for name in &args.targets {
        ensure!(
            all.contains(name),
            "no target {name}; there are {}",
            all.join(", ")
        );
    }
    let chosen = if args.targets.is_empty() {
        all
    } else {
        args.targets.clone()
    };
    let programs = build()?;
    println!("\n── {} targets, {} s each", chosen.len(), args.seconds);
    let waiting = Mutex::new(VecDeque::from(chosen));
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..args.at_a_time {
            scope.spawn(|| {
                while let Some(name) = next(&waiting) {
                    let target = Target::new(&name, &programs);
                    if let Err(error) = target.run(args) {
                        println!("{name}: {error:#}");
                        failed.lock().expect("no panic").push(name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    ensure!(
        failed.is_empty(),
        "something does not hold: {}",
        failed.join(", ")
    );
    Ok(())
}

fn next(waiting: &Mutex<VecDeque<String>>) -> Option<String> {
    waiting.lock().expect("no panic").pop_front()
}

/// The names of the targets.
fn targets() -> Result<Vec<String>> {
    let dir = root().join("tests/fuzz/targets");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let name = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let mut names: Vec<_> = entries
        .filter_map(|entry| name(entry.ok()?.path()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds all targets; the directory that they are in.
fn build() -> Result<PathBuf> {
    if Command::new("c++").arg("--version").output().is_err() {
        apt_install(&["g++"], "a C++ compiler for libFuzzer")?;
    }
    let triple = host_triple()?;
    let place = target_dir().join("fuzz");
    let mut build = cargo(&["build", "--manifest-path", "tests/fuzz/Cargo.toml"]);
    build
        // With a triple, what runs at build time is built without the flags.
        .args(["--target", &triple, "--target-dir"])
        .arg(&place)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    step("build the fuzz targets", &mut build)?;
    Ok(place.join(triple).join("debug"))
}

fn host_triple() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("cannot start `rustc`")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}

/// One program and its places.
struct Target {
    name: String,
    program: PathBuf,
    /// What the repository keeps.
    kept: PathBuf,
    /// What was found here so far.
    found: PathBuf,
    artifacts: PathBuf,
}

impl Target {
    fn new(name: &str, programs: &Path) -> Self {
        let place = target_dir().join("fuzz");
        Self {
            name: name.to_owned(),
            program: programs.join(name),
            kept: root().join("tests/fuzz/corpus").join(name),
            found: place.join("found").join(name),
            artifacts: place.join("artifacts").join(name),
        }
    }

    fn run(&self, args: &Args) -> Result<()> {
        fs::create_dir_all(&self.found)?;
        fs::create_dir_all(&self.artifacts)?;
        let mut fuzz = self.command();
        fuzz.arg(format!("-max_total_time={}", args.seconds))
            .args([&self.found, &self.kept]);
        let output = output(&mut fuzz)?;
        let log = String::from_utf8_lossy(&output.stderr);
        fs::write(self.found.with_extension("log"), log.as_bytes())?;
        if !output.status.success() {
            bail!("{}\n{}", self.what_went_wrong(&log), output.status);
        }
        println!("{}: {}", self.name, figures(&log).unwrap_or("no figures"));
        if args.keep {
            self.keep()?;
        }
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.artifacts)
            .args(LIMITS)
            .arg("-print_funcs=0")
            .arg(format!("-artifact_prefix={}/", self.artifacts.display()));
        command
    }

    /// Adds to what is kept, as few and short inputs as reach what is not reached yet.
    fn keep(&self) -> Result<()> {
        let short = self.found.with_extension("short");
        // What is there of an earlier time is old.
        let _ = fs::remove_dir_all(&short);
        fs::create_dir(&short)?;
        for entry in fs::read_dir(&self.found)? {
            let entry = entry?;
            if entry.metadata()?.len() <= KEPT_BYTES {
                fs::copy(entry.path(), short.join(entry.file_name()))?;
            }
        }
        let mut merge = self.command();
        // How often a place is reached tells no defect from another.
        merge
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .args([&self.kept, &short]);
        let output = output(&mut merge)?;
        ensure!(
            output.status.success(),
            "libFuzzer could not merge ({})",
            output.status
        );
        Ok(())
    }

    /// What was panicked about, and how to see it again.
    fn what_went_wrong(&self, log: &str) -> String {
        let about = log
            .find("panicked at")
            .or_else(|| log.find("ERROR: libFuzzer"));
        let story: Vec<_> = log[about.unwrap_or(0)..].lines().take(40).collect();
        let artifact = log
            .lines()
            .find_map(|line| line.split_once("Test unit written to "))
            .map_or("no input was kept", |(_, path)| path);
        format!(
            "{}\n\nIt was this input: {artifact}\nAgain: {} {artifact}\nWhen it holds, keep the input for \
             `cargo test`: cp {artifact} {}",
            story.join("\n"),
            self.program.display(),
            self.kept.display(),
        )
    }
}

fn output(command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .output()
        .with_context(|| format!("cannot start `{program}`"))
}

/// `#1677 DONE cov: 1737 ft: 4881 corp: 369/76Kb lim: 794 exec/s: 129 rss: 34Mb`: runs, places reached, ways through
/// them, inputs.
fn figures(log: &str) -> Option<&str> {
    log.lines()
        .rev()
        .find(|line| line.starts_with('#') && line.contains(" cov: "))
}

#[cfg(test)]
mod tests {
    use super::{figures, targets};

    #[test]
    fn figures_are_the_last_ones() {
        let log = "#2\tINITED cov: 5 ft: 5\n#7\tNEW    cov: 6 ft: 8\n#9\tDONE   cov: 7 ft: 9\nDone 9 runs\n";
        assert_eq!(figures(log), Some("#9\tDONE   cov: 7 ft: 9"));
        assert_eq!(figures(""), None);
    }

    #[test]
    fn there_are_targets() {
        let names = targets().expect("a directory");
        assert!(names.contains(&"host".to_owned()), "{names:?}");
    }
}
