//! What a target holds, by its memory controller: v2, or a v1 group beside a v2 one that has none.
//!
//! Owns the files and their two vocabularies and gives one reading in one vocabulary. Setting limits is
//! `cgroup`'s; without any controller the totals come from the members (`agent::members`).

use crate::host::reread::{OpenError, Reread};
use crate::host::text;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Which files tell a target's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Controller {
    /// The target's own v2 cgroup has the memory controller.
    V2(PathBuf),
    /// A v1 memory group beside the target's v2 cgroup ("hybrid" machines).
    V1(PathBuf),
}

impl Controller {
    /// The limit that the kernel holds this group to, those of the groups around it included; `None` if
    /// there is none. `max`, and v1's "as good as none", are no limit.
    pub fn limit_bytes(&self) -> Option<u64> {
        let limit = match self {
            // The root has no such file.
            Self::V2(dir) => dir
                .ancestors()
                .map_while(|dir| std::fs::read(dir.join("memory.max")).ok())
                .filter_map(|max| text::number(&max))
                .min(),
            Self::V1(dir) => {
                let stat = std::fs::read(dir.join("memory.stat")).ok()?;
                text::keyed_lines(&stat)
                    .find_map(|(key, n)| (key == b"hierarchical_memory_limit").then_some(n))
            }
        };
        limit.filter(|&limit| is_limit(limit))
    }
}

/// v1 says "none" by a number that no machine has.
pub(crate) fn is_limit(bytes: u64) -> bool {
    bytes < u64::MAX / 4
}

/// The parts of `memory.stat` and its neighbours that the decision uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStat {
    /// Anonymous memory.
    pub anon_bytes: u64,
    /// Page cache that reclaim can take: the file LRUs and reclaimable slab. tmpfs and shared memory
    /// lie on the anonymous LRUs and are not in it.
    pub reclaimable_bytes: u64,
    /// tmpfs and shared memory.
    pub shmem_bytes: u64,
    /// Pages that came back soon after they were reclaimed (mm/workingset.c).
    pub refault_pages: u64,
    /// Page faults so far, and those of them that waited for I/O.
    pub faults: u64,
    /// Major faults so far.
    pub major_faults: u64,
    /// Swap in use.
    pub swap_bytes: u64,
    /// Usage from which the kernel slows the group down (v2 `memory.high`); `None` without.
    #[serde(default)]
    pub high_bytes: Option<u64>,
    /// The most swap that the group itself may use; `None` without a limit.
    #[serde(default)]
    pub swap_max_bytes: Option<u64>,
}

/// The open files of one target's memory controller.
#[derive(Debug)]
pub struct MemoryFiles {
    v2: bool,
    current: Reread,
    stat: Reread,
    oom: Option<Reread>,
    peak: Option<Reread>,
    swap: Option<Reread>,
    swap_max: Option<Reread>,
    high: Option<Reread>,
    kernel: Option<Reread>,
}

impl MemoryFiles {
    /// Those of a controller, v2 or v1, that must be there, and nothing else.
    #[must_use]
    pub fn of(v2: bool, current: Reread, stat: Reread) -> Self {
        Self {
            v2,
            current,
            stat,
            oom: None,
            peak: None,
            swap: None,
            swap_max: None,
            high: None,
            kernel: None,
        }
    }

    /// Opens the controller's files.
    ///
    /// # Errors
    /// The current usage and `memory.stat` must open; what only newer kernels have may be missing.
    pub fn open(controller: &Controller) -> Result<Self, OpenError> {
        let may = |path: &Path, name: &str| Reread::open(&path.join(name)).ok();
        Ok(match controller {
            Controller::V2(dir) => Self {
                v2: true,
                current: Reread::open(&dir.join("memory.current"))?,
                stat: Reread::open(&dir.join("memory.stat"))?,
                oom: may(dir, "memory.events"),
                peak: may(dir, "memory.peak"), // 5.19
                swap: may(dir, "memory.swap.current"),
                swap_max: may(dir, "memory.swap.max"),
                high: may(dir, "memory.high"),
                kernel: None, // in memory.stat, reclaimable or not
            },
            Controller::V1(dir) => Self {
                v2: false,
                current: Reread::open(&dir.join("memory.usage_in_bytes"))?,
                stat: Reread::open(&dir.join("memory.stat"))?,
                oom: may(dir, "memory.oom_control"),
                peak: may(dir, "memory.max_usage_in_bytes"),
                // In memory.stat.
                swap: None,
                swap_max: None,
                high: None,
                kernel: may(dir, "memory.kmem.usage_in_bytes"),
            },
        })
    }

