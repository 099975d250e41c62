//! The part of a record that holds the flight recorder's looks: what the policy saw, so that a picture can be
//! drawn of it and the policy be driven with it again. What is recorded, and what is thinned out, is the
//! agent's.

use serde::ser::{Error, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Intervention;
use crate::watch::replay::RecordedLook;
use crate::watch::thinning::{self, Kept, LOOKS, MARKS};

/// The last minutes as the policy saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    /// When the record's run began, on the clock of `looks`.
    pub began_us: u64,
    /// The looks, the oldest first; closer together the later, and where more was going on.
    #[serde(serialize_with = "one_a_line")]
    pub looks: Vec<RecordedLook>,
    /// Looks that found no room on their way here.
    pub lost: u64,
}

impl Flight {
    /// When `look` was taken, from the start of the run; negative before it.
    #[must_use]
    pub fn since_start_us(&self, look: &RecordedLook) -> i64 {
        look.at_us
            .cast_signed()
            .saturating_sub(self.began_us.cast_signed())
    }

    /// When the latest of these were, on the clock of the looks.
    #[must_use]
    pub fn marks(&self, interventions: &[Intervention]) -> Vec<u64> {
        let latest = interventions.iter().rev().take(MARKS);
        latest
            .map(|it| self.began_us.saturating_add(it.at_us))
            .collect()
    }

    /// Takes in looks at the same target by another memwatch, or of an earlier record. What is too much goes, but
    /// little of what was around the `marks`.
    pub fn join(&mut self, other: Self, marks: &[u64]) {
        self.lost = self.lost.saturating_add(other.lost);
        self.looks.extend(other.looks);
        self.looks.sort_by_key(|look| look.at_us);
        self.looks.dedup_by_key(|look| look.at_us);
        let now_us = self.looks.last().map_or(0, |look| look.at_us);
        while self.looks.len() > LOOKS
            && let Some(at) = thinning::least_missed(self.looks.iter().map(kept), now_us, marks)
        {
            self.looks.remove(at);
        }
    }

    /// Whether the target waited for memory for a tenth of some tenth of a second.
    #[must_use]
    pub fn was_pressed(&self) -> bool {
        let stalled = |look: &RecordedLook| Some((look.at_us, look.target.psi?.some_us));
        let mut from = None;
        self.looks.iter().filter_map(stalled).any(|(at_us, us)| {
            let (from_us, before_us) = *from.get_or_insert((at_us, us));
            let over_us = at_us.saturating_sub(from_us);
            if over_us < 100_000 {
                return false;
            }
            from = Some((at_us, us));
            us.saturating_sub(before_us) >= over_us / 10
        })
    }
}

/// Each look on one line, however the record around it is laid out: they are many, and lines of a recording.
fn one_a_line<S: Serializer>(looks: &[RecordedLook], serializer: S) -> Result<S::Ok, S::Error> {
    let mut seq = serializer.serialize_seq(Some(looks.len()))?;
    for look in looks {
        let line = serde_json::to_string(look).and_then(RawValue::from_string);
        seq.serialize_element(&line.map_err(S::Error::custom)?)?;
    }
    seq.end()
}

fn kept(look: &RecordedLook) -> Kept {
    let worth = match (&look.members, &look.machine) {
        (Some(_), _) => 3,
        (None, Some(_)) => 2,
        (None, None) => 1,
    };
    Kept {
        at_us: look.at_us,
        worth,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::psi::Psi;
    use crate::watch::TargetFacts;

    fn flight(looks: impl Iterator<Item = (u64, u64)>) -> Flight {
        let look = |(at_us, some_us)| RecordedLook {
            at_us,
            target: TargetFacts {
                psi: Some(Psi {
                    some_us,
                    full_us: 0,
                }),
                ..TargetFacts::default()
            },
            machine: None,
            members: None,
            victim_gone: false,
        };
        Flight {
            looks: looks.map(look).collect(),
            ..Flight::default()
        }
    }

    #[test]
    fn joined_looks_are_in_order_and_not_too_many() {
        let mut even = flight((0..LOOKS as u64).map(|n| (n * 2000, 0)));
        even.lost = 3;
        even.join(
            flight((0..LOOKS as u64).map(|n| (n * 2000 + n % 2, 0))),
            &[40_000],
        );
        assert_eq!((even.looks.len(), even.lost), (LOOKS, 3));
        assert!(even.looks.is_sorted_by(|a, b| a.at_us < b.at_us));
    }

    #[test]
    fn a_look_in_a_record_is_a_line_of_a_recording() {
        let flight = flight([(1, 2), (3, 4)].into_iter());
        let json = serde_json::to_string_pretty(&flight).expect("JSON");
        let lines: Vec<RecordedLook> = json
            .lines()
            .filter_map(|line| serde_json::from_str(line.trim().trim_end_matches(',')).ok())
            .collect();
        assert_eq!(lines, flight.looks);
        let value = serde_json::to_value(&flight).expect("a value");
        assert_eq!(
            serde_json::from_value::<Flight>(value).expect("read"),
            flight
        );
        assert_eq!(serde_json::from_str::<Flight>(&json).expect("read"), flight);
    }

    #[test]
    fn a_stall_of_a_tenth_is_pressure() {
        assert!(flight((0..9).map(|n| (n * 50_000, n * 5_000))).was_pressed());
        assert!(!flight((0..9).map(|n| (n * 50_000, n * 4_000))).was_pressed());
        assert!(!flight([(0, 0), (2000, 1900)].into_iter()).was_pressed());
    }
}
