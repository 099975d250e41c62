//! What users ask of the daemon, answered: who may is decided in [`crate::control::rights`], what is guarded
//! kept by [`super::targets`].

use super::Daemon;
use super::kept::{Detached, Order, Owner};
use crate::causes::with_causes;
use crate::control::status::{self, SCHEMA_VERSION};
use crate::control::{Call, Handed, Peer, Refusal, Status, protocol};
use crate::host::cgroup::Limits;
use crate::host::meminfo::{self, MemInfo};
use crate::host::psi::{self, Psi};
use crate::incident::{Text, Timestamp};
use crate::watch::window::Window;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

/// Machine-wide stall of the last seconds, for whoever asks.
#[derive(Debug)]
pub(super) struct MachineStall {
    some: Window,
    full: Window,
}

/// As long as the policy's own window by default.
const LATELY: Duration = Duration::from_secs(3);

impl Default for MachineStall {
    fn default() -> Self {
        Self {
            some: Window::new(LATELY),
            full: Window::new(LATELY),
        }
    }
}

impl MachineStall {
    /// Looks.
    pub(super) fn look(&mut self, now: Duration) {
        let text = std::fs::read("/proc/pressure/memory").unwrap_or_default();
        if let Some(Psi { some_us, full_us }) = psi::parse(&text) {
            self.some.push(now, some_us);
            self.full.push(now, full_us);
        }
    }

    fn permille(window: &Window) -> Option<u32> {
        let change = window.change_up_to(LATELY)?;
        let share = change.by.max(0) as u128 * 1000 / change.over.as_micros().max(1);
        u32::try_from(share).ok()
    }
}

impl Daemon {
    /// Answers. Whoever has hung up meanwhile is not told.
    pub(super) fn answer(&mut self, call: Call) {
        match call {
            Call::Attach {
                peer,
                attach,
                cgroup,
                events,
                answer,
            } => {
                let attached = self.attach(peer, &attach, cgroup);
                if let Ok((id, _)) = &attached {
                    self.targets.send_events_to(*id, events);
                }
                let _ = answer.send(attached);
            }
            Call::Detach { peer, id, answer } => self.detach(peer, id, answer),
            Call::Tests {
                peer,
                id,
                running,
                answer,
            } => {
                let _ = answer.send(self.targets.tests_run(peer, id, &running));
            }
            Call::Blame {
                peer,
                blame,
                answer,
            } => {
                let _ = answer.send(self.targets.blame(peer, *blame));
            }
            Call::Status { answer, .. } => {
                let _ = answer.send(Ok(Box::new(self.status())));
            }
            Call::Incidents {
                peer,
                before,
                answer,
            } => self.incidents.list(peer, before, answer),
            Call::Incident {
                peer,
                id,
                from,
                answer,
            } => self.incidents.send(peer, id, from, answer),
            Call::Watch {
                peer,
                events,
                answer,
            } => {
                self.targets.send_all_events_to(peer, events);
                let _ = answer.send(Ok(()));
            }
        }
    }

    fn attach(
        &mut self,
        peer: Peer,
        attach: &protocol::Attach,
        cgroup: OwnedFd,
    ) -> Result<(u64, Vec<Text>), Refusal> {
        let users = &self.config.users;
        if !users.attach && peer.uid != 0 {
            return Err(Refusal::new(
                "this daemon guards nothing for users",
                "ask root to set attach = true under [users] in /etc/memwatch/memwatch.toml",
            ));
        }
        let most = usize::try_from(users.targets_per_user).unwrap_or(usize::MAX);
        peer.within_quota(self.targets.of_user(peer.uid), most)?;
        let v2 = self.means.layout.v2.as_ref();
        let v2 = v2.ok_or_else(|| Refusal::new("there is no cgroup v2 here", "mount one"))?;
        let handed = Handed::check(cgroup, peer, v2)?;
        if self.targets.has(handed.id) {
            return Err(Refusal::new(
                "this cgroup is guarded already",
                "see by whom: memwatch status",
            ));
        }
        let order = Order {
            owner: Owner::User(peer.uid),
            on_pressure: attach.on_pressure,
            dry_run: attach.dry_run,
            leader: handed.leader(attach.leader),
        };
        let limits = Limits {
            max_bytes: attach.limit_bytes,
            high_bytes: None,
        };
        self.targets
            .take_on(&handed.dir, handed.id, limits, order, &self.means)
            .map_err(|error| Refusal::new(with_causes(&error), "hand over another cgroup"))?;
        tracing::warn!("guarding {} for uid {}", handed.dir.display(), peer.uid);
        let notes = self.targets.notes(handed.id);
        Ok((
            handed.id,
            notes.iter().map(|note| note.as_str().into()).collect(),
        ))
    }

