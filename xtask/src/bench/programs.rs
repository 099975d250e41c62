//! The BPF programs that a process holds, as `/proc/PID/fdinfo` tells: where they are attached, and
//! what they cost while the kernel counts that.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// What holds a program to a place in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// `raw_tracepoint`, `perf_event`, ...
    pub(crate) kind: String,
    /// The tracepoint, if it is one.
    pub(crate) tracepoint: Option<String>,
    pub(crate) program_id: u32,
}

impl Link {
    /// The tracepoint, or what else it is.
    pub(crate) fn place(&self) -> &str {
        self.tracepoint.as_deref().unwrap_or(&self.kind)
    }

    /// Whether every page fault, switch, wake-up, allocation or system call of the machine passes here.
    /// Anything but a raw tracepoint counts as such: fdinfo does not tell what it is attached to.
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
        let place = self.place();
        self.kind != "raw_tracepoint" || HOT.iter().any(|hot| place.starts_with(hot))
    }
}

/// What one program has cost since counting began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) runs: u64,
    pub(crate) ns: u64,
}

/// Every link that a process holds, and how many perf events beside them.
pub(crate) fn links(pid: u32) -> Result<(Vec<Link>, usize)> {
    let mut links = Vec::new();
    let mut perf_events = 0;
    for (kind, info) in descriptors(pid)? {
        match kind.as_str() {
            "anon_inode:bpf_link" => {
                let field = |name| field(&info, name);
                links.push(Link {
                    kind: field("link_type").context("a link without a type")?,
                    tracepoint: field("tp_name"),
                    program_id: field("prog_id")
                        .context("a link without a program")?
                        .parse()?,
                });
            }
            "anon_inode:[perf_event]" => perf_events += 1,
            _ => {}
        }
    }
    Ok((links, perf_events))
}

/// Waits until a process holds links and gets no more of them.
///
/// # Errors
/// If it ends, or `patience` does.
pub(crate) fn wait_for_links(pid: u32, patience: Duration) -> Result<()> {
    let started = Instant::now();
    let mut before = 0;
    loop {
        // Far longer than verifying and attaching one of them takes.
        sleep(Duration::from_millis(100));
        let (links, _) = links(pid)?;
        if before > 0 && links.len() == before {
            return Ok(());
        }
        before = links.len();
        ensure!(
            started.elapsed() < patience,
            "memwatch attached no BPF program; see `memwatch doctor`"
        );
    }
}

/// What each tracepoint's program of a process has cost so far; those at perf events count as one.
pub(crate) fn costs(pid: u32) -> Result<Vec<(String, Cost)>> {
    let (links, _) = links(pid)?;
    let mut costs: Vec<(String, Cost)> = Vec::new();
    for (kind, info) in descriptors(pid)? {
        if kind != "anon_inode:bpf-prog" {
            continue;
        }
        let number = |name| -> Result<u64> {
            Ok(field(&info, name)
                .with_context(|| format!("a program without {name}"))?
                .parse()?)
        };
        let id = number("prog_id")?;
        let link = links.iter().find(|link| u64::from(link.program_id) == id);
        let Some(place) = link.map(|link| link.place().to_owned()) else {
            continue;
        };
        let cost = Cost {
            runs: number("run_cnt")?,
            ns: number("run_time_ns")?,
        };
        match costs.iter_mut().find(|(known, _)| *known == place) {
            Some((_, sum)) => {
                sum.runs += cost.runs;
                sum.ns += cost.ns;
            }
            None => costs.push((place, cost)),
        }
    }
    Ok(costs)
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

/// What each descriptor of a process is, with its fdinfo. One that closes meanwhile is left out.
fn descriptors(pid: u32) -> Result<Vec<(String, String)>> {
    let dir = PathBuf::from(format!("/proc/{pid}/fd"));
    let entries = fs::read_dir(&dir).with_context(|| format!("process {pid} is gone"))?;
    let described = entries.flatten().filter_map(|entry| {
        let kind = fs::read_link(entry.path()).ok()?;
        let info = dir.with_file_name("fdinfo").join(entry.file_name());
        Some((
            kind.to_string_lossy().into_owned(),
            fs::read_to_string(info).ok()?,
        ))
    });
    Ok(described.collect())
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
        let link = |kind: &str, tracepoint: Option<&str>| Link {
            kind: kind.to_owned(),
            tracepoint: tracepoint.map(str::to_owned),
            program_id: 1,
        };
        let reclaim = link("raw_tracepoint", Some("mm_vmscan_memcg_reclaim_begin"));
        assert!(!reclaim.is_on_a_hot_path());
        for hot in ["page_fault_user", "sched_switch", "mm_page_alloc"] {
            assert!(
                link("raw_tracepoint", Some(hot)).is_on_a_hot_path(),
                "{hot}"
            );
        }
        assert!(link("perf_event", None).is_on_a_hot_path());
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "pos:\t0\nlink_type:\traw_tracepoint\nprog_id:\t7\ntp_name:\tmark_victim\n";
        assert_eq!(field(info, "tp_name").as_deref(), Some("mark_victim"));
        assert_eq!(field(info, "prog_id").as_deref(), Some("7"));
        assert_eq!(field(info, "prog"), None);
    }
}
