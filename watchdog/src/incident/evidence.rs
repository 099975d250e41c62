//! Turns what the policy decided on into what a record tells: the cause into two phrases, a member
//! into a process, and each of the others into the reason why not it. Pure. The facts are `watch`'s.

use std::time::Duration;

use super::{Comm, NearMiss, Process, Quantity, Rival, Text, Unit, human};
use crate::watch::{
    self, Cause, Measure, Member, Order, Rule, Rung,
    victim::{Choice, Ground},
};

/// A clock tick of /proc: a hundredth of a second on every architecture.
const TICK_US: u64 = 10_000;

/// What was seen and what it was held against: `observed` and `threshold` of an intervention.
#[must_use]
pub fn quantities(cause: &Cause) -> (Quantity, Quantity) {
    let (observed, threshold, unit) = match cause.rule {
        Rule::Exhaustion => filling("limit", cause),
        Rule::MachineExhaustion => filling("machine", cause),
        Rule::Stall => stalled("the limit", cause),
        Rule::MachineStall => stalled("the machine's low mark", cause),
    };
    (
        Quantity {
            value: cause.observed,
            unit,
            text: observed.into(),
        },
        Quantity {
            value: cause.threshold,
            unit,
            text: threshold.into(),
        },
    )
}

/// What is told of a near miss, in times of a run that began at `began`.
#[must_use]
pub fn near_miss(near: &watch::NearMiss, began: Duration) -> NearMiss {
    let (observed, threshold) = quantities(&near.cause);
    NearMiss {
        at_us: near.at.saturating_sub(began).as_micros() as u64,
        rule: near.cause.rule.into(),
        observed,
        threshold,
        lasted_us: near.lasted.as_micros() as u64,
    }
}

/// An order in a line: `SIGTERM to python3 (4250): limit full in 35ms (...) (allowed: 50ms or less)`.
/// `dry_run` puts it into the conditional.
#[must_use]
pub fn order(order: &Order, dry_run: bool) -> String {
    let what = match (order.rung, dry_run) {
        (Rung::Warn, _) => "warning",
        (Rung::Abort, false) => "failing the test that runs",
        (Rung::Abort, true) => "would fail the test that runs",
        (Rung::Sigint, false) => "SIGINT",
        (Rung::Sigint, true) => "would send SIGINT",
        (Rung::Sigterm, false) => "SIGTERM",
        (Rung::Sigterm, true) => "would send SIGTERM",
        (Rung::Sigkill, false) => "SIGKILL",
        (Rung::Sigkill, true) => "would send SIGKILL",
        (Rung::Freeze, false) => "freezing",
        (Rung::Freeze, true) => "would freeze",
    };
    let who = order.victim.map_or(String::new(), |victim| {
        let Member { comm, pid, .. } = victim.member;
        let to = if order.rung == Rung::Abort {
            "in"
        } else {
            "to"
        };
        format!(" {to} {} ({pid})", Comm::new(&comm))
    });
    let (observed, threshold) = quantities(&order.cause);
    format!(
        "{what}{who}: {} (allowed: {})",
        observed.text, threshold.text
    )
}

fn filling(what: &str, cause: &Cause) -> (String, String, Unit) {
    let observed = format!(
        "{what} full in {} ({} left, filling at {}/s)",
        human::duration(cause.observed),
        human::bytes(cause.headroom_bytes),
        human::bytes(cause.fill_bytes_per_s),
    );
    let threshold = format!("{} or less", human::duration(cause.threshold));
    (observed, threshold, Unit::Us)
}

fn stalled(what: &str, cause: &Cause) -> (String, String, Unit) {
    let share = |permille| human::percent(permille, 1000).unwrap_or_default();
    let on = match cause.measure {
        Measure::Fill | Measure::Full => "",
        Measure::FullAndIo => " for memory and for its own pages",
        Measure::Some => " in some of its tasks",
    };
    let observed = format!(
        "stalled{on} for {} of {}, {} from {what}",
        share(cause.observed),
        human::duration(cause.lasted.as_micros() as u64),
        human::bytes(cause.headroom_bytes),
    );
    let threshold = format!("{} or more", share(cause.threshold));
    (observed, threshold, Unit::Permille)
}

