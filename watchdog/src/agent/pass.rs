//! One pass of the deciding thread: look, step the policy, carry out the order, say when to come back.
//!
//! Everything here was opened and allocated before; a pass reads with `pread`, signals by pidfd, and
//! tells the slow side through [`Channel`]. When passes happen is [`super::deciding`]'s.

use super::channel::{Channel, Notice, RIVALS};
use super::members::Members;
use super::recorder::Recorder;
use crate::act::{Mode, Outcome, signal};
use crate::bpf;
use crate::host::clock;
use crate::host::meminfo;
use crate::host::memory::MemoryFiles;
use crate::host::psi::{self, Psi};
use crate::host::reread::Reread;
use crate::host::zfs;
use crate::watch::facts::Arc as ZfsArc;
use crate::watch::victim::{self, Choice};
use crate::watch::{
    Depth, Facts, Look, MachineFacts, Member, Order, Policy, Reclaim, Rung, TargetFacts,
};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The files of the target.
#[derive(Debug)]
pub struct TargetEyes {
    /// The memory controller's; `None` where the members' own totals must do.
    pub memory: Option<MemoryFiles>,
    /// `memory.pressure`; `None` where it is off.
    pub pressure: Option<Reread>,
    /// `io.pressure`; `None` where it is off.
    pub io_pressure: Option<Reread>,
    /// `cgroup.procs` of the target, with room for those of the cgroups in it.
    pub procs: Vec<Reread>,
    /// The limit that applies, whoever enforces it.
    pub limit_bytes: Option<u64>,
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
    /// The target's row.
    pub row: bpf::Row,
    /// This agent's place for signs of life.
    pub slot: u32,
    /// Whether process ids here are those of the kernel, so that the guard can be told names.
    pub names: bool,
}

/// Everything one pass works on.
#[derive(Debug)]
pub struct Pass {
    target: TargetEyes,
    machine: MachineEyes,
    kernel: Option<KernelEyes>,
    members: Members,
    policy: Policy,
    mode: Mode,
    channel: Arc<Channel>,
    recorder: Option<Recorder>,
    next: Look,
    due: Option<Duration>,
    interventions: u32,
    victim: Option<Victim>,
    text: Box<[u8]>,
    pids: Vec<u32>,
}

/// The process that was signalled last.
#[derive(Debug)]
struct Victim {
    number: u32,
    choice: Choice,
    pidfd: OwnedFd,
    before_bytes: u64,
    gone_at: Option<Duration>,
}

/// Memory is given this long to come back after a death before the figure is taken.
const RECOVERY: Duration = Duration::from_millis(500);
/// After a look that failed.
const AGAIN: Duration = Duration::from_millis(50);
/// A look this much later than asked is counted as late.
const LATE: Duration = Duration::from_millis(50);

impl Pass {
    /// Puts a pass together.
    pub fn new(
        target: TargetEyes,
        machine: MachineEyes,
        members: Members,
        mut policy: Policy,
        mode: Mode,
        channel: Arc<Channel>,
        recorder: Option<Recorder>,
    ) -> Self {
        if mode == Mode::DryRun {
            policy.rehearse();
        }
        Self {
            target,
            machine,
            kernel: None,
            members,
            policy,
            mode,
            channel,
            recorder,
            next: Look {
                after: Duration::ZERO,
                depth: Depth::Members,
            },
            due: None,
            interventions: 0,
            victim: None,
            text: vec![0; 16 << 10].into_boxed_slice(),
            pids: Vec::with_capacity(4 * super::members::CAPACITY),
        }
    }

    /// Opens the eyes in the kernel, which take longer to get ready than a command may wait.
    pub fn open_kernel_eyes(&mut self, eyes: KernelEyes) {
        self.kernel = Some(eyes);
    }

    /// The ring of the BPF programs, which wakes this thread.
    pub fn ring(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.as_ref().map(|kernel| kernel.reader.fd())
    }

    /// Takes the next event out of the ring.
    pub fn next_event(&mut self) -> Option<bpf::Event> {
        self.kernel.as_mut()?.reader.next_event()
    }

