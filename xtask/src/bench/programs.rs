//! The BPF programs that memwatches share, as the kernel tells of what is pinned in their home: where they
//! are attached, and what they cost while the kernel counts that.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Where the memwatches of this machine have them, each build in a directory of its own.
const HOMES: &str = "/run/memwatch";

/// The one that is there: the machine is the bench's alone.
pub(super) fn home() -> Option<PathBuf> {
    let mut homes = fs::read_dir(HOMES)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    homes.find(|home| home.join("complete").exists())
}

/// What holds a program to a place in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// `raw_tracepoint`, `perf`, ...
    kind: String,
    /// The tracepoint, if it is one.
    tracepoint: Option<String>,
    /// Of a perf event, what it counts (`perf_event_attr.config`).
    counts: Option<String>,
}

impl Link {
    fn read(info: &str) -> Result<Self> {
        Ok(Self {
            kind: field(info, "link_type").context("a link without a type")?,
            tracepoint: field(info, "tp_name"),
            counts: field(info, "config"),
        })
    }

    /// The tracepoint, or what else it is.
    pub(crate) fn place(&self) -> &str {
        match &self.tracepoint {
            Some(tracepoint) => tracepoint,
            None if self.is_clock() => "the clock",
            None => &self.kind,
        }
    }

    /// A perf event that counts time (PERF_COUNT_SW_CPU_CLOCK is 0).
    fn is_clock(&self) -> bool {
        self.kind == "perf" && self.counts.as_deref() == Some("0")
    }

    /// Whether every page fault, switch, wake-up, allocation or system call of the machine passes here.
    /// What is neither a raw tracepoint nor a clock counts as such.
    pub(crate) fn is_on_a_hot_path(&self) -> bool {
        const HOT: [&str; 8] = [
            "page_fault",
            "sched_switch",
            "sched_wak",
            "sched_stat",
            "rss_stat",
            "mm_page_",
            "mmap_lock",
            "sys_",
        ];
        let hot = |tracepoint: &String| HOT.iter().any(|hot| tracepoint.starts_with(hot));
        !self.is_clock() && self.tracepoint.as_ref().is_none_or(hot)
    }
}

/// What one program has cost since counting began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) runs: u64,
    pub(crate) ns: u64,
}

/// Every link of the shared set, and how many perf events a process holds beside them.
pub(crate) fn links(pid: u32) -> Result<(Vec<Link>, usize)> {
    let links = pinned("links")?;
    let links = links
        .iter()
        .map(|(_, info)| Link::read(info))
        .collect::<Result<_>>()?;
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))
        .with_context(|| format!("process {pid} is gone"))?;
    let targets = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    let perf_events = targets
        .filter(|to| to.as_os_str() == "anon_inode:[perf_event]")
        .count();
    Ok((links, perf_events))
}

/// Waits until the shared set is there and whole, and a process has its place in it.
///
/// # Errors
/// If `patience` ends.
pub(crate) fn wait_for_links(pid: u32, patience: Duration) -> Result<()> {
    let started = Instant::now();
    let joined = || -> bool {
        // Its ring is the one map that a memwatch keeps open for itself.
        let fds = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        let mut targets = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        home().is_some() && targets.any(|to| to.as_os_str() == "anon_inode:bpf-map")
    };
    while !joined() {
        ensure!(
            started.elapsed() < patience,
            "memwatch attached no BPF program; see `memwatch doctor`"
        );
        sleep(Duration::from_millis(20));
    }
    // Its target gets its row right after that.
    sleep(Duration::from_millis(200));
    Ok(())
}

/// Whether a program of the shared set is attached somewhere.
pub(crate) fn is_attached(program: &str) -> Result<bool> {
    // A clock has a link on each CPU, with the CPU's number behind the program's name.
    let of = |link: &String| link.split('-').next() == Some(program);
    Ok(pinned("links")?.iter().any(|(link, _)| of(link)))
}

