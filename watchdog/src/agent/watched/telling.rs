//! What is told of a target: how it ended, and its record, of what this memwatch saw or the daemon did.

use super::{NESTED, Story, Watched};
use crate::act::Mode;
use crate::agent::identity;
use crate::agent::kernel::Kernel;
use crate::agent::signals::Change;
use crate::host::clock;
use crate::incident::{self, Flight, Kind, Record, Verdict};
use crate::watch::victim::Scope;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

impl Watched {
    /// What the daemon did to it, until now, becomes this story's. Where it looked `to_the_end`, what it has
    /// counted and missed stands for all.
    pub(in crate::agent) fn take_in(&mut self, mut told: Record, to_the_end: bool) {
        let told_began = clock::now().saturating_sub(Duration::from_micros(told.duration_us));
        told.begin_earlier(told_began.saturating_sub(self.began.0));
        let is_kept = to_the_end && told.gravest() != Kind::Run;
        self.kept_by_daemon = is_kept.then_some(told.interventions.len());
        // Who outlives the end of the whole target does not go free, whoever has ordered it.
        if let Some(last) = told.interventions.last()
            && last.scope == Some(Scope::Target)
            && self.mode == Mode::Real
            && let Some(rung) = last.rungs.last()
        {
            let at = self.began.0 + Duration::from_micros(rung.at_us);
            self.condemn(rung.rung, at);
        }
        self.story.take_in(&mut told);
        if let Some(flight) = told.flight.take() {
            let marks = flight.marks(&told.interventions);
            match &mut self.flight_of_daemon {
                Some(before) => before.join(flight, &marks),
                None => self.flight_of_daemon = Some(flight),
            }
        }
        self.told_by_daemon = to_the_end.then_some(told);
    }

    /// Whether it was the daemon that guarded it to the end, and told of it.
    pub(in crate::agent) fn was_daemons(&self) -> bool {
        self.told_by_daemon.is_some()
    }

    /// The kernel's OOM kills, and how it ended.
    pub(in crate::agent) fn verdict(
        &mut self,
        leader: Option<(u32, Change)>,
        let_go: bool,
    ) -> (Verdict, u8) {
        let kills = self.guarded.totals().oom_kills;
        self.story.kernel_oom_count(kills, leader);
        self.story.end(leader, let_go)
    }

    /// Its record: what was counted, decided and done. The story is told once.
    pub(in crate::agent) fn record(
        &mut self,
        over: (Duration, SystemTime),
        verdict: Verdict,
        kernel: &Kernel,
    ) -> Record {
        let mut record = self.counted(over, verdict);
        if let Some(told) = self.told_by_daemon.take() {
            seen_by_daemon(&mut record, told);
        } else {
            self.seen_here(&mut record, kernel);
        }
        let without_table = self.status.without_table.load(Ordering::Relaxed);
        if without_table > 0 {
            self.notes.push(format!(
                "{without_table} looks did not go as far as the processes: too many targets were in trouble at once"
            ));
        }
        if self.nested_left_out > 0 {
            self.notes.push(format!(
                "{} cgroups in the target were not looked into: there were more than {NESTED}",
                self.nested_left_out
            ));
        }
        for note in self.notes.iter().map(|note| note.as_str().into()) {
            if !record.notes.contains(&note) {
                record.notes.push(note);
            }
        }
        std::mem::replace(&mut self.story, Story::begin(over.0)).tell(&mut record);
        record.kind = record.gravest();
        record.flight = self.flight(&record);
        record
    }

    /// What has happened until now, which may be all that is ever told.
    pub(in crate::agent) fn so_far(&self, over: (Duration, SystemTime), kernel: &Kernel) -> Record {
        let mut record = self.counted(over, Verdict::Ongoing);
        self.seen_here(&mut record, kernel);
        self.story.clone().tell(&mut record);
        record.kind = record.gravest();
        let flight = self.flights.of(self.guarded.target.id, self.began.0);
        let began_us = self.began.0.as_micros() as u64;
        record.flight = flight.map(|flight| Flight { began_us, ..flight });
        record
    }

    /// Who and where, and what the kernel has counted.
    fn counted(&self, over: (Duration, SystemTime), verdict: Verdict) -> Record {
        let totals = self.guarded.totals();
        let duration_us = over.0.saturating_sub(self.began.0).as_micros() as u64;
        let mut record = Record::new(self.began.1, over.1, duration_us, verdict);
        record.host = identity::host();
        record.target = self.guarded.describe();
        let status = &self.status;
        let seen = status.peak_bytes.load(Ordering::Relaxed);
        record.peak_bytes = Some(totals.peak_bytes.map_or(seen, |peak| peak.max(seen)));
        record.stall_us = totals.psi.map(|psi| psi.some_us);
        record.stall_full_us = totals.psi.map(|psi| psi.full_us);
        record.refaults_pages = totals.stat.map(|stat| stat.refault_pages);
        record.faults = incident::Faults {
            minor: totals
                .stat
                .map(|stat| stat.faults.saturating_sub(stat.major_faults)),
            major: totals.stat.map(|stat| stat.major_faults),
            ..incident::Faults::default()
        };
        record.dry_run = self.mode == Mode::DryRun;
        record
    }

    /// The last minutes, if somebody will ask about them: something happened, or it was near.
    fn flight(&mut self, record: &Record) -> Option<Flight> {
        let own = self.flights.of(self.guarded.target.id, self.began.0);
        let of_daemon = self.flight_of_daemon.take();
        let flight = match (own, of_daemon) {
            (Some(mut own), Some(of_daemon)) => {
                let marks = own.marks(&record.interventions);
                own.join(of_daemon, &marks);
                own
            }
            (own, of_daemon) => own.or(of_daemon)?,
        };
        let began_us = self.began.0.as_micros() as u64;
        (record.kind != Kind::Run || flight.was_pressed()).then_some(Flight { began_us, ..flight })
    }

    /// What this memwatch counted and missed, and by which numbers it judged.
    fn seen_here(&self, record: &mut Record, kernel: &Kernel) {
        kernel.tell(self.guarded.target.id, record);
        let status = &self.status;
        record.losses.missed_looks = status.late_looks.load(Ordering::Relaxed);
        record.losses.longest_delay_us = status.longest_delay_us.load(Ordering::Relaxed);
        record.losses.untracked_processes = status.untracked.load(Ordering::Relaxed);
        record.losses.unreadable_files = [&status.unreadable, &status.failed_looks]
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum();
        record.settings = identity::settings(&self.settings);
    }
}

/// The same, where it was the daemon that looked.
fn seen_by_daemon(record: &mut Record, told: Record) {
    record.reclaim = told.reclaim;
    record.faults.pressed_minor = told.faults.pressed_minor;
    record.faults.pressed_major = told.faults.pressed_major;
    record.peak_bytes = record.peak_bytes.max(told.peak_bytes);
    record.losses = told.losses;
    record.near_miss = told.near_miss;
    record.machine = told.machine;
    record.kernel_log = told.kernel_log;
    record.features_lost = told.features_lost;
    record.settings = told.settings;
    record.notes = told.notes;
}
