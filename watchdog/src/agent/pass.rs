//! One pass of the deciding thread: look, step the policy, carry out the order, say when to come back.
//!
//! Everything here was opened and allocated before; a pass reads with `pread`, signals by pidfd, and
//! tells the slow side through [`Channel`]. When passes happen is [`super::deciding`]'s.

use super::channel::{Channel, Notice, RIVALS};
use super::eyes::{Eyes, KernelEyes};
use super::members::Members;
use super::recorder::Recorder;
use crate::act::{Mode, Outcome, signal};
use crate::host::clock;
use crate::watch::victim::{self, Choice};
use crate::watch::{Depth, Facts, Look, Member, Order, Policy, Rung, TargetFacts};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Everything one pass works on.
#[derive(Debug)]
pub struct Pass {
    eyes: Eyes,
    members: Members,
    policy: Policy,
    mode: Mode,
    channel: Arc<Channel>,
    recorder: Option<Recorder>,
    /// Killing has been shown not to work: no signs of life are given, so that the guard takes it for dead.
    left_to_guard: bool,
    next: Look,
    due: Option<Duration>,
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

impl Pass {
    /// Puts a pass together.
    pub fn new(
        eyes: Eyes,
        members: Members,
        mut policy: Policy,
        mode: Mode,
        channel: Arc<Channel>,
        recorder: Option<Recorder>,
    ) -> Self {
        if mode == Mode::DryRun {
            policy.rehearse();
        }
        Self {
            eyes,
            members,
            policy,
            mode,
            channel,
            recorder,
            left_to_guard: false,
            next: Look {
                after: Duration::ZERO,
                depth: Depth::Members,
            },
            due: None,
            interventions: 0,
            victim: None,
        }
    }

    /// Killing does not work here: the guard in the kernel is to do it.
    pub fn leave_it_to_the_guard(&mut self) {
        self.left_to_guard = true;
    }

    /// What it sees with.
    pub fn eyes(&mut self) -> &mut Eyes {
        &mut self.eyes
    }

    /// The ring of the BPF programs, which wakes this thread.
    pub fn ring(&self) -> Option<BorrowedFd<'_>> {
        self.eyes.kernel().map(|kernel| kernel.reader.fd())
    }

    /// Whether a process, by the number that the kernel itself gives it, is the target's: it was at the
    /// last look, or is now.
    pub fn has_member(&mut self, pid: u32) -> bool {
        let known = self.members.views().iter().any(|m| m.pid == pid);
        (known && self.eyes.names_are_the_kernels()) || self.eyes.has_process(pid)
    }

    /// The pass. `woken` means that reclaim has begun in the target: look at everything.
    ///
    /// # Errors
    /// The target is gone. A look that fails for another reason is skipped and counted.
    pub fn once(&mut self, now: Duration, woken: bool) -> io::Result<Duration> {
        self.count_delay(now);
        // Where no controller counts, the members' totals are the target's usage.
        let depth = if woken || !self.eyes.has_controller() {
            Depth::Members
        } else {
            self.next.depth
        };
        let looked = self.eyes.target(depth).and_then(|target| {
            if depth == Depth::Members {
                self.look_at_members(now)?;
            }
            Ok(target)
        });
        let target = match looked {
            Ok(target) => target,
            Err(error) if is_gone(&error) => return Err(error),
            Err(_) => {
                let status = &self.channel.status;
                status.failed_looks.fetch_add(1, Ordering::Relaxed);
                self.due = Some(now + AGAIN);
                return Ok(AGAIN);
            }
        };
        let machine = (depth >= Depth::Stat)
            .then(|| self.eyes.machine())
            .flatten();
        let facts = Facts {
            target: self.without_controller(target),
            machine,
            members: (depth == Depth::Members).then(|| self.members.views()),
            victim_gone: self
                .victim
                .as_ref()
                .is_some_and(|v| signal::has_exited(&v.pidfd)),
        };
        if let Some(recorder) = &mut self.recorder {
            recorder.take(now, &facts);
        }
        let decision = self.policy.step(now, &facts);
        let (current_bytes, victim_gone) = (facts.target.current_bytes, facts.victim_gone);
        self.publish(current_bytes);
        self.follow_victim(now, current_bytes, victim_gone);
        if let Some(order) = decision.order {
            self.carry_out(now, &order, current_bytes);
        }
        self.tell_guard(depth);
        self.next = decision.next;
        self.due = Some(now + decision.next.after);
        Ok(decision.next.after)
    }

