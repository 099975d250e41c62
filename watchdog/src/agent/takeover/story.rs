//! What the deciding thread told of systemd-oomd, as lines for the journal and as records. Pure: names, times
//! and the process are given.

use super::channel::Notice;
use crate::act::Outcome;
use crate::incident::{
    self, Comm, Fault, Intervention, KilledBy, Kind, MemoryLayout, Process, Quantity, Record,
    RivalCgroup, RungTaken, Signal, Target, Text, Unit, Verdict, Victim,
};
use crate::watch::Rung;
use crate::watch::peer::Health;
use crate::watch::takeover::{Transition, Why};
use crate::watch::victim::{Ground, Scope};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// For the journal.
    pub line: String,
    /// For the disk, without the host's name.
    pub record: Option<Box<Record>>,
}

impl Told {
    pub(super) fn line(line: String) -> Self {
        Self { line, record: None }
    }
}

/// Now, by both clocks, and who systemd-oomd is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Duration,
    pub(super) wall: SystemTime,
    pub(super) peer_pid: Option<u32>,
    pub(super) dry_run: bool,
}

impl Moment {
    /// The wall-clock time of `at`.
    fn wall_at(&self, at: Duration) -> SystemTime {
        self.wall - self.now.saturating_sub(at)
    }
}

/// What a notice came to.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) told: Option<Told>,
    /// A cgroup of which all that are listed were signalled: its id and directory.
    pub(super) struck: Option<(u64, PathBuf)>,
}

/// The story so far.
#[derive(Debug, Default)]
pub(super) struct Story {
    health: Option<(Health, Duration)>,
    /// The process that was seen last.
    peer_pid: Option<u32>,
    taken_over: Option<TakenOver>,
    kills: u64,
    ending: Option<Ending>,
}

#[derive(Clone, Copy, Debug)]
struct TakenOver {
    at: Duration,
    why: Health,
    after: Duration,
    kills_before: u64,
}

/// A cgroup that is being ended.
#[derive(Debug)]
struct Ending {
    at: Duration,
    id: u64,
    dir: PathBuf,
    intervention: Intervention,
    victims: Vec<Victim>,
    survivors: usize,
    takeover: incident::Takeover,
}

impl Story {
    /// What is wrong with systemd-oomd, and since when it has been as it is.
    pub(super) fn fault(&self) -> (Option<Fault>, Option<Duration>) {
        self.health.map_or((None, None), |(health, since)| {
            (Fault::of(health), Some(since))
        })
    }

    pub(super) fn is_taken_over(&self) -> bool {
        self.taken_over.is_some()
    }

    pub(super) fn kills(&self) -> u64 {
        self.kills
    }

    /// Takes a notice in. `units` are those that are managed, `dir_of` finds a cgroup below them.
    pub(super) fn hear<'n>(
        &mut self,
        moment: &Moment,
        notice: &Notice,
        units: impl Iterator<Item = (u64, &'n str)> + Clone,
        dir_of: impl Fn(u64) -> Option<&'n Path>,
    ) -> Heard {
        self.peer_pid = moment.peer_pid.or(self.peer_pid);
        let mut heard = Heard::default();
        match *notice {
            Notice::Health { at, health } => self.health = Some((health, at)),
            Notice::Turned { at, transition } => {
                heard.told = Some(self.turn(moment, at, transition, units));
            }
            Notice::Ordered {
                at,
                id,
                why,
                held_bytes,
                growth_bytes,
            } => {
                let dir = dir_of(id).map_or_else(PathBuf::new, Path::to_owned);
                let (rule, observed, threshold, lasted) = evidence(&why, units.clone());
                let ground = matches!(why, Why::Machine(_)) && growth_bytes > 0;
                let intervention = Intervention {
                    duration_us: Some(micros(lasted)),
                    ground: ground.then_some(Ground::Growth),
                    scope: Some(Scope::Target),
                    memory_before_bytes: Some(held_bytes),
                    ..Intervention::new(0, rule, observed, threshold)
                };
                self.ending = Some(Ending {
                    at,
                    id,
                    dir,
                    intervention,
                    victims: Vec::new(),
                    survivors: 0,
                    takeover: self.standing(at, units),
                });
            }
            Notice::Hit {
                pid,
                named,
                outcome,
            } => {
                if let Some(ending) = &mut self.ending {
                    ending.hit(pid, named, outcome);
                }
            }
            Notice::Rival {
                id,
                held_bytes,
                growth_bytes,
            } => {
                if let (Some(ending), Some(dir)) = (&mut self.ending, dir_of(id)) {
                    ending.intervention.rival_cgroups.push(RivalCgroup {
                        cgroup_path: Text::of_name(dir.as_os_str().as_bytes()),
                        memory_bytes: held_bytes,
                        growth_bytes,
                    });
                }
            }
            Notice::Struck => {
                if let Some(ending) = &mut self.ending {
                    let (id, dir) = (ending.id, ending.dir.clone());
                    heard.told = Some(Told::line(ending.line(moment.dry_run)));
                    heard.struck = Some((id, dir));
                    self.kills += 1;
                }
            }
            Notice::Recovered {
                at,
                took,
                held_bytes,
            } => {
                if let Some(ending) = self.ending.take() {
                    heard.told = Some(ending.end(moment, at, took, held_bytes));
                }
            }
        }
        heard
    }

