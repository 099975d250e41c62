//! What the looking thread found by itself: tests that were over a limit of their own, and a run that does not go
//! on. What the policy orders is [`super`]'s.

use super::blame::Killed;
use super::eye::Told;
use super::{Asked, Testing, running, send, words};
use crate::act::Outcome;
use crate::agent::story::{FIRST_TEST, NO_PROGRESS, Story};
use crate::host::process::Stat;
use crate::incident::{
    BlamedTest, Comm, Intervention, KilledBy, Process, Rule, RungTaken, Signal, Victim,
};
use crate::pytest::Slot;
use crate::watch::{Excess, Rung};
use std::time::Duration;

/// How long pytest is given to end with its reports when it is interrupted.
const INTERRUPTED: Duration = Duration::from_secs(10);

impl Testing {
    /// Nothing goes on any more: pytest is interrupted, and so ends with its reports.
    pub(super) fn interrupt(
        &mut self,
        at: Duration,
        idle: Duration,
        controllers: &[Slot],
        story: &mut Story,
    ) {
        self.interrupted_until = Some(at + INTERRUPTED);
        let at_us = story.at_us(at);
        let (observed, threshold) = words::no_progress(idle);
        let rungs = controllers.iter().map(|slot| RungTaken {
            rung: Rung::Sigint,
            at_us,
            pid: Some(slot.pid),
            outcome: send(slot, libc::SIGINT, self.mode),
        });
        let intervention = Intervention {
            duration_us: Some(idle.as_micros() as u64),
            rungs: rungs.collect(),
            ..Intervention::new(at_us, Rule::NoProgress, observed, threshold)
        };
        story.test_limit(NO_PROGRESS, false, intervention, Vec::new());
    }

    /// Whether a run that was interrupted has not ended by itself. Told once.
    pub(in crate::agent) fn has_ignored_interrupt(&mut self, now: Duration) -> bool {
        self.interrupted_until
            .take_if(|until| now >= *until)
            .is_some()
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
            _ => {
                self.limits += 1;
                FIRST_TEST + self.limits
            }
        };
        let at_us = story.at_us(told.at);
        let (rule, observed, threshold) = words::quantities(&told.excess);
        let why = words::excess(&told.excess);
        let rung = if told.kills {
            Rung::Sigkill
        } else {
            Rung::Abort
        };
        let process = |(pid, stat, _): &(u32, Stat, Outcome)| Process {
            pid: *pid,
            comm: Comm::new(&stat.comm),
            start_time_ticks: Some(stat.start_ticks),
            ppid: Some(stat.ppid),
            pgid: Some(stat.pgid),
            ..Process::default()
        };
        let rungs = told.hit.iter().map(|(pid, _, outcome)| RungTaken {
            rung,
            at_us,
            pid: Some(*pid),
            outcome: *outcome,
        });
        let killed = told
            .hit
            .iter()
            .filter(|(_, _, outcome)| told.kills && *outcome == Outcome::Delivered);
        let victims = killed.map(|hit| Victim {
            process: process(hit),
            signal: Signal::KILL,
            reason: why.as_str().into(),
            killed_by: KilledBy::Memwatch,
            at_us: Some(at_us),
        });
        let intervention = Intervention {
            rungs: rungs.collect(),
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
        let victims: Vec<Victim> = victims.collect();
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
