//! A recording of looks, and the policy driven with it: what was decided, or would have been with other
//! settings. Pure. Writing recordings is `agent::recorder`'s.

use super::facts::{Facts, MachineFacts, Member, TargetFacts};
use super::policy::{Order, Policy, Response};
use super::settings::Settings;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One look, as a line of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedLook {
    /// µs on the monotonic clock.
    pub at_us: u64,
    /// The target.
    pub target: TargetFacts,
    /// The machine, if this look went that far.
    #[serde(default)]
    pub machine: Option<MachineFacts>,
    /// The processes, if this look went that far.
    #[serde(default)]
    pub members: Option<Vec<Member>>,
    /// Whether the last victim was gone.
    #[serde(default)]
    pub victim_gone: bool,
}

impl RecordedLook {
    /// One at the machine alone, when nobody looked at a target.
    #[must_use]
    pub fn of_machine(at_us: u64, machine: MachineFacts) -> Self {
        Self {
            at_us,
            target: TargetFacts::default(),
            machine: Some(machine),
            members: None,
            victim_gone: false,
        }
    }

    /// Whether nothing in it is about a target: its zeros are none that were read.
    #[must_use]
    pub fn is_of_machine_alone(&self) -> bool {
        self.target == TargetFacts::default() && self.members.is_none()
    }
}

/// Drives a fresh policy through the recording at the times that the policy itself asks for, each
/// moved by what `jitter_us` gives (a delay, as a busy machine makes them), and returns its orders with
/// the times. Without a delay a look that was recorded just after the time asked for is that look: a
/// slope at the edge is then judged as it was.
///
/// Between two recorded looks the counters are on their way from one to the other in a straight line, and so are
/// the machine's between two looks that read those; the breakdown and the processes are those of the last look that
/// read them. Where there are none for more than a minute, the policy looks again when there is one. Looks at the
/// machine alone are passed over: no policy has seen them.
pub fn replay(
    looks: &[RecordedLook],
    settings: Settings,
    mut jitter_us: impl FnMut() -> u64,
) -> Vec<(u64, Order)> {
    let mut policy = Policy::new(settings, Response::Kill);
    let mut orders = Vec::new();
    let of_target = looks.iter().filter(|look| !look.is_of_machine_alone());
    let looks: &[RecordedLook] = &of_target.cloned().collect::<Vec<_>>();
    let Some((first, last)) = looks.first().zip(looks.last()) else {
        return orders;
    };
    let mut latest = Latest::default();
    let with_machine = |look: &RecordedLook| Some((look.at_us, look.machine?));
    let mut machines = looks.iter().filter_map(with_machine).peekable();
    let mut next = 0;
    let mut at_us = first.at_us;
    while at_us <= last.at_us {
        while looks.get(next).is_some_and(|look| look.at_us <= at_us) {
            latest.take(&looks[next]);
            next += 1;
        }
        while machines.next_if(|&(us, _)| us <= at_us).is_some() {}
        let before = &looks[next.saturating_sub(1)];
        let after = looks.get(next).unwrap_or(before);
        let facts = Facts {
            target: TargetFacts {
                stat: latest.stat_between(after, at_us),
                ..between(before, after, at_us)
            },
            machine: latest.machine_before(machines.peek(), at_us),
            members: latest.members,
            victim_gone: before.victim_gone,
        };
        let decision = policy.step(Duration::from_micros(at_us), &facts);
        orders.extend(decision.order.map(|order| (at_us, order)));
        let pause = u64::try_from(decision.next.after.as_micros()).unwrap_or(u64::MAX);
        let asked_us = at_us.saturating_add(pause.max(1));
        let jitter = jitter_us();
        let recorded = looks[next..].iter().map(|look| look.at_us);
        let due_us = recorded
            .take_while(|&us| us <= asked_us.saturating_add(PUNCTUAL_US))
            .find(|&us| jitter == 0 && us >= asked_us)
            .unwrap_or(asked_us.saturating_add(jitter));
        let after_us = looks.get(next).map(|look| look.at_us);
        let resumed_us = after_us.filter(|&us| us > due_us.saturating_add(UNSEEN_US));
        let before_us = std::mem::replace(&mut at_us, resumed_us.unwrap_or(due_us));
        if at_us <= before_us {
            // The end of time.
            break;
        }
    }
    orders
}

/// Of a machine that nobody saw for longer, since it slept or the recording is none, nothing is made up.
const UNSEEN_US: u64 = 60_000_000;

/// A look that comes this much after it was asked for came when it was asked for: half of the shortest
/// pause between two.
const PUNCTUAL_US: u64 = 1000;

