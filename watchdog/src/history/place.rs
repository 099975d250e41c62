//! Where the history lies if nobody says so, and whose runs belong together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::incident::Text;

/// Neither variable names a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither XDG_STATE_HOME nor HOME is set; say where the history lies with --db FILE")]
pub struct PlaceError;

/// `$XDG_STATE_HOME/memwatch/history.db`, or the same below `~/.local/state`. As the XDG specification has it, a
/// path that is not absolute does not count.
///
/// # Errors
/// Neither variable is set to an absolute path.
pub fn default_file(
    xdg_state_home: Option<OsString>,
    home: Option<OsString>,
) -> Result<PathBuf, PlaceError> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let state = xdg_state_home.and_then(absolute);
    let below_home = || Some(home.and_then(absolute)?.join(".local/state"));
    let state = state.or_else(below_home).ok_or(PlaceError)?;
    Ok(state.join("memwatch/history.db"))
}

/// The project that `directory` belongs to: the nearest directory above it, or itself, that is a working copy
/// of git's, or `directory` where there is none.
#[must_use]
pub fn project_of(directory: &Path) -> Text {
    let root = directory.ancestors().find(|dir| dir.join(".git").exists());
    Text::of_name(root.unwrap_or(directory).as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_where_the_specification_says() {
        let file = |state: Option<&str>, home: Option<&str>| {
            default_file(state.map(OsString::from), home.map(OsString::from))
        };
        let path = |path: &str| Ok(PathBuf::from(path));
        assert_eq!(file(Some("/s"), Some("/h")), path("/s/memwatch/history.db"));
        assert_eq!(
            file(None, Some("/h")),
            path("/h/.local/state/memwatch/history.db")
        );
        assert_eq!(
            file(Some("s"), Some("/h")),
            path("/h/.local/state/memwatch/history.db")
        );
        assert_eq!(file(Some(""), None), Err(PlaceError));
    }

    #[test]
    fn a_project_is_its_working_copy() {
        let dir = tempfile::tempdir().expect("a directory");
        let below = dir.path().join("a/b");
        std::fs::create_dir_all(&below).expect("made");
        let name = |path: &Path| Text::of_name(path.as_os_str().as_encoded_bytes());
        assert_eq!(project_of(&below), name(&below));
        std::fs::create_dir(dir.path().join("a/.git")).expect("made");
        assert_eq!(project_of(&below), name(&dir.path().join("a")));
    }
}
