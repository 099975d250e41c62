//! One pass over a target by the deciding thread: look, step the policy, carry out the order, say when to
//! come back.
//!
//! Everything here was opened and allocated before; a pass reads with `pread`, signals by pidfd, and
//! tells the slow side through [`Channel`]. When passes happen is [`super::deciding`]'s.

use super::channel::{Channel, Notice, RIVALS, Status, TargetId};
use super::eyes::{Eyes, KernelEyes, TargetEyes};
use super::members::Members;
use super::recorder::Recorder;
use super::testing::Board;
use crate::act::{Mode, Outcome, may_signal, signal};
use crate::bpf;
use crate::host::reread::Reread;
use crate::watch::victim::{self, Choice};
use crate::watch::{Depth, Facts, Look, Member, Order, Policy, Rung, TargetFacts};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who the target is, and on what terms it is guarded.
#[derive(Debug)]
pub struct Charge {
    /// Which target.
    pub id: TargetId,
    /// The process that was started, or given with `--pid`.
    pub leader: Option<u32>,
    /// The user for whom it is guarded, and who alone may be hit; `None` for root, who may hit anybody.
    pub uid: Option<u32>,
    /// Whether what is decided is done, too.
    pub mode: Mode,
    /// The live figures.
    pub status: Arc<Status>,
    /// Where looks are recorded.
    pub recorder: Option<Recorder>,
    /// Which of its processes run a test that can be asked to fail, if that is known.
    pub tests: Option<Arc<Board>>,
}

/// Everything one pass works on.
#[derive(Debug)]
pub struct Pass {
    charge: Charge,
    eyes: TargetEyes,
    /// The table of its processes, while they are looked at.
    members: Option<Members>,
    /// What they held together when they were looked at last: where no controller counts, all that is known.
    summed_bytes: Option<u64>,
    /// The machine has stirred since the last look.
    stirred: bool,
    /// What the policy said of that after the last look: to ask it for each of a thousand at each beat takes longer
    /// than all looks at them.
    rests: bool,
    policy: Policy,
    channel: Arc<Channel>,
    next: Look,
    due: Option<Duration>,
    /// Until when the table is kept though nobody looks into it.
    members_until: Duration,
    interventions: u32,
    victim: Option<Victim>,
}

/// The process that was signalled last.
#[derive(Debug)]
struct Victim {
    number: u32,
    choice: Choice,
    pidfd: OwnedFd,
    before_bytes: u64,
    gone_at: Option<Duration>,
}

/// Memory is given this long to come back after a death before the figure is taken.
const RECOVERY: Duration = Duration::from_millis(500);
/// After a look that failed.
const AGAIN: Duration = Duration::from_millis(50);
/// A look this much later than asked is counted as late.
const LATE: Duration = Duration::from_millis(50);
/// A target that rests is looked at this often though the machine is calm.
const REST: Duration = Duration::from_secs(10);
/// A table that nobody looked into for so long is for somebody else.
const CALM: Duration = Duration::from_secs(10);

impl Pass {
    /// Puts a pass together.
    pub fn new(
        charge: Charge,
        eyes: TargetEyes,
        mut policy: Policy,
        channel: Arc<Channel>,
    ) -> Self {
        if charge.mode == Mode::DryRun {
            policy.rehearse();
        }
        Self {
            charge,
            eyes,
            members: None,
            summed_bytes: None,
            stirred: false,
            rests: policy.rests(),
            next: policy.first_look(),
            policy,
            channel,
            due: None,
            members_until: Duration::ZERO,
            interventions: 0,
            victim: None,
        }
    }

    /// Which target it is for.
    pub fn target(&self) -> TargetId {
        self.charge.id
    }

    /// When it is due; never run, it is overdue.
    pub fn due(&self) -> Duration {
        self.due.unwrap_or_default()
    }

    /// The BPF programs count the target in `row` from now on.
    pub fn count_in(&mut self, row: bpf::Row) {
        self.eyes.row = Some(row);
    }

    /// Where the BPF programs count it.
    pub fn row(&self) -> Option<bpf::Row> {
        self.eyes.row
    }

    /// A cgroup was found inside the target: its `cgroup.procs`.
    pub fn look_into(&mut self, procs: Reread) {
        if let Some(room) = self.eyes.room_for_nested() {
            room.push(procs);
        }
    }

