//! Standing in for systemd-oomd, on the deciding thread: looks at its process, at the units that it was given
//! and at the cgroups below them, and ends the one that [`crate::watch::takeover`] says.
//!
//! The daemon wires it so:
//!
//! ```text
//! let channel = Arc::new(takeover::Channel::new()?);
//! let mut stage = Takeover::new(settings, mode, Arc::clone(&channel));   // to the deciding thread
//! let mut slow = Policies::start(v2_mount, own_dir, channel, mode);      // to the slow side
//!
//! // deciding thread, whenever it is due (and not later than the last answer):
//! due = now + stage.once(now, eyes.machine().as_ref());
//! // slow side, every 250 ms and when `slow.wanted()` is readable:
//! for told in slow.poll(&helpers, &dirs_of_attached_targets) { /* say told.line, keep told.record */ }
//! // memwatch status:
//! slow.status()
//! ```
//!
//! Everything that is read was opened by [`Policies`], which hands it over and gets it back to close. A pass
//! waits for nothing but the kernel's own sums (`memory.stat`), and allocates nothing. Where there is no
//! systemd-oomd nothing is handed over, and a pass is two looks into an empty queue.

mod asking;
mod channel;
pub(super) mod drill;
mod policies;
mod story;

pub use channel::Channel;
pub use policies::{OomdStatus, Policies};
pub use story::Told;

use crate::act::{Mode, Outcome, signal};
use crate::host::oomd::files::{CandidateFiles, PeerFiles, UnitFiles};
use crate::host::process::{self, Comm};
use crate::host::reread::Reread;
use crate::watch::oomd_rule::{Candidate, Unit};
use crate::watch::peer::{Health, Peer};
use crate::watch::takeover::{Order, Stage, rivals};
use crate::watch::{self, MachineFacts, Settings};
use channel::{CANDIDATES, Change, Notice, Retired, UNITS};
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at the process.
const PEER_ROUND: Duration = Duration::from_millis(500);
/// Between two looks at the units: as systemd-oomd has it.
const UNIT_ROUND: Duration = Duration::from_secs(1);
/// Between two looks at the cgroups below them while nothing is near.
const CANDIDATE_ROUND: Duration = Duration::from_millis(250);
/// With nothing to look at.
const IDLE: Duration = Duration::from_secs(1);
/// While somebody dies.
const FOLLOWING: Duration = Duration::from_millis(20);
/// A cgroup's breakdown is read anew when its usage has moved by this much: what moves less decides nothing.
const MOVED_BYTES: u64 = 4 << 20;
/// How many of those who go with a cgroup are told by name.
const NAMED: u32 = 8;

/// What the deciding thread has for it.
#[derive(Debug)]
pub struct Takeover {
    settings: Settings,
    mode: Mode,
    channel: Arc<Channel>,
    policy: watch::takeover::Takeover,
    peer: Peer,
    health: Option<Health>,
    peer_files: Option<PeerFiles>,
    used_limit_permyriad: u32,
    /// The files of a unit, or of a candidate, stand at its place in the other list.
    units: Vec<Unit>,
    unit_files: Vec<UnitFiles>,
    candidates: Vec<Candidate>,
    candidate_files: Vec<CandidateFiles>,
    /// What each held when its breakdown was read last.
    read_at_bytes: Vec<Option<u64>>,
    machine: Option<MachineFacts>,
    /// Whom memwatch ends.
    struck: Option<u64>,
    peer_due: Duration,
    units_due: Duration,
    candidates_due: Duration,
    text: Box<[u8]>,
}

impl Takeover {
    /// Looks at nothing until [`Policies`] hands something over.
    pub fn new(settings: Settings, mode: Mode, channel: Arc<Channel>) -> Self {
        Self {
            settings,
            mode,
            channel,
            policy: watch::takeover::Takeover::new(settings),
            peer: Peer::default(),
            health: None,
            peer_files: None,
            used_limit_permyriad: 10_000,
            units: Vec::with_capacity(UNITS),
            unit_files: Vec::with_capacity(UNITS),
            candidates: Vec::with_capacity(CANDIDATES),
            candidate_files: Vec::with_capacity(CANDIDATES),
            read_at_bytes: Vec::with_capacity(CANDIDATES),
            machine: None,
            struck: None,
            peer_due: Duration::ZERO,
            units_due: Duration::ZERO,
            candidates_due: Duration::ZERO,
            text: vec![0; 16 << 10].into_boxed_slice(),
        }
    }

