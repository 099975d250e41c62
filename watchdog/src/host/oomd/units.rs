//! Asks systemd what systemd-oomd was given: the units with `ManagedOOMMemoryPressure=kill` or
//! `ManagedOOMSwap=kill`, by the system manager's bus.
//!
//! systemd-oomd itself is not asked: it does not answer when that matters, and lets nobody else subscribe. All
//! of this may wait for the bus, so it is done on a thread that may. Of hundreds of units a few are asked each
//! time, so that PID 1 does not notice; a new one and one that is managed are asked every time.
//!
//! Units of users' own managers are not learned: their bus is a socket that the user may replace.

use super::defaults::Defaults;
use super::{Limits, PressureLimit};
use crate::host::systemd::{Bus, MANAGER, ScopeError};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::time::Duration;
use zbus::{OwnedObjectPath, OwnedVariant};

/// The unit of systemd-oomd itself.
const SERVICE: &str = "systemd-oomd.service";

/// A unit that was given to systemd-oomd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Its name.
    pub name: String,
    /// Its cgroup below the root of the hierarchy; empty for the root itself.
    pub cgroup: PathBuf,
    /// By what limits.
    pub limits: Limits,
}

/// What was learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Whether the machine's owner wants systemd-oomd: it is installed, and not masked.
    pub is_wanted: bool,
    /// Where systemd-oomd runs, below the root of the hierarchy; `None` if it does not.
    pub peer: Option<PathBuf>,
    /// The units.
    pub managed: Vec<Managed>,
}

/// Of the units that were not managed, as many are asked again each time.
const ASKED_AGAIN: usize = 16;

/// What is asked for of ListUnitsByPatterns: units that have processes of their own, and are not over. systemd
/// leaves the rest out, which is most of them, before it writes them down.
const STATES: [&str; 6] = [
    "active",
    "reloading",
    "activating",
    "deactivating",
    "maintenance",
    "refreshing",
];
const PATTERNS: [&str; 3] = ["*.slice", "*.service", "*.scope"];

/// The system manager, and what it has said.
#[derive(Debug)]
pub struct Units {
    bus: Bus,
    known: Known,
}

/// Every running unit that was asked, and what it is managed by.
#[derive(Debug, Default)]
struct Known {
    units: BTreeMap<String, Option<Managed>>,
    /// The last of those that were asked again.
    asked: String,
}

/// What systemd says of one unit in a list: name, description, load, active and sub state, whom it follows, path, job.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

impl Units {
    /// Connects to the system's manager.
    ///
    /// # Errors
    /// Its bus cannot be reached.
    pub fn connect() -> Result<Self, ScopeError> {
        Ok(Self {
            bus: Bus::connect()?,
            known: Known::default(),
        })
    }

    /// Asks what is managed now.
    ///
    /// # Errors
    /// The manager does not answer, or not what was asked.
    pub fn learn(&mut self, defaults: &Defaults) -> Result<Learned, ScopeError> {
        if !self.is_wanted()? {
            self.known.units.clear();
            return Ok(Learned::default());
        }
        let manager = ("/org/freedesktop/systemd1", MANAGER);
        let asked = (&STATES[..], &PATTERNS[..]);
        let answer = self.bus.ask(manager, "ListUnitsByPatterns", &asked)?;
        let listed: Vec<Listed> = answer.body().deserialize()?;
        let running: BTreeMap<_, _> = listed
            .into_iter()
            .filter_map(|unit| Some((interface(&unit.0)?, unit)))
            .map(|(interface, unit)| (unit.0, (interface, unit.6)))
            .collect();
        self.known
            .units
            .retain(|name, _| running.contains_key(name));
        for name in self.known.due(running.keys()) {
            let (interface, path) = &running[&name];
            // It may have gone meanwhile.
            let managed = match self.ask(&name, path, interface, defaults) {
                Err(ScopeError::Bus(zbus::Error::MethodError(..))) => None,
                answer => answer?,
            };
            self.known.units.insert(name, managed);
        }
        let peer = running.get(SERVICE);
        let peer = peer.map(|(interface, path)| self.cgroup(path, interface));
        Ok(Learned {
            is_wanted: true,
            peer: peer.transpose()?.flatten(),
            managed: self.known.units.values().flatten().cloned().collect(),
        })
    }

