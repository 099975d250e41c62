//! What a pass sees: the files of the target and of the machine, and the programs in the kernel, read into
//! the policy's facts.
//!
//! Everything was opened and allocated before. Who the members are is [`super::members`]'s, when to look
//! and what follows from it [`super::pass`]'s.

use crate::bpf;
use crate::host::meminfo;
use crate::host::memory::MemoryFiles;
use crate::host::psi::{self, Psi};
use crate::host::reread::Reread;
use crate::host::tree::Tree;
use crate::host::zfs;
use crate::watch::facts::Arc as ZfsArc;
use crate::watch::{Depth, MachineFacts, Reclaim, TargetFacts};
use std::io;
use std::time::Duration;

/// The most cgroups inside a target whose processes are looked at.
pub const NESTED: usize = 64;

/// The files of one target, and its row among the programs' totals.
#[derive(Debug)]
pub struct TargetEyes {
    /// The memory controller's; `None` where the members' own totals must do.
    pub memory: Option<MemoryFiles>,
    /// `memory.pressure`; `None` where it is off.
    pub pressure: Option<Reread>,
    /// `io.pressure`; `None` where it is off.
    pub io_pressure: Option<Reread>,
    /// What lists its processes.
    pub listing: Listing,
    /// The limit that applies, whoever enforces it.
    pub limit_bytes: Option<u64>,
    /// Where the BPF programs count it, once they do.
    pub row: Option<bpf::Row>,
}

/// What lists the processes of a target.
#[derive(Debug)]
pub enum Listing {
    /// `cgroup.procs` of the target, with room for those of the cgroups in it.
    Cgroup(Vec<Reread>),
    /// The kernel's word on who is whose child.
    Tree(Tree),
}

/// The files of the machine.
#[derive(Debug)]
pub struct MachineEyes {
    /// `/proc/meminfo`.
    pub meminfo: Reread,
    /// `/proc/pressure/memory`.
    pub pressure: Option<Reread>,
    /// ZFS's `arcstats`.
    pub arcstats: Option<Reread>,
}

/// The eyes in the kernel: what the BPF programs count.
#[derive(Debug)]
pub struct KernelEyes {
    /// Totals, processes and events.
    pub reader: bpf::Reader,
    /// This agent's place for signs of life.
    pub slot: u32,
    /// Whether process ids here are those of the kernel, so that the guard can be told names.
    pub names: bool,
}

/// What all targets are seen with: the machine's files, the eyes in the kernel, and the room that reading
/// takes.
#[derive(Debug)]
pub struct Eyes {
    machine: MachineEyes,
    /// What the machine said last, and when.
    said: Option<(Duration, MachineFacts)>,
    kernel: Option<KernelEyes>,
    text: Box<[u8]>,
    pids: Vec<u32>,
}

/// What the machine said so lately is what it says.
const SAID_JUST_NOW: Duration = Duration::from_millis(1);

impl Eyes {
    /// Those that are there from the start.
    pub fn new(machine: MachineEyes) -> Self {
        Self {
            machine,
            said: None,
            kernel: None,
            text: vec![0; 16 << 10].into_boxed_slice(),
            pids: Vec::with_capacity(4 * super::members::CAPACITY),
        }
    }

    /// Opens those in the kernel, which take longer to get ready than a command may wait.
    pub fn open_kernel(&mut self, kernel: KernelEyes) {
        self.kernel = Some(kernel);
    }

    /// Those in the kernel.
    pub fn kernel(&self) -> Option<&KernelEyes> {
        self.kernel.as_ref()
    }

    /// Takes the next event out of the ring of the BPF programs.
    pub fn next_event(&mut self) -> Option<bpf::Event> {
        self.kernel.as_mut()?.reader.next_event()
    }

    /// The machine; `None` if it does not tell.
    pub fn machine(&mut self, now: Duration) -> Option<MachineFacts> {
        let just_now = |at: Duration| now.saturating_sub(at) < SAID_JUST_NOW;
        if let Some((_, said)) = self.said.filter(|(at, _)| just_now(*at)) {
            return Some(said);
        }
        let meminfo = meminfo::parse(self.machine.meminfo.read(&mut self.text).ok()?)?;
        let psi = self.machine.pressure.as_ref().and_then(pressure);
        let arc = self.machine.arcstats.as_ref().and_then(|file| {
            let stats = zfs::parse(file.read(&mut self.text).ok()?)?;
            Some(ZfsArc {
                size_bytes: stats.size_bytes,
                c_min_bytes: stats.c_min_bytes,
            })
        });
        let facts = MachineFacts { meminfo, arc, psi };
        self.said = Some((now, facts));
        Some(facts)
    }

    /// What the last list of processes had.
    pub fn listed(&self) -> impl Iterator<Item = u32> {
        self.pids.iter().copied()
    }

    /// Whether process ids here are those of the kernel.
    pub fn names_are_the_kernels(&self) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.names)
    }

    /// How long a process has been in reclaim, in ns.
    pub fn stall_ns_of(&self, pid: u32) -> u64 {
        let kernel = self.kernel.as_ref();
        let totals = kernel.and_then(|kernel| kernel.reader.process(pid));
        totals.map_or(0, |totals| totals.stall_ns)
    }
}

impl TargetEyes {
    /// Whether the kernel counts what the target uses.
    pub fn has_controller(&self) -> bool {
        self.memory.is_some()
    }