    /// Looks, and does what is to be done. `machine` is what the machine shows now, if that was read. Answers
    /// when to come back at the latest.
    pub fn once(&mut self, now: Duration, machine: Option<&MachineFacts>) -> Duration {
        self.take_changes(now);
        if self.is_idle() {
            return IDLE;
        }
        if let Some(machine) = machine {
            self.machine = Some(*machine);
            self.policy.see_machine(now, machine);
        }
        if now >= self.peer_due {
            self.peer_due = now + PEER_ROUND;
            self.look_at_peer(now);
        }
        if let Some(machine) = self.machine {
            self.follow(now, &machine);
            if now >= self.units_due {
                self.units_due = now + UNIT_ROUND;
                self.look_at_units(now);
            }
            if self.policy.is_near() || now >= self.candidates_due {
                self.candidates_due = now + CANDIDATE_ROUND;
                self.look_at_candidates(now, &machine);
                self.act(now, &machine);
            }
        }
        self.pause(now)
    }

    fn is_idle(&self) -> bool {
        self.peer_files.is_none() && self.units.is_empty() && self.policy.stage() == Stage::Peer
    }

    fn pause(&self, now: Duration) -> Duration {
        let round = self.peer_due.saturating_sub(now);
        if self.policy.is_following() {
            return round.min(FOLLOWING);
        }
        match self.units.is_empty() {
            true => round,
            false => round.min(self.policy.pause()),
        }
    }

    fn take_changes(&mut self, now: Duration) {
        while let Some(change) = self.channel.change() {
            match change {
                Change::Peer(files) => {
                    let before = std::mem::replace(&mut self.peer_files, files);
                    if let Some(before) = before {
                        self.channel.retire(Retired::Peer(before));
                    }
                }
                Change::SwapUsedLimit(permyriad) => self.used_limit_permyriad = permyriad,
                Change::Unit(unit, files) => {
                    self.drop_unit(unit.id);
                    self.units.push(unit);
                    self.unit_files.push(files);
                }
                Change::UnitGone(id) => self.drop_unit(id),
                Change::Candidate {
                    mut candidate,
                    files,
                    is_new,
                } => {
                    self.drop_candidate(candidate.id);
                    match is_new {
                        true => candidate.begin(now),
                        // What was there before has not grown by itself.
                        false => self.policy.forget(),
                    }
                    self.candidates.push(candidate);
                    self.candidate_files.push(files);
                    self.read_at_bytes.push(None);
                }
                Change::Moved(it) => {
                    let known = self.candidates.iter_mut().find(|known| known.id == it.id);
                    if let Some(known) = known {
                        (known.under, known.preference) = (it.under, it.preference);
                        self.policy.forget();
                    }
                }
                Change::CandidateGone(id) => self.drop_candidate(id),
            }
        }
    }

    fn drop_unit(&mut self, id: u64) {
        if let Some(at) = self.units.iter().position(|unit| unit.id == id) {
            self.units.swap_remove(at);
            let files = self.unit_files.swap_remove(at);
            self.channel.retire(Retired::Unit(files));
        }
    }

    fn drop_candidate(&mut self, id: u64) {
        if let Some(at) = self.candidates.iter().position(|it| it.id == id) {
            self.candidates.swap_remove(at);
            self.read_at_bytes.swap_remove(at);
            let files = self.candidate_files.swap_remove(at);
            self.channel.retire(Retired::Candidate(files));
        }
    }

    fn look_at_peer(&mut self, now: Duration) {
        let files = self.peer_files.as_ref();
        let look = files.and_then(|files| files.look(&mut self.text));
        let watches = !self.units.is_empty();
        let machine = self.machine.as_ref();
        let short = machine.is_some_and(|machine| self.policy.is_short(machine));
        let health = self.peer.see(now, look.as_ref(), watches, short);
        if self.health.replace(health) != Some(health) {
            self.channel.tell(Notice::Health { at: now, health });
        }
        if let Some(transition) = self.policy.judge(now, health, watches) {
            self.channel.tell(Notice::Turned {
                at: now,
                transition,
            });
        }
    }