#[derive(Default)]
struct Latest<'a> {
    stat: Option<(u64, crate::host::memory::MemoryStat)>,
    machine: Option<(u64, MachineFacts)>,
    members: Option<&'a [Member]>,
}

impl<'a> Latest<'a> {
    fn take(&mut self, look: &'a RecordedLook) {
        self.stat = look
            .target
            .stat
            .map(|stat| (look.at_us, stat))
            .or(self.stat);
        let machine = look.machine.map(|machine| (look.at_us, machine));
        self.machine = machine.or(self.machine);
        self.members = look.members.as_deref().or(self.members);
    }

    fn machine_before(
        &self,
        next: Option<&(u64, MachineFacts)>,
        at_us: u64,
    ) -> Option<MachineFacts> {
        let (from_us, mut machine) = self.machine?;
        let Some(&(to_us, next)) = next else {
            return Some(machine);
        };
        let part = |a, b| line(a, b, from_us, to_us, at_us);
        let memory = &mut machine.meminfo;
        memory.available_bytes = part(memory.available_bytes, next.meminfo.available_bytes);
        memory.swap_free_bytes = part(memory.swap_free_bytes, next.meminfo.swap_free_bytes);
        if let (Some(arc), Some(next)) = (&mut machine.arc, next.arc) {
            arc.size_bytes = part(arc.size_bytes, next.size_bytes);
        }
        if let (Some(psi), Some(next)) = (&mut machine.psi, next.psi) {
            psi.some_us = part(psi.some_us, next.some_us);
            psi.full_us = part(psi.full_us, next.full_us);
        }
        Some(machine)
    }

    fn stat_between(
        &self,
        after: &RecordedLook,
        at_us: u64,
    ) -> Option<crate::host::memory::MemoryStat> {
        let (from_us, mut stat) = self.stat?;
        if let Some(next) = after.target.stat {
            let part = |a, b| line(a, b, from_us, after.at_us, at_us);
            stat.refault_pages = part(stat.refault_pages, next.refault_pages);
            stat.reclaimable_bytes = part(stat.reclaimable_bytes, next.reclaimable_bytes);
            stat.swap_bytes = part(stat.swap_bytes, next.swap_bytes);
        }
        Some(stat)
    }
}

fn between(before: &RecordedLook, after: &RecordedLook, at_us: u64) -> TargetFacts {
    let part = |a, b| line(a, b, before.at_us, after.at_us, at_us);
    let mut target = before.target;
    target.current_bytes = part(before.target.current_bytes, after.target.current_bytes);
    let stalls = [
        (&mut target.psi, after.target.psi),
        (&mut target.io_psi, after.target.io_psi),
    ];
    for (psi, next) in stalls {
        if let (Some(psi), Some(next)) = (psi, next) {
            psi.some_us = part(psi.some_us, next.some_us);
            psi.full_us = part(psi.full_us, next.full_us);
        }
    }
    target
}

/// The value at `at` on the line from (`from_at`, `from`) to (`to_at`, `to`).
fn line(from: u64, to: u64, from_at: u64, to_at: u64, at: u64) -> u64 {
    if to_at <= from_at {
        return from;
    }
    let (from_wide, to_wide) = (i128::from(from), i128::from(to));
    let share = i128::from(at.clamp(from_at, to_at) - from_at);
    let value = from_wide + (to_wide - from_wide) * share / i128::from(to_at - from_at);
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_meets_both_ends_and_the_middle() {
        assert_eq!(line(100, 200, 0, 10, 0), 100);
        assert_eq!(line(100, 200, 0, 10, 5), 150);
        assert_eq!(line(200, 100, 0, 10, 10), 100);
        assert_eq!(line(7, 9, 3, 3, 3), 7);
    }

    #[test]
    fn times_that_no_recording_has_end() {
        let look = |at_us| RecordedLook {
            at_us,
            target: TargetFacts::default(),
            machine: None,
            members: None,
            victim_gone: false,
        };
        for times in [&[0, u64::MAX][..], &[u64::MAX], &[9, 3, u64::MAX - 1, 5]] {
            let looks: Vec<_> = times.iter().map(|&at_us| look(at_us)).collect();
            assert_eq!(replay(&looks, Settings::default(), || 0), []);
            assert_eq!(replay(&looks, Settings::default(), || u64::MAX), []);
        }
    }

    #[test]
    fn nothing_recorded_nothing_decided() {
        assert_eq!(replay(&[], Settings::default(), || 0), []);
    }
}