    /// Says its last: nobody looks any more.
    pub fn leave(&mut self, now: Duration) {
        if let Some(near_miss) = self.policy.leave(now) {
            self.tell(Notice::NearMiss(near_miss));
        }
    }

    /// Gives back the table of processes.
    pub fn part_with_members(&mut self) -> Option<Members> {
        self.members.take()
    }

    /// Whether a process was the target's at the last look, by the number that the kernel itself gives it.
    pub fn had_member(&self, pid: u32, eyes: &Eyes) -> bool {
        eyes.names_are_the_kernels() && self.views().iter().any(|m| m.pid == pid)
    }

    /// Whether it is the target's now.
    pub fn has_member(&self, pid: u32, eyes: &mut Eyes) -> bool {
        self.eyes.has_process(pid, eyes)
    }

    fn views(&self) -> &[Member] {
        self.members.as_ref().map_or(&[], Members::views)
    }

    /// The pass. `woken` means that reclaim has begun in the target: look at everything. A table for its
    /// processes is taken from `spare`, and goes back there.
    ///
    /// # Errors
    /// The target is gone. A look that fails for another reason is skipped and counted.
    pub fn once(
        &mut self,
        now: Duration,
        woken: bool,
        eyes: &mut Eyes,
        spare: &mut Vec<Members>,
    ) -> io::Result<Duration> {
        self.count_delay(now);
        let stirred = std::mem::take(&mut self.stirred);
        // Where no controller counts, the members' totals are the target's usage.
        let is_known = self.summed_bytes.is_some() && self.rests && !stirred;
        let wanted = if woken || !(self.eyes.has_controller() || is_known) {
            Depth::Members
        } else {
            self.next.depth
        };
        let depth = self.reach(wanted, now, spare);
        let looked = self.eyes.facts(depth, eyes).and_then(|target| {
            if depth == Depth::Members {
                self.look_at_members(now, eyes)?;
            }
            Ok(target)
        });
        let target = match looked {
            Ok(target) => target,
            Err(error) if is_gone(&error) => return Err(error),
            Err(_) => {
                let status = &self.charge.status;
                status.failed_looks.fetch_add(1, Ordering::Relaxed);
                self.due = Some(now + AGAIN);
                return Ok(AGAIN);
            }
        };
        let machine = (depth >= Depth::Machine)
            .then(|| eyes.machine(now))
            .flatten();
        let facts = Facts {
            target: self.without_controller(target),
            machine,
            members: self
                .members
                .as_ref()
                .filter(|_| depth == Depth::Members)
                .map(Members::views),
            victim_gone: self
                .victim
                .as_ref()
                .is_some_and(|v| signal::has_exited(&v.pidfd)),
        };
        let decision = self.policy.step(now, &facts);
        if let Some(recorder) = &mut self.charge.recorder {
            let closely = self.members.is_some();
            recorder.take(now, &facts, closely, decision.order.is_some());
        }
        let (current_bytes, victim_gone) = (facts.target.current_bytes, facts.victim_gone);
        self.publish(current_bytes);
        self.follow_victim(now, current_bytes, victim_gone);
        if let Some(near_miss) = decision.near_miss {
            self.tell(Notice::NearMiss(near_miss));
        }
        if let Some(order) = decision.order {
            self.carry_out(now, &order, current_bytes, eyes);
        }
        if depth == Depth::Members {
            self.name_victims(eyes);
        }
        self.next = decision.next;
        if depth < wanted {
            self.next.after = self.next.after.max(AGAIN);
        }
        // Nobody rests while the end of a victim is waited for: nothing need stir when its memory comes back.
        self.rests = self.policy.rests() && self.victim.is_none();
        if self.rests && !self.eyes.has_controller() {
            // It was summed up, and others are to be.
            spare.extend(self.members.take());
        }
        let pause = if self.rests { REST } else { self.next.after };
        self.due = Some(now + pause);
        Ok(pause)
    }

    /// Whether it need not be looked at while the machine does not stir.
    pub fn rests(&self) -> bool {
        self.rests
    }

    /// The machine stirs: it is due.
    pub fn wake(&mut self, now: Duration) {
        self.due = Some(now);
        self.stirred = true;
    }

