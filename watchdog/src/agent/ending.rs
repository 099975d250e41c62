//! The end of a run: the deciding thread stops, what was made is removed, the record is put together
//! and written, and the exit code is answered.

use super::adopt;
use super::channel::NESTED;
use super::identity;
use super::orphans;
use super::run::{Ended, Run, Running, Subject};
use super::signals::Change;
use super::starting::undo;
use super::story::Story;
use crate::act::{self, Mode};
use crate::host::cgroup::{self, Orphan};
use crate::host::clock;
use crate::host::layout::Layout;
use crate::incident::{self, Record, ReportFile};
use nix::unistd::Pid;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// How long a killed process may take to be gone; one that waits for a dead disk takes for ever.
const DEATH: Duration = Duration::from_secs(2);

impl Run {
    /// Ends the deciding thread, removes what was made, writes the record.
    pub(super) fn end(
        mut self,
        layout: &Layout,
        ended: anyhow::Result<Ended>,
        report: Option<ReportFile>,
    ) -> anyhow::Result<u8> {
        let over = (clock::now(), SystemTime::now());
        self.hear();
        self.miss_decider();
        self.channel.stop();
        if let Some(decider) = self.decider.take() {
            self.refused.realtime = decider.join().unwrap_or(None);
        }
        // Nobody gives signs of life any more.
        self.kernel.stand_down();
        let ended = ended.inspect_err(|_| undo(&self.subject, &self.guarded.target))?;
        self.hear();
        self.take_events();
        self.take_guard_kills();
        let leader = match (&ended, &self.subject) {
            (Ended::Leader(change), Running::Child { pid }) => Some((*pid, *change)),
            _ => None,
        };
        if let Some(recording) = self.recording.take() {
            // As for the report: a full disk does not change how the command ended.
            let lack = match recording.finish() {
                Ok(0) => None,
                Ok(dropped) => Some(format!("{dropped} looks did not get into the recording")),
                Err(error) => Some(format!(
                    "the recording is not whole: {error}; replay what there is, or record to another disk"
                )),
            };
            if let Some(lack) = lack {
                self.terminal.say(&lack);
                self.notes.push(lack);
            }
        }
        let let_go = matches!(ended, Ended::Detached);
        self.see_off(let_go);
        if let Some(bytes) = self.guarded.current_bytes() {
            self.story.settle(bytes);
        }
        let mut record = self.record(over, leader, let_go);
        self.dissolve(layout, &mut record);
        let orphans = self.sweep(layout);
        for note in self.kernel.leave(layout.v2_mount(), &orphans) {
            self.terminal.warn(&note);
            record.notes.push(note.as_str().into());
        }
        if let Some((pid, _)) = leader {
            let _ = nix::sys::wait::waitpid(Pid::from_raw(pid as i32), None);
        }
        drop(self.shelter.take());
        // Before anybody is told: a terminal may be stopped.
        if let Some(report) = report
            && let Err(error) = report.write(&record)
        {
            // The verdict is the command's; a full disk does not change it.
            self.terminal.warn(&error.to_string());
        }
        self.terminal.summary(&record, self.orders.line.as_deref());
        Ok(record
            .exit_code
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(125))
    }

    fn record(
        &mut self,
        over: (Duration, SystemTime),
        leader: Option<(u32, Change)>,
        let_go: bool,
    ) -> Record {
        let totals = self.guarded.totals();
        self.story.kernel_oom_count(totals.oom_kills, leader);
        let (verdict, exit_code) = self.story.end(leader, let_go);
        let duration_us = over.0.saturating_sub(self.began.0).as_micros() as u64;
        let mut record = Record::new(self.began.1, over.1, duration_us, verdict);
        record.exit_code = Some(exit_code.into());
        if let Some((_, Change::Killed(signal))) = leader {
            record.leader_signal = Some(incident::Signal::from_number(signal));
        }
        record.host = identity::host();
        record.command = self.command();
        record.target = self.guarded.describe();
        let status = &self.channel.status;
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
        self.kernel.tell(&mut record);
        record.losses.missed_looks = status.late_looks.load(Ordering::Relaxed);
        record.losses.longest_delay_us = status.longest_delay_us.load(Ordering::Relaxed);
        record.losses.untracked_processes = status.untracked.load(Ordering::Relaxed);
        record.losses.unreadable_files = [&status.unreadable, &status.failed_looks]
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum();
        let lost = self.helpers.lost();
        record.losses.hung_helpers += lost.stuck;
        record.losses.dropped_jobs = lost.dropped + self.terminal.dropped();
        record.rehearsal_us = self.rehearsal.map(|took| took.as_micros() as u64);
        record.dry_run = self.orders.attach.dry_run;
        record.settings = identity::settings(&self.orders.settings);
        record
            .features_lost
            .extend(identity::refused(&self.refused));
        record.features_lost.append(&mut self.features_lost);
        let notices_lost = self.channel.dropped();
        if notices_lost > 0 {
            self.notes.push(format!(
                "{notices_lost} notices of the deciding thread were lost"
            ));
        }
        if self.nested_left_out > 0 {
            self.notes.push(format!(
                "{} cgroups in the target were not looked into: there were more than {NESTED}",
                self.nested_left_out
            ));
        }
        let notes = self.notes.iter().map(|note| note.as_str().into());
        record.notes.extend(notes);
        std::mem::replace(&mut self.story, Story::begin(over.0)).tell(&mut record);
        record.kind = record.gravest();
        record
    }

