//! Where memwatch keeps on disk what outlives it: incidents and the black box.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// root's, unless the service manager says otherwise (systemd.exec(5), StateDirectory=).
const STATE: &str = "/var/lib/memwatch";

/// The machine's: the daemon's, and that of who is root.
#[must_use]
pub fn state_dir_of_machine() -> PathBuf {
    let named = env::var_os("STATE_DIRECTORY").filter(|dir| !dir.is_empty());
    named.unwrap_or_else(|| OsString::from(STATE)).into()
}

/// A user's own: `$XDG_STATE_HOME/memwatch`, or `~/.local/state/memwatch`; `None` for who has no home.
#[must_use]
pub fn state_dir_of_user() -> Option<PathBuf> {
    let absolute = |dir: &OsString| Path::new(dir).is_absolute();
    let state = env::var_os("XDG_STATE_HOME")
        .filter(absolute)
        .map(PathBuf::from);
    let home = || Some(PathBuf::from(env::var_os("HOME").filter(absolute)?).join(".local/state"));
    Some(state.or_else(home)?.join("memwatch"))
}

/// That of whoever runs memwatch, if there can be one.
#[must_use]
pub fn state_dir() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        Some(state_dir_of_machine())
    } else {
        state_dir_of_user()
    }
}

/// Both, the machine's first.
#[must_use]
pub fn state_dirs() -> Vec<PathBuf> {
    [state_dir_of_machine()]
        .into_iter()
        .chain(state_dir_of_user())
        .collect()
}