    /// Bytes charged now, page cache included: one page counter, exact to the per-CPU stock.
    ///
    /// # Errors
    /// ENODEV once the group is removed.
    pub fn current(&self) -> io::Result<u64> {
        single(&self.current)
    }

    /// The most that was ever charged; `None` on kernels that do not keep it.
    pub fn peak(&self) -> Option<u64> {
        single(self.peak.as_ref()?).ok()
    }

    /// How many processes the kernel's OOM killer took in this group.
    pub fn kernel_oom_kills(&self) -> Option<u64> {
        let mut buf = [0; 256];
        let text = self.oom.as_ref()?.read_short(&mut buf).ok()?;
        text::keyed_lines(text).find_map(|(key, n)| (key == b"oom_kill").then_some(n))
    }

    /// The breakdown. Dearer than [`MemoryFiles::current`]: the kernel sums per-CPU counts.
    ///
    /// # Errors
    /// ENODEV once the group is removed.
    pub fn stat(&self) -> io::Result<MemoryStat> {
        let mut buf = [0; 8192];
        let text = self.stat.read(&mut buf)?;
        let mut stat = if self.v2 {
            parse_v2(text)
        } else {
            parse_v1(text)
        };
        if let Some(swap) = &self.swap {
            stat.swap_bytes = single(swap)?;
        }
        // "max" is no number.
        let number = |file: &Option<Reread>| single(file.as_ref()?).ok();
        stat.high_bytes = number(&self.high);
        stat.swap_max_bytes = stat.swap_max_bytes.or_else(|| number(&self.swap_max));
        if let Some(kernel) = number(&self.kernel) {
            let more = reclaimable_of_kernel(kernel, &stat);
            add(&mut stat.reclaimable_bytes, more);
        }
        Ok(stat)
    }
}

