//! systemd-oomd's own rule, for the units that it was given: whose limit is exceeded, and who below them
//! would be taken. Pure.
//!
//! As systemd-oomd has it (systemd 257, `src/oom`; oomd.conf(5), systemd.resource-control(5)): pressure is
//! `full avg10`, an average that lags, because that is what its limits mean. What memwatch adds to it, and
//! when either is used, is [`super::takeover`]'s.

use super::facts::MachineFacts;
use crate::host::oomd::{Limits, Preference};
use std::time::Duration;

/// How many managed units one cgroup can lie under: systemd-oomd's defaults nest two.
pub const UNDER: usize = 4;

/// A unit that is managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The id of its cgroup.
    pub id: u64,
    /// Its limits.
    pub limits: Limits,
    /// `full avg10` at the last look, in hundredths of a percent.
    pub full_permyriad: u32,
    above_since: Option<Duration>,
    scanned_pages: Option<u64>,
    reclaimed_at: Option<Duration>,
}

/// Pressure without reclaim in this time is none that a kill could help: pages come back after one.
const RECLAIM_WITHIN: Duration = Duration::from_secs(30);

impl Unit {
    /// A unit of which nothing was seen yet.
    pub fn new(id: u64, limits: Limits) -> Self {
        Self {
            id,
            limits,
            full_permyriad: 0,
            above_since: None,
            scanned_pages: None,
            reclaimed_at: None,
        }
    }

    /// Takes a look in. `scanned_pages` is how many reclaim has looked at so far; the root has none.
    pub fn see(&mut self, now: Duration, full_permyriad: u32, scanned_pages: Option<u64>) {
        self.full_permyriad = full_permyriad;

        self.above_since = match self
            .limits
            .pressure
            .is_some_and(|limit| full_permyriad > limit.permyriad)
        {
            true => self.above_since.or(Some(now)),
            false => None,
        };
        if let (Some(before), Some(scanned)) = (self.scanned_pages, scanned_pages)
            && scanned > before
        {
            self.reclaimed_at = Some(now);
        }
        self.scanned_pages = scanned_pages.or(self.scanned_pages);
    }

    /// Whether its pressure is above its limit now, for however short.
    pub fn is_above(&self) -> bool {
        self.above_since.is_some()
    }

    /// For how long its pressure has been above its limit, if that is as long as it takes and memory was
    /// reclaimed of late.
    pub fn exceeds(&self, now: Duration) -> Option<Duration> {
        let limit = self.limits.pressure?;
        let lasted = now.saturating_sub(self.above_since?);
        let reclaimed = now.saturating_sub(self.reclaimed_at?) <= RECLAIM_WITHIN;
        (reclaimed && lasted >= limit.duration).then_some(lasted)
    }
}

/// A managed unit that a candidate lies under, and what the candidate's mark comes to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Under {
    /// The id of the unit's cgroup.
    pub unit: u64,
    /// Whether it is managed for swap.
    pub swap: bool,
    /// The mark, if who set it may do so in that unit.
    pub preference: Preference,
}

/// A cgroup that may be killed as a whole: a leaf, or one with `memory.oom.group`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: u64,
    /// Where it lies.
    pub under: [Option<Under>; UNDER],
    /// Its mark, if who set it may do so on the whole machine.
    pub preference: Preference,
    /// Bytes charged.
    pub current_bytes: u64,
    /// Page cache that reclaim can take, when that was last read.
    pub reclaimable_bytes: u64,
    /// Swap in use, when that was last read.
    pub swap_bytes: u64,
    scanned_pages: u64,
    /// By how much that had grown at the last look.
    scanned_lately: u64,
    /// What was held at two times within the growth window, the older first.
    held: [Option<(Duration, u64)>; 2],
}

impl Candidate {
    /// One of which nothing was seen yet.
    pub fn new(id: u64, under: [Option<Under>; UNDER], preference: Preference) -> Self {
        Self {
            id,
            under,
            preference,
            ..Self::default()
        }
    }

    /// What reclaim could not take from it.
    pub fn held_bytes(&self) -> u64 {
        let held = self.current_bytes.saturating_sub(self.reclaimable_bytes);
        held.saturating_add(self.swap_bytes)
    }

    /// It has come into being just now: all that it holds, it has grown by.
    pub fn begin(&mut self, now: Duration) {
        self.held = [Some((now, 0)); 2];
    }

