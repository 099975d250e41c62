//! The directory of a run in which the plugin lies and writes: made, found again by the plugin from its own
//! path, and removed at the end.
//!
//! It belongs to whoever runs the command, is open to nobody else, and has a name that cannot be guessed. It
//! lies in memory where that can be had: what the plugin writes must not wait for a disk under pressure.

use super::{PLUGIN, bytecode};
use crate::host::clock;
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Names of such directories begin so.
const PREFIX: &str = "memwatch-run-";
/// Where the plugin lies in it.
const LIBRARY: &str = "lib";
/// The most that is read of one process's results: some 400 bytes for a test.
const RESULTS_AT_MOST: u64 = 64 << 20;
/// The most that is read of its stacks.
const STACKS_AT_MOST: u64 = 256 << 10;

/// What the plugin is told about the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// The most by which one test may grow.
    pub test_memory_bytes: Option<u64>,
    /// The longest that one test may take.
    pub test_timeout_us: Option<u64>,
    /// The longest that one test may take, whatever its marker says.
    pub longest_test_us: Option<u64>,
    /// The most workers of pytest-xdist.
    pub workers: Option<u64>,
    /// What a test may not leave behind.
    pub fail_on_leak: Vec<String>,
}

/// The directory could not be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot make the directory for pytest's plugin in {}: {source}; free it, or set XDG_RUNTIME_DIR to a directory of your own",
    place.display()
)]
pub struct HomeError {
    /// Where it was to be.
    pub place: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// The directory. Removed when it is dropped.
#[derive(Debug)]
pub struct Home {
    dir: tempfile::TempDir,
    /// Where the plugin's bytecode is kept.
    bytecode: Option<PathBuf>,
    /// Locked, so that who comes later can tell that its memwatch lives.
    _lock: File,
}

impl Home {
    /// Makes one, and removes those that a memwatch left behind which is no more.
    ///
    /// # Errors
    /// No place takes it.
    pub fn make(terms: &Terms) -> Result<Self, HomeError> {
        let place = place();
        sweep(&place);
        let failed = |source| HomeError {
            place: place.clone(),
            source,
        };
        // Until it is locked, the sweep of another memwatch takes it for left behind.
        let (dir, lock) = loop {
            let dir = tempfile::Builder::new()
                .prefix(PREFIX)
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir_in(&place)
                .map_err(failed)?;
            if let Some(lock) = claim(dir.path()).map_err(failed)? {
                break (dir, lock);
            }
        };
        fill(dir.path(), terms).map_err(failed)?;
        let bytecode =
            bytecode::place(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"));
        if let Some(bytecode) = &bytecode {
            // Nothing was kept, or not for us: Python compiles.
            let _ = bytecode::lay_out(bytecode, &dir.path().join(LIBRARY));
        }
        Ok(Self {
            dir,
            bytecode,
            _lock: lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What the command's environment must hold, beside what it holds already: that is what `inherited` tells.
    #[must_use]
    pub fn environment(
        &self,
        inherited: impl Fn(&str) -> Option<OsString>,
    ) -> Vec<(&'static str, OsString)> {
        let library = self.path().join(LIBRARY);
        let mut variables = vec![
            (
                "PYTHONPATH",
                before(library.as_os_str(), ":", inherited("PYTHONPATH")),
            ),
            ("MEMWATCH_RUN", self.path().as_os_str().to_owned()),
        ];
        // tox starts tests in an environment of its own.
        // The same section in tox.ini and setup.cfg, in tox.toml, and in pyproject.toml.
        const TOX: &str = "testenv.pass_env+=PYTHONPATH;env_run_base.pass_env+=PYTHONPATH;\
                           tool.tox.env_run_base.pass_env+=PYTHONPATH";
        variables.push((
            "TOX_OVERRIDE",
            before(OsStr::new(TOX), ";", inherited("TOX_OVERRIDE")),
        ));
        // Without its entry points pytest loads what it is told to. Only then: a plugin that is named and
        // cannot be found, as under `python -I`, ends the run.
        if inherited("PYTEST_DISABLE_PLUGIN_AUTOLOAD").is_some_and(|value| !value.is_empty()) {
            let mut options = inherited("PYTEST_ADDOPTS").unwrap_or_default();
            options.push(" -p memwatch_pytest");
            variables.push(("PYTEST_ADDOPTS", options));
        }
        variables
    }

    /// Pids of the processes that have a slot.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let entries = fs::read_dir(self.path().join("slots"))
            .into_iter()
            .flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        names.collect()
    }

    /// The slot of a process, to read again and again.
    ///
    /// # Errors
    /// There is none, or something else in its place.
    pub fn open_slot(&self, pid: u32) -> io::Result<File> {
        open(&self.file("slots", pid))
    }

    /// What a process told of its tests so far.
    ///
    /// # Errors
    /// As for [`Home::open_slot`].
    pub fn results(&self, pid: u32) -> io::Result<Vec<u8>> {
        read(&self.file("results", pid), RESULTS_AT_MOST)
    }

    /// The Python stacks that a process wrote, whenever it was asked.
    ///
    /// # Errors
    /// As for [`Home::open_slot`].
    pub fn stacks(&self, pid: u32) -> io::Result<Vec<u8>> {
        read(&self.file("stacks", pid), STACKS_AT_MOST)
    }

    /// Puts down, for the process to read, that the test of that serial is to fail.
    ///
    /// # Errors
    /// No room, or the directory is gone.
    pub fn ask_to_fail(&self, pid: u32, serial: u64, why: &str) -> io::Result<()> {
        #[derive(Serialize)]
        struct Request<'a> {
            serial: u64,
            /// Now, on the monotonic clock: how long the answer takes is told by who gives it.
            at_ns: u64,
            why: &'a str,
        }
        let at_ns = clock::now().as_nanos() as u64;
        let mut file = tempfile::NamedTempFile::new_in(self.path().join("abort"))?;
        serde_json::to_writer(&mut file, &Request { serial, at_ns, why })?;
        file.persist(self.file("abort", pid))?;
        Ok(())
    }

    /// Puts down that a test's process was killed: no other process of the run tries it again.
    ///
    /// # Errors
    /// No room, or the directory is gone.
    pub fn tell_ended(&self, ended: &Ended<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(ended)?;
        line.push(b'\n');
        let mut file = OpenOptions::new()
            .append(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.path().join("ended"))?;
        file.write_all(&line)
    }

    fn file(&self, kind: &str, pid: u32) -> PathBuf {
        self.path().join(kind).join(pid.to_string())
    }
}

impl Home {
    /// Keeps the bytecode and removes the directory, though somebody may look at it still: who does finds nothing. A
    /// thread that looks may be the last to let go of this, and the process may end before it does.
    pub fn close(&self) {
        if let Some(bytecode) = &self.bytecode {
            // On a full disk the next run's Python compiles again.
            let _ = bytecode::keep(bytecode, &self.path().join(LIBRARY));
        }
        // What cannot be removed the next memwatch sweeps.
        let _ = fs::remove_dir_all(self.path());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.path().exists() {
            self.close();
        }
    }
}

/// A test whose process was killed; without an id, a process that ran none.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ended<'a> {
    /// Its node id.
    pub id: &'a str,
    /// The process.
    pub pid: u32,
    /// The worker of pytest-xdist that it was; empty without.
    pub worker: &'a str,
    /// Why it was killed.
    pub why: &'a str,
    /// Whether it only happened to run when another test's leavings were too much.
    pub bystander: bool,
}

/// Memory before disk: the user's own directory for a session, then the machine's.
fn place() -> PathBuf {
    let mine = |dir: &Path| {
        fs::metadata(dir)
            .is_ok_and(|about| about.is_dir() && about.uid() == nix::unistd::geteuid().as_raw())
    };
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    if let Some(dir) = session.filter(|dir| dir.is_absolute() && mine(dir)) {
        return dir;
    }
    let shared = Path::new("/dev/shm");
    let writable = nix::unistd::access(shared, nix::unistd::AccessFlags::W_OK).is_ok();
    if writable {
        shared.to_owned()
    } else {
        std::env::temp_dir()
    }
}

fn fill(dir: &Path, terms: &Terms) -> io::Result<()> {
    let library = dir.join(LIBRARY);
    let info = library.join(format!(
        "pytest_memwatch-{}.dist-info",
        env!("CARGO_PKG_VERSION")
    ));
    let places = ["slots", "results", "stacks", "abort"].map(|name| dir.join(name));
    for made in [&library, &info].into_iter().chain(&places) {
        fs::create_dir(made)?;
    }
    // By this coverage takes what lies below for somebody else's. It would measure the plugin as the suite's own
    // code otherwise, and not find it any more when it reports.
    fs::write(dir.join("pyvenv.cfg"), "")?;
    let plugin = library.join("memwatch_pytest.py");
    fs::write(&plugin, PLUGIN)?;
    let file = OpenOptions::new().write(true).open(&plugin)?;
    file.set_modified(bytecode::time_of(PLUGIN))?;
    fs::write(info.join("METADATA"), metadata())?;
    // The name of the entry must be the module's: pytest takes it for the same plugin then, however it was
    // asked for.
    fs::write(info.join("entry_points.txt"), ENTRY_POINTS)?;
    fs::write(dir.join("ended"), "")?;
    fs::write(dir.join("run.json"), serde_json::to_vec(terms)?)
}

/// By which pytest finds the plugin.
pub const ENTRY_POINTS: &str = "[pytest11]\nmemwatch_pytest = memwatch_pytest\n";

fn metadata() -> String {
    format!(
        "Metadata-Version: 2.1\nName: pytest-memwatch\nVersion: {}\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Removes what belongs to nobody any more.
fn sweep(place: &Path) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()))
    {
        let is_mine = entry
            .metadata()
            .is_ok_and(|about| about.is_dir() && about.uid() == nix::unistd::geteuid().as_raw());
        if !is_mine {
            continue;
        }
        // Held until it is gone: whoever has just made it must not get it.
        if let Ok(lock) = File::open(entry.path())
            && try_lock(&lock).is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Becomes the owner of a directory that was just made; `None` if a sweep was quicker.
fn claim(dir: &Path) -> io::Result<Option<File>> {
    let lock = match File::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match try_lock(&lock) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        // Where there are no locks nobody sweeps.
        Ok(()) | Err(_) => {}
    }
    // Of one that is removed the lock can be had, too.
    let identity = |about: fs::Metadata| (about.dev(), about.ino());
    let is_there = fs::metadata(dir).ok().map(identity) == lock.metadata().ok().map(identity);
    Ok(is_there.then_some(lock))
}

/// The kernel drops the lock with the process.
fn try_lock(dir: &File) -> io::Result<()> {
    // SAFETY: a descriptor of ours and no pointers.
    match unsafe { libc::flock(dir.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

fn read(path: &Path, at_most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(at_most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A path list or the like with one more in front; without an empty element, which would be a directory, too.
fn before(first: &OsStr, separator: &str, rest: Option<OsString>) -> OsString {
    let mut whole = first.to_owned();
    if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
        whole.push(separator);
        whole.push(rest);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(home: &Home, inherited: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let find = |name: &str| {
            let found = inherited.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let all = home.environment(find).into_iter();
        all.map(|(name, value)| (name, value.into_string().expect("text")))
            .collect()
    }

    #[test]
    fn it_is_mine_alone_and_goes_when_it_is_dropped() {
        let home = Home::make(&Terms::default()).expect("a place");
        let about = fs::metadata(home.path()).expect("made");
        assert_eq!(about.mode() & 0o777, 0o700);
        assert!(home.path().join("lib/memwatch_pytest.py").is_file());
        let path = home.path().to_owned();
        sweep(path.parent().expect("in a place"));
        assert!(path.exists(), "its owner lives");
        drop(home);
        assert!(!path.exists());
    }

    #[test]
    fn a_closed_one_is_gone_though_somebody_looks_at_it() {
        let home = std::sync::Arc::new(Home::make(&Terms::default()).expect("a place"));
        let looking = std::sync::Arc::clone(&home);
        home.close();
        assert!(!looking.path().exists());
        assert!(looking.processes().is_empty());
        home.close();
    }

    #[test]
    fn what_a_dead_one_left_is_swept() {
        let home = Home::make(&Terms::default()).expect("a place");
        let place = home.path().parent().expect("in a place").to_owned();
        let left = place.join(format!("{PREFIX}left-by-a-test-{}", std::process::id()));
        fs::create_dir(&left).expect("room");
        // Another test may be sweeping it, and has not come to its end yet.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while left.exists() {
            assert!(std::time::Instant::now() < until, "nobody sweeps it");
            drop(Home::make(&Terms::default()));
        }
    }

    #[test]
    fn of_many_that_start_at_once_none_takes_anothers() {
        let make = || {
            for _ in 0..200 {
                let home = Home::make(&Terms::default()).expect("a place");
                let plugin = home.path().join("lib/memwatch_pytest.py");
                assert!(plugin.is_file(), "{} is swept", home.path().display());
                assert!(home.path().join("run.json").is_file());
            }
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            for one in all {
                one.join().expect("all were whole");
            }
        });
    }

    #[test]
    fn the_environment_keeps_what_was_there_and_adds_no_empty_element() {
        let home = Home::make(&Terms::default()).expect("a place");
        let dir = home.path().join("lib");
        let dir = dir.to_str().expect("text");
        for (inherited, path) in [
            (&[][..], dir.to_owned()),
            (&[("PYTHONPATH", "")][..], dir.to_owned()),
            (&[("PYTHONPATH", "/a:/b")][..], format!("{dir}:/a:/b")),
        ] {
            let variables = environment(&home, inherited);
            assert_eq!(variables[0], ("PYTHONPATH", path));
            assert!(variables.iter().all(|(name, _)| *name != "PYTEST_ADDOPTS"));
        }
        let inherited = [
            ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
            ("PYTEST_ADDOPTS", "-x"),
        ];
        let variables = environment(&home, &inherited);
        assert_eq!(
            variables.last(),
            Some(&("PYTEST_ADDOPTS", "-x -p memwatch_pytest".to_owned()))
        );
    }

    #[test]
    fn a_link_or_a_fifo_in_place_of_a_file_is_not_followed() {
        let home = Home::make(&Terms::default()).expect("a place");
        std::os::unix::fs::symlink("/etc/passwd", home.file("slots", 7)).expect("room");
        assert!(home.open_slot(7).is_err());
        nix::unistd::mkfifo(&home.file("results", 7), nix::sys::stat::Mode::S_IRWXU).expect("room");
        assert!(home.results(7).is_err());
        assert_eq!(home.processes(), [7]);
    }

    #[test]
    fn a_request_and_the_ended_are_lines_that_the_plugin_reads() {
        let home = Home::make(&Terms::default()).expect("a place");
        home.ask_to_fail(7, 3, "too \"much\"").expect("room");
        let request = fs::read_to_string(home.file("abort", 7)).expect("written");
        assert!(request.starts_with(r#"{"serial":3,"at_ns":"#), "{request}");
        assert!(request.ends_with(r#","why":"too \"much\""}"#), "{request}");
        let ended = Ended {
            id: "t.py::a",
            pid: 7,
            worker: "gw0",
            why: "w",
            bystander: false,
        };
        home.tell_ended(&ended).expect("room");
        home.tell_ended(&ended).expect("room");
        let lines = fs::read_to_string(home.path().join("ended")).expect("written");
        assert_eq!(lines.lines().count(), 2);
    }
}