fn single(file: &Reread) -> io::Result<u64> {
    let mut buf = [0; 32];
    text::number(file.read_short(&mut buf)?)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn add(sum: &mut u64, n: u64) {
    *sum = sum.saturating_add(n);
}

/// v2 `memory.stat` (mm/memcontrol.c, `memory_stat_format`); always hierarchical.
pub fn parse_v2(bytes: &[u8]) -> MemoryStat {
    let mut stat = MemoryStat::default();
    for (key, n) in text::keyed_lines(bytes) {
        match key {
            b"anon" => stat.anon_bytes = n,
            b"shmem" => stat.shmem_bytes = n,
            b"active_file" | b"inactive_file" | b"slab_reclaimable" => {
                add(&mut stat.reclaimable_bytes, n)
            }
            b"workingset_refault_anon" | b"workingset_refault_file" => {
                add(&mut stat.refault_pages, n)
            }
            b"pgfault" => stat.faults = n,
            b"pgmajfault" => stat.major_faults = n,
            _ => {}
        }
    }
    stat
}

/// v1 `memory.stat` (mm/memcontrol-v1.c, `memcg1_stat_format`): the `total_` lines, which include
/// nested groups, and the limits of memory and of memory and swap together (with `swapaccount`).
pub fn parse_v1(bytes: &[u8]) -> MemoryStat {
    let mut stat = MemoryStat::default();
    let (mut memory_max, mut both_max) = (u64::MAX, u64::MAX);
    for (key, n) in text::keyed_lines(bytes) {
        match key {
            b"hierarchical_memory_limit" => memory_max = n,
            b"hierarchical_memsw_limit" => both_max = n,
            _ => {}
        }
        let Some(key) = key.strip_prefix(b"total_") else {
            continue;
        };
        match key {
            b"rss" => stat.anon_bytes = n,
            b"shmem" => stat.shmem_bytes = n,
            b"active_file" | b"inactive_file" => add(&mut stat.reclaimable_bytes, n),
            b"workingset_refault_anon" | b"workingset_refault_file" => {
                add(&mut stat.refault_pages, n)
            }
            b"pgfault" => stat.faults = n,
            b"pgmajfault" => stat.major_faults = n,
            b"swap" => stat.swap_bytes = n,
            _ => {}
        }
    }
    stat.swap_max_bytes = is_limit(both_max).then(|| both_max.saturating_sub(memory_max));
    stat
}

/// What reclaim can take of a v1 group's kernel memory, which v1 gives as one number. A process's page
/// tables and stacks come to no more than its own pages: what exceeds those are dentries and inodes, of
/// which a program that only looks for files fills its limit.
fn reclaimable_of_kernel(kernel_bytes: u64, stat: &MemoryStat) -> u64 {
    kernel_bytes.saturating_sub(stat.anon_bytes.saturating_add(stat.shmem_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_not_reclaimable() {
        let v2 = parse_v2(
            b"anon 100\nfile 70\nshmem 30\ninactive_anon 130\nactive_file 25\ninactive_file 15\nslab_reclaimable 5\nworkingset_refault_file 9\nworkingset_refault_anon 1\npgfault 8\npgmajfault 2\n",
        );
        assert_eq!(v2.reclaimable_bytes, 45);
        assert_eq!(
            (v2.anon_bytes, v2.shmem_bytes, v2.refault_pages),
            (100, 30, 10)
        );
        assert_eq!((v2.faults, v2.major_faults), (8, 2));
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_is_the_limit() {
        let root = tempfile::tempdir().expect("a directory");
        let (outer, inner) = (root.path().join("a"), root.path().join("a/b"));
        std::fs::create_dir_all(&inner).expect("made");
        let max =
            |dir: &Path, text: &str| std::fs::write(dir.join("memory.max"), text).expect("written");
        max(&inner, "max\n");
        max(&outer, "max\n");
        assert_eq!(Controller::V2(inner.clone()).limit_bytes(), None);
        max(&outer, "1000\n");
        max(&inner, "3000\n");
        assert_eq!(Controller::V2(inner.clone()).limit_bytes(), Some(1000));
        let stat = "cache 1\nhierarchical_memory_limit 500\n";
        std::fs::write(inner.join("memory.stat"), stat).expect("written");
        assert_eq!(Controller::V1(inner.clone()).limit_bytes(), Some(500));
        let none = "hierarchical_memory_limit 9223372036854771712\n";
        std::fs::write(inner.join("memory.stat"), none).expect("written");
        assert_eq!(Controller::V1(inner).limit_bytes(), None);
    }

    #[test]
    fn kernel_memory_beyond_what_processes_explain_is_reclaimable() {
        const MIB: u64 = 1 << 20;
        let held = |kernel: u64, anon: u64, shmem: u64| {
            let stat = MemoryStat {
                anon_bytes: anon * MIB,
                shmem_bytes: shmem * MIB,
                ..MemoryStat::default()
            };
            kernel + anon + shmem - reclaimable_of_kernel(kernel * MIB, &stat) / MIB
        };
        // One that looks for files that are not there, with 13 MiB of its own.
        assert_eq!(held(50, 13, 0), 26);
        // Page tables as large as the pages; a fork bomb's stacks; a tmpfs with its tree.
        assert_eq!(held(30, 30, 0), 60);
        assert_eq!(held(25, 35, 0), 60);
        assert_eq!(held(4, 2, 58), 64);
    }

    #[test]
    fn v1_limits_swap_by_what_memory_leaves() {
        let most = |stat: &[u8]| parse_v1(stat).swap_max_bytes;
        assert_eq!(
            most(b"hierarchical_memory_limit 500\nhierarchical_memsw_limit 800\n"),
            Some(300)
        );
        let none = b"hierarchical_memory_limit 500\nhierarchical_memsw_limit 9223372036854771712\n";
        assert_eq!(most(none), None);
        assert_eq!(most(b"hierarchical_memory_limit 500\n"), None);
    }

    #[test]
    fn v1_counts_nested_groups() {
        let v1 = parse_v1(
            b"rss 1\nactive_file 2\ntotal_rss 100\ntotal_shmem 30\ntotal_active_file 25\ntotal_inactive_file 15\ntotal_workingset_refault_file 9\ntotal_pgmajfault 2\ntotal_swap 7\n",
        );
        assert_eq!(
            (v1.anon_bytes, v1.reclaimable_bytes, v1.shmem_bytes),
            (100, 40, 30)
        );
        assert_eq!(
            (v1.refault_pages, v1.major_faults, v1.swap_bytes),
            (9, 2, 7)
        );
    }
}