    fn look_at_units(&mut self, now: Duration) {
        for (unit, files) in self.units.iter_mut().zip(&self.unit_files) {
            if let Some((full_permyriad, scanned_pages)) = files.look(&mut self.text) {
                unit.see(now, full_permyriad, scanned_pages);
            }
        }
        let is_wanted = self.policy.stage() != Stage::Peer;
        if !is_wanted || !self.units.iter().any(Unit::is_above) {
            return;
        }
        for (candidate, files) in self.candidates.iter_mut().zip(&self.candidate_files) {
            if let Some(stat) = files.stat(&mut self.text) {
                candidate.see_scanned(stat.scanned_pages);
            }
        }
    }

    fn look_at_candidates(&mut self, now: Duration, machine: &MachineFacts) {
        let read = self.candidate_files.iter().zip(&mut self.read_at_bytes);
        for (candidate, (files, read_at_bytes)) in self.candidates.iter_mut().zip(read) {
            // ENODEV: it is gone, and holds nothing.
            candidate.current_bytes = files.current().unwrap_or(0);
            let moved = |before: u64| before.abs_diff(candidate.current_bytes) >= MOVED_BYTES;
            if read_at_bytes.is_none_or(moved) {
                *read_at_bytes = Some(candidate.current_bytes);
                let stat = files.stat(&mut self.text);
                candidate.reclaimable_bytes = stat.map_or(0, |stat| stat.reclaimable_bytes);
                candidate.swap_bytes = files.swap();
            }
            candidate.mark(now, self.settings.growth_window);
        }
        self.policy.see_candidates(now, machine, &self.candidates);
    }

    fn act(&mut self, now: Duration, machine: &MachineFacts) {
        let limit = self.used_limit_permyriad;
        let order = self
            .policy
            .order(now, machine, limit, &self.units, &self.candidates);
        let Some(Order { candidate: at, why }) = order else {
            return;
        };
        let candidate = &self.candidates[at];
        self.struck = Some(candidate.id);
        self.channel.tell(Notice::Ordered {
            at: now,
            id: candidate.id,
            why,
            held_bytes: candidate.held_bytes(),
            growth_bytes: candidate.growth_bytes(),
        });
        let (channel, mode) = (&self.channel, self.mode);
        let mut named = 0;
        self.candidate_files[at].for_each_process(&mut self.text, |pid| {
            // Of another pid namespace; and init, which no signal of ours ends.
            if pid > 1 {
                channel.tell(end(pid, named < NAMED, mode, channel));
                named += 1;
            }
        });
        for rival in rivals(&self.candidates, at) {
            channel.tell(Notice::Rival {
                id: rival.id,
                held_bytes: rival.held_bytes(),
                growth_bytes: rival.growth_bytes(),
            });
        }
        channel.tell(Notice::Struck);
    }

    fn follow(&mut self, now: Duration, machine: &MachineFacts) {
        let Some(id) = self.struck.filter(|_| self.policy.is_following()) else {
            return;
        };
        let at = self.candidates.iter().position(|it| it.id == id);
        let gone = at.is_none_or(|at| self.candidate_files[at].is_empty(&mut self.text));
        if let Some(took) = self.policy.follow(now, machine, gone) {
            self.struck = None;
            let current = at.and_then(|at| self.candidate_files[at].current().ok());
            self.channel.tell(Notice::Recovered {
                at: now,
                took,
                held_bytes: current.unwrap_or(0),
            });
        }
    }
}

/// Ends one process, by a pidfd: whoever has its number now was listed a moment ago.
fn end(pid: u32, is_named: bool, mode: Mode, channel: &Channel) -> Notice {
    let Ok(pidfd) = signal::pidfd_open(pid) else {
        return Notice::Hit {
            pid,
            named: None,
            outcome: Outcome::Gone,
        };
    };
    let named = if is_named { name(pid) } else { None };
    let outcome = signal::send(pidfd.as_fd(), libc::SIGKILL, mode);
    if outcome == Outcome::Delivered {
        channel.hand_over_dying(pidfd);
    }
    Notice::Hit {
        pid,
        named,
        outcome,
    }
}

fn name(pid: u32) -> Option<(u64, Comm)> {
    let mut path = [0u8; 32];
    write!(&mut path[..], "/proc/{pid}/stat\0").ok()?;
    let path = std::ffi::CStr::from_bytes_until_nul(&path).ok()?;
    let mut text = [0; 1024];
    let stat = Reread::open_c(path).ok()?;
    let stat = process::parse_stat(stat.read_short(&mut text).ok()?)?;
    Some((stat.start_ticks, stat.comm))
}

#[cfg(test)]
mod tests;
