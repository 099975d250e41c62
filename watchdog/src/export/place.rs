//! Where memwatch's state is: the incidents, and what has become of them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The machine's.
pub const OF_THE_MACHINE: &str = "/var/lib/memwatch";

/// No variable names a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither XDG_STATE_HOME nor HOME is set; say where incidents are kept with MEMWATCH_STATE")]
pub struct PlaceError;

/// Of a service: what the service manager made for it (systemd.exec(5), StateDirectory=).
///
/// # Errors
/// As for [`of_a_run`].
pub fn of_a_service() -> Result<PathBuf, PlaceError> {
    match (set("MEMWATCH_STATE"), set("STATE_DIRECTORY")) {
        (None, Some(ours)) => Ok(first(&ours)),
        _ => of_a_run(),
    }
}

/// Of a command: the machine's for root, and everybody else's own.
///
/// # Errors
/// It is not known where the user's state is.
pub fn of_a_run() -> Result<PathBuf, PlaceError> {
    let is_root = nix::unistd::geteuid().is_root();
    choose(
        set("MEMWATCH_STATE"),
        is_root,
        set("XDG_STATE_HOME"),
        set("HOME"),
    )
}

fn choose(
    named: Option<OsString>,
    is_root: bool,
    xdg_state_home: Option<OsString>,
    home: Option<OsString>,
) -> Result<PathBuf, PlaceError> {
    if let Some(named) = named {
        return Ok(named.into());
    }
    if is_root {
        return Ok(OF_THE_MACHINE.into());
    }
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let state = xdg_state_home.and_then(absolute);
    let below_home = || Some(home.and_then(absolute)?.join(".local/state"));
    Ok(state
        .or_else(below_home)
        .ok_or(PlaceError)?
        .join("memwatch"))
}

/// Of several, with colons between.
fn first(list: &OsString) -> PathBuf {
    env::split_paths(list)
        .next()
        .unwrap_or_else(|| Path::new(OF_THE_MACHINE).to_owned())
}

fn set(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_then_the_machines_for_root_and_the_users_for_users() {
        let place = |named: Option<&str>, is_root, xdg: &str| {
            let xdg = Some(xdg.into());
            choose(named.map(OsString::from), is_root, xdg, Some("/h".into()))
        };
        assert_eq!(place(Some("n"), true, "/s"), Ok("n".into()));
        assert_eq!(place(None, true, "/s"), Ok(OF_THE_MACHINE.into()));
        assert_eq!(place(None, false, "/s"), Ok("/s/memwatch".into()));
        let below_home = "/h/.local/state/memwatch";
        assert_eq!(place(None, false, "relative"), Ok(below_home.into()));
        assert_eq!(choose(None, false, None, None), Err(PlaceError));
        assert_eq!(first(&"/a:/b".into()), Path::new("/a"));
    }
}
