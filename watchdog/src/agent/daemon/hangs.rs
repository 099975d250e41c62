//! Tasks that the kernel reports as hanging, whosever they are: an incident of the machine's, which no target of the
//! daemon's need have a part in. A freeze that could not be prevented leaves at least this.
//!
//! Reports come in bursts, two minutes after the fact: those of a few seconds are one incident.

use crate::incident::{Comm, HungTask, Kind, Record, Verdict};
use std::time::{Duration, SystemTime};

/// From the first report until the incident is told: what hangs with it is reported in the same round, and the
/// kernel's log has the stacks by then.
const TOGETHER: Duration = Duration::from_secs(3);
/// What goes on hanging is reported every two minutes, and told as another incident after so long.
const QUIET: Duration = Duration::from_secs(600);
/// Tasks in one incident.
const TASKS: usize = 64;

/// Reports that are not told yet.
#[derive(Debug, Default)]
pub(super) struct Hangs {
    began: Option<(Duration, SystemTime)>,
    tasks: Vec<HungTask>,
    left_out: u64,
    quiet_until: Duration,
    /// Reports meanwhile.
    unsaid: u64,
}

impl Hangs {
    /// The kernel has reported one, by an event or in its log, or both.
    pub(super) fn see(&mut self, now: (Duration, SystemTime), tid: u32, comm: &[u8]) {
        if now.0 < self.quiet_until {
            self.unsaid += 1;
            return;
        }
        let (began, _) = *self.began.get_or_insert(now);
        if self.tasks.iter().any(|task| task.tid == tid) {
            return;
        }
        if self.tasks.len() >= TASKS {
            self.left_out += 1;
            return;
        }
        self.tasks.push(HungTask {
            tid,
            comm: Comm::new(comm),
            at_us: Some(now.0.saturating_sub(began).as_micros() as u64),
        });
    }

    /// The incident, when it is time to tell it.
    pub(super) fn due(&mut self, now: (Duration, SystemTime)) -> Option<Record> {
        let is_due = |began: &mut (Duration, SystemTime)| now.0.saturating_sub(began.0) >= TOGETHER;
        let (began, began_wall) = self.began.take_if(is_due)?;
        self.quiet_until = now.0 + QUIET;
        let lasted = now.0.saturating_sub(began).as_micros() as u64;
        let mut record = Record::new(began_wall, now.1, lasted, Verdict::Ongoing);
        record.hung_tasks = std::mem::take(&mut self.tasks);
        record.losses.blocked_tasks = std::mem::take(&mut self.left_out);
        let unsaid = std::mem::take(&mut self.unsaid);
        if unsaid > 0 {
            let note = format!("the kernel has reported {unsaid} more since the incident before");
            record.notes.push(note.into());
        }
        record.kind = Kind::Hang;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::validate;

    fn at(seconds: u64) -> (Duration, SystemTime) {
        let since = Duration::from_secs(seconds);
        (since, SystemTime::UNIX_EPOCH + since)
    }

    #[test]
    fn a_burst_is_one_incident_and_what_goes_on_is_told_again_after_a_while() {
        let mut hangs = Hangs::default();
        assert_eq!(hangs.due(at(1000)), None);
        hangs.see(at(1000), 611, b"txg_sync");
        hangs.see(at(1001), 2044, b"gnome-shell");
        hangs.see(at(1001), 611, b"txg_sync");
        assert_eq!(hangs.due(at(1002)), None, "more may come");
        let told = hangs.due(at(1003)).expect("it is time");
        validate(&told);
        assert_eq!((told.kind, told.gravest()), (Kind::Hang, Kind::Hang));
        let tids: Vec<u32> = told.hung_tasks.iter().map(|task| task.tid).collect();
        assert_eq!(tids, [611, 2044]);
        assert_eq!(told.hung_tasks[1].at_us, Some(1_000_000));
        hangs.see(at(1120), 611, b"txg_sync");
        assert_eq!(hangs.due(at(1200)), None, "it was told");
        hangs.see(at(1700), 611, b"txg_sync");
        let again = hangs.due(at(1800)).expect("it is time");
        assert_eq!(
            again.notes,
            ["the kernel has reported 1 more since the incident before".into()]
        );
    }

    #[test]
    fn a_storm_is_counted() {
        let mut hangs = Hangs::default();
        (0..100).for_each(|tid| hangs.see(at(5), tid, b"dd"));
        let told = hangs.due(at(9)).expect("it is time");
        assert_eq!(told.hung_tasks.len(), TASKS);
        assert_eq!(told.losses.blocked_tasks, 100 - TASKS as u64);
    }
}