    /// As deep a look as there is a table for: one is borrowed to look at processes, and given back when they
    /// have been of no interest for a while.
    fn reach(&mut self, wanted: Depth, now: Duration, spare: &mut Vec<Members>) -> Depth {
        if wanted == Depth::Members {
            self.members_until = now + CALM;
            if self.members.is_none() {
                self.members = spare.pop();
                if let Some(members) = &mut self.members {
                    let Charge { leader, uid, .. } = self.charge;
                    members.begin(leader, uid, self.policy.growth_window());
                }
            }
            if self.members.is_none() {
                let status = &self.charge.status;
                status.without_table.fetch_add(1, Ordering::Relaxed);
                return Depth::Stat;
            }
        } else if now >= self.members_until && self.victim.is_none() {
            spare.extend(self.members.take());
        }
        wanted
    }

    /// Whom the guard should reach for if there is no sign of life any more.
    fn name_victims(&self, eyes: &Eyes) {
        let (Some(KernelEyes { reader, names, .. }), Some(row)) = (eyes.kernel(), self.eyes.row)
        else {
            return;
        };
        if *names {
            let weight = |m: &Member| (m.stall_ns, m.growth_bytes, m.anon_bytes);
            let likely = foremost(self.views().iter(), weight);
            reader.name_victims(
                row,
                likely.map(|member| member.map(|m| (m.pid, m.start_ticks))),
            );
        }
    }

    /// Where no controller counts, the members' anonymous memory is what is known.
    fn without_controller(&self, mut target: TargetFacts) -> TargetFacts {
        if !self.eyes.has_controller() {
            target.current_bytes = self.summed_bytes.unwrap_or(0);
        }
        target
    }

    fn look_at_members(&mut self, now: Duration, eyes: &mut Eyes) -> io::Result<()> {
        let Some(members) = &mut self.members else {
            return Ok(());
        };
        let left_out = self.eyes.list_processes(eyes)?;
        members.look(now, eyes.listed(), |pid| eyes.stall_ns_of(pid));
        if let Some(board) = &self.charge.tests {
            members.mark_tests(board);
            if eyes.kernel().is_some() && self.eyes.row.is_some() {
                board.put_down_stalls(|pid, _| Some(eyes.stall_ns_of(pid)));
            }
        }
        let unseen = members.unseen();
        let status = &self.charge.status;
        let untracked = unseen.untracked + left_out;
        status.untracked.fetch_max(untracked, Ordering::Relaxed);
        status
            .unreadable
            .store(unseen.unreadable, Ordering::Relaxed);
        self.summed_bytes = Some(members.views().iter().map(|m| m.anon_bytes).sum());
        let seen = members.views().len() as u64 + untracked;
        status.processes.store(seen, Ordering::Relaxed);
        Ok(())
    }

    /// Signals everybody that goes with the victim, as of a fresh list of the members.
    fn carry_out(&mut self, now: Duration, order: &Order, current_bytes: u64, eyes: &mut Eyes) {
        let follows = order.rung == Rung::Sigkill
            && self.victim.as_ref().map(|v| v.choice.member.pid)
                == order.victim.map(|v| v.member.pid)
            && self.victim.is_some();
        if !follows {
            self.interventions += 1;
        }
        let number = self.interventions;
        let rivals = self.rivals(order);
        self.tell(Notice::Ordered {
            number,
            at: now,
            order: *order,
            current_bytes,
            rivals,
        });
        let (Some(choice), Some(signal)) = (order.victim, signal_of(order.rung)) else {
            return;
        };
        if self.look_at_members(now, eyes).is_err() {
            return;
        }
        let Some(members) = &self.members else {
            return;
        };
        let views = members.views();
        // Before it is signalled: it may be dead right after.
        let pidfd = members
            .pidfd(&choice.member)
            .filter(|_| !follows)
            .and_then(|pidfd| pidfd.try_clone_to_owned().ok());
        let mut survivors = views.len();
        // To fail a test is a matter for the process that runs it.
        let goes_with = |m: &&Member| match order.rung {
            Rung::Abort => m.pid == choice.member.pid,
            _ => victim::in_scope(m, &choice.member, choice.scope, views),
        };
        for member in views.iter().filter(goes_with) {
            let outcome = members.pidfd(member).map_or(Outcome::Gone, |pidfd| {
                let Charge { uid, mode, .. } = self.charge;
                if uid.is_some_and(|uid| !may_signal(uid, member.pid, pidfd)) {
                    return Outcome::Refused { errno: libc::EPERM };
                }
                let outcome = signal::send(pidfd, signal, mode);
                if signal == libc::SIGKILL && outcome == Outcome::Delivered {
                    members.has_been_killed(member);
                    if let Ok(dying) = pidfd.try_clone_to_owned() {
                        self.channel.hand_over_dying(dying);
                    }
                }
                outcome
            });
            survivors -= usize::from(outcome == Outcome::Delivered);
            self.tell(Notice::Hit {
                number,
                at: now,
                rung: order.rung,
                member: *member,
                outcome,
            });
        }
        if order.rung != Rung::Abort {
            self.tell(Notice::Struck { survivors });
        }
        if let Some(pidfd) = pidfd {
            self.victim = Some(Victim {
                number,
                choice,
                pidfd,
                before_bytes: current_bytes,
                gone_at: None,
            });
        }
    }

