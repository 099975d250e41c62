//! What happened, put together for the record: notices of the deciding thread become interventions and
//! victims, and the end of the command becomes a verdict. Pure; reading the last totals and writing the
//! record out is [`super::run`]'s.

mod testing;

use super::blocked::{self, Blocked};
use super::channel::Notice;
use super::signals::Change;
use crate::act::Outcome;
use crate::bpf;
use crate::host::clock;
use crate::incident::{
    self, BlockedTask, Comm, HungTask, Intervention, KernelOomVictim, KilledBy, Process, Quantity,
    RungTaken, Signal, Unit, Verdict, Victim,
};
use crate::watch::{self, Member, Order, Rung, Settings};
use std::collections::BTreeMap;
use std::time::Duration;

/// The story so far.
#[derive(Clone, Debug)]
pub struct Story {
    began: Duration,
    interventions: BTreeMap<u32, Intervention>,
    /// The nearest, and when it was over.
    near_miss: Option<(watch::NearMiss, Duration)>,
    victims: Vec<Victim>,
    kernel_oom: Vec<KernelOomVictim>,
    kernel_oom_kills: Option<u64>,
    hung_tasks: Vec<HungTask>,
    blocked_tasks: Vec<BlockedTask>,
    blocked_left_out: u64,
    timed_out: bool,
    guard_kills: u32,
    /// How many of the target's processes the last order spared.
    survivors: Option<usize>,
}

/// Between two tellings of one thing by the kernel.
const SAID_TWICE_US: u64 = 5_000_000;

/// Numbers of the interventions that no policy ordered: the timeout's, and the guard's from here on.
pub(super) const TIMEOUT: u32 = u32::MAX;
const FIRST_GUARD: u32 = 1 << 31;
/// And the daemon's, from here on.
const FIRST_DAEMON: u32 = 1 << 30;
/// And those for the limits of single tests, and for sessions in which nothing goes on any more.
pub(super) const FIRST_TEST: u32 = 1 << 29;

impl Story {
    /// Begins now.
    pub fn begin(began: Duration) -> Self {
        Self {
            began,
            interventions: BTreeMap::new(),
            near_miss: None,
            victims: Vec::new(),
            kernel_oom: Vec::new(),
            kernel_oom_kills: None,
            hung_tasks: Vec::new(),
            blocked_tasks: Vec::new(),
            blocked_left_out: 0,
            timed_out: false,
            guard_kills: 0,
            survivors: None,
        }
    }

    /// Takes in what the deciding thread told.
    pub fn hear(&mut self, notice: &Notice) {
        match notice {
            Notice::Ordered {
                number,
                at,
                order,
                current_bytes,
                rivals,
            } => {
                self.ordered(*number, *at, order, *current_bytes, rivals);
            }
            Notice::Hit {
                number,
                at,
                rung,
                member,
                outcome,
            } => {
                self.hit(*number, *at, *rung, member, *outcome);
            }
            Notice::Recovered {
                number,
                at,
                current_bytes,
            } => {
                self.recovered(*number, *at, *current_bytes);
            }
            Notice::Struck { survivors } => self.survivors = Some(*survivors),
            Notice::NearMiss(near) => self.came_near(near),
            Notice::TargetGone | Notice::Departed => {}
        }
    }

    fn came_near(&mut self, near: &watch::NearMiss) {
        let nearness = |near: &watch::NearMiss| near.cause.nearness_permille();
        let known = self
            .near_miss
            .as_ref()
            .map_or(0, |(near, _)| nearness(near));
        if nearness(near) > known {
            self.near_miss = Some((*near, clock::now()));
        }
    }

    /// What the processes of an intervention had in swap, where that can still be read.
    pub fn see_swap(&mut self, number: u32, read: impl Fn(&Process) -> Option<u64>) {
        let Some(it) = self.interventions.get_mut(&number) else {
            return;
        };
        let rivals = it.rivals.iter_mut().map(|rival| &mut rival.process);
        for process in it.victim.iter_mut().chain(rivals) {
            if process.swap_bytes.is_none() {
                process.swap_bytes = read(process);
            }
        }
    }