    fn is_wanted(&self) -> Result<bool, ScopeError> {
        let manager = ("/org/freedesktop/systemd1", MANAGER);
        match self.bus.ask(manager, "GetUnitFileState", &SERVICE) {
            Ok(answer) => {
                let state: String = answer.body().deserialize()?;
                Ok(!state.starts_with("masked"))
            }
            Err(ScopeError::Bus(zbus::Error::MethodError(..))) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ask(
        &self,
        name: &str,
        path: &OwnedObjectPath,
        interface: &str,
        defaults: &Defaults,
    ) -> Result<Option<Managed>, ScopeError> {
        let get = |property: &str| self.property(path, interface, property);
        let kills = |mode: OwnedVariant| String::try_from(mode).is_ok_and(|mode| mode == "kill");
        let by_pressure = kills(get("ManagedOOMMemoryPressure")?);
        let swap = kills(get("ManagedOOMSwap")?);
        if !by_pressure && !swap {
            return Ok(None);
        }
        let limit = get("ManagedOOMMemoryPressureLimit")?;
        // systemd 257 and later.
        let duration = get("ManagedOOMMemoryPressureDurationUSec").ok();
        let limit = u32::try_from(limit).unwrap_or(0);
        let duration = duration.and_then(|us| u64::try_from(us).ok());
        let pressure = by_pressure.then(|| pressure_limit(limit, duration, defaults));
        let cgroup = self.cgroup(path, interface)?;
        Ok(cgroup.map(|cgroup| Managed {
            name: name.to_owned(),
            cgroup,
            limits: Limits { pressure, swap },
        }))
    }

    /// Where a unit's processes are; `None` for one without.
    fn cgroup(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
    ) -> Result<Option<PathBuf>, ScopeError> {
        let cgroup = String::try_from(self.property(path, interface, "ControlGroup")?)?;
        Ok(cgroup.strip_prefix('/').map(PathBuf::from))
    }

    fn property(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
        property: &str,
    ) -> Result<OwnedVariant, ScopeError> {
        let properties = (path.as_str(), "org.freedesktop.DBus.Properties");
        let answer = self.bus.ask(properties, "Get", &(interface, property))?;
        Ok(answer.body().deserialize()?)
    }
}

impl Known {
    /// Who is asked this time: who is new or managed, and the next few of the rest.
    fn due<'n>(&mut self, running: impl Iterator<Item = &'n String>) -> Vec<String> {
        let is_plain = |name: &&String| matches!(self.units.get(*name), Some(None));
        let mut names: Vec<_> = running.filter(|name| !is_plain(name)).cloned().collect();
        let after = (Bound::Excluded(self.asked.as_str()), Bound::Unbounded);
        let rest = self.units.range::<str, _>(after);
        let again: Vec<_> = rest
            .filter(|(_, managed)| managed.is_none())
            .map(|(name, _)| name.clone())
            .take(ASKED_AGAIN)
            .collect();
        // The end of the round: from the beginning next time.
        let last = again.last().filter(|_| again.len() == ASKED_AGAIN);
        self.asked = last.cloned().unwrap_or_default();
        names.extend(again);
        names
    }
}

/// The interface that has a unit's settings; `None` for one that has no processes.
fn interface(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "slice" => "org.freedesktop.systemd1.Slice",
        "service" => "org.freedesktop.systemd1.Service",
        "scope" => "org.freedesktop.systemd1.Scope",
        _ => return None,
    })
}

/// systemd has the limit as a share of 2^32 - 1, 0 for none of its own, and the duration with "infinity" for
/// none of its own.
pub(in crate::host) fn pressure_limit(
    limit: u32,
    duration_us: Option<u64>,
    defaults: &Defaults,
) -> PressureLimit {
    let whole = u64::from(u32::MAX);
    let permyriad = (u64::from(limit) * 10_000 + whole / 2) / whole;
    let own = duration_us.filter(|&us| us != u64::MAX);
    PressureLimit {
        permyriad: match limit {
            0 => defaults.pressure.permyriad,
            _ => permyriad as u32,
        },
        duration: own.map_or(defaults.pressure.duration, Duration::from_micros),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_units_own_or_the_defaults() {
        let defaults = Defaults::default();
        let own = pressure_limit(u32::MAX / 10, Some(2_000_000), &defaults);
        assert_eq!(
            (own.permyriad, own.duration),
            (1000, Duration::from_secs(2))
        );
        for none in [None, Some(u64::MAX)] {
            assert_eq!(pressure_limit(0, none, &defaults), defaults.pressure);
        }
        assert_eq!(pressure_limit(u32::MAX, None, &defaults).permyriad, 10_000);
    }

    #[test]
    fn new_and_managed_units_are_asked_each_time_and_the_rest_in_turn() {
        let mut known = Known::default();
        let names: Vec<_> = (0..40).map(|n| format!("{n:02}.service")).collect();
        assert_eq!(known.due(names.iter()), names, "all are new");
        let managed = Managed {
            name: names[3].clone(),
            cgroup: PathBuf::new(),
            limits: Limits::default(),
        };
        for name in &names {
            known.units.insert(name.clone(), None);
        }
        known.units.insert(names[3].clone(), Some(managed));
        let mut asked = Vec::new();
        for _ in 0..3 {
            let round = known.due(names.iter());
            assert_eq!(round[0], names[3]);
            assert!(round.len() <= 1 + ASKED_AGAIN);
            asked.extend_from_slice(&round[1..]);
        }
        let plain = names.iter().filter(|name| **name != names[3]);
        assert_eq!(asked, plain.cloned().collect::<Vec<_>>());
        assert_eq!(known.due(names.iter())[1], names[0], "and anew");
    }

    #[test]
    fn only_units_with_processes_are_asked() {
        assert!(interface("user.slice").is_some_and(|it| it.ends_with("Slice")));
        assert!(interface("user@1000.service").is_some());
        assert!(interface("a.b.scope").is_some());
        assert_eq!(interface("dev-sda.device"), None);
        assert_eq!(interface("none"), None);
    }
}
