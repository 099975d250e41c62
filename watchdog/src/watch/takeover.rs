//! When memwatch stands in for systemd-oomd, and whom it ends in the units that systemd-oomd was given. Pure.
//!
//! Two things that are kept apart. *Pressure of a unit* is systemd-oomd's for as long as it is well
//! ([`super::peer`]); when it is not, memwatch judges by the same limits ([`super::oomd_rule`]). *Exhaustion of
//! the machine* is nobody's: systemd-oomd has no rule for it without swap, and none that is quick enough with
//! it. There memwatch acts at any time, by its own rules ([`super::trouble`]) on all managed cgroups together.

use super::availability::available_bytes;
use super::facts::{Facts, MachineFacts, TargetFacts};
use super::oomd_rule::{self, Candidate, Unit};
use super::peer::{Ailment, Health};
use super::settings::Settings;
use super::trouble::{Cause, Signals, Urgency, time_to_fill};
use super::window::Window;
use crate::host::memory::MemoryStat;
use crate::host::oomd::Preference;
use serde::Serialize;
use std::time::Duration;

/// How long systemd-oomd may be gone before that is more than a restart: systemd takes 0.9 s for one.
const GONE: Duration = Duration::from_secs(3);
/// How long it may stand still: a debugger that attaches and lets go again is quicker.
const STOPPED: Duration = Duration::from_secs(1);
/// How long it must have been well before it gets its units back. That doubles with every takeover within
/// [`RELAPSE`] of the last hand-back, up to sixteen times, so that a crash loop is not told of for ever.
const PROBATION: Duration = Duration::from_secs(10);
const RELAPSE: Duration = Duration::from_secs(600);
const MOST_DOUBLINGS: u32 = 4;
/// After a kill for a unit's pressure: the average lags. As systemd-oomd waits.
const AFTER_PRESSURE: Duration = Duration::from_secs(15);
/// Exhaustion that is this near is looked at as closely as can be.
const NEAR: Duration = Duration::from_secs(4);
/// The longest between two looks while there is anything to look at.
const ROUND: Duration = Duration::from_millis(500);
/// The shortest while nothing is near: what grows at the fastest there is in that time is a fraction of the
/// low mark.
const CALM: Duration = Duration::from_millis(10);

/// Who looks after the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
pub enum Stage {
    /// systemd-oomd.
    Peer,
    /// systemd-oomd still, though there is a reason to doubt it.
    Doubted,
    /// memwatch.
    TakenOver {
        /// What was wrong.
        why: Health,
    },
    /// memwatch still for what stalls the machine, though systemd-oomd is well again and judges by its own rule:
    /// if both did, two would be ended for one average.
    HandingBack {
        /// What was wrong.
        why: Health,
    },
}

impl Stage {
    /// Whether memwatch has taken over, and has not handed back yet.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::TakenOver { .. } | Self::HandingBack { .. })
    }
}

/// A change of who looks after the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// memwatch does from now on.
    TakenOver {
        /// What is wrong.
        why: Health,
        /// For how long it had been.
        after: Duration,
    },
    /// systemd-oomd does again.
    HandedBack {
        /// How long memwatch did.
        after: Duration,
    },
    /// Nobody has to: it was given nothing any more, or is not wanted.
    LetGo {
        /// How long memwatch did.
        after: Duration,
    },
}

/// Why a cgroup is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The pressure of a unit, by systemd-oomd's rule.
    Pressure {
        /// The unit's cgroup.
        unit: u64,
        /// What it showed, in hundredths of a percent (`full avg10`).
        full_permyriad: u32,
        /// Its limit.
        limit_permyriad: u32,
        /// For how long it was above that.
        lasted: Duration,
    },
    /// Memory and swap are both used up, by systemd-oomd's rule.
    Swap {
        /// Swap in use, in hundredths of a percent.
        used_permyriad: u32,
        /// The limit for it.
        limit_permyriad: u32,
    },
    /// One of memwatch's rules for the whole machine.
    Machine(Cause),
}