    fn detach(&mut self, peer: Peer, id: u64, answer: Detached) {
        let uid = match self.targets.owner(id) {
            Some(Owner::User(uid)) => Some(uid),
            Some(Owner::Configuration) => None,
            None => {
                let _ = answer.send(Err(peer.no_such_target(id)));
                return;
            }
        };
        if peer.may_touch(uid) {
            self.targets.detach(id, answer, &self.means);
        } else {
            let _ = answer.send(Err(peer.no_such_target(id)));
        }
    }

    fn status(&self) -> Status {
        let meminfo = std::fs::read("/proc/meminfo").unwrap_or_default();
        let meminfo = meminfo::parse(&meminfo);
        let MemInfo {
            available_bytes,
            total_bytes,
            ..
        } = meminfo.unwrap_or_default();
        let (mut losses, targets) = self.targets.status(&self.means.kernel);
        losses.dropped_notices = self.means.way.channel.dropped();
        losses.ring_drops = self.means.kernel.ring_drops();
        let lost = self.means.helpers.lost();
        (losses.hung_helpers, losses.dropped_jobs) = (lost.stuck, lost.dropped);
        losses.lost_incidents = self.targets.archive().lost();
        losses.dropped_events = self.server.lost_events();
        let mut features_lost = self.features_lost.clone();
        features_lost.extend(self.means.kernel.losses());
        features_lost.extend(crate::agent::identity::refused(&self.refused));
        Status {
            schema_version: SCHEMA_VERSION,
            memwatch: protocol::MEMWATCH.into(),
            pid: std::process::id(),
            since: self.began.into(),
            machine: status::Machine {
                available_bytes,
                total_bytes,
                swap_total_bytes: meminfo.map(|it| it.swap_total_bytes),
                swap_free_bytes: meminfo.map(|it| it.swap_free_bytes),
                some_permille: MachineStall::permille(&self.stall.some),
                full_permille: MachineStall::permille(&self.stall.full),
            },
            targets,
            oomd: self.oomd_status(),
            counts: self.targets.counts().clone(),
            exporters: self.told.exporters(),
            losses,
            features_lost,
        }
    }

    fn oomd_status(&self) -> status::Oomd {
        let Some(oomd) = self.oomd.as_ref().map(|oomd| oomd.status()) else {
            return status::Oomd {
                state: "left alone".into(),
                reason: Some("takeover = false under [oomd] in the configuration".into()),
                since: None,
                managed_units: 0,
                taken_over: false,
                kills: 0,
            };
        };
        let state = match oomd.fault {
            _ if !oomd.installed => "not installed".to_owned(),
            None => "well".to_owned(),
            Some(fault) => fault.phrase().to_owned(),
        };
        let since = SystemTime::now() - Duration::from_secs(oomd.since_s);
        let silent = oomd.bus_silent_s;
        status::Oomd {
            state: state.into(),
            reason: silent.map(|s| format!("systemd has not answered for {s} s").into()),
            since: oomd.installed.then(|| Timestamp::from(since)),
            managed_units: oomd.managed_units as u64,
            taken_over: oomd.taken_over,
            kills: oomd.kills,
        }
    }
}