impl From<&Member> for Process {
    fn from(member: &Member) -> Self {
        Self {
            pid: member.pid,
            comm: Comm::new(&member.comm),
            start_time_ticks: Some(member.start_ticks),
            ppid: Some(member.ppid),
            pgid: Some(member.pgid),
            rss_bytes: Some(member.anon_bytes + member.shared_bytes),
            anon_bytes: Some(member.anon_bytes),
            growth_bytes: Some(member.growth_bytes),
            stall_us: Some(member.stall_ns / 1_000),
            major_faults: Some(member.major_faults),
            minor_faults: Some(member.minor_faults),
            system_us: Some(member.system_ticks * TICK_US),
            swap_bytes: None,
        }
    }
}

/// Those of `members` that were not `chosen`, nearest to it first, each with the reason.
#[must_use]
pub fn rivals(chosen: &Choice, members: &[Member]) -> Vec<Rival> {
    let measure = measure(chosen.ground);
    let mut others: Vec<&Member> = members
        .iter()
        .filter(|member| member.pid != chosen.member.pid)
        .collect();
    others.sort_by_key(|member| std::cmp::Reverse((measure)(member)));
    let rival = |member: &&Member| Rival {
        process: Process::from(*member),
        why_not: why_not(chosen, member),
    };
    others.iter().map(rival).collect()
}

/// What the choice was made by.
fn measure(ground: Ground) -> fn(&Member) -> u64 {
    match ground {
        Ground::Growth => |member| member.growth_bytes,
        Ground::Stall => |member| member.stall_ns,
        Ground::MajorFaults => |member| member.major_faults,
        Ground::SystemTime => |member| member.system_ticks,
        Ground::Size => |member| member.anon_bytes,
    }
}

fn why_not(chosen: &Choice, rival: &Member) -> Text {
    let measure = measure(chosen.ground);
    if measure(rival) > measure(&chosen.member) {
        return "had been signalled already".into();
    }
    let of = |show: fn(u64) -> String| (show(measure(rival)), show(measure(&chosen.member)));
    let (verb, (rival, victim)) = match chosen.ground {
        Ground::Growth => ("grew", of(human::bytes)),
        Ground::Stall => ("stalled", of(|ns| human::duration(ns / 1_000))),
        Ground::MajorFaults => ("took major faults:", of(human::count)),
        Ground::SystemTime => (
            "in the kernel for",
            of(|ticks| human::duration(ticks * TICK_US)),
        ),
        Ground::Size => ("holds", of(human::bytes)),
    };
    format!("{verb} {rival}, the victim {victim}").into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::watch::victim::Scope;

    const MIB: u64 = 1 << 20;

    fn member(pid: u32, growth_mib: u64) -> Member {
        let mut comm = [0; 16];
        comm[..6].copy_from_slice(b"python");
        Member {
            pid,
            comm,
            growth_bytes: growth_mib * MIB,
            ..Member::default()
        }
    }

    #[test]
    fn a_cause_reads_as_a_measurement_and_its_threshold() {
        let cause = Cause {
            rule: Rule::Exhaustion,
            measure: Measure::Fill,
            observed: 35_000,
            threshold: 50_000,
            lasted: Duration::from_millis(250),
            fill_bytes_per_s: 1300 * MIB,
            headroom_bytes: 48 * MIB,
        };
        let (observed, threshold) = quantities(&cause);
        assert_eq!(
            observed.text.as_str(),
            "limit full in 35ms (48 MiB left, filling at 1.3 GiB/s)"
        );
        assert_eq!((observed.value, observed.unit), (35_000, Unit::Us));
        assert_eq!(threshold.text.as_str(), "50ms or less");

        let stall = Cause {
            rule: Rule::MachineStall,
            measure: Measure::FullAndIo,
            observed: 412,
            threshold: 250,
            lasted: Duration::from_secs(3),
            ..cause
        };
        let (observed, threshold) = quantities(&stall);
        let shown = "stalled for memory and for its own pages for 41% of 3.0s, 48 MiB from the machine's low mark";
        assert_eq!(observed.text.as_str(), shown);
        assert_eq!(threshold.text.as_str(), "25% or more");
    }

    #[test]
    fn rivals_come_nearest_first_and_say_why_not() {
        let members = [member(1, 0), member(2, 800), member(3, 30), member(4, 900)];
        let chosen = Choice {
            member: members[1],
            scope: Scope::Process,
            ground: Ground::Growth,
        };
        let told: Vec<_> = rivals(&chosen, &members)
            .into_iter()
            .map(|rival| (rival.process.pid, rival.why_not.to_string()))
            .collect();
        assert_eq!(
            told,
            [
                (4, "had been signalled already".to_owned()),
                (3, "grew 30 MiB, the victim 800 MiB".to_owned()),
                (1, "grew 0 B, the victim 800 MiB".to_owned()),
            ]
        );
    }
}
