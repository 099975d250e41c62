//! What the machine's files say to `memwatch daemon`: which cgroups it guards, what it does while
//! systemd-oomd is unwell, and what users may ask of it.

use std::path::Path;

use super::error::ConfigError;
use super::file::Reader;
use super::gather::{Reading, gather};
use super::pattern::Pattern;
use super::{Environment, Exporters, Incidents, OnPressure, Prometheus, search};
use crate::watch::Settings;

/// What `memwatch daemon` was asked for, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// What it guards by itself, in the order of the files.
    pub watch: Vec<Watch>,
    /// The part that it plays beside systemd-oomd.
    pub oomd: Oomd,
    /// What users may ask of it.
    pub users: Users,
    /// The numbers of the policy, for all that it guards.
    pub policy: Settings,
    /// Which incidents are kept.
    pub incidents: Incidents,
    /// Who is told of them.
    pub exporters: Exporters,
    /// Where Prometheus finds the daemon's numbers.
    pub prometheus: Prometheus,
}

/// One `[[watch]]`: some cgroups, and what is done to them under pressure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Units, by their names, wherever in the tree they are.
    pub units: Vec<Pattern>,
    /// Cgroups, by their paths below the top of the v2 hierarchy, which begin with `/`.
    pub cgroups: Vec<Pattern>,
    /// What is done under pressure.
    pub on_pressure: OnPressure,
    /// Decide and report, but touch no process.
    pub dry_run: bool,
}

/// `[oomd]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oomd {
    /// Act in systemd-oomd's place while it is stalled or gone.
    pub takeover: bool,
}

/// `[users]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Whether users other than root may have their cgroups guarded.
    pub attach: bool,
    /// How many targets one user may have at a time.
    pub targets_per_user: u32,
}

impl Default for Oomd {
    fn default() -> Self {
        Self { takeover: true }
    }
}

impl Default for Users {
    fn default() -> Self {
        Self {
            attach: true,
            targets_per_user: 16,
        }
    }
}

impl Daemon {
    /// Reads the machine's files, or only the one that is named, by `--config` or by the environment.
    ///
    /// # Errors
    /// The first thing that is wrong with them; one that others than root may write to is refused.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read(named, &Environment::of_this_process()).first_error()
    }

    /// The same, with all that is wrong.
    pub fn read(named: Option<&Path>, environment: &Environment) -> Reading<Self> {
        let gathered = gather(
            search::for_the_daemon(named, environment),
            Reader::TheDaemon,
        );
        gathered.finish(|_, daemon| Ok(daemon))
    }

    /// The watch that a cgroup falls under: the last one that names it, so that a later file wins.
    pub fn watch_of(&self, path_below_v2_root: &Path) -> Option<&Watch> {
        let mut watches = self.watch.iter().rev();
        watches.find(|watch| watch.names(path_below_v2_root))
    }
}

impl Watch {
    /// Whether it names this cgroup, not one above or below it.
    pub fn names(&self, path_below_v2_root: &Path) -> bool {
        let relative = path_below_v2_root
            .strip_prefix("/")
            .unwrap_or(path_below_v2_root);
        let Some(name) = relative.file_name() else {
            return false;
        };
        let name = name.to_string_lossy();
        // systemd's, before a name that the kernel could take for a file's: `memory.service`.
        let unit = name.strip_prefix('_').unwrap_or(&name);
        let path = format!("/{}", relative.display());
        self.units.iter().any(|pattern| pattern.matches(unit))
            || self.cgroups.iter().any(|pattern| pattern.matches(&path))
    }
}
