//! The plugin's bytecode, kept from one run for the next: Python takes longer to compile the plugin than to do
//! anything else at its start. Whose bytecode it is, and of which text, Python checks itself, by the size of the
//! file and the time of its last change (PEP 3147); so that time is made of the text.
//!
//! It lies in `$XDG_CACHE_HOME/memwatch/plugin`. What lies there is run, so it is taken only from a directory and
//! out of files that are this user's and that nobody else can write. Where that cannot be had, Python compiles.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where Python puts it, beside the text.
const BESIDE: &str = "__pycache__";
/// A file has the name of the Python that made it: as many are kept.
const PYTHONS: usize = 16;
/// Larger than any.
const AT_MOST: u64 = 1 << 20;

/// The time of the last change that a file with this text is given.
pub(super) fn time_of(text: &str) -> SystemTime {
    // FNV-1a.
    let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = text.bytes().fold(0x811c_9dc5, mix);
    // Python keeps 32 bits of the seconds; some file systems have no more than 31.
    UNIX_EPOCH + Duration::from_secs(u64::from(hash >> 1))
}

/// Where it is kept, by what the environment says.
pub(super) fn place(cache_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let below_home = || Some(home.and_then(absolute)?.join(".cache"));
    let cache = cache_home.and_then(absolute).or_else(below_home)?;
    // Not into somebody else's home, as sudo may leave it to root.
    let owner = fs::metadata(cache.parent()?).ok()?.uid();
    (owner == me()).then(|| cache.join("memwatch/plugin"))
}

/// Lays what was kept in `place` beside the text in `library`.
pub(super) fn lay_out(place: &Path, library: &Path) -> io::Result<()> {
    let kept = bytecode(place)?;
    fs::create_dir(library.join(BESIDE))?;
    for (name, bytes) in kept {
        fs::write(library.join(BESIDE).join(name), bytes)?;
    }
    Ok(())
}

/// Keeps in `place` what Python has made in `library` and is not there yet.
pub(super) fn keep(place: &Path, library: &Path) -> io::Result<()> {
    let made = bytecode(&library.join(BESIDE))?;
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(place)?;
    let kept = bytecode(place)?;
    for (name, bytes) in made {
        let is_kept = |(other, same): &(OsString, Vec<u8>)| *other == name && *same == bytes;
        if kept.iter().any(is_kept) {
            continue;
        }
        let file = tempfile::NamedTempFile::new_in(place)?;
        fs::write(file.path(), &bytes)?;
        file.as_file().sync_data()?;
        file.persist(place.join(name))?;
    }
    Ok(())
}

/// All that lies in `dir`, if that is ours alone.
fn bytecode(dir: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let opened = open(dir, libc::O_DIRECTORY)?;
    if !is_ours_alone(&opened)? {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let is_bytecode = |name: &OsString| Path::new(name).extension() == Some(OsStr::new("pyc"));
    let names = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let mut found = Vec::new();
    for name in names.filter(is_bytecode).take(PYTHONS) {
        let file = open(&dir.join(&name), libc::O_NONBLOCK)?;
        if is_ours_alone(&file)? && file.metadata()?.is_file() {
            let mut bytes = Vec::new();
            file.take(AT_MOST).read_to_end(&mut bytes)?;
            found.push((name, bytes));
        }
    }
    Ok(found)
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(flags | libc::O_NOFOLLOW)
        .open(path)
}

fn is_ours_alone(file: &File) -> io::Result<bool> {
    let about = file.metadata()?;
    Ok(about.uid() == me() && about.mode() & 0o022 == 0)
}

fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NAME: &str = "memwatch_pytest.cpython-313.pyc";

    /// A place to keep it, a library in which Python has made `bytes`, and another without.
    fn made(bytes: &str) -> (tempfile::TempDir, PathBuf, PathBuf, PathBuf) {
        let root = tempfile::tempdir().expect("a directory");
        let [place, first, second] =
            ["cache/memwatch/plugin", "first", "second"].map(|name| root.path().join(name));
        fs::create_dir_all(first.join(BESIDE)).expect("room");
        fs::create_dir(&second).expect("room");
        fs::write(first.join(BESIDE).join(NAME), bytes).expect("room");
        (root, place, first, second)
    }

    #[test]
    fn what_one_run_made_the_next_one_finds() {
        let (_root, place, first, second) = made("new");
        keep(&place, &first).expect("kept");
        lay_out(&place, &second).expect("laid out");
        let laid_out = fs::read_to_string(second.join(BESIDE).join(NAME));
        assert_eq!(laid_out.expect("there"), "new");
        fs::write(first.join(BESIDE).join(NAME), "newer").expect("room");
        keep(&place, &first).expect("kept");
        let kept = fs::read_to_string(place.join(NAME));
        assert_eq!(kept.expect("there"), "newer");
    }

    #[test]
    fn what_others_could_have_written_is_not_taken() {
        let (_root, place, first, second) = made("new");
        keep(&place, &first).expect("kept");
        fs::set_permissions(place.join(NAME), fs::Permissions::from_mode(0o666)).expect("ours");
        lay_out(&place, &second).expect("without it");
        assert!(!second.join(BESIDE).join(NAME).exists());
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).expect("ours");
        let third = second.join("third");
        fs::create_dir(&third).expect("room");
        lay_out(&place, &third).expect_err("refused");
        let link = second.join("link");
        std::os::unix::fs::symlink(&place, &link).expect("room");
        lay_out(&link, &third).expect_err("refused");
    }

    #[test]
    fn another_text_has_another_time() {
        assert_ne!(time_of("a = 1\n"), time_of("a = 2\n"));
        assert_eq!(time_of("a = 1\n"), time_of("a = 1\n"));
    }

    #[test]
    fn it_is_kept_where_the_specification_says_and_nowhere_in_anothers_home() {
        let root = tempfile::tempdir().expect("a directory");
        let home = root.path().as_os_str().to_owned();
        let below = root.path().join(".cache/memwatch/plugin");
        assert_eq!(place(None, Some(home.clone())), Some(below));
        let cache = root.path().join("c").into_os_string();
        let below = root.path().join("c/memwatch/plugin");
        assert_eq!(place(Some(cache), Some(home)), Some(below));
        assert_eq!(place(Some("c".into()), None), None);
        if me() != 0 {
            assert_eq!(place(None, Some("/".into())), None);
        }
    }
}