    fn turn<'n>(
        &mut self,
        moment: &Moment,
        at: Duration,
        transition: Transition,
        units: impl Iterator<Item = (u64, &'n str)> + Clone,
    ) -> Told {
        let names: Vec<_> = units.clone().map(|(_, name)| name).collect();
        let names = names.join(", ");
        let peer = self.peer();
        let (kind, from, line, takeover);
        match transition {
            Transition::TakenOver { why, after } => {
                self.taken_over = Some(TakenOver {
                    at,
                    why,
                    after,
                    kills_before: self.kills,
                });
                kind = Kind::Takeover;
                from = at;
                takeover = self.standing(at, units);
                let what = Fault::of(why).map_or("is well", Fault::phrase);
                line = format!("{peer} {what}: memwatch looks after what it was given ({names})");
            }
            Transition::HandedBack { after } | Transition::LetGo { after } => {
                takeover = self.standing(at, units);
                self.taken_over = None;
                kind = Kind::HandBack;
                from = at.saturating_sub(after);
                let kills = match takeover.kills {
                    0 => "nobody was ended".to_owned(),
                    1 => "one cgroup was ended".to_owned(),
                    n => format!("{n} cgroups were ended"),
                };
                let what = match transition {
                    Transition::LetGo { .. } => {
                        "has nothing to look after any more: memwatch lets go".to_owned()
                    }
                    _ => format!("is well again: what it was given is left to it ({names})"),
                };
                let lasted = incident::duration(micros(after));
                line = format!("{peer} {what}; in {lasted} {kills}");
            }
        }
        let lasted = micros(at.saturating_sub(from));
        let (started, ended) = (moment.wall_at(from), moment.wall_at(at));
        let mut record = Record::new(started, ended, lasted, Verdict::Ongoing);
        record.kind = kind;
        record.takeover = Some(takeover);
        record.dry_run = moment.dry_run;
        record.notes.push(line.as_str().into());
        Told {
            line,
            record: Some(Box::new(record)),
        }
    }

    fn peer(&self) -> String {
        self.peer_pid.map_or_else(
            || "systemd-oomd".to_owned(),
            |pid| format!("systemd-oomd (pid {pid})"),
        )
    }

    /// How it stands with systemd-oomd at a time.
    fn standing<'n>(
        &self,
        at: Duration,
        units: impl Iterator<Item = (u64, &'n str)>,
    ) -> incident::Takeover {
        let taken = self.taken_over;
        incident::Takeover {
            peer_pid: self.peer_pid,
            fault: taken.and_then(|it| Fault::of(it.why)),
            noticed_after_us: taken.map(|it| micros(it.after)),
            lasted_us: taken.map(|it| micros(at.saturating_sub(it.at))),
            units: units
                .map(|(_, name)| Text::of_name(name.as_bytes()))
                .collect(),
            kills: taken.map_or(0, |it| self.kills - it.kills_before),
        }
    }
}

impl Ending {
    fn hit(
        &mut self,
        pid: u32,
        named: Option<(u64, crate::host::process::Comm)>,
        outcome: Outcome,
    ) {
        if outcome != Outcome::Delivered {
            self.survivors += 1;
        }
        self.intervention.rungs.push(RungTaken {
            rung: Rung::Sigkill,
            at_us: 0,
            pid: Some(pid),
            outcome,
        });
        if outcome == Outcome::Delivered {
            self.victims.push(Victim {
                process: Process {
                    pid,
                    comm: named.map_or_else(Comm::default, |(_, comm)| Comm::new(&comm)),
                    start_time_ticks: named.map(|(ticks, _)| ticks),
                    ..Process::default()
                },
                signal: Signal::KILL,
                reason: self.reason().as_str().into(),
                killed_by: KilledBy::Memwatch,
                at_us: Some(0),
            });
        }
    }