    /// Remembers what it holds now, to measure growth by for the next `window`.
    pub fn mark(&mut self, now: Duration, window: Duration) {
        let held = Some((now, self.held_bytes()));
        match self.held[1] {
            None => self.held = [held; 2],
            Some((at, _)) if now.saturating_sub(at) >= window / 2 => {
                self.held = [self.held[1], held];
            }
            Some(_) => {}
        }
    }

    /// By how much it has grown over the last window, or half of it at least.
    pub fn growth_bytes(&self) -> u64 {
        let before = self.held[0].map_or(u64::MAX, |(_, held)| held);
        self.held_bytes().saturating_sub(before)
    }

    /// Takes in how many of its pages reclaim has looked at so far.
    pub fn see_scanned(&mut self, scanned_pages: u64) {
        self.scanned_lately = scanned_pages.saturating_sub(self.scanned_pages);
        self.scanned_pages = scanned_pages;
    }

    /// Its mark as it counts in `unit`; `None` if it does not lie there.
    fn preference_in(&self, unit: u64) -> Option<Preference> {
        let mut under = self.under.iter().flatten();
        under.find(|it| it.unit == unit).map(|it| it.preference)
    }

    /// The mark that keeps it safest, wherever it lies; `None` if it lies nowhere.
    pub fn strongest_preference(&self) -> Option<Preference> {
        let under = self.under.iter().flatten();
        under.map(|it| it.preference.max(self.preference)).max()
    }
}

/// Who is to go for the pressure in `unit`: whose pages reclaim looked at most, then who is largest.
pub fn by_pressure(unit: u64, candidates: &[Candidate]) -> Option<usize> {
    let rank = |it: &Candidate| (it.scanned_lately, it.current_bytes);
    let may = |it: &Candidate| it.scanned_pages > 0 || it.current_bytes > 0;
    foremost(
        candidates,
        |it| it.preference_in(unit).filter(|_| may(it)),
        rank,
    )
}

/// Who is to go when memory and swap are both used up to `used_limit_permyriad`: who uses most swap, and more
/// than a twentieth of it.
pub fn by_swap(
    machine: &MachineFacts,
    used_limit_permyriad: u32,
    candidates: &[Candidate],
) -> Option<usize> {
    let info = &machine.meminfo;
    let left = u64::from(10_000u32.saturating_sub(used_limit_permyriad));
    let share = |bytes: u64| bytes / 10_000 * left;
    if info.available_bytes >= share(info.total_bytes)
        || info.swap_free_bytes >= share(info.swap_total_bytes)
    {
        return None;
    }
    let may = |it: &Candidate| {
        let managed = it.under.iter().flatten().any(|it| it.swap);
        managed && it.swap_bytes > info.swap_total_bytes / 20
    };
    let rank = |it: &Candidate| (it.swap_bytes, 0);
    foremost(candidates, |it| may(it).then_some(it.preference), rank)
}