    fn command(&self) -> Option<incident::Command> {
        let Subject::Program(program) = &self.orders.subject else {
            return match &self.subject {
                Running::Adopted(adopted) => Some(incident::Command {
                    program: incident::Text::of_name(incident::Comm::new(&adopted.comm).as_bytes()),
                    arguments: None,
                }),
                _ => None,
            };
        };
        let text = |word: &std::ffi::OsStr| incident::Text::of_name(word.as_encoded_bytes());
        Some(incident::Command {
            program: text(&program.program),
            arguments: self
                .orders
                .with_arguments
                .then(|| program.arguments.iter().map(|word| text(word)).collect()),
        })
    }

    /// Ends what is left of a target that was told to end: the leader may be the first to go and not
    /// the hog, and forks under way got no signal. What was asked has the rest of its grace for it.
    fn see_off(&mut self, let_go: bool) {
        let now = clock::now();
        let Some(condemned) = self.condemned else {
            return;
        };
        let pardoned = |at| let_go || now >= at;
        if condemned.pardoned_at.is_some_and(pardoned) {
            return;
        }
        if !self.is_empty_within(condemned.grace_until.saturating_sub(now)) {
            act::target::kill(&self.guarded.target.dir, Mode::Real);
            self.is_empty_within(DEATH);
            self.notes
                .push("what outlived the end of the command was killed with it".into());
        }
    }

    fn is_empty_within(&self, patience: Duration) -> bool {
        let until = clock::now() + patience;
        loop {
            let empty = cgroup::pids(&self.guarded.target.dir).is_empty();
            if empty || clock::now() > until {
                return empty;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What still runs goes back to where it came from, unguarded, and the record says so.
    fn dissolve(&mut self, layout: &Layout, record: &mut Record) {
        // What was only pointed at may have been frozen by whoever owns it.
        if self.guarded.target.is_ours() || self.froze {
            act::target::thaw(&self.guarded.target.dir, Mode::Real);
            self.guarded.target.say_thawed();
        }
        if !self.guarded.target.is_ours() {
            return;
        }
        let dir = self.guarded.target.dir.clone();
        let moved = match &self.subject {
            Running::Adopted(adopted) => adopted.give_back(&self.guarded.target),
            _ => adopt::let_go(&self.guarded.target, layout),
        };
        let stays = self
            .guarded
            .target
            .leave_to_systemd(|pid| !adopt::is_dying(pid));
        let left = moved + stays;
        if left > 0 {
            let who = match left {
                1 => "1 process of the target runs on".to_owned(),
                count => format!("{count} processes of the target run on"),
            };
            let note = match stays {
                0 => format!("{who}, without a guard"),
                _ => format!("{who} in {}, without limits and a guard", dir.display()),
            };
            self.terminal.say(&note);
            record.notes.push(note.as_str().into());
        }
        if stays > 0 {
            return;
        }
        if let Err(error) = self.guarded.target.remove() {
            self.terminal
                .warn(&format!("{error}; the next run removes {}", dir.display()));
        }
    }

    /// Removes what memwatches that died have left; what still runs is told of and returned.
    fn sweep(&mut self, layout: &Layout) -> Vec<Orphan> {
        let swept = cgroup::sweep(layout);
        for error in &swept.failed {
            self.terminal
                .warn(&format!("{error}; the next run removes it"));
        }
        for dir in &swept.thawed {
            self.terminal.warn(&orphans::thawed(dir));
        }
        for Orphan { dir, .. } in &swept.left {
            self.terminal.warn(&format!(
                "{} was left by a memwatch that died, and processes still run in it",
                dir.display()
            ));
        }
        swept.left
    }
}