    fn ordered(
        &mut self,
        number: u32,
        at: Duration,
        order: &Order,
        current_bytes: u64,
        rivals: &[Option<Member>],
    ) {
        let at_us = self.since(at);
        let (observed, threshold) = incident::quantities(&order.cause);
        let others: Vec<Member> = rivals.iter().flatten().copied().collect();
        let intervention = self
            .interventions
            .entry(number)
            .or_insert_with(|| Intervention {
                duration_us: Some(order.cause.lasted.as_micros() as u64),
                victim: order.victim.map(|choice| Process::from(&choice.member)),
                ground: order.victim.map(|choice| choice.ground),
                scope: order.victim.map(|choice| choice.scope),
                rivals: order
                    .victim
                    .map_or_else(Vec::new, |choice| incident::rivals(&choice, &others)),
                memory_before_bytes: Some(current_bytes),
                ..Intervention::new(at_us, order.cause.rule.into(), observed, threshold)
            });
        if matches!(order.rung, Rung::Warn | Rung::Freeze) {
            let outcome = Outcome::Delivered;
            intervention.rungs.push(RungTaken {
                rung: order.rung,
                at_us,
                pid: None,
                outcome,
            });
        }
    }

    fn hit(&mut self, number: u32, at: Duration, rung: Rung, member: &Member, outcome: Outcome) {
        let at_us = self.since(at);
        let Some(intervention) = self.interventions.get_mut(&number) else {
            return;
        };
        intervention.rungs.push(RungTaken {
            rung,
            at_us,
            pid: Some(member.pid),
            outcome,
        });
        // Who is asked to fail a test does not end of it.
        if outcome != Outcome::Delivered || rung == Rung::Abort {
            return;
        }
        let chosen = intervention.victim.as_ref();
        let process = Process {
            swap_bytes: chosen
                .filter(|victim| victim.pid == member.pid)
                .and_then(|victim| victim.swap_bytes),
            ..Process::from(member)
        };
        let reason = reason(intervention);
        end_of(&mut self.victims, process, signal_of(rung), &reason, at_us);
    }

    /// The memory is back: of a process that ended, or of a test that failed. Told once.
    pub fn recovered(&mut self, number: u32, at: Duration, current_bytes: u64) {
        let at_us = self.since(at);
        let told = self.interventions.get_mut(&number);
        if let Some(it) = told.filter(|it| it.memory_after_bytes.is_none()) {
            let last = it.rungs.last().map_or(it.at_us, |rung| rung.at_us);
            it.memory_after_bytes = Some(current_bytes);
            it.recovery_us = Some(at_us.saturating_sub(last));
        }
    }

    /// The rung of a freeze was the slow side's to take.
    pub fn froze(&mut self, outcome: Outcome) {
        let mut rungs = self.interventions.values_mut().flat_map(|i| &mut i.rungs);
        if let Some(rung) = rungs.rfind(|rung| rung.rung == Rung::Freeze) {
            rung.outcome = outcome;
        }
    }

    /// The run's time is up; `rung` was taken on these, or would have been in a dry run.
    pub fn timeout(&mut self, limit: Duration, rung: Rung, hit: Vec<(Process, Outcome)>) {
        self.timed_out |= hit.iter().all(|(_, outcome)| *outcome != Outcome::DryRun);
        let at_us = self.since(clock::now());
        let quantity = |us: u64| Quantity {
            value: us,
            unit: Unit::Us,
            text: incident::duration(us).into(),
        };
        let limit_us = limit.as_micros() as u64;
        let intervention = self.interventions.entry(TIMEOUT).or_insert_with(|| {
            let rule = incident::Rule::Timeout;
            Intervention::new(at_us, rule, quantity(at_us), quantity(limit_us))
        });
        let reason = reason(intervention);
        for (process, outcome) in hit {
            intervention.rungs.push(RungTaken {
                rung,
                at_us,
                pid: Some(process.pid),
                outcome,
            });
            if outcome == Outcome::Delivered {
                end_of(&mut self.victims, process, signal_of(rung), &reason, at_us);
            }
        }
    }

    /// The guard in the kernel killed a process while this agent gave no sign of life.
    pub fn guard_kill(&mut self, name: bpf::Name, kill: &bpf::Kill, settings: &Settings) {
        let at_us = self.since(Duration::from_nanos(kill.time_ns));
        let us = |ns: u64| incident::duration(ns / 1000);
        let window_us = settings.stall_window.as_micros() as u64;
        let budget_us = window_us * u64::from(settings.guard_stall_permille) / 1000;
        let quantity = |value: u64, text: String| Quantity {
            value,
            unit: Unit::Us,
            text: text.into(),
        };
        let observed = format!(
            "stalled for {} of {}, and memwatch silent for {}",
            us(kill.stall_ns),
            incident::duration(window_us),
            us(kill.heartbeat_age_ns),
        );
        let process = Process {
            pid: name.tgid,
            comm: Comm::new(&kill.comm),
            ..Process::default()
        };
        let threshold = format!(
            "{}, and {}",
            incident::duration(budget_us),
            incident::duration(settings.guard_stale_after.as_micros() as u64)
        );
        let intervention = Intervention {
            rungs: vec![RungTaken {
                rung: Rung::Sigkill,
                at_us,
                pid: Some(name.tgid),
                outcome: Outcome::Delivered,
            }],
            victim: Some(process.clone()),
            ..Intervention::new(
                at_us,
                incident::Rule::Guard,
                quantity(kill.stall_ns / 1000, observed),
                quantity(budget_us, threshold),
            )
        };
        self.victims.push(Victim {
            process,
            signal: Signal::KILL,
            reason: reason(&intervention).into(),
            killed_by: KilledBy::Guard,
            at_us: Some(at_us),
        });
        let number = FIRST_GUARD + self.guard_kills;
        self.guard_kills += 1;
        self.interventions.insert(number, intervention);
    }