/// The first by `rank` of those who are not omitted, and one who is to be avoided only without another.
pub(super) fn foremost(
    candidates: &[Candidate],
    preference: impl Fn(&Candidate) -> Option<Preference>,
    rank: impl Fn(&Candidate) -> (u64, u64),
) -> Option<usize> {
    let eligible = candidates.iter().enumerate().filter_map(|(at, it)| {
        let preference = preference(it).filter(|&it| it != Preference::Omit)?;
        Some((preference == Preference::None, rank(it), at))
    });
    eligible.max().map(|(_, _, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::meminfo::MemInfo;
    use crate::host::oomd::PressureLimit;

    const UNIT: u64 = 7;
    const MIB: u64 = 1 << 20;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn limited(permyriad: u32) -> Unit {
        let duration = secs(2);
        let limits = Limits {
            pressure: Some(PressureLimit {
                permyriad,
                duration,
            }),
            swap: false,
        };
        Unit::new(UNIT, limits)
    }

    fn candidate(id: u64, mib: u64) -> Candidate {
        Candidate {
            id,
            under: [
                Some(Under {
                    unit: UNIT,
                    swap: true,
                    preference: Preference::None,
                }),
                None,
                None,
                None,
            ],
            current_bytes: mib * MIB,
            ..Candidate::default()
        }
    }

    fn marked(id: u64, mib: u64, mark: Preference) -> Candidate {
        let mut it = candidate(id, mib);
        it.preference = mark;
        it.under[0].as_mut().expect("there").preference = mark;
        it
    }

    fn chosen(at: Option<usize>, among: &[Candidate]) -> Option<u64> {
        at.map(|at| among[at].id)
    }

    #[test]
    fn a_limit_is_exceeded_for_its_time_without_a_break_and_with_reclaim() {
        let mut unit = limited(1000);
        unit.see(secs(0), 1001, Some(5));
        unit.see(secs(1), 1001, Some(6));
        assert_eq!(unit.exceeds(secs(1)), None, "too soon");
        assert_eq!(unit.exceeds(secs(2)), Some(secs(2)));
        unit.see(secs(3), 1000, Some(7));
        assert_eq!(unit.exceeds(secs(3)), None, "at the limit is not above it");
        unit.see(secs(4), 5000, Some(7));
        assert!(unit.is_above());
        assert_eq!(unit.exceeds(secs(5)), None);
        assert_eq!(unit.exceeds(secs(33)), Some(secs(29)));
        assert_eq!(unit.exceeds(secs(34)), None, "reclaim was too long ago");
    }

    #[test]
    fn pressure_of_the_root_which_does_not_tell_of_reclaim_is_nobodys() {
        let mut unit = limited(1000);
        unit.see(secs(0), 9000, None);
        assert_eq!(unit.exceeds(secs(20)), None);
    }

    #[test]
    fn pressure_takes_who_was_reclaimed_most_then_the_largest() {
        let mut all = [
            candidate(1, 10),
            candidate(2, 5),
            candidate(3, 20),
            candidate(4, 90),
        ];
        all[3].under[0].as_mut().expect("there").unit = 8;
        assert_eq!(chosen(by_pressure(UNIT, &all), &all), Some(3));
        all[1].see_scanned(100);
        all[0].see_scanned(200);
        all[0].see_scanned(250);
        assert_eq!(chosen(by_pressure(UNIT, &all), &all), Some(2));
        assert_eq!(by_pressure(9, &all), None, "nobody lies there");
        let empty = [candidate(1, 0)];
        assert_eq!(by_pressure(UNIT, &empty), None, "nothing to gain");
    }

    #[test]
    fn omit_is_never_and_avoid_is_last() {
        let all = [
            marked(1, 90, Preference::Omit),
            marked(2, 50, Preference::Avoid),
            candidate(3, 1),
        ];
        assert_eq!(chosen(by_pressure(UNIT, &all), &all), Some(3));
        assert_eq!(chosen(by_pressure(UNIT, &all[..2]), &all), Some(2));
        assert_eq!(by_pressure(UNIT, &all[..1]), None);
    }

    #[test]
    fn swap_takes_who_uses_most_of_it_once_both_are_used_up() {
        let machine = |available, swap_free| MachineFacts {
            meminfo: MemInfo {
                total_bytes: 1000 * MIB,
                available_bytes: available * MIB,
                swap_total_bytes: 200 * MIB,
                swap_free_bytes: swap_free * MIB,
            },
            ..MachineFacts::default()
        };
        let mut all = [candidate(1, 500), candidate(2, 9), candidate(3, 9)];
        (all[0].swap_bytes, all[1].swap_bytes, all[2].swap_bytes) = (10 * MIB, 11 * MIB, 99 * MIB);
        all[2].under[0].as_mut().expect("there").swap = false;
        let choose = |machine, all: &[Candidate]| chosen(by_swap(&machine, 9000, all), all);
        assert_eq!(choose(machine(99, 19), &all), Some(2));
        assert_eq!(choose(machine(101, 19), &all), None, "memory is left");
        assert_eq!(choose(machine(99, 21), &all), None, "swap is left");
        assert_eq!(choose(machine(99, 19), &all[..1]), None, "nobody uses much");
        let mut swapless = machine(99, 0);
        swapless.meminfo.swap_total_bytes = 0;
        assert_eq!(choose(swapless, &all), None);
    }

    #[test]
    fn growth_is_over_the_window_and_all_of_a_new_one() {
        let window = secs(4);
        let mut old = candidate(1, 100);
        assert_eq!(old.growth_bytes(), 0, "nothing is known");
        for s in 0..10 {
            old.current_bytes = (100 + s) * MIB;
            old.mark(secs(s), window);
        }
        // Marks at 0, 2, 4, 6, 8: from 6 on.
        assert_eq!(old.growth_bytes(), 3 * MIB);
        let mut new = candidate(2, 30);
        new.begin(secs(0));
        new.mark(secs(0), window);
        assert_eq!(new.growth_bytes(), 30 * MIB);
        new.reclaimable_bytes = 25 * MIB;
        assert_eq!(new.growth_bytes(), 5 * MIB, "page cache is not held");
    }
}
