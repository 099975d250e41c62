//! The state machine: `step(now, facts)` gives at most one order and says when to look again.
//!
//! What is trouble is [`super::trouble`]'s, who is to blame is [`super::victim`]'s; this owns the rungs,
//! the pauses between them, and how closely to look. **The kill is decided in [`Policy::act`].**

use super::facts::{Facts, Member};
use super::near_miss::{Brink, NearMiss};
use super::settings::Settings;
use super::trouble::{Cause, Rule, Signals, Urgency, time_to_fill};
use super::victim::{self, Choice};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How far the policy may go when a rule holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Response {
    /// SIGTERM where the slope leaves time, then SIGKILL.
    #[default]
    Kill,
    /// Freeze the target, for those who want to look first.
    Freeze,
    /// Say it, do nothing.
    Warn,
}

/// A step of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// Say it.
    Warn,
    /// Have the test fail that the victim runs; its process goes on.
    Abort,
    /// Interrupt a run of pytest, which ends with its reports. Never the policy's.
    Sigint,
    /// Ask the victim to end.
    Sigterm,
    /// End it.
    Sigkill,
    /// Stop the whole target where it is.
    Freeze,
}

/// What is to be done, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// How far to go.
    pub rung: Rung,
    /// The rule, with what was seen.
    pub cause: Cause,
    /// Who; `None` if no member of the target could be seen.
    pub victim: Option<Choice>,
}

/// How much the next look must read. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Depth {
    /// Usage and pressure of the target: microseconds.
    Usage,
    /// The machine, which is looked at once for many targets.
    Machine,
    /// The target's breakdown.
    Stat,
    /// Its processes.
    Members,
}

/// When to look next, and how closely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// At most this long from now.
    pub after: Duration,
    /// At least this much.
    pub depth: Depth,
}

/// What one step comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do now.
    pub order: Option<Order>,
    /// When to come back.
    pub next: Look,
    /// The target has come near to where an order would have been given, and away again.
    pub near_miss: Option<NearMiss>,
}

/// Processes that were signalled lately; as many as a cooldown can hold rungs.
const REMEMBERED: usize = 64;

#[derive(Clone, Copy, Debug)]
enum Ladder {
    /// Nothing under way.
    Watching,
    /// SIGTERM was sent. Nobody is chosen before `deadline`, unless there is no time to wait for it.
    Asked { deadline: Duration },
    /// SIGKILL was sent. Nobody is chosen before the process is gone, or `patience` is over.
    Killed { patience: Duration },
    /// It is gone; its memory is on its way back.
    Settling { until: Duration },
}

/// A process that was signalled, with the last rung that it was given.
#[derive(Clone, Copy, Debug)]
struct Signalled {
    pid: u32,
    start_ticks: u64,
    rung: Rung,
    at: Duration,
    /// The test that it ran then, if that could be asked to fail.
    test: u32,
    /// What it may hold when the memory of that test is back.
    back_bytes: u64,
    /// Whether it has held as little since then.
    is_back: bool,
}

/// How far apart the looks are at a process whose test was asked to fail, until its memory is back.
const ANSWER_LOOK: Duration = Duration::from_millis(50);

/// The policy of one target.
#[derive(Clone, Debug)]
pub struct Policy {
    settings: Settings,
    response: Response,
    signals: Signals,
    ladder: Ladder,
    /// Whether what is ordered is not done.
    rehearsing: bool,
    /// Whether a target that sits still is looked at lightly.
    one_of_many: bool,
    /// Until when the warning, or the freeze, that was given holds.
    quiet_until: Option<Duration>,
    signalled: [Option<Signalled>; REMEMBERED],
    deep_look_due: Duration,
    brink: Brink,
}

impl Policy {
    /// A policy that has seen nothing yet.
    pub fn new(settings: Settings, response: Response) -> Self {
        Self {
            settings,
            response,
            signals: Signals::new(settings),
            ladder: Ladder::Watching,
            rehearsing: false,
            one_of_many: false,
            quiet_until: None,
            signalled: [None; REMEMBERED],
            deep_look_due: Duration::ZERO,
            brink: Brink::default(),
        }
    }

