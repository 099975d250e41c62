//! What takes long to make and is kept: a directory with the recipe by which it was made beside it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const RECIPE: &str = "recipe";

/// Sees to it that `dir` holds what `make` makes by `recipe`: made anew if it is not there, or was made by
/// another recipe. `make` is given an empty directory, which takes the place of `dir` once it is done.
///
/// # Errors
/// Those of `make`, and of the file system.
pub(super) fn keep(dir: &Path, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if fs::read_to_string(dir.join(RECIPE)).is_ok_and(|made_by| made_by == recipe) {
        return Ok(());
    }
    let half_done = dir.with_added_extension("half-done");
    for old in [&half_done, dir] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
        }
    }
    fs::create_dir_all(&half_done)?;
    make(&half_done)?;
    fs::write(half_done.join(RECIPE), recipe)?;
    fs::rename(&half_done, dir).with_context(|| format!("making {}", dir.display()))
}
