//! What a list of incidents says of each: the few fields of a record by which one is found again. Reading them is
//! `store`'s and the control socket's, showing them the command line's.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Comm, Command, Kind, Record, SCHEMA_VERSION, Target, Text, Timestamp, Verdict, Victim,
};

/// As many victims as are named.
const NAMED: usize = 3;

/// A record in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headline {
    /// Names the record for good, and sorts by time.
    pub id: Uuid,
    /// The gravest thing in it.
    pub kind: Kind,
    /// Wall-clock time of the start.
    pub started_at: Timestamp,
    /// Wall-clock time of the end.
    pub ended_at: Timestamp,
    /// From start to end.
    pub duration_us: u64,
    /// The program that was run, or else the cgroup that was guarded.
    pub what: Option<Text>,
    /// How it ended.
    pub verdict: Verdict,
    /// The exit code that memwatch answered with.
    pub exit_code: Option<i32>,
    /// Who was ended: the first few.
    pub victims: Vec<Named>,
    /// How many were ended.
    pub victim_count: u64,
    /// Whether memwatch was told to signal nobody.
    pub dry_run: bool,
    /// The user who had the target guarded, if one handed it to the daemon.
    pub uid: Option<u32>,
}

/// A process by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The process id.
    pub pid: u32,
    /// Its name, escaped.
    pub comm: Comm,
}

/// The parts of a record that a headline is made of. What else stands there is passed over unread, which makes
/// lists of large records quick.
#[derive(Deserialize)]
struct Parts {
    schema_version: u32,
    id: Uuid,
    kind: Kind,
    started_at: Timestamp,
    ended_at: Timestamp,
    duration_us: u64,
    command: Option<Command>,
    #[serde(default)]
    target: Target,
    verdict: Verdict,
    exit_code: Option<i32>,
    #[serde(default)]
    victims: Vec<Victim>,
    #[serde(default)]
    dry_run: bool,
}

impl Headline {
    /// Of the record in `json`.
    ///
    /// # Errors
    /// There is none.
    pub fn from_json(json: &[u8]) -> Result<Self, super::ReadError> {
        let parts = serde_json::from_slice::<Parts>(json);
        let is_ours = |parts: &Parts| parts.schema_version <= SCHEMA_VERSION;
        if !parts.as_ref().is_ok_and(is_ours) {
            // A later version may have other words: that is then what is wrong.
            super::record::check_version(json)?;
        }
        let Parts {
            schema_version: _,
            id,
            kind,
            started_at,
            ended_at,
            duration_us,
            command,
            target,
            verdict,
            exit_code,
            victims,
            dry_run,
        } = parts?;
        Ok(Self {
            id,
            kind,
            started_at,
            ended_at,
            duration_us,
            what: what(command.as_ref(), &target),
            verdict,
            exit_code,
            victims: named(&victims),
            victim_count: victims.len() as u64,
            dry_run,
            uid: target.uid,
        })
    }
}

impl From<&Record> for Headline {
    fn from(record: &Record) -> Self {
        Self {
            id: record.id,
            kind: record.kind,
            started_at: record.started_at.clone(),
            ended_at: record.ended_at.clone(),
            duration_us: record.duration_us,
            what: what(record.command.as_ref(), &record.target),
            verdict: record.verdict,
            exit_code: record.exit_code,
            victims: named(&record.victims),
            victim_count: record.victims.len() as u64,
            dry_run: record.dry_run,
            uid: record.target.uid,
        }
    }
}

fn what(command: Option<&Command>, target: &Target) -> Option<Text> {
    let program = command.map(|command| command.program.clone());
    program.or_else(|| target.cgroup_path.clone())
}

fn named(victims: &[Victim]) -> Vec<Named> {
    let named = |victim: &Victim| Named {
        pid: victim.process.pid,
        comm: victim.process.comm,
    };
    victims.iter().take(NAMED).map(named).collect()
}

impl Kind {
    /// In words.
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Test => "test incident",
            Self::NearMiss => "near miss",
            Self::Warn => "warning",
            Self::Hang => "hang",
            Self::Freeze => "freeze",
            Self::Abort => "test failed",
            Self::KernelOom => "kernel OOM",
            Self::Kill => "kill",
            Self::Timeout => "timeout",
            Self::Takeover => "takeover",
            Self::HandBack => "hand-back",
            Self::HardReset => "hard reset",
        }
    }
}

impl Verdict {
    /// In words.
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::FinishedWithKills => "finished with kills",
            Self::Timeout => "out of time",
            Self::KilledByMemwatch => "killed by memwatch",
            Self::KilledByGuard => "killed by the guard",
            Self::KilledByKernelOom => "killed by the kernel",
            Self::Signalled => "ended by a signal",
            Self::Ongoing => "ongoing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;

    #[test]
    fn what_is_read_from_a_file_is_what_the_record_says() {
        for record in [sample::quiet(), sample::killed(), sample::grave()] {
            let read = Headline::from_json(&record.to_json()).expect("a record");
            assert_eq!(read, Headline::from(&record));
        }
    }

    #[test]
    fn a_later_version_is_refused_as_the_record_itself_refuses_it() {
        let mut json = serde_json::to_value(sample::quiet()).expect("JSON");
        json["schema_version"] = 99.into();
        let error = Headline::from_json(json.to_string().as_bytes()).expect_err("later");
        assert!(error.to_string().contains("schema version 99"), "{error}");
    }
}
