//! What a boot brings and takes: a disk with the package and scenarios, and one for what they leave. All
//! disks are made and read without a mount or a loop device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::output;
use super::scenario::Scenario;
use crate::workspace::root;

/// The label of the disk with the package, and where it is in a guest.
pub(super) const PAYLOAD: &str = "payload";
/// The same for what comes back.
pub(super) const OUT: &str = "out";

/// Images are sparse, so room costs nothing.
const SIZE: &str = "256M";

/// A disk with these files and all scenarios, made below `dir`, and the list of those that are to run.
///
/// # Errors
/// If it cannot be made.
pub(super) fn payload(dir: &Path, files: &[&Path], list: &[&Scenario]) -> Result<PathBuf> {
    let tree = empty(dir.join(PAYLOAD))?;
    for file in files {
        fs::copy(file, tree.join(file.file_name().context("a name")?))?;
    }
    let mut scenarios = Command::new("cp");
    scenarios.arg("--recursive").arg(root().join("tests/vm"));
    output(scenarios.arg(tree.join("scenarios")))?;
    let lines = list
        .iter()
        .map(|scenario| format!("{} {}\n", scenario.name, scenario.limit.as_secs()));
    fs::write(tree.join("list"), lines.collect::<String>())?;
    let image = dir.join("payload.image");
    let options = [&WITHOUT_JOURNAL[..], &["-L", PAYLOAD]].concat();
    file_system(&options, &tree, &image, SIZE)?;
    Ok(image)
}

/// An empty disk, made below `dir`, for what scenarios leave.
///
/// # Errors
/// If it cannot be made.
pub(super) fn out(dir: &Path) -> Result<PathBuf> {
    let image = dir.join("out.image");
    file_system(&["-L", OUT], &empty(dir.join("nothing"))?, &image, SIZE)?;
    Ok(image)
}

/// Copies the directories of these scenarios from a disk to `dir`, as far as they are there.
///
/// # Errors
/// If the disk cannot be read at all.
pub(super) fn take(image: &Path, scenarios: &[&str], dir: &Path) -> Result<()> {
    for name in scenarios {
        let dump = format!("rdump /{name} {}", dir.display());
        output(Command::new("debugfs").args(["-R", &dump]).arg(image))?;
    }
    Ok(())
}

/// Most of these disks live once; the one that scenarios write to outlives the power cuts that they ask for, as users'
/// disks do.
pub(super) const WITHOUT_JOURNAL: [&str; 2] = ["-O", "^has_journal"];

/// An ext4 with what is below `tree`.
///
/// # Errors
/// If it cannot be made.
pub(super) fn file_system(options: &[&str], tree: &Path, image: &Path, size: &str) -> Result<()> {
    if image.exists() {
        fs::remove_file(image)?;
    }
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-m", "0"]);
    mke2fs.args(options).arg("-d").arg(tree);
    output(mke2fs.arg(image).arg(size)).map(drop)
}

fn empty(dir: PathBuf) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir(&dir)?;
    Ok(dir)
}
