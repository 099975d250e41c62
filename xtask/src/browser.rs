//! The browser that the pictures of incidents are looked at with: a Chromium of this machine, or Debian's. What is
//! tested with it is `tests/incidents/pictures.rs`'s.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::packages::apt_install;

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Where it is; installed if it is not there.
///
/// # Errors
/// If it cannot be had.
pub(crate) fn find() -> Result<PathBuf> {
    if let Some(program) = here() {
        return Ok(program);
    }
    apt_install(&["chromium"], "the browser for the pictures of incidents")?;
    here().context("chromium was installed and is not on PATH")
}

fn here() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let places: Vec<PathBuf> = env::split_paths(&path).collect();
    let mut all = NAMES
        .iter()
        .flat_map(|name| places.iter().map(move |place| place.join(name)));
    all.find(|program| program.is_file())
}
