//! What is re-read of systemd-oomd and of what it manages: opened by a slow thread, read by the deciding one.

use super::{Look, parse_look};
use crate::host::psi;
use crate::host::reread::{OpenError, Reread};
use crate::host::text;
use std::io;
use std::path::{Path, PathBuf};

/// The process of systemd-oomd.
#[derive(Debug)]
pub struct PeerFiles {
    /// Its id.
    pub pid: u32,
    stat: Reread,
    status: Reread,
}

impl PeerFiles {
    /// Opens `/proc/PID/stat` and `status`, which never take the process's mmap lock.
    ///
    /// # Errors
    /// It is gone.
    pub fn open(pid: u32) -> Result<Self, OpenError> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        Ok(Self {
            pid,
            stat: Reread::open(&dir.join("stat"))?,
            status: Reread::open(&dir.join("status"))?,
        })
    }

    /// The process now; `None` if it is gone, or has become another program.
    pub fn look(&self, buf: &mut [u8]) -> Option<Look> {
        let (first, second) = buf.split_at_mut(1024);
        parse_look(
            self.pid,
            self.stat.read_short(first).ok()?,
            self.status.read(second).ok()?,
        )
    }
}

/// A unit that systemd-oomd manages.
#[derive(Debug)]
pub struct UnitFiles {
    pressure: Reread,
    /// The root has none that counts.
    stat: Option<Reread>,
}

impl UnitFiles {
    /// Those that are open already.
    #[must_use]
    pub fn of(pressure: Reread, stat: Option<Reread>) -> Self {
        Self { pressure, stat }
    }

    /// Opens the files of the unit's cgroup.
    ///
    /// # Errors
    /// It is gone, or has no pressure information.
    pub fn open(dir: &Path, is_root: bool) -> Result<Self, OpenError> {
        let stat = match is_root {
            true => None,
            false => Some(Reread::open(&dir.join("memory.stat"))?),
        };
        Ok(Self {
            pressure: Reread::open(&dir.join("memory.pressure"))?,
            stat,
        })
    }

    /// `full avg10` in hundredths of a percent, and how many pages reclaim has looked at so far.
    pub fn look(&self, buf: &mut [u8]) -> Option<(u32, Option<u64>)> {
        let full = psi::full_avg10_permyriad(self.pressure.read_short(buf).ok()?)?;
        let stat = self.stat.as_ref();
        Some((
            full,
            stat.and_then(|stat| Some(read_stat(stat, buf)?.scanned_pages)),
        ))
    }
}

/// A cgroup that may be killed as a whole.
#[derive(Debug)]
pub struct CandidateFiles {
    current: Reread,
    stat: Reread,
    swap: Option<Reread>,
    /// Its own list of processes first, then those of the cgroups in it.
    procs: Vec<Reread>,
}

/// What is read of `memory.stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CandidateStat {
    /// Page cache that reclaim can take.
    pub reclaimable_bytes: u64,
    /// Pages that reclaim has looked at so far.
    pub scanned_pages: u64,
}

impl CandidateFiles {
    /// Those that are open already, of a cgroup with none in it.
    #[must_use]
    pub fn of(current: Reread, stat: Reread, procs: Reread) -> Self {
        Self {
            current,
            stat,
            swap: None,
            procs: vec![procs],
        }
    }

    /// Opens the files of a cgroup, and of `nested` ones their lists of processes.
    ///
    /// # Errors
    /// It is gone, or has no memory controller.
    pub fn open(dir: &Path, nested: &[PathBuf]) -> Result<Self, OpenError> {
        let mut procs = vec![Reread::open(&dir.join("cgroup.procs"))?];
        let open = |dir: &PathBuf| Reread::open(&dir.join("cgroup.procs")).ok();
        procs.extend(nested.iter().filter_map(open));
        Ok(Self {
            current: Reread::open(&dir.join("memory.current"))?,
            stat: Reread::open(&dir.join("memory.stat"))?,
            // Not where swap is not accounted.
            swap: Reread::open(&dir.join("memory.swap.current")).ok(),
            procs,
        })
    }