    /// From now on nothing that is ordered is done. Nobody dies of it, so the trouble goes on, and who
    /// would come next cannot be told: a SIGKILL is followed by the silence of a cooldown.
    pub fn rehearse(&mut self) {
        self.rehearsing = true;
    }

    /// One of many targets of one memwatch: while it sits still its processes and its breakdown are not
    /// looked at, and who grew is known from when it began to move.
    pub fn one_of_many(&mut self) {
        self.one_of_many = true;
    }

    /// Whether there is nothing to look at closely: one of many, not stalled, and with room to grow for longer
    /// than it takes to look again.
    pub fn rests(&self) -> bool {
        self.one_of_many && !self.pressed() && !self.could_be_full_soon()
    }

    /// How closely to look first.
    pub fn first_look(&self) -> Look {
        let depth = if self.one_of_many {
            Depth::Machine
        } else {
            Depth::Members
        };
        Look {
            after: Duration::ZERO,
            depth,
        }
    }

    /// Over which time the growth of a process is to be measured.
    pub fn growth_window(&self) -> Duration {
        self.settings.growth_window
    }

    /// The rates behind the decisions, for the live line and the record.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Takes one look in and decides. `now` must not run backwards.
    pub fn step(&mut self, now: Duration, facts: &Facts) -> Decision {
        self.signals.see(now, facts);
        self.see_memory_come_back(facts.members);
        self.advance(now, facts.victim_gone);
        let trouble = self.signals.trouble(now);
        let due = trouble.filter(|&urgency| self.may_act(now, urgency));
        let order = due.and_then(|urgency| self.act(now, urgency, facts.members));
        let near_miss = self.see_brink(now, order.is_some());
        // Everything but the members says act: look at them at once.
        let blind = due.is_some() && facts.members.is_none();
        let next = if blind {
            Look {
                after: Duration::ZERO,
                depth: Depth::Members,
            }
        } else {
            // Between two looks that are far apart the next test could have taken as much again.
            let awaits = self.awaits_memory(now);
            let after = if awaits {
                self.pause().min(ANSWER_LOOK)
            } else {
                self.pause()
            };
            let depth = if awaits {
                Depth::Members
            } else {
                self.depth(now + after)
            };
            Look { after, depth }
        };
        if next.depth == Depth::Members {
            self.deep_look_due = now + next.after + self.settings.longest_look;
        }
        Decision {
            order,
            next,
            near_miss,
        }
    }

    /// Nobody looks any more: what the target was near to it has got away from.
    pub fn leave(&mut self, now: Duration) -> Option<NearMiss> {
        self.brink.leave(now)
    }

    fn see_brink(&mut self, now: Duration, ordered: bool) -> Option<NearMiss> {
        let steps_in = ordered || !matches!(self.ladder, Ladder::Watching);
        let nearly = self.signals.nearly(now);
        let away = self.settings.stall_window;
        self.brink.see(now, nearly, steps_in, away)
    }

    fn see_memory_come_back(&mut self, members: Option<&[Member]>) {
        let asked = self.signalled.iter_mut().flatten();
        for signalled in asked.filter(|signalled| signalled.rung == Rung::Abort) {
            let is_it =
                |m: &&Member| (m.pid, m.start_ticks) == (signalled.pid, signalled.start_ticks);
            let member = members.into_iter().flatten().find(is_it);
            signalled.is_back |= member.is_some_and(|m| m.anon_bytes <= signalled.back_bytes);
        }
    }

    /// Whether a test was asked to fail, and its memory is not back yet though it may still come.
    fn awaits_memory(&self, now: Duration) -> bool {
        let patience = 2 * self.settings.abort_grace;
        let mut signalled = self.signalled.iter().flatten();
        signalled
            .any(|s| s.rung == Rung::Abort && !s.is_back && now.saturating_sub(s.at) < patience)
    }