    /// The kernel's OOM killer took a process of the target.
    pub fn kernel_oom(&mut self, pid: u32, comm: &[u8]) {
        let at_us = Some(self.since(clock::now()));
        let comm = Comm::new(comm);
        if self.kernel_oom.iter().any(|victim| victim.pid == pid) {
            return;
        }
        self.kernel_oom.push(KernelOomVictim { pid, comm, at_us });
        // Who was only asked to end, and is here to be killed, did not end of that.
        self.victims
            .retain(|v| v.process.pid != pid || v.signal == Signal::KILL);
        if self.victims.iter().all(|victim| victim.process.pid != pid) {
            self.victims.push(Victim {
                process: Process {
                    pid,
                    comm,
                    ..Process::default()
                },
                signal: Signal::KILL,
                reason: "out of memory, by the kernel's OOM killer".into(),
                killed_by: KilledBy::KernelOom,
                at_us,
            });
        }
    }

    /// The kernel counted `kills` in the target, if it counts. Those that no event named are told as
    /// what is known: a leader that died of SIGKILL with nobody else to blame was one of them, and of
    /// the others there is the number.
    pub fn kernel_oom_count(&mut self, kills: Option<u64>, leader: Option<(u32, Change)>) {
        self.kernel_oom_kills = kills;
        if self.unnamed_kills() > 0
            && let Some((pid, Change::Killed(libc::SIGKILL))) = leader
            && self.victims.iter().all(|victim| victim.process.pid != pid)
        {
            self.kernel_oom(pid, b"");
        }
    }

    fn unnamed_kills(&self) -> u64 {
        incident::unnamed_kills(self.kernel_oom_kills, &self.kernel_oom)
    }

    /// The kernel reported a task as hung.
    pub fn hung(&mut self, tid: u32, comm: &[u8]) {
        let at_us = Some(self.since(clock::now()));
        // It says so twice, by an event and in its log; and again in two minutes.
        let lately = at_us.map(|at_us| at_us.saturating_sub(SAID_TWICE_US));
        let is_it = |known: &HungTask| known.tid == tid && known.at_us >= lately;
        if self.hung_tasks.iter().any(is_it) {
            return;
        }
        self.hung_tasks.push(HungTask {
            tid,
            comm: Comm::new(comm),
            at_us,
        });
    }

    /// A task of the machine is, or was, blocked for long.
    pub fn blocked(&mut self, found: &Blocked) {
        let told = blocked::record(&mut self.blocked_tasks, self.began, found);
        self.blocked_left_out += u64::from(!told);
    }

    /// What the daemon did to the target, in times of this story.
    pub fn take_in(&mut self, told: &mut incident::Record) {
        let interventions = std::mem::take(&mut told.interventions);
        self.interventions
            .extend((FIRST_DAEMON..).zip(interventions));
        self.victims.append(&mut told.victims);
        self.kernel_oom.append(&mut told.kernel_oom);
        self.hung_tasks.append(&mut told.hung_tasks);
        self.blocked_tasks.append(&mut told.blocked_tasks);
        if told.verdict == Verdict::KilledByMemwatch {
            self.survivors = Some(0);
        }
    }

    /// Whether the last order spared nobody of the target.
    pub fn spared_nobody(&self) -> bool {
        self.survivors == Some(0)
    }

    /// The run is over, and the target holds `current_bytes`: what is known of kills that nobody could
    /// follow any more.
    pub fn settle(&mut self, current_bytes: u64) {
        let now_us = self.since(clock::now());
        for it in self.interventions.values_mut() {
            let kills =
                |taken: &&RungTaken| taken.pid.is_some() && taken.outcome == Outcome::Delivered;
            let Some(last) = it.rungs.iter().rfind(kills) else {
                continue;
            };
            if it.memory_before_bytes.is_some() && it.memory_after_bytes.is_none() {
                it.recovery_us = Some(now_us.saturating_sub(last.at_us));
                it.memory_after_bytes = Some(current_bytes);
            }
        }
    }

