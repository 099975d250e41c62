//! Two records of one target made one: what was told of it in parts, and what another memwatch did to it.

use std::time::Duration;

use super::{Flight, Record};

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

impl Record {
    /// Takes in the record of what came after it, which began so much later. Its counts are of both.
    pub fn absorb(&mut self, mut later: Self, after: Duration) {
        later.begin_earlier(after);
        self.ended_at = later.ended_at;
        self.duration_us = later.duration_us;
        if !later.interventions.is_empty() {
            self.verdict = later.verdict;
        }
        self.peak_bytes = self.peak_bytes.max(later.peak_bytes);
        self.stall_us = later.stall_us;
        self.stall_full_us = later.stall_full_us;
        self.faults = later.faults;
        self.reclaim = later.reclaim;
        self.refaults_pages = later.refaults_pages;
        self.interventions.append(&mut later.interventions);
        self.near_miss = self.near_miss.take().or(later.near_miss);
        self.victims.append(&mut later.victims);
        self.kernel_oom.append(&mut later.kernel_oom);
        self.kernel_oom_kills = match (self.kernel_oom_kills, later.kernel_oom_kills) {
            (Some(before), Some(after)) => Some(before + after),
            (before, after) => after.or(before),
        };
        if let Some(flight) = later.flight {
            let mut whole = self.flight.take().unwrap_or_else(|| Flight {
                began_us: flight.began_us,
                ..Flight::default()
            });
            let marks = whole.marks(&self.interventions);
            whole.join(flight, &marks);
            self.flight = Some(whole);
        }
        self.hung_tasks.append(&mut later.hung_tasks);
        self.blocked_tasks.append(&mut later.blocked_tasks);
        self.machine = self.machine.take().or(later.machine);
        self.kernel_log.append(&mut later.kernel_log);
        self.service_log.append(&mut later.service_log);
        self.losses = later.losses;
        self.features_lost = later.features_lost;
        for note in later.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        self.settings = later.settings;
        self.kind = self.gravest();
    }

    /// Moves the beginning back by so much: what happened, happened so much later after it.
    pub fn begin_earlier(&mut self, by: Duration) {
        let by = by.as_micros() as u64;
        self.duration_us = self.duration_us.saturating_add(by);
        if let Some(flight) = &mut self.flight {
            flight.began_us = flight.began_us.saturating_sub(by);
        }
        for it in &mut self.interventions {
            add(&mut it.at_us, by);
            it.rungs
                .iter_mut()
                .for_each(|rung| add(&mut rung.at_us, by));
        }
        if let Some(near) = &mut self.near_miss {
            near.at_us += by;
        }
        for line in &mut self.kernel_log {
            line.at_us = line.at_us.saturating_add_unsigned(by);
        }
        for line in &mut self.service_log {
            line.at_us = line.at_us.saturating_add_unsigned(by);
        }
        let victims = self.victims.iter_mut().map(|victim| &mut victim.at_us);
        let ooms = self.kernel_oom.iter_mut().map(|victim| &mut victim.at_us);
        let hung = self.hung_tasks.iter_mut().map(|task| &mut task.at_us);
        let blocked = self.blocked_tasks.iter_mut().map(|task| &mut task.at_us);
        for at_us in victims.chain(ooms).chain(hung).chain(blocked) {
            *at_us = at_us.map(|at_us| at_us.saturating_add(by));
        }
    }

    /// Leaves out the older half of what happened, for whom it is too long, and says so.
    pub fn shorten(&mut self) {
        let left_out = older_half(&mut self.interventions) + older_half(&mut self.victims);
        older_half(&mut self.kernel_oom);
        older_half(&mut self.hung_tasks);
        older_half(&mut self.blocked_tasks);
        if let Some(flight) = &mut self.flight {
            older_half(&mut flight.looks);
        }
        older_half(&mut self.kernel_log);
        let note =
            format!("{left_out} older interventions and victims are left out: there were too many");
        self.notes.push(note.into());
    }
}

fn older_half<T>(items: &mut Vec<T>) -> usize {
    let half = items.len().div_ceil(2);
    items.drain(..half).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{Kind, Verdict, sample};

    #[test]
    fn what_came_later_keeps_its_time_and_the_counts_are_of_both() {
        let mut whole = sample::killed();
        let mut later = sample::killed();
        whole.reclaim.memcg = Some(3);
        later.reclaim.memcg = Some(7);
        later.verdict = Verdict::Ongoing;
        let (at_us, victim_at_us) = (later.interventions[0].at_us, later.victims[0].at_us);
        let count = whole.interventions.len();
        whole.absorb(later, Duration::from_secs(5));
        assert_eq!(whole.interventions.len(), 2 * count);
        assert_eq!(whole.interventions[count].at_us, at_us + 5_000_000);
        assert_eq!(
            whole.victims.last().and_then(|victim| victim.at_us),
            victim_at_us.map(|at_us| at_us + 5_000_000)
        );
        assert_eq!(whole.reclaim.memcg, Some(7));
        let kills = |kills| {
            let mut record = sample::quiet();
            record.kernel_oom_kills = kills;
            record
        };
        for (before, after, both) in [
            (Some(2), Some(3), Some(5)),
            (None, Some(3), Some(3)),
            (Some(2), None, Some(2)),
            (None, None, None),
        ] {
            let mut sum = kills(before);
            sum.absorb(kills(after), Duration::ZERO);
            assert_eq!(sum.kernel_oom_kills, both);
        }
        assert_eq!(whole.kind, Kind::Kill);
        let notes = whole.notes.len();
        whole.absorb(sample::killed(), Duration::ZERO);
        assert_eq!(whole.notes.len(), notes, "said once");
    }

    #[test]
    fn the_looks_of_both_are_kept_on_their_own_clock() {
        let (mut whole, mut later) = (sample::grave(), sample::grave());
        let began_us = whole.flight.as_ref().expect("looks").began_us;
        let flight = later.flight.as_mut().expect("looks");
        flight.began_us += 5_000_000;
        flight
            .looks
            .iter_mut()
            .for_each(|look| look.at_us += 5_000_000);
        whole.absorb(later.clone(), Duration::from_secs(5));
        let both = whole.flight.as_ref().expect("looks");
        assert_eq!(
            (both.began_us, both.looks.len(), both.lost),
            (began_us, 4, 4)
        );
        let mut without = sample::killed();
        without.absorb(later, Duration::from_secs(5));
        assert_eq!(without.flight.map(|flight| flight.began_us), Some(began_us));
    }

    #[test]
    fn a_shortened_record_says_so_and_keeps_what_came_last() {
        let mut record = sample::killed();
        record.absorb(sample::killed(), Duration::from_secs(5));
        let last = record.interventions.last().cloned();
        record.shorten();
        assert_eq!(record.interventions.last().cloned(), last);
        let note = record.notes.last().expect("a note").as_str();
        assert!(note.contains("left out"), "{note}");
    }
}
