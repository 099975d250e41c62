//! The slow side of standing in for systemd-oomd: finds its process, learns what it was given, keeps an inventory
//! of the cgroups below, and hands it all to the deciding thread with files open.
//!
//! The bus is asked by a thread of its own ([`super::asking`]), which may hang: what was learned last holds until it
//! answers again. Everything else is reads of cgroupfs, a few each time. What the deciding thread tells becomes a
//! story in [`super::story`].

use super::asking::Asker;
use super::channel::{CANDIDATES, Change, Channel, UNITS};
use super::story::{Moment, Story, Told};
use crate::act::{self, Mode};
use crate::agent::helpers::Helpers;
use crate::host::cgroup;
use crate::host::clock;
use crate::host::oomd::defaults::Defaults;
use crate::host::oomd::files::{CandidateFiles, PeerFiles, UnitFiles};
use crate::host::oomd::tree::{self, Found};
use crate::host::oomd::units::{Learned, Managed};
use crate::host::place::Place;
use crate::incident::Fault;
use crate::watch::oomd_rule::{Candidate, UNDER, Under, Unit};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Between two walks through the cgroups, if their number has not changed.
const WALK_EVERY: Duration = Duration::from_secs(3);
/// Answers of systemd this old are worth a word.
const STALE: Duration = Duration::from_secs(30);

/// For `memwatch status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OomdStatus {
    /// Whether there is a systemd-oomd on this machine that its owner wants.
    pub installed: bool,
    /// Its process, if it runs.
    pub pid: Option<u32>,
    /// What is wrong with it; `None` if nothing is.
    pub fault: Option<Fault>,
    /// For how many seconds that has been so.
    pub since_s: u64,
    /// How many units it was given.
    pub managed_units: usize,
    /// How many cgroups below them may be ended.
    pub candidates: usize,
    /// How many more there are than memwatch looks at.
    pub left_out: usize,
    /// Whether memwatch looks after them now.
    pub taken_over: bool,
    /// How many cgroups memwatch has ended in them.
    pub kills: u64,
    /// For how many seconds systemd has not answered, if it does not.
    pub bus_silent_s: Option<u64>,
    /// What was done and could not be told.
    pub lost_notices: u64,
}

/// The slow side.
#[derive(Debug)]
pub struct Policies {
    channel: Arc<Channel>,
    mode: Mode,
    mount: PathBuf,
    /// Where memwatch itself runs.
    own: PathBuf,
    asker: Asker,
    answered_at: Duration,
    unanswered: Option<String>,
    learned: Learned,
    defaults: Option<Defaults>,
    peer_pid: Option<u32>,
    units: BTreeMap<u64, Known>,
    candidates: BTreeMap<u64, (PathBuf, Candidate)>,
    left_out: usize,
    walked_at: Option<Duration>,
    /// What the deciding thread has no room for yet.
    pending: VecDeque<Change>,
    story: Story,
}

/// A unit that was handed over.
#[derive(Debug)]
struct Known {
    managed: Managed,
    dir: PathBuf,
    uid: u32,
    descendants: Option<u64>,
    /// Its cgroups are in the inventory, so that others are new ones.
    is_walked: bool,
}

