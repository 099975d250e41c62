//! What the looking thread found by itself: tests that were over a limit of their own, and a run that does not go
//! on. What the policy orders is [`super`]'s.

use super::blame::Killed;
use super::eye::Told;
use super::{Asked, Testing, running, send, words};
use crate::act::Outcome;
use crate::agent::story::{FIRST_TEST, Story};
use crate::host::process::Stat;
use crate::incident::{
    BlamedTest, Comm, Intervention, KilledBy, Process, Rule, RungTaken, Signal, Victim,
};
use crate::pytest::Slot;
use crate::watch::{Excess, Rung};
use std::time::Duration;

impl Testing {
    /// Nothing goes on in a session any more: it is interrupted, and so ends with its reports.
    pub(super) fn interrupt(
        &mut self,
        at: Duration,
        idle: Duration,
        controller: &Slot,
        story: &mut Story,
    ) {
        let number = self.next_number();
        self.stuck.insert(controller.pid, number);
        let at_us = story.at_us(at);
        let (observed, threshold) = words::no_progress(idle);
        let intervention = Intervention {
            duration_us: Some(idle.as_micros() as u64),
            rungs: vec![RungTaken {
                rung: Rung::Sigint,
                at_us,
                pid: Some(controller.pid),
                outcome: send(controller, libc::SIGINT, self.mode),
            }],
            ..Intervention::new(at_us, Rule::NoProgress, observed, threshold)
        };
        story.test_limit(number, false, intervention, Vec::new());
    }

    /// It did not end by itself then.
    pub(super) fn end_stuck(
        &mut self,
        at: Duration,
        controller: u32,
        hit: &[Hit],
        story: &mut Story,
    ) {
        let Some(number) = self.stuck.remove(&controller) else {
            return;
        };
        let at_us = story.at_us(at);
        let why = story.reason(number).unwrap_or_default();
        let observed = words::no_progress(Duration::ZERO);
        let further = Intervention {
            rungs: taken(hit, Rung::Sigkill, at_us),
            ..Intervention::new(at_us, Rule::NoProgress, observed.0, observed.1)
        };
        story.test_limit(number, true, further, victims(hit, &why, at_us));
    }

    fn next_number(&mut self) -> u32 {
        self.limits += 1;
        FIRST_TEST + self.limits
    }

    /// A test was over a limit of its own.
    pub(super) fn take_in(&mut self, told: &Told, story: &mut Story) {
        let slot = &told.slot;
        let again = told.kills
            && self
                .asked
                .get(&slot.pid)
                .is_some_and(|asked| asked.serial == slot.serial);
        let number = match self.asked.get(&slot.pid) {
            Some(asked) if again => asked.number,
            _ => self.next_number(),
        };
        let at_us = story.at_us(told.at);
        let (rule, observed, threshold) = words::quantities(&told.excess);
        let why = words::excess(&told.excess);
        let rung = if told.kills {
            Rung::Sigkill
        } else {
            Rung::Abort
        };
        let intervention = Intervention {
            rungs: taken(&told.hit, rung, at_us),
            victim: told.hit.first().map(process),
            test: Some(BlamedTest {
                growth_bytes: match told.excess {
                    Excess::Memory { growth_bytes, .. } => Some(growth_bytes),
                    Excess::Time { .. } => None,
                },
                ..running(slot, told.at)
            }),
            ..Intervention::new(at_us, rule, observed, threshold)
        };
        let victims = if told.kills {
            victims(&told.hit, &why, at_us)
        } else {
            Vec::new()
        };
        let dies = !victims.is_empty();
        story.test_limit(number, again, intervention, victims);
        self.expect_stack(number, slot.pid);
        if dies {
            self.end(
                slot.clone(),
                told.at,
                Killed::OverItsLimit,
                &format!("memwatch killed its process: {why}"),
            );
        } else if !told.kills {
            let serial = slot.serial;
            self.asked.insert(slot.pid, Asked { number, serial });
        }
    }
}

/// A process that was signalled, and what became of it.
type Hit = (u32, Stat, Outcome);

fn process((pid, stat, _): &Hit) -> Process {
    Process {
        pid: *pid,
        comm: Comm::new(&stat.comm),
        start_time_ticks: Some(stat.start_ticks),
        ppid: Some(stat.ppid),
        pgid: Some(stat.pgid),
        ..Process::default()
    }
}

fn taken(hit: &[Hit], rung: Rung, at_us: u64) -> Vec<RungTaken> {
    let taken = hit.iter().map(|(pid, _, outcome)| RungTaken {
        rung,
        at_us,
        pid: Some(*pid),
        outcome: *outcome,
    });
    taken.collect()
}

/// Those who end of it.
fn victims(hit: &[Hit], why: &str, at_us: u64) -> Vec<Victim> {
    let killed = hit
        .iter()
        .filter(|(_, _, outcome)| *outcome == Outcome::Delivered);
    let victims = killed.map(|hit| Victim {
        process: process(hit),
        signal: Signal::KILL,
        reason: why.into(),
        killed_by: KilledBy::Memwatch,
        at_us: Some(at_us),
    });
    victims.collect()
}
