//! The rules: is this trouble, and how near is it? Windows in, a [`Cause`] out.
//!
//! Four rules in two pairs. *Exhaustion*: at the measured fill rate the headroom is gone before another
//! look would come. *Stall*: sustained stall with evidence that memory is really short. Each for the
//! target's own limit and for the machine. What is done about it, and when, is [`super::policy`]'s.

use super::availability::available_bytes;
use super::facts::{Facts, MachineFacts, TargetFacts};
use super::settings::Settings;
use super::window::{Change, Window};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The target's limit is about to be used up.
    Exhaustion,
    /// The machine's memory is about to be used up, and the target is what uses it.
    MachineExhaustion,
    /// The target stalls at its limit.
    Stall,
    /// The target stalls, the machine is short of memory, and the target is a large part of why.
    MachineStall,
}

/// What the observed value of a cause was measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The rate at which memory fills.
    Fill,
    /// PSI memory `full`.
    Full,
    /// PSI memory `full` and I/O `full`, of a target that waits for its own pages.
    FullAndIo,
    /// PSI memory `some`.
    Some,
}

/// A rule that holds, with what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Which.
    pub rule: Rule,
    /// On what.
    pub measure: Measure,
    /// Exhaustion: µs until the headroom is gone. Stall: permille of the window stalled.
    pub observed: u64,
    /// What `observed` was held against: at most this for exhaustion, at least this for a stall.
    pub threshold: u64,
    /// How long it has been going on: the steady filling, or the stall's window.
    pub lasted: Duration,
    /// Bytes a second that the target, or the machine, was filling by; 0 for a stall.
    pub fill_bytes_per_s: u64,
    /// What was left.
    pub headroom_bytes: u64,
}

impl Cause {
    /// How near it is to its rule, in permille of what that takes: 1000 from where it holds.
    pub fn nearness_permille(&self) -> u64 {
        let (part, whole) = match self.rule {
            Rule::Exhaustion | Rule::MachineExhaustion => (self.threshold, self.observed),
            Rule::Stall | Rule::MachineStall => (self.observed, self.threshold),
        };
        part.saturating_mul(1000) / whole.max(1)
    }
}

/// How soon something must be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// There is time to ask first: this much until it is too late.
    Soon(Cause, Duration),
    /// There is not.
    Now(Cause),
}

/// What is left to grow into.
#[derive(Clone, Copy, Debug)]
struct Room {
    memory_bytes: u64,
    swap_bytes: u64,
    /// A target that waits for its swap has no use for more of it.
    swap_stalls: bool,
}

impl Room {
    fn all_bytes(self) -> u64 {
        self.memory_bytes.saturating_add(self.swap_bytes)
    }

    fn usable_bytes(self) -> u64 {
        if self.swap_stalls {
            self.memory_bytes
        } else {
            self.all_bytes()
        }
    }
}

/// Rates of the target and of the machine, kept from look to look.
#[derive(Clone, Debug)]
pub struct Signals {
    settings: Settings,
    /// Memory of the target that reclaim could not take: usage less page cache, plus swap.
    held: Window,
    /// The same, over the time that foresight and growth need.
    held_slow: Window,
    /// When the present rise began, and what was held then.
    rise: Option<(Duration, u64)>,
    full: Window,
    some: Window,
    /// Memory `full` and I/O `full` together.
    lost: Window,
    refaults: Window,
    available: Window,
    /// What was available when the machine was first looked at.
    found_available: Option<u64>,
    machine_full: Window,
    arc: Window,
    latest: Latest,
    /// What was charged when the breakdown was last read.
    broken_down_at_bytes: u64,
}

/// The newest value of everything that not every look reads.
#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    target: TargetFacts,
    reclaimable_bytes: u64,
    swap_bytes: u64,
    machine: Option<MachineFacts>,
}

/// The fill rate is measured over this much: several looks, so that one page-table batch is no slope.
const FAST: Duration = Duration::from_millis(6);

/// A rise goes on for as long as more is held than this before: who builds one table out of another gives back a part at
/// every step.
const STEP: Duration = Duration::from_secs(1);