impl Policies {
    /// Begins to ask systemd, where it runs; elsewhere this does nothing for ever. `mount` is where cgroup v2 is
    /// mounted, `own` the directory of memwatch's own cgroup.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(
        mount: &Path,
        own: &Path,
        channel: Arc<Channel>,
        mode: Mode,
    ) -> std::io::Result<Self> {
        Ok(Self {
            channel,
            mode,
            mount: mount.to_owned(),
            own: own.to_owned(),
            asker: Asker::start()?,
            answered_at: clock::now(),
            unanswered: None,
            learned: Learned::default(),
            defaults: None,
            peer_pid: None,
            units: BTreeMap::new(),
            candidates: BTreeMap::new(),
            left_out: 0,
            walked_at: None,
            pending: VecDeque::new(),
            story: Story::default(),
        })
    }

    /// Readable when there is something to tell, so that [`Policies::poll`] need not wait for its time.
    pub fn wanted(&self) -> BorrowedFd<'_> {
        self.channel.slow_side()
    }

    /// Does what is due. `ours` are the directories of attached targets, which are guarded by another path and
    /// never ended by this one. Call every 250 ms, and when [`Policies::wanted`] is readable.
    pub fn poll(&mut self, helpers: &Helpers, ours: &[&Path]) -> Vec<Told> {
        let now = clock::now();
        let mut told = self.hear(now, helpers);
        while let Some(files) = self.channel.retired() {
            drop(files);
        }
        match self.asker.answer() {
            Some(Ok((learned, defaults))) => {
                self.answered_at = now;
                self.unanswered = None;
                self.learn(learned, defaults);
            }
            Some(Err(why)) if self.learned.is_wanted => {
                let is_stale = now.saturating_sub(self.answered_at) >= STALE;
                if is_stale && self.unanswered.is_none() {
                    told.push(Told::line(format!(
                        "systemd does not say which units systemd-oomd was given ({why}); those known last are kept"
                    )));
                    self.unanswered = Some(why);
                }
            }
            _ => {}
        }
        if self.learned.is_wanted || !self.units.is_empty() {
            self.find_peer();
            self.find_units();
            self.find_candidates(now, ours);
        }
        self.hand_over();
        told
    }

    /// For `memwatch status`.
    pub fn status(&self) -> OomdStatus {
        let now = clock::now();
        let (fault, since) = self.story.fault();
        OomdStatus {
            installed: self.learned.is_wanted,
            pid: self.peer_pid,
            fault,
            since_s: since.map_or(0, |since| now.saturating_sub(since).as_secs()),
            managed_units: self.units.len(),
            candidates: self.candidates.len(),
            left_out: self.left_out,
            taken_over: self.story.is_taken_over(),
            kills: self.story.kills(),
            bus_silent_s: self
                .unanswered
                .as_ref()
                .map(|_| now.saturating_sub(self.answered_at).as_secs()),
            lost_notices: self.channel.dropped(),
        }
    }

    fn hear(&mut self, now: Duration, helpers: &Helpers) -> Vec<Told> {
        self.channel.heard();
        while let Some(pidfd) = self.channel.next_dying() {
            // Waits for the victim's mmap lock, perhaps for long.
            helpers.start(move || _ = act::signal::release_memory(pidfd.as_fd()));
        }
        let moment = Moment {
            now,
            wall: SystemTime::now(),
            peer_pid: self.peer_pid,
            dry_run: self.mode == Mode::DryRun,
        };
        let mut told = Vec::new();
        while let Some(notice) = self.channel.next() {
            let units = self
                .units
                .iter()
                .map(|(&id, known)| (id, &*known.managed.name));
            let dir_of = |id| self.candidates.get(&id).map(|(dir, _)| dir.as_path());
            let heard = self.story.hear(&moment, &notice, units, dir_of);
            told.extend(heard.told);
            if let Some((id, dir)) = heard.struck {
                let mode = self.mode;
                helpers.start(move || kill_rest(id, &dir, mode));
            }
        }
        told
    }

    fn learn(&mut self, learned: Learned, defaults: Defaults) {
        if self.defaults != Some(defaults) {
            self.defaults = Some(defaults);
            let limit = Change::SwapUsedLimit(defaults.swap_used_permyriad);
            self.pending.push_back(limit);
        }
        // Where it ran last is where systemd starts it again.
        let peer = learned.peer.clone().or(self.learned.peer.take());
        self.learned = Learned { peer, ..learned };
    }

    fn find_peer(&mut self) {
        let peer = self
            .learned
            .peer
            .as_ref()
            .filter(|_| self.learned.is_wanted);
        let pids = peer.map_or_else(Vec::new, |peer| cgroup::pids(&self.mount.join(peer)));
        let still = self.peer_pid.filter(|pid| pids.contains(pid));
        if still.is_some() {
            return;
        }
        let files = pids.into_iter().find_map(|pid| {
            let files = PeerFiles::open(pid).ok()?;
            files.look(&mut [0; 8192]).map(|_| files)
        });
        let pid = files.as_ref().map(|files| files.pid);
        if pid != self.peer_pid {
            if pid.is_none() {
                // Perhaps it is not wanted any more; there is time to hear of that before it is stood in for.
                self.asker.ask_now();
            }
            self.peer_pid = pid;
            self.pending.push_back(Change::Peer(files));
        }
    }

    /// What is managed against what was handed over.
    fn find_units(&mut self) {
        let mut found = BTreeMap::new();
        for managed in self.learned.managed.iter().take(UNITS) {
            let dir = self.mount.join(&managed.cgroup);
            if let Ok(id) = cgroup::id(&dir) {
                found.insert(id, (managed, dir));
            }
        }
        let gone = |id: &u64, known: &Known| {
            let found = found.get(id).map(|(managed, _)| *managed);
            found != Some(&known.managed)
        };
        for (id, _) in self.units.extract_if(.., |id, known| gone(id, known)) {
            // One that goes on by other limits is handed over anew, and is never gone.
            if !found.contains_key(&id) {
                self.pending.push_back(Change::UnitGone(id));
            }
            self.walked_at = None;
        }
        for (id, (managed, dir)) in found {
            if self.units.contains_key(&id) {
                continue;
            }
            let is_root = managed.cgroup.as_os_str().is_empty();
            let Ok(files) = UnitFiles::open(&dir, is_root) else {
                continue;
            };
            let unit = Unit::new(id, managed.limits);
            self.pending.push_back(Change::Unit(unit, files));
            let known = Known {
                managed: managed.clone(),
                uid: owner(&dir),
                dir,
                descendants: None,
                is_walked: false,
            };
            self.units.insert(id, known);
            self.walked_at = None;
        }
    }

    /// What lies below the units against what was handed over.
    fn find_candidates(&mut self, now: Duration, ours: &[&Path]) {
        let mut changed = false;
        for known in self.units.values_mut() {
            let descendants = tree::descendants(&known.dir);
            changed |= descendants != known.descendants;
            known.descendants = descendants;
        }
        let is_due = |at: Duration| now.saturating_sub(at) >= WALK_EVERY;
        if !changed && !self.walked_at.is_none_or(is_due) {
            return;
        }
        self.walked_at = Some(now);
        let found = self.walk(ours);
        for (id, _) in self
            .candidates
            .extract_if(.., |id, _| !found.contains_key(id))
        {
            self.pending.push_back(Change::CandidateGone(id));
        }
        self.left_out = 0;
        for (id, found) in found {
            let is_full = self.candidates.len() >= CANDIDATES;
            let candidate = Candidate::new(id, found.under, found.at.preference_under(0));
            match self.candidates.get_mut(&id) {
                Some((_, known)) if *known == candidate => {}
                Some((_, known)) => {
                    *known = candidate;
                    self.pending.push_back(Change::Moved(candidate));
                }
                None if is_full => self.left_out += 1,
                None => {
                    let dir = found.at.dir;
                    let nested = cgroup::descendants(&dir);
                    // Gone already, or without the memory controller.
                    let Ok(files) = CandidateFiles::open(&dir, &nested) else {
                        continue;
                    };
                    self.pending.push_back(Change::Candidate {
                        candidate,
                        files,
                        is_new: found.is_new,
                    });
                    self.candidates.insert(id, (dir, candidate));
                }
            }
        }
        for known in self.units.values_mut() {
            known.is_walked = true;
        }
    }

    fn walk(&self, ours: &[&Path]) -> BTreeMap<u64, Below> {
        let mut found: BTreeMap<u64, Below> = BTreeMap::new();
        for (&id, known) in &self.units {
            for at in tree::candidates(&known.dir) {
                let is_ours = |dir: &Path| dir.starts_with(&at.dir) || at.dir.starts_with(dir);
                if is_ours(&self.own) || ours.iter().any(|dir| is_ours(dir)) {
                    continue;
                }
                let under = Under {
                    unit: id,
                    swap: known.managed.limits.swap,
                    preference: at.preference_under(known.uid),
                };
                let below = found.entry(at.id).or_insert_with(|| Below {
                    at,
                    under: [None; UNDER],
                    is_new: true,
                });
                if let Some(place) = below.under.iter_mut().find(|place| place.is_none()) {
                    *place = Some(under);
                }
                below.is_new &= known.is_walked;
            }
        }
        found
    }

    fn hand_over(&mut self) {
        while let Some(change) = self.pending.pop_front() {
            if let Err(change) = self.channel.hand_over(change) {
                self.pending.push_front(change);
                return;
            }
        }
    }
}

/// A cgroup below at least one unit.
struct Below {
    at: Found,
    under: [Option<Under>; UNDER],
    is_new: bool,
}

fn owner(dir: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(dir).map_or(0, |metadata| metadata.uid())
}

/// Whoever was forked while the rest were signalled. By an open directory: its name may be another cgroup's now.
fn kill_rest(id: u64, dir: &Path, mode: Mode) {
    let Ok(opened) = std::fs::File::open(dir) else {
        return;
    };
    let same = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    if cgroup::id(&same).is_ok_and(|found| found == id) {
        act::target::kill(&Place::Cgroup(same), mode);
    }
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;
