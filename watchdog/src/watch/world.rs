//! A made-up machine to drive the policy against, looked at when and as closely as the policy asks: for
//! property tests, which need thousands of machines. Real ones are in `tests/` and in recordings.

use super::facts::{Facts, MachineFacts, Member, TargetFacts};
use super::near_miss::NearMiss;
use super::policy::{Depth, Look, Order, Policy, Response, Rung};
use super::settings::Settings;
use crate::host::meminfo::MemInfo;
use crate::host::memory::MemoryStat;
use crate::host::psi::Psi;
use std::time::Duration;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// From the signal to the last page: what `Settings::reaction` is meant to cover.
const DEATH: Duration = Duration::from_millis(2);

/// A process that was signalled, and when that takes effect.
type Hit = (u32, Rung, Duration);

/// One process: it starts with `base_bytes` and grows by `fill_bytes_per_s` up to `most_bytes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) base_bytes: u64,
    pub(super) fill_bytes_per_s: u64,
    /// When it begins to grow.
    pub(super) begins: Duration,
    pub(super) most_bytes: u64,
    /// Time in reclaim, in permille of the time that passes.
    pub(super) stall_permille: u64,
    pub(super) signals: Manners,
}

/// What a process does with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    /// It dies of it.
    Dies,
    /// It is in uninterruptible sleep, or nothing was sent.
    Stays,
    /// It gives back all that it took and grows no more, for SIGTERM and for good.
    GivesBack,
}

/// A target under a limit on a machine.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) limit_bytes: u64,
    pub(super) high_bytes: Option<u64>,
    pub(super) machine_bytes: u64,
    /// The machine's swap, and whether the target may use it.
    pub(super) swap_bytes: u64,
    pub(super) may_swap: bool,
    /// What others on the machine have taken before, and what they take in a second.
    pub(super) others_bytes: u64,
    pub(super) others_bytes_per_s: u64,
    pub(super) processes: Vec<Process>,
    /// Page cache grows by this much a second, up to what the limit leaves.
    pub(super) cache_bytes_per_s: u64,
    /// PSI memory `full` and `some`, and I/O `full`, in permille of the time that passes.
    pub(super) full_permille: u64,
    pub(super) some_permille: u64,
    pub(super) io_full_permille: u64,
    pub(super) refaults_per_s: u64,
}

/// How a run in a world ended.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) orders: Vec<(Duration, Order)>,
    pub(super) near_misses: Vec<NearMiss>,
    /// When memory that cannot be reclaimed reached the limit, or the machine's end: the kernel's OOM killer's moment.
    pub(super) out_of_memory: Option<Duration>,
    pub(super) looks: usize,
}

impl Outcome {
    /// The first order of at least SIGTERM.
    pub(super) fn first_signal(&self) -> Option<(Duration, u32)> {
        let signals = self.orders.iter();
        signals
            .filter(|(_, order)| matches!(order.rung, Rung::Sigterm | Rung::Sigkill))
            .find_map(|(at, order)| Some((*at, order.victim?.member.pid)))
    }
}

