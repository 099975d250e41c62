//! Signals by name: the numbers differ between architectures, and a record may be read on another
//! one. Sending them is `act`'s.

use std::{fmt, str::FromStr};

use nix::sys::signal::Signal as Named;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A signal of this machine. Written as `SIGKILL`; a real-time signal as `SIG34`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// SIGKILL.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// SIGTERM.
    pub const TERM: Self = Self(libc::SIGTERM);

    /// The signal with this number, as `waitid(2)` reports it.
    #[must_use]
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// Its number on this machine.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Named::try_from(self.0) {
            Ok(named) => f.pad(named.as_str()),
            Err(_) => f.pad(&format!("SIG{}", self.0)),
        }
    }
}

/// A text that names no signal.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no signal; expected a name such as SIGKILL, or SIG34 for one without a name")]
pub struct UnknownSignal(String);

impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(name: &str) -> Result<Self, UnknownSignal> {
        let numbered = || name.strip_prefix("SIG")?.parse().ok();
        let named = Named::from_str(name).ok().map(|named| named as i32);
        named
            .or_else(numbered)
            .map(Self)
            .ok_or_else(|| UnknownSignal(name.to_owned()))
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_survives_its_name() {
        for number in 1..=64 {
            let signal = Signal::from_number(number);
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }
        assert_eq!(Signal::KILL.to_string(), "SIGKILL");
        assert_eq!(Signal::from_number(34).to_string(), "SIG34");
    }

    #[test]
    fn a_word_is_no_signal() {
        let error = "KILL".parse::<Signal>().unwrap_err();
        assert!(error.to_string().contains("such as SIGKILL"));
    }
}