    /// Whether a process, by the number that the kernel itself gives it, is the target's: it was at the
    /// last look, or is now.
    pub fn has_member(&mut self, pid: u32) -> bool {
        let room = self.text.len();
        let listed = |procs: &Reread, text: &mut [u8]| {
            let text = procs.read(text);
            text.is_ok_and(|text| pids(whole_lines(text, room)).any(|listed| listed == pid))
        };
        self.kernel.as_ref().is_some_and(|kernel| kernel.names)
            && (self.members.views().iter().any(|m| m.pid == pid)
                || self
                    .target
                    .procs
                    .iter()
                    .any(|procs| listed(procs, &mut self.text)))
    }

    /// The pass. `woken` means that reclaim has begun in the target: look at everything.
    ///
    /// # Errors
    /// The target is gone. A look that fails for another reason is skipped and counted.
    pub fn once(&mut self, now: Duration, woken: bool) -> io::Result<Duration> {
        self.count_delay(now);
        // Where no controller counts, the members' totals are the target's usage.
        let depth = if woken || self.target.memory.is_none() {
            Depth::Members
        } else {
            self.next.depth
        };
        let looked = self.look_at_target(depth).and_then(|target| {
            if depth == Depth::Members {
                self.look_at_members(now)?;
            }
            Ok(target)
        });
        let target = match looked {
            Ok(target) => target,
            Err(error) if is_gone(&error) => return Err(error),
            Err(_) => {
                let status = &self.channel.status;
                status.failed_looks.fetch_add(1, Ordering::Relaxed);
                self.due = Some(now + AGAIN);
                return Ok(AGAIN);
            }
        };
        let machine = (depth >= Depth::Stat)
            .then(|| self.look_at_machine())
            .flatten();
        let facts = Facts {
            target: self.without_controller(target),
            machine,
            members: (depth == Depth::Members).then(|| self.members.views()),
            victim_gone: self
                .victim
                .as_ref()
                .is_some_and(|v| signal::has_exited(&v.pidfd)),
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.take(now, &facts);
        }
        let decision = self.policy.step(now, &facts);
        let (current_bytes, victim_gone) = (facts.target.current_bytes, facts.victim_gone);
        self.publish(current_bytes);
        self.follow_victim(now, current_bytes, victim_gone);
        if let Some(order) = decision.order {
            self.carry_out(now, &order, current_bytes);
        }
        self.tell_guard(depth);
        self.next = decision.next;
        self.due = Some(now + decision.next.after);
        Ok(decision.next.after)
    }

    /// A sign of life, and whom the guard should reach for if there is none any more.
    fn tell_guard(&self, depth: Depth) {
        let Some(KernelEyes {
            reader,
            row,
            slot,
            names,
        }) = &self.kernel
        else {
            return;
        };
        reader.beat(*slot, clock::now());
        if depth == Depth::Members && *names {
            let weight = |m: &Member| (m.stall_ns, m.growth_bytes, m.anon_bytes);
            let likely = foremost(self.members.views().iter(), weight);
            reader.name_victims(
                *row,
                likely.map(|member| member.map(|m| (m.pid, m.start_ticks))),
            );
        }
    }

    fn look_at_target(&mut self, depth: Depth) -> io::Result<TargetFacts> {
        let memory = self.target.memory.as_ref();
        let current_bytes = memory.map_or(Ok(0), MemoryFiles::current)?;
        let stat = match memory {
            Some(memory) if depth >= Depth::Stat => Some(memory.stat()?),
            _ => None,
        };
        let psi = self.target.pressure.as_ref().and_then(pressure);
        let io_pressure = self.target.io_pressure.as_ref();
        let io_psi = io_pressure
            .filter(|_| depth >= Depth::Stat)
            .and_then(pressure);
        let reclaim = self.kernel.as_ref().map(|kernel| {
            let totals = kernel.reader.totals(kernel.row);
            Reclaim {
                stall_ns: totals.stall_ns,
                begins: totals.direct_reclaims + totals.memcg_reclaims,
                scanned_pages: totals.scanned_pages,
                reclaimed_pages: totals.reclaimed_pages,
            }
        });
        Ok(TargetFacts {
            current_bytes,
            limit_bytes: self.target.limit_bytes,
            stat,
            psi,
            io_psi,
            reclaim,
        })
    }

    /// Where no controller counts, the members' anonymous memory is what is known.
    fn without_controller(&self, mut target: TargetFacts) -> TargetFacts {
        if self.target.memory.is_none() {
            target.current_bytes = self.members.views().iter().map(|m| m.anon_bytes).sum();
        }
        target
    }

