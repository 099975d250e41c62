//! The part of a record that holds the flight recorder's looks: what the policy saw, so that a picture can be
//! drawn of it and the policy be driven with it again. What is recorded, and what is thinned out, is the
//! agent's.

use serde::{Deserialize, Serialize};

use crate::watch::replay::RecordedLook;

/// The last minutes as the policy saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    /// When the record's run began, on the clock of `looks`.
    pub began_us: u64,
    /// The looks, the oldest first; closer together the later, and where more was going on.
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
}