    /// How the run ended, and the exit code to answer with. `leader` is `None` for a target that was
    /// not started here; that one was emptied by memwatch if its last order spared nobody.
    pub fn end(&mut self, leader: Option<(u32, Change)>, let_go: bool) -> (Verdict, u8) {
        if let Some((pid, Change::Killed(signal))) = leader {
            self.died_of(pid, Signal::from_number(signal));
        }
        let by = |pid: u32, who: KilledBy| {
            self.victims
                .iter()
                .any(|v| v.process.pid == pid && v.killed_by == who)
        };
        let finished = if self.victims.is_empty() && self.unnamed_kills() == 0 {
            Verdict::Finished
        } else {
            Verdict::FinishedWithKills
        };
        match leader {
            _ if self.timed_out => (Verdict::Timeout, 124),
            None if self.survivors == Some(0) && !let_go => (Verdict::KilledByMemwatch, 137),
            None => (finished, 0),
            Some((_, Change::Exited(code))) => (finished, code as u8),
            Some((pid, _)) if by(pid, KilledBy::Memwatch) => (Verdict::KilledByMemwatch, 137),
            Some((pid, _)) if by(pid, KilledBy::Guard) => (Verdict::KilledByGuard, 137),
            Some((pid, _)) if by(pid, KilledBy::KernelOom) => (Verdict::KilledByKernelOom, 137),
            Some((_, Change::Killed(signal))) => (Verdict::Signalled, (128 + signal) as u8),
            Some((_, Change::StoppedByTerminal)) => (Verdict::Finished, 0),
        }
    }

    /// A leader that answered SIGTERM and died of something else was not ended by whoever asked. One that was
    /// still dying of SIGTERM when SIGKILL came was.
    fn died_of(&mut self, pid: u32, fatal: Signal) {
        let mut rungs = self.interventions.values().flat_map(|it| &it.rungs);
        let sent = rungs.any(|taken| {
            taken.pid == Some(pid)
                && taken.outcome == Outcome::Delivered
                && signal_of(taken.rung) == fatal
        });
        self.victims
            .retain(|v| v.process.pid != pid || v.signal == fatal || sent);
        for victim in self.victims.iter_mut().filter(|v| v.process.pid == pid) {
            victim.signal = fatal;
        }
    }

    /// Fills the record with what was told.
    pub fn tell(self, record: &mut incident::Record) {
        if let Some(escape) = self.escape() {
            record.near_miss = Some(escape);
        }
        record.interventions = self.interventions.into_values().collect();
        record.victims = self.victims;
        record.kernel_oom = self.kernel_oom;
        record.kernel_oom_kills = self.kernel_oom_kills;
        record.hung_tasks = self.hung_tasks;
        record.blocked_tasks = self.blocked_tasks;
        record.losses.blocked_tasks += self.blocked_left_out;
    }

    /// A near miss that was one: nobody ended of it.
    fn escape(&self) -> Option<incident::NearMiss> {
        let (near, over) = self.near_miss.as_ref()?;
        let began = near.at.saturating_sub(near.lasted);
        let during = self.since(began)..=self.since(*over);
        let mut ends = self.victims.iter().filter_map(|victim| victim.at_us);
        let has_victims = ends.any(|at_us| during.contains(&at_us));
        (!has_victims).then(|| incident::near_miss(near, self.began))
    }

    fn since(&self, at: Duration) -> u64 {
        at.saturating_sub(self.began).as_micros() as u64
    }
}

/// memwatch has signalled a process: whoever was asked before is told once, by the last signal.
fn end_of(victims: &mut Vec<Victim>, process: Process, signal: Signal, reason: &str, at_us: u64) {
    match victims
        .iter_mut()
        .find(|victim| victim.process.pid == process.pid)
    {
        Some(victim) => victim.signal = signal,
        None => victims.push(Victim {
            process,
            signal,
            reason: reason.into(),
            killed_by: KilledBy::Memwatch,
            at_us: Some(at_us),
        }),
    }
}

/// By which a rung ends somebody.
fn signal_of(rung: Rung) -> Signal {
    if rung == Rung::Sigkill {
        Signal::KILL
    } else {
        Signal::from_number(libc::SIGTERM)
    }
}

fn reason(intervention: &Intervention) -> String {
    format!(
        "{} (allowed: {})",
        intervention.observed.text.as_str(),
        intervention.threshold.text.as_str()
    )
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
