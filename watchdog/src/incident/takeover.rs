//! The part of a record that tells how it stood with systemd-oomd. When memwatch takes over is
//! `watch::takeover`'s.

use serde::{Deserialize, Serialize};

use super::Text;
use crate::watch::peer::{Ailment, Health};

/// memwatch and systemd-oomd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// The process of systemd-oomd that was seen last.
    pub peer_pid: Option<u32>,
    /// What was wrong with it when memwatch took over; `None` while it looks after its units.
    pub fault: Option<Fault>,
    /// For how long that had lasted when memwatch took over.
    pub noticed_after_us: Option<u64>,
    /// How long memwatch has looked after its units; `None` while it does so itself.
    pub lasted_us: Option<u64>,
    /// The units that it was given.
    pub units: Vec<Text>,
    /// Cgroups that memwatch has ended meanwhile.
    pub kills: u64,
}

/// What can be wrong with systemd-oomd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// There is no process.
    Gone,
    /// A signal or a debugger holds it.
    Stopped,
    /// It does not run.
    Silent,
    /// It pages itself.
    Paging,
    /// It is started again and again.
    Restarting,
}

impl Fault {
    /// What is wrong in `health`, if anything is.
    #[must_use]
    pub fn of(health: Health) -> Option<Self> {
        Some(match health {
            Health::Well => return None,
            Health::Gone => Self::Gone,
            Health::Unwell(Ailment::Stopped) => Self::Stopped,
            Health::Unwell(Ailment::Silent) => Self::Silent,
            Health::Unwell(Ailment::Paging) => Self::Paging,
            Health::Unwell(Ailment::Restarting) => Self::Restarting,
        })
    }

    /// The same in words, after "systemd-oomd".
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Gone => "does not run",
            Self::Stopped => "is stopped by a signal or a debugger",
            Self::Silent => "stands still",
            Self::Paging => "pages itself and does nothing else",
            Self::Restarting => "is started again and again",
        }
    }
}