    /// Moves on from a signal: to settling when the process is gone, and from there to watching, with
    /// nothing remembered, when its memory had time to come back. A process that takes too long to die
    /// is waited for no longer; then, too, a whole new window must speak against the next.
    fn advance(&mut self, now: Duration, victim_gone: bool) {
        match self.ladder {
            Ladder::Asked { .. } | Ladder::Killed { .. } if victim_gone => {
                self.ladder = Ladder::Settling {
                    until: now + self.settings.settle,
                };
            }
            Ladder::Settling { until: over } | Ladder::Killed { patience: over } if now >= over => {
                self.signals.forget();
                self.ladder = Ladder::Watching;
            }
            // Whatever is wrong now is judged afresh: if the same process is to blame, it was asked.
            Ladder::Asked { deadline } if now >= deadline => self.ladder = Ladder::Watching,
            _ => {}
        }
    }

    /// The kill is decided here: which rung, for the trouble there is and the rungs behind us.
    fn act(
        &mut self,
        now: Duration,
        urgency: Urgency,
        members: Option<&[Member]>,
    ) -> Option<Order> {
        let (cause, time_to_ask) = match urgency {
            Urgency::Now(cause) => (cause, None),
            Urgency::Soon(cause, left) => (cause, Some(left)),
        };
        match self.response {
            Response::Warn => return Some(self.quiet_order(now, Rung::Warn, cause, members)),
            Response::Freeze => return Some(self.quiet_order(now, Rung::Freeze, cause, members)),
            Response::Kill => {}
        }
        let members = members?;
        if let Some(dying) = self.asked_and_dying(now, members) {
            // It did as it was asked; its memory is on its way. As good as killed, so waited for as long.
            self.remember(now, &dying, Rung::Sigkill);
            let patience = now + self.settings.death_grace;
            self.ladder = Ladder::Killed { patience };
            return None;
        }
        let victim = self.choose(cause.rule, members)?;
        let rung = match (self.last_rung(now, &victim.member), time_to_ask) {
            // It is to blame and takes its time to die: nobody else is hit in its place.
            (Some(Rung::Sigkill), _) => return None,
            (None, left) if victim.member.test != 0 => {
                // It stops filling as soon as it answers, so it may take until the last moment; and then there is
                // a look's time for its stacks.
                let patience =
                    left.map_or(self.settings.shortest_look, |_| self.settings.abort_grace);
                let deadline = now + patience;
                self.ladder = Ladder::Asked { deadline };
                Rung::Abort
            }
            (None, Some(left)) => {
                // Half, so that the other half is there if asking does not help.
                let deadline = now + (left / 2).min(self.settings.term_grace);
                self.ladder = Ladder::Asked { deadline };
                Rung::Sigterm
            }
            _ => {
                let patience = now + self.settings.death_grace;
                self.ladder = Ladder::Killed { patience };
                self.quiet_until = self.rehearsing.then(|| now + self.settings.cooldown);
                Rung::Sigkill
            }
        };
        self.remember(now, &victim.member, rung);
        Some(Order {
            rung,
            cause,
            victim: Some(victim),
        })
    }

    fn may_act(&self, now: Duration, urgency: Urgency) -> bool {
        if self.quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        match self.ladder {
            Ladder::Watching => true,
            Ladder::Asked { .. } => matches!(urgency, Urgency::Now(_)),
            Ladder::Killed { .. } | Ladder::Settling { .. } => false,
        }
    }

    fn quiet_order(
        &mut self,
        now: Duration,
        rung: Rung,
        cause: Cause,
        members: Option<&[Member]>,
    ) -> Order {
        self.quiet_until = Some(now + self.settings.cooldown);
        let victim = members.and_then(|members| self.choose(cause.rule, members));
        Order {
            rung,
            cause,
            victim,
        }
    }

