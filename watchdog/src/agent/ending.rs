//! The end of a run: the deciding thread stops, what was made is removed, the record is put together
//! and written, and the exit code is answered.

use super::adopt;
use super::blackbox::Keeper;
use super::blocked;
use super::identity;
use super::keeping;
use super::orphans;
use super::papers::Papers;
use super::run::{Ended, Run, Running, Subject};
use super::signals::Change;
use super::starting::undo;
use super::testing::Testing;
use crate::act::{self, Mode};
use crate::export::draft::Draft;
use crate::host::cgroup::{self, Orphan};
use crate::host::clock;
use crate::host::kmsg;
use crate::host::layout::Layout;
use crate::host::place::Place;
use crate::incident::store::LAST;
use crate::incident::{self, Record};
use nix::unistd::Pid;
use std::time::{Duration, SystemTime};

/// For what is on its way to the disk already.
const DRAFT: Duration = Duration::from_secs(1);

impl Run {
    /// Ends the deciding thread, removes what was made, writes the record.
    pub(super) fn end(
        mut self,
        layout: &Layout,
        ended: anyhow::Result<Ended>,
        papers: Papers,
    ) -> anyhow::Result<u8> {
        let over = (clock::now(), SystemTime::now());
        self.hear();
        self.miss_decider();
        self.way.channel.stop();
        if let Some(decider) = self.decider.take() {
            self.refused.realtime = decider.join().unwrap_or(None);
        }
        // Nobody gives signs of life any more.
        self.kernel.settle();
        self.kernel.stand_down(self.watched.guarded.target.id);
        let ended = ended.inspect_err(|_| undo(&self.subject, &self.watched.guarded.target))?;
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
                self.watched.notes.push(lack);
            }
        }
        if let Some(testing) = &mut self.testing {
            testing.settle(&mut self.watched.story);
        }
        let let_go = matches!(ended, Ended::Detached);
        self.watched.see_off(let_go);
        if let Some(bytes) = self.watched.guarded.current_bytes() {
            self.watched.story.settle(bytes);
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
        if let Some(black_box) = self.black_box.take() {
            black_box.finish();
        }
        drop(self.shelter.take());
        // Before anybody is told: a terminal may be stopped.
        let unwritten = self.testing.as_ref().map(Testing::unwritten);
        let started = self.watched.began.1;
        papers.write(
            &record,
            started,
            &unwritten.unwrap_or_default(),
            &self.terminal,
        );
        // What the daemon did it has kept already. What was done here, for a test's limit or for the time of
        // all, it does not know.
        let is_daemons = self.watched.kept_by_daemon == Some(record.interventions.len());
        let draft = std::mem::take(&mut self.drafting).finish(DRAFT);
        let kept = if is_daemons {
            let _ = draft.map(Draft::remove);
            None
        } else {
            let orders = (&self.orders.incidents, &self.orders.exporters);
            Some(keeping::keep(
                &record,
                draft,
                orders,
                &self.helpers,
                &self.terminal,
            ))
        };
        let name = match kept {
            Some(Some(_)) => Some(record.short_id()),
            // Under an id of its own, and it is the newest.
            None => Some(LAST.to_owned()),
            Some(None) => None,
        };
        self.terminal
            .summary(&record, self.orders.line.as_deref(), name.as_deref());
        if let Some(kept) = kept.flatten() {
            kept.deliver(&self.terminal);
        }
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
        let (verdict, exit_code) = self.watched.verdict(leader, let_go);
        let notices_lost = self.way.channel.dropped();
        if notices_lost > 0 {
            let note = format!("{notices_lost} notices of the deciding thread were lost");
            self.watched.notes.push(note);
        }
        let by_daemon = self.watched.was_daemons();
        let mut record = self.watched.record(over, verdict, &self.kernel);
        record.exit_code = Some(exit_code.into());
        if !by_daemon {
            self.surroundings.catch_up(&self.watched, &record);
            self.surroundings.tell(&mut self.watched, &mut record, true);
        }
        if let Some((_, Change::Killed(signal))) = leader {
            record.leader_signal = Some(incident::Signal::from_number(signal));
        }
        record.command = self.command();
        let lost = self.helpers.lost();
        record.losses.hung_helpers += lost.stuck;
        record.losses.dropped_jobs = lost.dropped + self.terminal.dropped();
        record.losses.blocked_tasks = self.blocked.as_ref().map_or(0, blocked::Watch::missed);
        if let Some(testing) = &mut self.testing {
            let lines = record.kernel_log.iter();
            for (pid, bytes) in
                lines.filter_map(|line| kmsg::victims_size(line.text.as_str().as_bytes()))
            {
                testing.held(pid, bytes);
            }
            record.suite = testing.suite(self.watched.began.0);
        }
        record.rehearsal_us = self.rehearsal.map(|took| took.as_micros() as u64);
        if !by_daemon {
            let lost = identity::refused(&self.refused);
            record.features_lost.extend(lost);
            let no_black_box = self.black_box.iter().flat_map(Keeper::lost);
            self.features_lost.extend(no_black_box);
            record.features_lost.append(&mut self.features_lost);
        }
        record
    }

    pub(super) fn command(&self) -> Option<incident::Command> {
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

    /// What still runs goes back to where it came from, unguarded, and the record says so.
    fn dissolve(&mut self, layout: &Layout, record: &mut Record) {
        // What was only pointed at may have been frozen by whoever owns it.
        let target = &mut self.watched.guarded.target;
        if target.is_ours() || self.watched.froze {
            act::target::thaw(&target.place, Mode::Real);
            target.say_thawed();
        }
        let is_tree = matches!(target.place, Place::Tree(_));
        if !target.is_ours() && !is_tree {
            return;
        }
        let place = target.place.clone();
        let moved = match &self.subject {
            Running::Adopted(adopted) => adopted.give_back(target),
            // There is nowhere to move from.
            _ if is_tree => place.pids().len(),
            _ => adopt::let_go(target, layout),
        };
        let stays = target.leave_to_systemd(|pid| !adopt::is_dying(pid));
        let left = moved + stays;
        if left > 0 {
            let who = match left {
                1 => "1 process of the target runs on".to_owned(),
                count => format!("{count} processes of the target run on"),
            };
            let note = match stays {
                0 => format!("{who}, without a guard"),
                _ => format!("{who} in {place}, without limits and a guard"),
            };
            self.terminal.say(&note);
            record.notes.push(note.as_str().into());
        }
        if stays > 0 {
            return;
        }
        if let Err(error) = target.remove() {
            self.terminal
                .warn(&format!("{error}; the next run removes {place}"));
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