    fn reason(&self) -> String {
        format!(
            "{} (allowed: {})",
            self.intervention.observed.text.as_str(),
            self.intervention.threshold.text.as_str()
        )
    }

    fn place(&self) -> Text {
        match self.dir.as_os_str().is_empty() {
            true => format!("cgroup {}", self.id).as_str().into(),
            false => Text::of_name(self.dir.as_os_str().as_bytes()),
        }
    }

    fn line(&self, dry_run: bool) -> String {
        let count = match self.intervention.rungs.len() {
            1 => "1 process".to_owned(),
            n => format!("{n} processes"),
        };
        let whose = match self.takeover.fault {
            Some(fault) => format!("in place of systemd-oomd, which {}", fault.phrase()),
            None => "for the machine's sake; systemd-oomd is well".to_owned(),
        };
        format!(
            "{} to {} ({count}, {}): {}; {whose}",
            if dry_run {
                "would send SIGKILL"
            } else {
                "SIGKILL"
            },
            self.place().as_str(),
            incident::bytes(self.intervention.memory_before_bytes.unwrap_or(0)),
            self.reason(),
        )
    }

    fn end(mut self, moment: &Moment, at: Duration, took: Duration, held_bytes: u64) -> Told {
        self.intervention.memory_after_bytes = Some(held_bytes);
        self.intervention.recovery_us = Some(micros(took));
        let before = self.intervention.memory_before_bytes.unwrap_or(0);
        let back = before.saturating_sub(held_bytes);
        let line = format!(
            "{} came back from {} in {}",
            incident::bytes(back),
            self.place().as_str(),
            incident::duration(micros(took))
        );
        let (started, ended) = (moment.wall_at(self.at), moment.wall_at(at));
        let mut record = Record::new(started, ended, micros(took), Verdict::KilledByMemwatch);
        record.target = Target {
            cgroup_path: Some(self.place()),
            cgroup_id: Some(self.id),
            memory_layout: Some(MemoryLayout::V2),
            ..Target::default()
        };
        record.interventions.push(self.intervention);
        record.victims = self.victims;
        record.takeover = Some(self.takeover);
        record.dry_run = moment.dry_run;
        record.kind = record.gravest();
        if moment.dry_run {
            record.verdict = Verdict::Ongoing;
        }
        Told {
            line,
            record: Some(Box::new(record)),
        }
    }
}

/// The rule, what was measured and what it was held against, and for how long it had held.
fn evidence<'n>(
    why: &Why,
    mut units: impl Iterator<Item = (u64, &'n str)>,
) -> (incident::Rule, Quantity, Quantity, Duration) {
    let permille = |permyriad: u32, text: String| Quantity {
        value: u64::from(permyriad / 10),
        unit: Unit::Permille,
        text: text.as_str().into(),
    };
    match *why {
        Why::Pressure {
            unit,
            full_permyriad,
            limit_permyriad,
            lasted,
        } => {
            let name = units.find(|(id, _)| *id == unit).map(|(_, name)| name);
            let observed = format!(
                "memory pressure of {} at {} for {}",
                Text::of_name(name.unwrap_or("a unit").as_bytes()).as_str(),
                percent(full_permyriad),
                incident::duration(micros(lasted))
            );
            (
                incident::Rule::OomdPressure,
                permille(full_permyriad, observed),
                permille(
                    limit_permyriad,
                    format!("{} or less", percent(limit_permyriad)),
                ),
                lasted,
            )
        }
        Why::Swap {
            used_permyriad,
            limit_permyriad,
        } => (
            incident::Rule::OomdSwap,
            permille(
                used_permyriad,
                format!("swap used to {}", percent(used_permyriad)),
            ),
            permille(
                limit_permyriad,
                format!("{} or less", percent(limit_permyriad)),
            ),
            Duration::ZERO,
        ),
        Why::Machine(cause) => {
            let (observed, threshold) = incident::quantities(&cause);
            (cause.rule.into(), observed, threshold, cause.lasted)
        }
    }
}

fn percent(permyriad: u32) -> String {
    format!("{}.{:02}%", permyriad / 100, permyriad % 100)
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
