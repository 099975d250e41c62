//! Why a receiver did not take a record: what every exporter answers with. When it is tried again is the
//! queue's.

use std::time::Duration;

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It may be taken another time.
    #[error("{why}")]
    Later {
        /// What happened, with its causes.
        why: String,
        /// When the receiver wants to be asked again, if it said so.
        after: Option<Duration>,
    },
    /// It never will be: asking again would not help.
    #[error("{why}")]
    Never {
        /// What happened, with its causes.
        why: String,
    },
}