    fn look_at_machine(&mut self) -> Option<MachineFacts> {
        let meminfo = meminfo::parse(self.machine.meminfo.read(&mut self.text).ok()?)?;
        let psi = self.machine.pressure.as_ref().and_then(pressure);
        let arc = self.machine.arcstats.as_ref().and_then(|file| {
            let stats = zfs::parse(file.read(&mut self.text).ok()?)?;
            Some(ZfsArc {
                size_bytes: stats.size_bytes,
                c_min_bytes: stats.c_min_bytes,
            })
        });
        Some(MachineFacts { meminfo, arc, psi })
    }

    fn look_at_members(&mut self, now: Duration) -> io::Result<()> {
        self.pids.clear();
        let procs_files = &mut self.target.procs;
        while procs_files.len() < procs_files.capacity()
            && let Some(nested) = self.channel.next_nested()
        {
            procs_files.push(nested);
        }
        let mut removed = None;
        let mut left_out = 0;
        let buffer = self.text.len();
        for (at, procs) in procs_files.iter().enumerate() {
            let text = match procs.read(&mut self.text) {
                Ok(text) => text,
                // A nested cgroup may go, or become one that lists threads only, at any time; the first
                // is the target itself.
                Err(_) if at > 0 => {
                    removed = Some(at);
                    continue;
                }
                Err(e) => return Err(e),
            };
            let is_full = text.len() == buffer;
            let text = whole_lines(text, buffer);
            for pid in pids(text) {
                match self.pids.len() < self.pids.capacity() {
                    true => self.pids.push(pid),
                    false => left_out += 1,
                }
            }
            let read = text.len();
            if is_full {
                left_out += procs.lines_from(read as u64, &mut self.text).unwrap_or(0);
            }
        }
        if let Some(at) = removed {
            procs_files.swap_remove(at);
        }
        let kernel = self.kernel.as_ref();
        self.members.look(now, self.pids.iter().copied(), |pid| {
            kernel
                .and_then(|k| k.reader.process(pid))
                .map_or(0, |totals| totals.stall_ns)
        });
        let untracked = self.members.unseen().untracked + left_out;
        let status = &self.channel.status;
        status.untracked.fetch_max(untracked, Ordering::Relaxed);
        Ok(())
    }

    /// Signals everybody that goes with the victim, as of a fresh list of the members.
    fn carry_out(&mut self, now: Duration, order: &Order, current_bytes: u64) {
        let follows = order.rung == Rung::Sigkill
            && self.victim.as_ref().map(|v| v.choice.member.pid)
                == order.victim.map(|v| v.member.pid)
            && self.victim.is_some();
        if !follows {
            self.interventions += 1;
        }
        let number = self.interventions;
        let rivals = self.rivals(order);
        self.channel.tell(Notice::Ordered {
            number,
            at: now,
            order: *order,
            current_bytes,
            rivals,
        });
        let (Some(choice), Some(signal)) = (order.victim, signal_of(order.rung)) else {
            return;
        };
        if self.look_at_members(now).is_err() {
            return;
        }
        let views = self.members.views();
        let mut survivors = views.len();
        for member in views
            .iter()
            .filter(|m| victim::in_scope(m, &choice.member, choice.scope, views))
        {
            let outcome = self.members.pidfd(member).map_or(Outcome::Gone, |pidfd| {
                let outcome = signal::send(pidfd, signal, self.mode);
                if signal == libc::SIGKILL
                    && outcome == Outcome::Delivered
                    && let Ok(dying) = pidfd.try_clone_to_owned()
                {
                    self.channel.hand_over_dying(dying);
                }
                outcome
            });
            survivors -= usize::from(outcome == Outcome::Delivered);
            self.channel.tell(Notice::Hit {
                number,
                at: now,
                rung: order.rung,
                member: *member,
                outcome,
            });
        }
        self.channel.tell(Notice::Struck { survivors });
        if !follows
            && let Some(pidfd) = self.members.pidfd(&choice.member)
            && let Ok(pidfd) = pidfd.try_clone_to_owned()
        {
            self.victim = Some(Victim {
                number,
                choice,
                pidfd,
                before_bytes: current_bytes,
                gone_at: None,
            });
        }
    }

    fn rivals(&self, order: &Order) -> [Option<Member>; RIVALS] {
        let chosen = order.victim.map(|v| v.member.pid);
        let others = self.members.views().iter();
        let others = others.filter(|m| Some(m.pid) != chosen);
        foremost(others, |m| (m.growth_bytes, m.stall_ns, m.anon_bytes))
    }