impl Signals {
    /// Empty windows.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            held: Window::new(Duration::from_millis(64)),
            held_slow: Window::new(settings.growth_window),
            rise: None,
            full: Window::new(settings.stall_window),
            some: Window::new(settings.stall_window),
            lost: Window::new(settings.stall_window),
            refaults: Window::new(settings.stall_window),
            available: Window::new(settings.growth_window),
            found_available: None,
            machine_full: Window::new(settings.stall_window),
            arc: Window::new(settings.growth_window),
            latest: Latest::default(),
            broken_down_at_bytes: 0,
        }
    }

    /// Takes one look in.
    pub fn see(&mut self, now: Duration, facts: &Facts) {
        let target = facts.target;
        if let Some(stat) = target.stat {
            self.latest.reclaimable_bytes = stat.reclaimable_bytes;
            self.latest.swap_bytes = stat.swap_bytes;
            self.broken_down_at_bytes = target.current_bytes;
            self.refaults.push(now, stat.refault_pages);
        }
        self.latest.target = TargetFacts {
            stat: target.stat.or(self.latest.target.stat),
            ..target
        };
        let held = self.held_bytes();
        self.held.push(now, held);
        self.held_slow.push(now, held);
        self.mark_rise(now);
        if let Some(psi) = target.psi {
            self.full.push(now, psi.full_us);
            self.some.push(now, psi.some_us);
        }
        if let (Some(psi), Some(io)) = (target.psi, target.io_psi) {
            self.lost.push(now, psi.full_us.saturating_add(io.full_us));
        }
        if let Some(machine) = facts.machine {
            self.latest.machine = Some(machine);
            if let Some(arc) = machine.arc {
                self.arc.push(now, arc.size_bytes);
            }
            if let Some(psi) = machine.psi {
                self.machine_full.push(now, psi.full_us);
            }
            let available = self.available_bytes(&machine);
            self.available.push(now, available);
            self.found_available.get_or_insert(available);
        }
    }

    /// Forgets stall and slope: what they say is about a process that is gone.
    pub fn forget(&mut self) {
        for window in [
            &mut self.held,
            &mut self.held_slow,
            &mut self.full,
            &mut self.some,
            &mut self.lost,
            &mut self.refaults,
        ] {
            window.clear();
        }
        self.rise = None;
    }

    /// Bytes of the target that reclaim could not take.
    pub fn held_bytes(&self) -> u64 {
        let current = self.latest.target.current_bytes;
        current.saturating_sub(self.latest.reclaimable_bytes) + self.latest.swap_bytes
    }

    /// Growth of the target over the growth window, or as much of it as was seen.
    pub fn growth_bytes(&self) -> Option<u64> {
        let change = self.held_slow.change_up_to(self.settings.growth_window)?;
        Some(u64::try_from(change.by).unwrap_or(0))
    }

    /// What is left below the target's limit, and of swap while that is of use.
    pub fn headroom_bytes(&self) -> Option<u64> {
        self.room().map(Room::usable_bytes)
    }

    /// What is left of the machine above the line at which it is short, and of swap while that is of use.
    pub fn machine_headroom_bytes(&self) -> Option<u64> {
        self.machine_room().map(Room::usable_bytes)
    }

    fn room(&self) -> Option<Room> {
        let limit = self.latest.target.limit_bytes?;
        let used = self.latest.swap_bytes;
        let free = self.latest.machine.map_or(0, |m| m.meminfo.swap_free_bytes);
        let allowed = self.latest.target.stat.and_then(|stat| stat.swap_max_bytes);
        Some(Room {
            memory_bytes: limit.saturating_add(used).saturating_sub(self.held_bytes()),
            swap_bytes: allowed.map_or(free, |most| free.min(most.saturating_sub(used))),
            swap_stalls: self.waits_for_swap(&self.full),
        })
    }

    fn machine_room(&self) -> Option<Room> {
        let machine = self.latest.machine?;
        let low = self.settings.machine_low_bytes(machine.meminfo.total_bytes);
        // On a machine that others had filled before, half of what was found is left to them.
        let line = self.found_available.map_or(low, |found| low.min(found / 2));
        Some(Room {
            memory_bytes: self.available_bytes(&machine).saturating_sub(line),
            swap_bytes: machine.meminfo.swap_free_bytes,
            swap_stalls: self.waits_for_swap(&self.full) || self.waits_for_swap(&self.machine_full),
        })
    }

    fn waits_for_swap(&self, full: &Window) -> bool {
        let stalled = self.stalled_permille(full).unwrap_or(0);
        stalled >= self.settings.stall_full_permille / 2
    }

    /// Whether usage, page cache included, is so near the limit, or the brake before it, that cache is being traded for
    /// memory that stays, which only the breakdown can show.
    pub fn near_limit(&self) -> bool {
        let high = self.latest.target.stat.and_then(|stat| stat.high_bytes);
        let limits = self.latest.target.limit_bytes.into_iter().chain(high);
        let Some(limit) = limits.min() else {
            return false;
        };
        let near = limit / 1000 * u64::from(self.settings.near_limit_permille);
        self.latest.target.current_bytes >= near
    }

    /// Whether usage has moved, since the breakdown was last read, by so much of the headroom that what
    /// is known of the target is old. A target that sits still is looked at lightly.
    pub fn moved(&self) -> bool {
        let moved = self
            .latest
            .target
            .current_bytes
            .abs_diff(self.broken_down_at_bytes);
        moved > self.least_headroom_bytes().unwrap_or(u64::MAX) / 64
    }

    /// Whether the machine will be full before the target's limit is reached.
    pub fn machine_bounds(&self) -> bool {
        self.least_headroom_bytes() == self.machine_headroom_bytes()
    }

    /// What is left to the target: below its limit, or of the machine if that is less.
    pub fn least_headroom_bytes(&self) -> Option<u64> {
        let target = self.headroom_bytes();
        target
            .into_iter()
            .chain(self.machine_headroom_bytes())
            .min()
    }

    /// Share of the stall window stalled (`full`, `some`), in permille, or of as much of it as was seen:
    /// no verdict, but a reason to look closely.
    pub fn stall_permille(&self) -> Option<(u32, u32)> {
        let lately = |stall: &Window| {
            stall
                .change_up_to(self.settings.stall_window)
                .map(share_permille)
        };
        Some((lately(&self.full)?, lately(&self.some)?))
    }

    /// The most urgent rule that holds.
    pub fn trouble(&self, now: Duration) -> Option<Urgency> {
        self.rules(now, 1)
    }

    /// The most urgent rule that nearly holds: twice the time that it leaves is left, or half the share that it asks
    /// for stalled. What it would take is the cause's threshold.
    pub fn nearly(&self, now: Duration) -> Option<Cause> {
        self.rules(now, 2).map(|urgency| match urgency {
            Urgency::Soon(cause, _) | Urgency::Now(cause) => cause,
        })
    }

    /// The most urgent rule that holds, or is as many times as far from holding as `slack` says; 1 is none.
    fn rules(&self, now: Duration, slack: u32) -> Option<Urgency> {
        self.exhaustion(now, slack)
            .or_else(|| self.machine_exhaustion(now, slack))
            .or_else(|| self.stall(slack))
            .or_else(|| self.machine_stall(slack))
    }

    fn exhaustion(&self, now: Duration, slack: u32) -> Option<Urgency> {
        let room = self.room()?;
        let fill = rise(self.held.change(FAST)?)?;
        // Over a longer spell the slope must be upward too: one batch of pages is not a filling.
        rise(self.held_slow.change_up_to(Duration::from_millis(250))?)?;
        self.urgency(Rule::Exhaustion, now, room, fill, slack)
    }

    fn machine_exhaustion(&self, now: Duration, slack: u32) -> Option<Urgency> {
        let room = self.machine_room()?;
        // What holds less than is left is not why there is little left.
        if self.held_bytes() < self.available_bytes(&self.latest.machine?) {
            return None;
        }
        let decline = fall(self.available.change(Duration::from_millis(20))?)?;
        let growth = rise(self.held_slow.change_up_to(Duration::from_millis(250))?)?;
        // Somebody else's appetite is not the target's fault.
        if growth < decline / 2 {
            return None;
        }
        self.urgency(Rule::MachineExhaustion, now, room, decline, slack)
    }

    fn urgency(
        &self,
        rule: Rule,
        now: Duration,
        room: Room,
        fill: u64,
        slack: u32,
    ) -> Option<Urgency> {
        let left = time_to_fill(room.usable_bytes(), fill);
        // Swap that stalls is none to wait for, but it is there: nothing fails before it is full too.
        let left_with_swap = time_to_fill(room.all_bytes(), fill);
        let last_moment = self.settings.last_moment();
        let (since, from) = self.rise?;
        let lasted = now.saturating_sub(since);
        // At the present rate, not the average: a burst after a slow rise foretells as little as any.
        let risen = time_to_fill(self.held_bytes().saturating_sub(from), fill);
        let foresight =
            (lasted.min(risen) / self.settings.foresight).min(self.settings.longest_foresight);
        let cause = |threshold: Duration| Cause {
            rule,
            measure: Measure::Fill,
            observed: micros(left),
            threshold: micros(threshold),
            lasted,
            fill_bytes_per_s: fill,
            headroom_bytes: room.usable_bytes(),
        };
        if left_with_swap <= last_moment {
            return Some(Urgency::Now(cause(last_moment)));
        }
        let threshold = foresight.max(last_moment);
        (left <= slack * threshold).then(|| Urgency::Soon(cause(threshold), left_with_swap))
    }

    fn stall(&self, slack: u32) -> Option<Urgency> {
        if !self.near_limit() || !(self.refaulting() || self.hangs(slack)) {
            return None;
        }
        let TargetFacts {
            current_bytes,
            limit_bytes,
            ..
        } = self.latest.target;
        let room = limit_bytes.unwrap_or(0).saturating_sub(current_bytes);
        self.stalled(Rule::Stall, room, slack)
            .map(|cause| Urgency::Soon(cause, Duration::MAX))
    }

    fn machine_stall(&self, slack: u32) -> Option<Urgency> {
        let machine = self.latest.machine?;
        // Twice the line: a machine that stalls is short a little before it looks so.
        let low = self.settings.machine_low_bytes(machine.meminfo.total_bytes);
        let available = self.available_bytes(&machine);
        let large = self.held_bytes() >= machine.meminfo.total_bytes / 4;
        if available > 2 * low || !large {
            return None;
        }
        self.stalled(Rule::MachineStall, available.saturating_sub(low), slack)
            .map(|cause| Urgency::Soon(cause, Duration::MAX))
    }

    /// Stalled over the whole window, and not already getting better.
    fn stalled(&self, rule: Rule, headroom_bytes: u64, slack: u32) -> Option<Cause> {
        let window = self.settings.stall_window;
        let judge = |measure, stall: &Window, threshold: u32| {
            // The two kinds of waiting can overlap.
            let whole = share_permille(stall.change(window)?).min(1000);
            let lately = share_permille(stall.change(window / 4)?);
            let enough = threshold / slack;
            (whole >= enough && lately >= enough / 2).then_some(Cause {
                rule,
                measure,
                observed: whole.into(),
                threshold: threshold.into(),
                lasted: window,
                fill_bytes_per_s: 0,
                headroom_bytes,
            })
        };
        let full = self.settings.stall_full_permille;
        judge(Measure::Full, &self.full, full)
            .or_else(|| {
                self.thrashing()
                    .then(|| judge(Measure::FullAndIo, &self.lost, full))?
            })
            .or_else(|| judge(Measure::Some, &self.some, self.settings.stall_some_permille))
    }

    /// Whether what the target waits for on disk are pages of its own working set.
    fn thrashing(&self) -> bool {
        let full = self.stalled_permille(&self.full).unwrap_or(0);
        full >= self.settings.thrash_full_permille && self.refaulting()
    }

    /// Whether next to nothing but waiting for memory is done. A slow disk brings few pages back, and
    /// what `memory.high` holds up brings none.
    fn hangs(&self, slack: u32) -> bool {
        self.stalled_permille(&self.full)
            .is_some_and(|full| full >= self.settings.hang_full_permille / slack)
    }

    fn refaulting(&self) -> bool {
        self.refaults
            .change(self.settings.stall_window / 2)
            .and_then(rise)
            .is_some_and(|rate| rate >= self.settings.refault_pages_per_s)
    }

    fn stalled_permille(&self, stall: &Window) -> Option<u32> {
        stall.change(self.settings.stall_window).map(share_permille)
    }

    fn available_bytes(&self, machine: &MachineFacts) -> u64 {
        let low = 2 * self.settings.machine_low_bytes(machine.meminfo.total_bytes);
        let shrinks = (machine.meminfo.available_bytes < low)
            .then(|| self.arc.change(Duration::from_millis(500)))
            .flatten()
            .map(|change| change.by < 0);
        available_bytes(machine, shrinks)
    }

    fn mark_rise(&mut self, now: Duration) {
        self.rise = match self.held_slow.change_up_to(STEP) {
            Some(change) if change.by > 0 => self.rise.or_else(|| {
                let held_before = self.held_bytes().saturating_sub(change.by.unsigned_abs());
                Some((now.saturating_sub(change.over), held_before))
            }),
            _ => None,
        };
    }
}

/// How long `bytes` take at `bytes_per_s`; at most a day, which is as good as never.
pub(super) fn time_to_fill(bytes: u64, bytes_per_s: u64) -> Duration {
    const NEVER: f64 = 86_400.0;
    Duration::from_secs_f64((bytes as f64 / bytes_per_s.max(1) as f64).min(NEVER))
}

/// Bytes (or pages) a second, if it is a rise.
fn rise(change: Change) -> Option<u64> {
    u64::try_from(change.per_second())
        .ok()
        .filter(|&rate| rate > 0)
}

fn fall(change: Change) -> Option<u64> {
    rise(Change {
        by: change.by.checked_neg()?,
        ..change
    })
}

/// µs of stall as a share of the time they were counted over.
fn share_permille(stall_us: Change) -> u32 {
    let over = micros(stall_us.over).max(1);
    let stalled = u64::try_from(stall_us.by).unwrap_or(0);
    u32::try_from(stalled.saturating_mul(1000) / over).unwrap_or(u32::MAX)
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