    /// Bytes charged now: one page counter.
    ///
    /// # Errors
    /// ENODEV once it is removed.
    pub fn current(&self) -> io::Result<u64> {
        let mut buf = [0; 32];
        text::number(self.current.read_short(&mut buf)?)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Swap in use; 0 where that is not accounted.
    pub fn swap(&self) -> u64 {
        let mut buf = [0; 32];
        let text = self
            .swap
            .as_ref()
            .and_then(|it| it.read_short(&mut buf).ok());
        text.and_then(text::number).unwrap_or(0)
    }

    /// The breakdown, which the kernel sums up first.
    pub fn stat(&self, buf: &mut [u8]) -> Option<CandidateStat> {
        read_stat(&self.stat, buf)
    }

    /// Calls `each` for every process that is in it now. 0 is one of another pid namespace.
    pub fn for_each_process(&self, buf: &mut [u8], mut each: impl FnMut(u32)) {
        for procs in &self.procs {
            if let Ok(listed) = procs.read(buf) {
                parse_procs(listed).for_each(&mut each);
            }
        }
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self, buf: &mut [u8]) -> bool {
        let mut is_empty = true;
        self.for_each_process(buf, |_| is_empty = false);
        is_empty
    }
}

/// v2 `memory.stat` (mm/memcontrol.c, `memory_stat_format`); always hierarchical.
fn read_stat(file: &Reread, buf: &mut [u8]) -> Option<CandidateStat> {
    Some(parse_stat(file.read(buf).ok()?))
}

pub(in crate::host) fn parse_stat(bytes: &[u8]) -> CandidateStat {
    let mut stat = CandidateStat::default();
    for (key, n) in text::keyed_lines(bytes) {
        match key {
            b"active_file" | b"inactive_file" | b"slab_reclaimable" => {
                stat.reclaimable_bytes = stat.reclaimable_bytes.saturating_add(n);
            }
            b"pgscan" => stat.scanned_pages = n,
            _ => {}
        }
    }
    stat
}

/// The pids in the text of `cgroup.procs`. The last line of a list that fills the buffer may be cut.
pub(in crate::host) fn parse_procs(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let lines = text::whole_lines(bytes).split(|&b| b == b'\n');
    lines.filter_map(|line| u32::try_from(text::number(line)?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::oomd::COMM;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    /// A process that is called as systemd-oomd is.
    fn named() -> (tempfile::TempDir, Child) {
        let dir = tempfile::tempdir().expect("a directory");
        let name = std::str::from_utf8(&COMM[..COMM.len() - 1]).expect("ASCII");
        let program = dir.path().join(name);
        // No copy: what is written to while another test begins a process cannot be executed.
        std::os::unix::fs::symlink("/bin/sleep", &program).expect("a link");
        let child = Command::new(&program).arg0(name).arg("60").spawn();
        (dir, child.expect("it starts"))
    }

    fn signal(child: &Child, signal: i32) {
        // SAFETY: numbers only; the child is ours and not reaped.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    }

    fn state_becomes(files: &PeerFiles, state: Option<u8>) -> bool {
        let mut buf = [0; 8192];
        (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            files.look(&mut buf).map(|look| look.state) == state
        })
    }

    #[test]
    fn a_real_process_is_seen_to_sleep_stop_go_on_die_and_go() {
        let (_dir, mut child) = named();
        let files = PeerFiles::open(child.id()).expect("it runs");
        assert!(state_becomes(&files, Some(b'S')));
        let mut buf = [0; 8192];
        let before = files.look(&mut buf).expect("it is there");
        assert!(before.switches > 0);
        signal(&child, libc::SIGSTOP);
        assert!(state_becomes(&files, Some(b'T')));
        let stopped = files.look(&mut buf).expect("it is there");
        signal(&child, libc::SIGCONT);
        assert!(state_becomes(&files, Some(b'S')));
        let after = files.look(&mut buf).expect("it is there");
        assert!(after.switches > stopped.switches, "it ran");
        assert_eq!(
            (after.pid, after.start_ticks),
            (before.pid, before.start_ticks)
        );
        signal(&child, libc::SIGKILL);
        assert!(state_becomes(&files, Some(b'Z')));
        child.wait().expect("ours");
        assert!(state_becomes(&files, None));
    }

    #[test]
    fn a_process_of_another_name_is_not_it() {
        let files = PeerFiles::open(std::process::id()).expect("us");
        assert_eq!(files.look(&mut [0; 8192]), None);
    }

    #[test]
    fn a_cgroup_tells_what_it_holds_and_who_is_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let nested = dir.path().join("nested");
        std::fs::create_dir(&nested).expect("a directory");
        for (file, text) in [
            ("memory.current", "4096000\n"),
            (
                "memory.stat",
                "anon 1\nactive_file 100\ninactive_file 20\nslab_reclaimable 3\npgscan 77\npgscan_direct 9\n",
            ),
            (
                "memory.pressure",
                "some avg10=1.00 total=9\nfull avg10=0.50 avg60=0 total=6\n",
            ),
            ("cgroup.procs", "12\n0\n"),
            ("nested/cgroup.procs", "345\n"),
        ] {
            std::fs::write(dir.path().join(file), text).expect("a file");
        }
        let mut buf = [0; 4096];
        let files = CandidateFiles::open(dir.path(), &[nested]).expect("files");
        assert_eq!(
            (files.current().expect("a number"), files.swap()),
            (4_096_000, 0)
        );
        let stat = CandidateStat {
            reclaimable_bytes: 123,
            scanned_pages: 77,
        };
        assert_eq!(files.stat(&mut buf), Some(stat));
        let mut pids = Vec::new();
        files.for_each_process(&mut buf, |pid| pids.push(pid));
        assert_eq!(pids, [12, 0, 345]);
        assert!(!files.is_empty(&mut buf));
        let unit = UnitFiles::open(dir.path(), false).expect("files");
        assert_eq!(unit.look(&mut buf), Some((50, Some(77))));
        let root = UnitFiles::open(dir.path(), true).expect("files");
        assert_eq!(root.look(&mut buf), Some((50, None)));
    }

    #[test]
    fn sums_and_pids_that_do_not_fit_and_lines_that_are_cut_are_not_believed() {
        let text = format!("active_file {0}\ninactive_file {0}\npgscan 7", u64::MAX);
        let stat = parse_stat(text.as_bytes());
        assert_eq!((stat.reclaimable_bytes, stat.scanned_pages), (u64::MAX, 0));
        let pids: Vec<_> = parse_procs(b"12\n4294967308\n7\n34").collect();
        assert_eq!(pids, [12, 7]);
    }
}