/// Sees to it that nobody else's memwatch runs, for tables that count what is left.
///
/// # Errors
/// One does, or a dead one has left its programs.
pub(crate) fn require_none() -> Result<()> {
    ensure!(
        all_gone(Duration::from_secs(2)),
        "another memwatch runs, or has left a guard behind (`memwatch guard list` tells): what this table counts \
         would be its"
    );
    Ok(())
}

/// Waits for the last set to be taken away; whether it was.
pub(crate) fn all_gone(patience: Duration) -> bool {
    let started = Instant::now();
    while Path::new(HOMES).exists() {
        if started.elapsed() > patience {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}

/// What each program of the shared set has cost so far, by its name.
pub(crate) fn costs() -> Result<Vec<(String, Cost)>> {
    let programs = pinned("programs")?.into_iter();
    programs
        .map(|(name, info)| {
            let number = |key| -> Result<u64> {
                Ok(field(&info, key)
                    .with_context(|| format!("a program without {key}"))?
                    .parse()?)
            };
            let cost = Cost {
                runs: number("run_cnt")?,
                ns: number("run_time_ns")?,
            };
            Ok((name, cost))
        })
        .collect()
}

/// Has the kernel count the programs' time, which costs each run some tens of nanoseconds, until the
/// descriptor is closed: also if this process dies.
pub(crate) fn count_costs() -> Result<OwnedFd> {
    const BPF_ENABLE_STATS: libc::c_int = 32;
    /// `union bpf_attr`'s `enable_stats`.
    #[repr(C)]
    struct EnableStats {
        kind: u32,
    }
    let run_time = EnableStats { kind: 0 };
    // SAFETY: the kernel reads as many bytes as it is told there are.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_ENABLE_STATS,
            &raw const run_time,
            size_of::<EnableStats>(),
        )
    };
    ensure!(
        fd >= 0,
        "cannot have BPF programs timed: {}",
        std::io::Error::last_os_error()
    );
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What is pinned in a directory of the home: its names, with the kernel's description of each.
fn pinned(directory: &str) -> Result<Vec<(String, String)>> {
    let directory = home().context("no memwatch runs")?.join(directory);
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut pinned = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let object = open_pinned(&path)?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd()))?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        pinned.push((name, info));
    }
    pinned.sort();
    Ok(pinned)
}

/// Opens a program, map or link by where it is pinned.
pub(super) fn open_pinned(path: &Path) -> Result<OwnedFd> {
    const BPF_OBJ_GET: libc::c_int = 7;
    /// `union bpf_attr` of that command.
    #[repr(C)]
    struct Get {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let text = CString::new(path.as_os_str().as_encoded_bytes())?;
    let get = Get {
        path: text.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: the path is a C string that outlives the call, and the size is that of the struct.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const get, size_of::<Get>()) };
    ensure!(
        fd >= 0,
        "{}: {}",
        path.display(),
        std::io::Error::last_os_error()
    );
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A line of fdinfo: `name:\tvalue`.
fn field(info: &str, name: &str) -> Option<String> {
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_cold_only_if_it_is_known_to_be() {
        let tracepoint = |name: &str| Link {
            kind: "raw_tracepoint".to_owned(),
            tracepoint: Some(name.to_owned()),
            counts: None,
        };
        assert!(!tracepoint("mm_vmscan_memcg_reclaim_begin").is_on_a_hot_path());
        for hot in ["page_fault_user", "sched_switch", "mm_page_alloc"] {
            assert!(tracepoint(hot).is_on_a_hot_path(), "{hot}");
        }
        let perf = |counts: &str| Link {
            kind: "perf".to_owned(),
            tracepoint: None,
            counts: Some(counts.to_owned()),
        };
        assert!(!perf("0").is_on_a_hot_path(), "the CPU's clock");
        assert!(perf("2").is_on_a_hot_path(), "page faults");
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "pos:\t0\nlink_type:\traw_tracepoint\nprog_id:\t7\ntp_name:\tmark_victim\n";
        assert_eq!(field(info, "tp_name").as_deref(), Some("mark_victim"));
        assert_eq!(field(info, "prog_id").as_deref(), Some("7"));
        assert_eq!(field(info, "prog"), None);
    }
}