/// End this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which of the candidates.
    pub candidate: usize,
    /// Why.
    pub why: Why,
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Takeover {
    settings: Settings,
    stage: Stage,
    /// Since when systemd-oomd is not well, or, while it is handed back to, well.
    turned_at: Duration,
    taken_over_at: Duration,
    handed_back_at: Option<Duration>,
    /// How often it was taken over in a row, each within [`RELAPSE`] of the last hand-back.
    relapses: u32,
    /// What all managed cgroups hold, against the machine.
    signals: Signals,
    available: Window,
    /// What is left above the low mark, at the last look.
    room_bytes: u64,
    struck: Option<Struck>,
    pressure_judged_from: Duration,
}

/// Whom memwatch has ended last.
#[derive(Clone, Copy, Debug)]
struct Struck {
    at: Duration,
    held_bytes: u64,
    available_bytes: u64,
    gone_at: Option<Duration>,
}

impl Takeover {
    /// systemd-oomd is believed to be well until it is seen not to be.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            stage: Stage::Peer,
            turned_at: Duration::ZERO,
            taken_over_at: Duration::ZERO,
            handed_back_at: None,
            relapses: 0,
            signals: Signals::new(settings),
            available: Window::new(settings.growth_window),
            room_bytes: u64::MAX,
            struck: None,
            pressure_judged_from: Duration::ZERO,
        }
    }

    /// Who looks after the units.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Judges systemd-oomd. `watches` is whether it was given anything: for nothing nobody stands in.
    pub fn judge(&mut self, now: Duration, health: Health, watches: bool) -> Option<Transition> {
        let is_well = health == Health::Well;
        let lasted = now.saturating_sub(self.turned_at);
        match self.stage {
            Stage::Peer if !is_well && watches => {
                (self.stage, self.turned_at) = (Stage::Doubted, now);
                self.judge(now, health, watches)
            }
            Stage::Doubted if is_well || !watches => {
                self.stage = Stage::Peer;
                None
            }
            Stage::Doubted if lasted >= patience(health) => {
                let lately = |at| now.saturating_sub(at) < RELAPSE;
                self.relapses = match self.handed_back_at.is_some_and(lately) {
                    true => (self.relapses + 1).min(MOST_DOUBLINGS),
                    false => 0,
                };
                self.stage = Stage::TakenOver { why: health };
                self.taken_over_at = now;
                Some(Transition::TakenOver {
                    why: health,
                    after: lasted,
                })
            }
            Stage::TakenOver { .. } | Stage::HandingBack { .. } if !watches => {
                self.stage = Stage::Peer;
                Some(Transition::LetGo {
                    after: now.saturating_sub(self.taken_over_at),
                })
            }
            Stage::TakenOver { why } if is_well => {
                (self.stage, self.turned_at) = (Stage::HandingBack { why }, now);
                None
            }
            Stage::HandingBack { why } if !is_well => {
                self.stage = Stage::TakenOver { why };
                None
            }
            Stage::HandingBack { .. } if lasted >= PROBATION * (1 << self.relapses) => {
                self.stage = Stage::Peer;
                self.handed_back_at = Some(now);
                Some(Transition::HandedBack {
                    after: now.saturating_sub(self.taken_over_at),
                })
            }
            _ => None,
        }
    }

    /// Takes in what the machine has left: cheap, at every look.
    pub fn see_machine(&mut self, now: Duration, machine: &MachineFacts) {
        let available = available_bytes(machine, None);
        let low = self.low_bytes(machine);
        self.available.push(now, available);
        self.room_bytes = available
            .saturating_sub(low)
            .saturating_add(machine.meminfo.swap_free_bytes);
    }

    /// Takes in what the managed cgroups hold.
    pub fn see_candidates(
        &mut self,
        now: Duration,
        machine: &MachineFacts,
        candidates: &[Candidate],
    ) {
        let ours = || candidates.iter().filter(|it| is_eligible(it));
        let sum = |of: fn(&Candidate) -> u64| ours().map(of).fold(0, u64::saturating_add);
        let target = TargetFacts {
            current_bytes: sum(|it| it.current_bytes),
            stat: Some(MemoryStat {
                reclaimable_bytes: sum(|it| it.reclaimable_bytes),
                swap_bytes: sum(|it| it.swap_bytes),
                ..MemoryStat::default()
            }),
            // What the machine loses: a hog's own cgroup under-reports when everybody waits for its sake.
            psi: machine.psi,
            ..TargetFacts::default()
        };
        let facts = Facts {
            target,
            machine: Some(*machine),
            members: None,
            victim_gone: false,
        };
        self.signals.see(now, &facts);
    }

    /// Forgets how much was held: it is about to be counted over other cgroups.
    pub fn forget(&mut self) {
        self.signals.forget();
    }

    /// Whether the machine's memory is about to be used up, so that every look must be a close one.
    pub fn is_near(&self) -> bool {
        let decline = self
            .available
            .change_up_to(Duration::from_millis(250))
            .map_or(0, |change| change.per_second().min(0).unsigned_abs());
        decline > 0 && time_to_fill(self.room_bytes, decline) <= NEAR
    }

    /// Whether the machine is as short of memory as to page out who does not run.
    pub fn is_short(&self, machine: &MachineFacts) -> bool {
        available_bytes(machine, None) <= 2 * self.low_bytes(machine)
    }

    fn low_bytes(&self, machine: &MachineFacts) -> u64 {
        self.settings.machine_low_bytes(machine.meminfo.total_bytes)
    }

    /// When to look again: in half of the time in which the machine could be full.
    pub fn pause(&self) -> Duration {
        let fastest = self.settings.fastest_fill_bytes_per_s;
        let shortest = match self.is_near() {
            true => self.settings.shortest_look,
            false => CALM,
        };
        (time_to_fill(self.room_bytes, fastest) / 2).clamp(shortest, ROUND)
    }

    /// Follows whom memwatch has ended; `gone` is whether nobody of it is left. `Some` once it is over: the
    /// time that it took.
    pub fn follow(
        &mut self,
        now: Duration,
        machine: &MachineFacts,
        gone: bool,
    ) -> Option<Duration> {
        let struck = self.struck.as_mut()?;
        if gone {
            struck.gone_at.get_or_insert(now);
        }
        // Memory comes back after the process has vanished, and a file that was read meanwhile may take
        // its place.
        let expected = struck.available_bytes.saturating_add(struck.held_bytes / 2);
        let is_back = gone && available_bytes(machine, None) >= expected;
        let is_settled = struck
            .gone_at
            .is_some_and(|at| now.saturating_sub(at) >= self.settings.death_grace);
        let took = now.saturating_sub(struck.at);
        if !is_back && !is_settled && took < self.settings.cooldown {
            return None;
        }
        self.struck = None;
        self.signals.forget();
        self.available.clear();
        Some(took)
    }

    /// Whether somebody was ended and memory has not come back yet.
    pub fn is_following(&self) -> bool {
        self.struck.is_some()
    }

    /// Whom to end now.
    pub fn order(
        &mut self,
        now: Duration,
        machine: &MachineFacts,
        used_limit_permyriad: u32,
        units: &[Unit],
        candidates: &[Candidate],
    ) -> Option<Order> {
        if self.struck.is_some() {
            return None;
        }
        let order = self.machine_order(now, candidates).or_else(|| {
            let ours = matches!(self.stage, Stage::TakenOver { .. });
            ours.then(|| self.peers_order(now, machine, used_limit_permyriad, units, candidates))?
        })?;
        if matches!(order.why, Why::Pressure { .. }) {
            self.pressure_judged_from = now + AFTER_PRESSURE;
        }
        self.struck = Some(Struck {
            at: now,
            held_bytes: candidates[order.candidate].held_bytes(),
            available_bytes: available_bytes(machine, None),
            gone_at: None,
        });
        Some(order)
    }

    fn machine_order(&self, now: Duration, candidates: &[Candidate]) -> Option<Order> {
        let cause = match self.signals.trouble(now)? {
            Urgency::Now(cause) => cause,
            // Nobody is asked here, as systemd-oomd asks nobody. While it is well, slow swap is no reason.
            Urgency::Soon(cause, left) => {
                let is_full = left.as_micros() <= u128::from(cause.threshold);
                (is_full || self.stage.is_ours()).then_some(cause)?
            }
        };
        Some(Order {
            candidate: fastest_growing(candidates)?,
            why: Why::Machine(cause),
        })
    }

    fn peers_order(
        &self,
        now: Duration,
        machine: &MachineFacts,
        used_limit_permyriad: u32,
        units: &[Unit],
        candidates: &[Candidate],
    ) -> Option<Order> {
        let by_pressure = |unit: &Unit| {
            let lasted = unit.exceeds(now)?;
            Some(Order {
                candidate: oomd_rule::by_pressure(unit.id, candidates)?,
                why: Why::Pressure {
                    unit: unit.id,
                    full_permyriad: unit.full_permyriad,
                    limit_permyriad: unit.limits.pressure?.permyriad,
                    lasted,
                },
            })
        };
        let by_swap = || {
            let info = machine.meminfo;
            let used = info.swap_total_bytes.saturating_sub(info.swap_free_bytes);
            Some(Order {
                candidate: oomd_rule::by_swap(machine, used_limit_permyriad, candidates)?,
                why: Why::Swap {
                    used_permyriad: (used.saturating_mul(10_000) / info.swap_total_bytes.max(1))
                        as u32,
                    limit_permyriad: used_limit_permyriad,
                },
            })
        };
        let may_judge = now >= self.pressure_judged_from;
        may_judge
            .then(|| units.iter().find_map(by_pressure))
            .flatten()
            .or_else(by_swap)
    }
}