    fn choose(&self, rule: Rule, members: &[Member]) -> Option<Choice> {
        victim::choose(members, rule, self.signals.growth_bytes())
    }

    fn remember(&mut self, now: Duration, member: &Member, rung: Rung) {
        let oldest = self
            .signalled
            .iter_mut()
            .min_by_key(|slot| slot.map_or(Duration::ZERO, |signalled| signalled.at));
        if let Some(slot) = oldest {
            *slot = Some(Signalled {
                pid: member.pid,
                start_ticks: member.start_ticks,
                rung,
                at: now,
                test: member.test,
                back_bytes: member.anon_bytes - (member.growth_bytes / 2).min(member.anon_bytes),
                is_back: false,
            });
        }
    }

    /// One that was asked lately and has given up its memory map, but is not gone: it reads as holding nothing.
    fn asked_and_dying(&self, now: Duration, members: &[Member]) -> Option<Member> {
        let dying = members.iter().filter(|member| member.anon_bytes == 0);
        let mut asked = dying.filter(|m| self.last_rung(now, m) == Some(Rung::Sigterm));
        asked.next().copied()
    }

    /// The last rung that the process was given, if that was lately.
    fn last_rung(&self, now: Duration, member: &Member) -> Option<Rung> {
        let given = self.signalled.iter().flatten();
        given
            .filter(|s| (s.pid, s.start_ticks) == (member.pid, member.start_ticks))
            .filter(|s| now.saturating_sub(s.at) < self.settings.cooldown)
            // A test that failed and gave its memory back has done what was asked: another is judged afresh. Where
            // the memory stayed, as with a thread that goes on, the next test is not to blame, but the process is.
            .filter(|s| s.rung != Rung::Abort || s.test == member.test || !s.is_back)
            .max_by_key(|s| s.at)
            .map(|s| s.rung)
    }

    /// How closely to look at `at` while nothing holds. Processes are looked at now and then, so that
    /// growth has a past to be measured against when it matters, and often while a target moves that
    /// could be full soon. The machine is looked at whenever it is what will be full first.
    fn depth(&self, at: Duration) -> Depth {
        let soon = self.could_be_full_soon();
        let moved = self.signals.moved();
        let troubled = self.signals.near_limit() || self.pressed();
        let sits_still = self.one_of_many && !moved && !troubled;
        if (at >= self.deep_look_due && !sits_still) || (soon && moved) {
            Depth::Members
        } else if troubled || (self.signals.machine_bounds() && !sits_still) {
            Depth::Stat
        } else if self.signals.machine_bounds() {
            Depth::Machine
        } else {
            Depth::Usage
        }
    }

    /// Half of the time in which the headroom could be gone at the fastest fill there is: the other
    /// half is for deciding. While it stalls, often enough for the window to be whole, and for a pause of
    /// less than 100 ms on a machine that lets this thread wait too.
    fn pause(&self) -> Duration {
        let calm = self.time_left() / 2;
        let watched = if self.pressed() {
            self.settings.stall_window / 40
        } else {
            calm
        };
        calm.min(watched)
            .clamp(self.settings.shortest_look, self.settings.longest_look)
    }

    fn pressed(&self) -> bool {
        self.signals
            .stall_permille()
            .is_some_and(|(_, some)| some > self.settings.stall_full_permille / 10)
    }

    fn could_be_full_soon(&self) -> bool {
        self.time_left() < self.settings.growth_window / 16
    }

    /// The time in which all headroom could be gone, of the target or of the machine.
    fn time_left(&self) -> Duration {
        let headroom = self.signals.least_headroom_bytes();
        headroom.map_or(self.settings.longest_look, |bytes| {
            time_to_fill(bytes, self.settings.fastest_fill_bytes_per_s)
        })
    }
}

#[cfg(test)]
#[path = "policy_abort_tests.rs"]
mod abort;
#[cfg(test)]
#[path = "policy_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
