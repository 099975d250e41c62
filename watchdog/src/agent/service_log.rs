//! What systemd's journal says of services that gave no sign of life, for records that are made when the machine is
//! well again: a reading of the journal waits for the disk, and takes memory. Slow side alone.

use crate::host::journal;
use crate::incident::{Kind, Record, ServiceLine, Text};

/// So long before a record's start a service may have been silent already: systemd's watchdogs wait for minutes.
const BEFORE_US: i64 = 600_000_000;
/// So long after a record's end systemd may say it.
const AFTER_US: i64 = 600_000_000;

/// Fills it into a record of a machine that stood still, or of systemd-oomd that looks after its units again. What
/// cannot be read is missing, and said in a note.
pub(super) fn complete(record: &mut Record) {
    if !matches!(record.kind, Kind::HardReset | Kind::HandBack) || !record.service_log.is_empty() {
        return;
    }
    let times = [&record.started_at, &record.ended_at].map(|time| time.unix_us());
    let [Some(start_us), Some(end_us)] = times else {
        return;
    };
    let (from_us, to_us) = (start_us - BEFORE_US, end_us + AFTER_US);
    match journal::watchdogs(from_us, to_us) {
        Ok(entries) => {
            let line = |entry: journal::Entry| ServiceLine {
                at_us: entry.unix_us.saturating_sub(start_us),
                unit: Text::of_name(&entry.unit),
                text: String::from_utf8_lossy(&entry.message).as_ref().into(),
            };
            record.service_log = entries.into_iter().map(line).collect();
        }
        Err(error) => {
            let note =
                format!("what systemd's journal says of services could not be read: {error}");
            record.notes.push(note.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;

    #[test]
    fn only_records_of_a_machine_that_is_well_again_are_completed() {
        let mut record = sample::killed();
        let before = record.clone();
        complete(&mut record);
        assert_eq!(record, before);
        record.kind = Kind::HardReset;
        record.started_at = serde_json::from_str("\"once\"").expect("a text");
        let before = record.clone();
        complete(&mut record);
        assert_eq!(record, before);
    }
}