/// How long an ailment must last. What took seconds to find needs no more of them.
fn patience(health: Health) -> Duration {
    match health {
        Health::Gone => GONE,
        Health::Unwell(Ailment::Stopped) => STOPPED,
        Health::Unwell(_) | Health::Well => Duration::ZERO,
    }
}

/// The most that are told of.
const RIVALS: usize = 3;

/// Who else could be ended, the largest first: a few.
pub fn rivals(candidates: &[Candidate], chosen: usize) -> impl Iterator<Item = &Candidate> {
    let mut picked = [chosen; RIVALS + 1];
    let mut count = 1;
    std::iter::from_fn(move || {
        let known = picked.get(..count).filter(|known| known.len() <= RIVALS)?;
        let others = candidates.iter().enumerate();
        let others = others.filter(|(at, it)| !known.contains(at) && is_eligible(it));
        let (at, rival) = others.max_by_key(|(_, it)| it.held_bytes())?;
        picked[count] = at;
        count += 1;
        Some(rival)
    })
}

fn is_eligible(candidate: &Candidate) -> bool {
    let preference = candidate.strongest_preference();
    preference.is_some_and(|it| it != Preference::Omit)
}

/// Who grew the most, if anybody grew by more than any program does at any time.
fn fastest_growing(candidates: &[Candidate]) -> Option<usize> {
    const NOISE_BYTES: u64 = 1 << 20;
    let rank = |it: &Candidate| (it.growth_bytes(), it.held_bytes());
    oomd_rule::foremost(
        candidates,
        |it| {
            let grew = it.growth_bytes() > NOISE_BYTES;
            it.strongest_preference().filter(|_| grew)
        },
        rank,
    )
}

#[cfg(test)]
#[path = "takeover_tests.rs"]
mod tests;