    /// Says when the victim's memory has come back.
    fn follow_victim(&mut self, now: Duration, current_bytes: u64, gone: bool) {
        let Some(victim) = &mut self.victim else {
            return;
        };
        if !gone {
            return;
        }
        let gone_at = *victim.gone_at.get_or_insert(now);
        let expected = victim.choice.member.anon_bytes / 2;
        let back = current_bytes <= victim.before_bytes.saturating_sub(expected);
        if back || now.saturating_sub(gone_at) >= RECOVERY {
            self.channel.tell(Notice::Recovered {
                number: victim.number,
                at: now,
                current_bytes,
            });
            self.victim = None;
        }
    }

    fn publish(&self, current_bytes: u64) {
        let status = &self.channel.status;
        status.current_bytes.store(current_bytes, Ordering::Relaxed);
        status
            .peak_bytes
            .fetch_max(current_bytes, Ordering::Relaxed);
        if let Some((full, some)) = self.policy.signals().stall_permille() {
            status.full_permille.store(full.into(), Ordering::Relaxed);
            status.some_permille.store(some.into(), Ordering::Relaxed);
        }
        let unseen = self.members.unseen();
        status
            .untracked
            .fetch_max(unseen.untracked, Ordering::Relaxed);
        status
            .unreadable
            .store(unseen.unreadable, Ordering::Relaxed);
        status.looks.fetch_add(1, Ordering::Relaxed);
    }

    fn count_delay(&self, now: Duration) {
        let delay = now.saturating_sub(self.due.unwrap_or(now));
        let status = &self.channel.status;
        status
            .longest_delay_us
            .fetch_max(delay.as_micros() as u64, Ordering::Relaxed);
        if delay > LATE {
            status.late_looks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The `N` members of the greatest weight, greatest first.
fn foremost<'m, const N: usize>(
    members: impl Iterator<Item = &'m Member>,
    weight: fn(&Member) -> (u64, u64, u64),
) -> [Option<Member>; N] {
    let mut places = [None; N];
    for member in members {
        // An insertion into a few places: sorting the members would move them all.
        let mut held = Some(*member);
        for place in &mut places {
            if place
                .as_ref()
                .is_none_or(|p| held.as_ref().is_some_and(|h| weight(h) > weight(p)))
            {
                std::mem::swap(place, &mut held);
            }
        }
    }
    places
}

/// Whether a file of the target's own says that the target is no more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
}

fn pressure(file: &Reread) -> Option<Psi> {
    let mut buf = [0; 256];
    psi::parse(file.read_short(&mut buf).ok()?)
}

fn signal_of(rung: Rung) -> Option<i32> {
    match rung {
        Rung::Sigterm => Some(libc::SIGTERM),
        Rung::Sigkill => Some(libc::SIGKILL),
        // A freeze takes the kernel's cgroup lock: the slow side does it.
        Rung::Warn | Rung::Freeze => None,
    }
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
    use crate::watch::{Response, Settings};
    use std::io::Write;

    #[test]
    fn a_long_list_of_processes_is_read_as_far_as_it_goes_and_the_rest_is_counted() {
        // Numbers beyond what the kernel hands out, and the last one that fits the buffer is cut.
        let mut list = tempfile::NamedTempFile::new().expect("a file");
        for pid in 70_000_001..70_003_001 {
            writeln!(list, "{pid}").expect("room");
        }
        let settings = Settings::default();
        let channel = Arc::new(Channel::new().expect("descriptors"));
        let target = TargetEyes {
            memory: None,
            pressure: None,
            io_pressure: None,
            procs: vec![Reread::open(list.path()).expect("it is there")],
            limit_bytes: None,
        };
        let mut pass = Pass::new(
            target,
            machine_eyes().expect("/proc/meminfo"),
            Members::new(None, settings.growth_window, 4),
            Policy::new(settings, Response::Warn),
            Mode::DryRun,
            Arc::clone(&channel),
            None,
        );
        pass.look_at_members(Duration::ZERO).expect("a look");
        let listed = (16 << 10) / 9;
        assert_eq!(pass.pids.len(), listed);
        assert_eq!(pass.pids.last(), Some(&(70_000_000 + listed as u32)));
        let untracked = channel.status.untracked.load(Ordering::Relaxed);
        assert_eq!(untracked, 3000 - listed as u64);
    }
}