    fn rivals(&self, order: &Order) -> [Option<Member>; RIVALS] {
        let chosen = order.victim.map(|v| v.member.pid);
        let others = self.views().iter();
        let others = others.filter(|m| Some(m.pid) != chosen);
        foremost(others, |m| (m.growth_bytes, m.stall_ns, m.anon_bytes))
    }

    /// Says when the victim's memory has come back.
    fn follow_victim(&mut self, now: Duration, current_bytes: u64, gone: bool) {
        let Some(victim) = &mut self.victim else {
            return;
        };
        if !gone {
            return;
        }
        let gone_at = *victim.gone_at.get_or_insert(now);
        let expected = victim.choice.member.anon_bytes / 2;
        let back = current_bytes <= victim.before_bytes.saturating_sub(expected);
        if back || now.saturating_sub(gone_at) >= RECOVERY {
            let recovered = Notice::Recovered {
                number: victim.number,
                at: now,
                current_bytes,
            };
            self.channel.tell(self.charge.id, recovered);
            self.victim = None;
        }
    }

    fn tell(&self, notice: Notice) {
        self.channel.tell(self.charge.id, notice);
    }

    fn publish(&self, current_bytes: u64) {
        let status = &self.charge.status;
        status.current_bytes.store(current_bytes, Ordering::Relaxed);
        status
            .peak_bytes
            .fetch_max(current_bytes, Ordering::Relaxed);
        if let Some((full, some)) = self.policy.signals().stall_permille() {
            status.full_permille.store(full.into(), Ordering::Relaxed);
            status.some_permille.store(some.into(), Ordering::Relaxed);
        }
        status.looks.fetch_add(1, Ordering::Relaxed);
        let is_close = self.members.is_some();
        status.is_close.store(is_close, Ordering::Relaxed);
    }

    fn count_delay(&self, now: Duration) {
        let delay = now.saturating_sub(self.due.unwrap_or(now));
        let status = &self.charge.status;
        status
            .longest_delay_us
            .fetch_max(delay.as_micros() as u64, Ordering::Relaxed);
        if delay > LATE {
            status.late_looks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The `N` members of the greatest weight, greatest first.
fn foremost<'m, const N: usize>(
    members: impl Iterator<Item = &'m Member>,
    weight: fn(&Member) -> (u64, u64, u64),
) -> [Option<Member>; N] {
    let mut places = [None; N];
    for member in members {
        // An insertion into a few places: sorting the members would move them all.
        let mut held = Some(*member);
        for place in &mut places {
            if place
                .as_ref()
                .is_none_or(|p| held.as_ref().is_some_and(|h| weight(h) > weight(p)))
            {
                std::mem::swap(place, &mut held);
            }
        }
    }
    places
}

/// Whether a file of the target's own says that the target is no more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
}

fn signal_of(rung: Rung) -> Option<i32> {
    match rung {
        // Ignored by who has no handler for it. The process writes its stacks down, and the slow side, which can
        // say why, asks again.
        Rung::Abort => Some(libc::SIGURG),
        Rung::Sigint => Some(libc::SIGINT),
        Rung::Sigterm => Some(libc::SIGTERM),
        Rung::Sigkill => Some(libc::SIGKILL),
        // A freeze takes the kernel's cgroup lock: the slow side does it.
        Rung::Warn | Rung::Freeze => None,
    }
}