    /// A sign of life, and whom the guard should reach for if there is none any more.
    fn tell_guard(&self, depth: Depth) {
        let Some(KernelEyes {
            reader,
            row,
            slot,
            names,
        }) = self.eyes.kernel()
        else {
            return;
        };
        if !self.left_to_guard {
            reader.beat(*slot, clock::now());
        }
        if depth == Depth::Members && *names {
            let weight = |m: &Member| (m.stall_ns, m.growth_bytes, m.anon_bytes);
            let likely = foremost(self.members.views().iter(), weight);
            reader.name_victims(
                *row,
                likely.map(|member| member.map(|m| (m.pid, m.start_ticks))),
            );
        }
    }

    /// Where no controller counts, the members' anonymous memory is what is known.
    fn without_controller(&self, mut target: TargetFacts) -> TargetFacts {
        if !self.eyes.has_controller() {
            target.current_bytes = self.members.views().iter().map(|m| m.anon_bytes).sum();
        }
        target
    }

    fn look_at_members(&mut self, now: Duration) -> io::Result<()> {
        while let Some(room) = self.eyes.room_for_nested()
            && let Some(nested) = self.channel.next_nested()
        {
            room.push(nested);
        }
        let left_out = self.eyes.list_processes()?;
        let eyes = &self.eyes;
        self.members
            .look(now, eyes.listed(), |pid| eyes.stall_ns_of(pid));
        let untracked = self.members.unseen().untracked + left_out;
        let status = &self.channel.status;
        status.untracked.fetch_max(untracked, Ordering::Relaxed);
        Ok(())
    }

    /// Signals everybody that goes with the victim, as of a fresh list of the members.
    fn carry_out(&mut self, now: Duration, order: &Order, current_bytes: u64) {
        let follows = order.rung == Rung::Sigkill
            && self.victim.as_ref().map(|v| v.choice.member.pid)
                == order.victim.map(|v| v.member.pid)
            && self.victim.is_some();
        if !follows {
            self.interventions += 1;
        }
        let number = self.interventions;
        let rivals = self.rivals(order);
        self.channel.tell(Notice::Ordered {
            number,
            at: now,
            order: *order,
            current_bytes,
            rivals,
        });
        let (Some(choice), Some(signal)) = (order.victim, signal_of(order.rung)) else {
            return;
        };
        if self.look_at_members(now).is_err() {
            return;
        }
        let views = self.members.views();
        let mut survivors = views.len();
        for member in views
            .iter()
            .filter(|m| victim::in_scope(m, &choice.member, choice.scope, views))
        {
            let outcome = self.members.pidfd(member).map_or(Outcome::Gone, |pidfd| {
                let outcome = signal::send(pidfd, signal, self.mode);
                if signal == libc::SIGKILL && outcome == Outcome::Delivered {
                    self.members.has_been_killed(member);
                    if let Ok(dying) = pidfd.try_clone_to_owned() {
                        self.channel.hand_over_dying(dying);
                    }
                }
                outcome
            });
            survivors -= usize::from(outcome == Outcome::Delivered);
            self.channel.tell(Notice::Hit {
                number,
                at: now,
                rung: order.rung,
                member: *member,
                outcome,
            });
        }
        self.channel.tell(Notice::Struck { survivors });
        if !follows
            && let Some(pidfd) = self.members.pidfd(&choice.member)
            && let Ok(pidfd) = pidfd.try_clone_to_owned()
        {
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
        let others = self.members.views().iter();
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
            self.channel.tell(Notice::Recovered {
                number: victim.number,
                at: now,
                current_bytes,
            });
            self.victim = None;
        }
    }

    fn publish(&self, current_bytes: u64) {
        let status = &self.channel.status;
        status.current_bytes.store(current_bytes, Ordering::Relaxed);
        status
            .peak_bytes
            .fetch_max(current_bytes, Ordering::Relaxed);
        if let Some((full, some)) = self.policy.signals().stall_permille() {
            status.full_permille.store(full.into(), Ordering::Relaxed);
            status.some_permille.store(some.into(), Ordering::Relaxed);
        }
        let unseen = self.members.unseen();
        status
            .untracked
            .fetch_max(unseen.untracked, Ordering::Relaxed);
        status
            .unreadable
            .store(unseen.unreadable, Ordering::Relaxed);
        status.looks.fetch_add(1, Ordering::Relaxed);
    }

    fn count_delay(&self, now: Duration) {
        let delay = now.saturating_sub(self.due.unwrap_or(now));
        let status = &self.channel.status;
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
        Rung::Sigterm => Some(libc::SIGTERM),
        Rung::Sigkill => Some(libc::SIGKILL),
        // A freeze takes the kernel's cgroup lock: the slow side does it.
        Rung::Warn | Rung::Freeze => None,
    }
}