impl World {
    /// Nothing but a limit, and a terabyte around it.
    pub(super) fn quiet(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            high_bytes: None,
            machine_bytes: 1 << 40,
            swap_bytes: 0,
            may_swap: true,
            others_bytes: 0,
            others_bytes_per_s: 0,
            processes: Vec::new(),
            cache_bytes_per_s: 0,
            full_permille: 0,
            some_permille: 0,
            io_full_permille: 0,
            refaults_per_s: 0,
        }
    }

    /// With one more process.
    pub(super) fn with(mut self, process: Process) -> Self {
        self.processes.push(process);
        self
    }

    /// Runs it. Each look comes `late` after it was asked for. Processes die of what they are ordered.
    pub(super) fn run(
        &self,
        settings: Settings,
        response: Response,
        spell: Duration,
        late: Duration,
    ) -> Outcome {
        self.drive(Policy::new(settings, response), spell, late)
    }

    /// Runs it under a policy that may have been told more.
    pub(super) fn drive(&self, mut policy: Policy, spell: Duration, late: Duration) -> Outcome {
        let window = Settings::default().growth_window;
        let mut outcome = Outcome::default();
        let mut hit: Vec<Hit> = Vec::new();
        let start = Duration::from_secs(1000);
        let (mut at, mut depth) = (start, Depth::Members);
        let mut last_victim = None;
        while at < start + spell {
            let members = self.members(at - start, &hit, window);
            let held: u64 = members.iter().map(|m| m.anon_bytes).sum();
            let most = self.limit_bytes.saturating_add(self.swap_max());
            let available = self.available(at - start, held);
            if (held >= most || available + self.swap_free(held) == 0)
                && outcome.out_of_memory.is_none()
            {
                outcome.out_of_memory = Some(at - start);
            }
            let gone = last_victim.is_some_and(|pid| !members.iter().any(|m| m.pid == pid));
            let facts = self.facts(at - start, depth, held, &members, gone);
            let decision = policy.step(at, &facts);
            outcome.looks += 1;
            outcome.near_misses.extend(decision.near_miss);
            if let Some(order) = decision.order {
                outcome.orders.push((at - start, order));
                if let (Some(choice), Rung::Sigterm | Rung::Sigkill) = (order.victim, order.rung) {
                    last_victim = Some(choice.member.pid);
                    hit.push((choice.member.pid, order.rung, at - start + DEATH));
                }
            }
            let Look { after, depth: next } = decision.next;
            at += after.max(Duration::from_micros(20)) + late;
            depth = next;
        }
        outcome.near_misses.extend(policy.leave(at));
        outcome
    }

    fn available(&self, since: Duration, held: u64) -> u64 {
        let others = self.others_bytes + grown(self.others_bytes_per_s, since);
        let taken = held - self.swapped(held) + others;
        self.machine_bytes.saturating_sub(taken)
    }

    fn swap_max(&self) -> u64 {
        if self.may_swap { self.swap_bytes } else { 0 }
    }

    /// What the target's limit has pushed out to swap.
    fn swapped(&self, held: u64) -> u64 {
        held.saturating_sub(self.limit_bytes).min(self.swap_max())
    }

    fn swap_free(&self, held: u64) -> u64 {
        self.swap_bytes - self.swapped(held)
    }

    fn members(&self, since: Duration, hit: &[Hit], window: Duration) -> Vec<Member> {
        let past = since.saturating_sub(window);
        let living = self.processes.iter().filter(|p| p.lives(since, hit));
        living
            .map(|p| Member {
                pid: p.pid,
                ppid: 1,
                pgid: 1,
                start_ticks: u64::from(p.pid),
                leader: p.pid == 1,
                anon_bytes: p.size(since, hit),
                growth_bytes: p.size(since, hit).saturating_sub(p.size(past, hit)),
                stall_ns: share(since.min(window), p.stall_permille) * 1000,
                ..Member::default()
            })
            .collect()
    }

    fn facts<'m>(
        &self,
        since: Duration,
        depth: Depth,
        held: u64,
        members: &'m [Member],
        gone: bool,
    ) -> Facts<'m> {
        let swapped = self.swapped(held);
        let room = self.limit_bytes.saturating_sub(held);
        let cache = grown(self.cache_bytes_per_s, since).min(room);
        let micros = |permille| share(since, permille);
        Facts {
            target: TargetFacts {
                current_bytes: held - swapped + cache,
                limit_bytes: Some(self.limit_bytes),
                stat: (depth >= Depth::Stat).then(|| MemoryStat {
                    anon_bytes: held - swapped,
                    swap_bytes: swapped,
                    high_bytes: self.high_bytes,
                    swap_max_bytes: (!self.may_swap).then_some(0),
                    reclaimable_bytes: cache,
                    refault_pages: grown(self.refaults_per_s, since),
                    ..MemoryStat::default()
                }),
                psi: Some(Psi {
                    some_us: micros(self.some_permille.max(self.full_permille)),
                    full_us: micros(self.full_permille),
                }),
                io_psi: (depth >= Depth::Stat).then(|| Psi {
                    some_us: micros(self.io_full_permille),
                    full_us: micros(self.io_full_permille),
                }),
                reclaim: None,
            },
            machine: (depth >= Depth::Machine).then(|| MachineFacts {
                meminfo: MemInfo {
                    total_bytes: self.machine_bytes,
                    available_bytes: self.available(since, held),
                    swap_total_bytes: self.swap_bytes,
                    swap_free_bytes: self.swap_free(held),
                },
                arc: None,
                psi: None,
            }),
            members: (depth == Depth::Members).then_some(members),
            victim_gone: gone,
        }
    }
}

impl Process {
    fn lives(&self, since: Duration, hit: &[Hit]) -> bool {
        let killed = |&(pid, rung, at): &Hit| {
            let deadly = match self.signals {
                Manners::Dies => true,
                Manners::Stays => false,
                Manners::GivesBack => rung == Rung::Sigkill,
            };
            pid == self.pid && deadly && since >= at
        };
        !hit.iter().any(killed)
    }

    fn size(&self, since: Duration, hit: &[Hit]) -> u64 {
        let asked = |&(pid, _, at): &Hit| pid == self.pid && since >= at;
        if self.signals == Manners::GivesBack && hit.iter().any(asked) {
            return self.base_bytes;
        }
        let growing = since.saturating_sub(self.begins);
        (self.base_bytes + grown(self.fill_bytes_per_s, growing)).min(self.most_bytes)
    }
}

fn grown(per_s: u64, since: Duration) -> u64 {
    (per_s as f64 * since.as_secs_f64()) as u64
}

/// µs.
fn share(since: Duration, permille: u64) -> u64 {
    since.as_micros() as u64 * permille / 1000
}

/// Holds what it has.
pub(super) fn steady(pid: u32, bytes: u64) -> Process {
    Process {
        pid,
        base_bytes: bytes,
        fill_bytes_per_s: 0,
        most_bytes: bytes,
        stall_permille: 0,
        begins: Duration::ZERO,
        signals: Manners::Dies,
    }
}

/// Takes for ever.
pub(super) fn leak(pid: u32, bytes_per_s: u64) -> Process {
    Process {
        pid,
        base_bytes: 0,
        fill_bytes_per_s: bytes_per_s,
        most_bytes: u64::MAX,
        stall_permille: 0,
        begins: Duration::ZERO,
        signals: Manners::Dies,
    }
}

/// A thrasher at its limit.
pub(super) fn thrash(full_permille: u64) -> World {
    World {
        cache_bytes_per_s: GIB,
        full_permille,
        refaults_per_s: 5000,
        ..World::quiet(200 * MIB).with(Process {
            stall_permille: full_permille,
            ..steady(7, 20 * MIB)
        })
    }
}

/// What a policy of its usual numbers does to it.
pub(super) fn run(world: &World, spell: Duration) -> Outcome {
    world.run(Settings::default(), Response::Kill, spell, Duration::ZERO)
}
