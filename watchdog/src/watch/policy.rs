//! The state machine: `step(now, facts)` gives at most one order and says when to look again.
//!
//! What is trouble is [`super::trouble`]'s, who is to blame is [`super::victim`]'s; this owns the rungs,
//! the pauses between them, and how closely to look. **The kill is decided in [`Policy::act`].**

use super::facts::{Facts, Member};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// Say it.
    Warn,
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
    /// Its breakdown and the machine.
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
}

/// Processes that were signalled lately; as many as a cooldown can hold rungs.
const REMEMBERED: usize = 64;

#[derive(Clone, Copy, Debug)]
enum Ladder {
    /// Nothing under way.
    Watching,
    /// SIGTERM was sent; SIGKILL follows at `deadline` if the trouble goes on.
    Asked { victim: Choice, deadline: Duration },
    /// SIGKILL was sent. Nobody else is chosen before the process is gone, or `patience` is over.
    Killed { patience: Duration },
    /// It is gone; its memory is on its way back.
    Settling { until: Duration },
}

/// The policy of one target.
#[derive(Clone, Debug)]
pub struct Policy {
    settings: Settings,
    response: Response,
    signals: Signals,
    ladder: Ladder,
    /// Until when the warning, or the freeze, that was given holds.
    quiet_until: Option<Duration>,
    signalled: [Option<(u32, u64, Duration)>; REMEMBERED],
    deep_look_due: Duration,
}

impl Policy {
    /// A policy that has seen nothing yet.
    pub fn new(settings: Settings, response: Response) -> Self {
        Self {
            settings,
            response,
            signals: Signals::new(settings),
            ladder: Ladder::Watching,
            quiet_until: None,
            signalled: [None; REMEMBERED],
            deep_look_due: Duration::ZERO,
        }
    }

    /// The rates behind the decisions, for the live line and the record.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Takes one look in and decides. `now` must not run backwards.
    pub fn step(&mut self, now: Duration, facts: &Facts) -> Decision {
        self.signals.see(now, facts);
        self.advance(now, facts.victim_gone);
        let trouble = self.signals.trouble(now);
        let order = trouble.and_then(|urgency| self.act(now, urgency, facts.members));
        // Everything but the members says act: look at them at once.
        let blind = trouble.is_some() && facts.members.is_none() && self.may_act(now);
        let next = if blind {
            Look {
                after: Duration::ZERO,
                depth: Depth::Members,
            }
        } else {
            let after = self.pause();
            let depth = self.depth(now + after);
            Look { after, depth }
        };
        if next.depth == Depth::Members {
            self.deep_look_due = now + next.after + self.settings.longest_look;
        }
        Decision { order, next }
    }