    /// The target. Without a controller its usage is left at 0.
    ///
    /// # Errors
    /// One of the controller's files cannot be read: with ENODEV or ENOENT, the target is gone.
    pub fn facts(&self, depth: Depth, eyes: &Eyes) -> io::Result<TargetFacts> {
        let memory = self.memory.as_ref();
        let current_bytes = memory.map_or(Ok(0), MemoryFiles::current)?;
        let stat = match memory {
            Some(memory) if depth >= Depth::Stat => Some(memory.stat()?),
            _ => None,
        };
        let psi = self.pressure.as_ref().and_then(pressure);
        let io_pressure = self.io_pressure.as_ref();
        let io_psi = io_pressure
            .filter(|_| depth >= Depth::Stat)
            .and_then(pressure);
        let counted = eyes.kernel.as_ref().zip(self.row);
        let reclaim = counted.map(|(kernel, row)| {
            let totals = kernel.reader.totals(row);
            Reclaim {
                stall_ns: totals.stall_ns,
                begins: totals.direct_reclaims + totals.memcg_reclaims,
                scanned_pages: totals.scanned_pages,
                reclaimed_pages: totals.reclaimed_pages,
            }
        });
        Ok(TargetFacts {
            current_bytes,
            limit_bytes: self.limit_bytes,
            stat,
            psi,
            io_psi,
            reclaim,
        })
    }

    /// Where the `cgroup.procs` of another cgroup inside the target goes, while there is room.
    pub fn room_for_nested(&mut self) -> Option<&mut Vec<Reread>> {
        match &mut self.listing {
            Listing::Cgroup(files) => (files.len() < files.capacity()).then_some(files),
            Listing::Tree(_) => None,
        }
    }

    /// Lists the target's processes; how many found no room.
    ///
    /// # Errors
    /// The target's own list cannot be read.
    pub fn list_processes(&mut self, eyes: &mut Eyes) -> io::Result<u64> {
        let files = match &mut self.listing {
            Listing::Cgroup(files) => files,
            Listing::Tree(tree) => return Ok(tree.list(&mut eyes.pids)),
        };
        eyes.pids.clear();
        let mut removed = None;
        let mut left_out = 0;
        let room = eyes.text.len();
        for (at, procs) in files.iter().enumerate() {
            let text = match procs.read(&mut eyes.text) {
                Ok(text) => text,
                // A nested cgroup may go, or become one that lists threads only, at any time; the first
                // is the target itself.
                Err(_) if at > 0 => {
                    removed = Some(at);
                    continue;
                }
                Err(e) => return Err(e),
            };
            let is_full = text.len() == room;
            let text = whole_lines(text, room);
            for pid in pids(text) {
                match eyes.pids.len() < eyes.pids.capacity() {
                    true => eyes.pids.push(pid),
                    false => left_out += 1,
                }
            }
            let read = text.len();
            if is_full {
                left_out += procs.lines_from(read as u64, &mut eyes.text).unwrap_or(0);
            }
        }
        if let Some(at) = removed {
            files.swap_remove(at);
        }
        Ok(left_out)
    }

    /// Whether the target has a process now, by the number that the kernel itself gives it; `false` where
    /// numbers here are not the kernel's.
    pub fn has_process(&self, pid: u32, eyes: &mut Eyes) -> bool {
        if !eyes.names_are_the_kernels() {
            return false;
        }
        let files = match &self.listing {
            Listing::Cgroup(files) => files,
            Listing::Tree(tree) => {
                tree.list(&mut eyes.pids);
                return eyes.pids.contains(&pid);
            }
        };
        let room = eyes.text.len();
        let text = &mut eyes.text;
        files.iter().any(|procs| {
            let listed = procs.read(text);
            listed.is_ok_and(|listed| pids(whole_lines(listed, room)).any(|listed| listed == pid))
        })
    }
}

fn pressure(file: &Reread) -> Option<Psi> {
    let mut buf = [0; 256];
    psi::parse(file.read_short(&mut buf).ok()?)
}

/// The lines of a text that may have filled its buffer: the last may be cut then, and a pid with it.
fn whole_lines(text: &[u8], room: usize) -> &[u8] {
    if text.len() < room {
        return text;
    }
    let end = text.iter().rposition(|&b| b == b'\n');
    &text[..end.map_or(0, |end| end + 1)]
}

/// The numbers of a `cgroup.procs`. 0 is a process of another pid namespace: not ours to touch.
fn pids(text: &[u8]) -> impl Iterator<Item = u32> {
    text.split(|&b| b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok())
        .filter(|&pid| pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::guarded::machine_eyes;
    use std::io::Write;

    #[test]
    fn a_long_list_of_processes_is_read_as_far_as_it_goes_and_the_rest_is_counted() {
        // Numbers beyond what the kernel hands out, and the last one that fits the buffer is cut.
        let mut list = tempfile::NamedTempFile::new().expect("a file");
        for pid in 70_000_001..70_003_001 {
            writeln!(list, "{pid}").expect("room");
        }
        let mut target = TargetEyes {
            memory: None,
            pressure: None,
            io_pressure: None,
            listing: Listing::Cgroup(vec![Reread::open(list.path()).expect("it is there")]),
            limit_bytes: None,
            row: None,
        };
        let mut eyes = Eyes::new(machine_eyes().expect("/proc/meminfo"));
        let left_out = target.list_processes(&mut eyes).expect("a look");
        let listed = (16 << 10) / 9;
        assert_eq!(eyes.listed().count(), listed);
        assert_eq!(eyes.listed().last(), Some(70_000_000 + listed as u32));
        assert_eq!(left_out, 3000 - listed as u64);
    }
}