    /// Moves on from a kill: from killed to settling when the process is gone, from settling to
    /// watching, with nothing remembered, when its memory had time to come back.
    fn advance(&mut self, now: Duration, victim_gone: bool) {
        match self.ladder {
            Ladder::Killed { .. } if victim_gone => {
                self.ladder = Ladder::Settling {
                    until: now + self.settings.settle,
                };
            }
            Ladder::Settling { until } if now >= until => {
                self.signals.forget();
                self.ladder = Ladder::Watching;
            }
            // Its trouble went away and has stayed away: the next is judged afresh.
            Ladder::Asked { deadline, .. } if now >= deadline + self.settings.cooldown => {
                self.ladder = Ladder::Watching;
            }
            Ladder::Asked { .. } if victim_gone => {
                self.ladder = Ladder::Settling {
                    until: now + self.settings.settle,
                };
            }
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
        if !self.may_act(now) {
            return None;
        }
        let (cause, at_once) = match urgency {
            Urgency::Now(cause) => (cause, true),
            Urgency::Soon(cause) => (cause, false),
        };
        match self.response {
            Response::Warn => return Some(self.quiet_order(now, Rung::Warn, cause, members)),
            Response::Freeze => return Some(self.quiet_order(now, Rung::Freeze, cause, members)),
            Response::Kill => {}
        }
        match self.ladder {
            Ladder::Asked { victim, deadline } if at_once || now >= deadline => {
                Some(self.kill(now, cause, victim))
            }
            Ladder::Asked { .. } => None,
            _ => {
                let victim = self.choose(now, cause.rule, members?)?;
                if at_once {
                    Some(self.kill(now, cause, victim))
                } else {
                    self.remember(now, &victim.member);
                    self.ladder = Ladder::Asked {
                        victim,
                        deadline: now + self.grace(&cause),
                    };
                    Some(Order {
                        rung: Rung::Sigterm,
                        cause,
                        victim: Some(victim),
                    })
                }
            }
        }
    }

    fn may_act(&self, now: Duration) -> bool {
        if self.quiet_until.is_some_and(|until| now < until) {
            return false;
        }
        match self.ladder {
            Ladder::Watching | Ladder::Asked { .. } => true,
            Ladder::Killed { patience } => now >= patience,
            Ladder::Settling { .. } => false,
        }
    }

    fn kill(&mut self, now: Duration, cause: Cause, victim: Choice) -> Order {
        self.remember(now, &victim.member);
        self.ladder = Ladder::Killed {
            patience: now + self.settings.death_grace,
        };
        Order {
            rung: Rung::Sigkill,
            cause,
            victim: Some(victim),
        }
    }

    /// Half of the time that is left, so that the other half is there if asking did not help.
    fn grace(&self, cause: &Cause) -> Duration {
        match cause.rule {
            Rule::Exhaustion | Rule::MachineExhaustion => {
                (Duration::from_micros(cause.observed) / 2).min(self.settings.term_grace)
            }
            Rule::Stall | Rule::MachineStall => self.settings.term_grace,
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
        let victim = members.and_then(|members| self.choose(now, cause.rule, members));
        Order {
            rung,
            cause,
            victim,
        }
    }

    fn choose(&self, now: Duration, rule: Rule, members: &[Member]) -> Option<Choice> {
        victim::choose(members, rule, self.signals.growth_bytes(), |m| {
            self.was_signalled(now, m)
        })
    }

    fn remember(&mut self, now: Duration, member: &Member) {
        let oldest = self
            .signalled
            .iter_mut()
            .min_by_key(|slot| slot.map_or(Duration::ZERO, |(_, _, at)| at));
        if let Some(slot) = oldest {
            *slot = Some((member.pid, member.start_ticks, now));
        }
    }

    fn was_signalled(&self, now: Duration, member: &Member) -> bool {
        self.signalled.iter().flatten().any(|&(pid, start, at)| {
            (pid, start) == (member.pid, member.start_ticks)
                && now.saturating_sub(at) < self.settings.cooldown
        })
    }

    /// How closely to look at `at` while nothing holds. Processes are looked at now and then, so that
    /// growth has a past to be measured against when it matters, and often while a target moves that
    /// could be full soon. The machine is looked at whenever it is what will be full first.
    fn depth(&self, at: Duration) -> Depth {
        let soon = self.time_left() < self.settings.growth_window / 16;
        if at >= self.deep_look_due || (soon && self.signals.moved()) {
            Depth::Members
        } else if self.signals.near_limit() || self.pressed() || self.signals.machine_bounds() {
            Depth::Stat
        } else {
            Depth::Usage
        }
    }

    /// Half of the time in which the headroom could be gone at the fastest fill there is: the other
    /// half is for deciding. While it stalls, often enough for the window to be whole.
    fn pause(&self) -> Duration {
        let calm = self.time_left() / 2;
        let watched = if self.pressed() {
            self.settings.stall_window / 32
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

    /// The time in which all headroom could be gone, of the target or of the machine.
    fn time_left(&self) -> Duration {
        let headroom = self.signals.least_headroom_bytes();
        headroom.map_or(self.settings.longest_look, |bytes| {
            time_to_fill(bytes, self.settings.fastest_fill_bytes_per_s)
        })
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
