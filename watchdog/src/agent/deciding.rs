//! The deciding thread: when a target's pass happens, and what is looked after between.
//!
//! What keeps it awake is [`super::awake`]'s. Before the first pass it rehearses the kill.
//!
//! **What it still waits for**, knowingly: the memory controller of v2 sums up its counts under a lock for
//! `memory.stat` (kernel/cgroup/rstat.c); what looking at processes waits for is told in
//! [`super::members`].

use super::awake::{become_realtime, grow_stack};
use super::channel::{Channel, Notice, TargetId};
use super::drill;
use super::eyes::{Eyes, KernelEyes, NESTED};
use super::members::Members;
use super::pass::Pass;
use super::rehearsal;
use super::stir::{self, Stir};
use super::takeover::Takeover;
use crate::bpf;
use crate::host::clock;
use crate::host::reread::Reread;
use crossbeam_queue::ArrayQueue;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What the slow side hands to the deciding thread as a whole.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be freed on the deciding thread; the queue is made once"
)]
pub enum Arrival {
    /// The eyes in the kernel, ready.
    Kernel(KernelEyes),
    /// A target to guard.
    Target(Box<Pass>),
    /// The BPF programs count a target from now on.
    Row(TargetId, bpf::Row),
    /// A cgroup inside a target: its `cgroup.procs`.
    Nested(TargetId, Reread),
    /// A target to let go.
    Departure(TargetId),
}

/// Where it is handed over, and what is over comes back for the slow side to free.
#[derive(Debug)]
pub struct Inbox {
    arrivals: ArrayQueue<Arrival>,
    departed: ArrayQueue<Box<Pass>>,
}

impl Inbox {
    /// With room for `targets`, each with its row, its end and the cgroups in it.
    pub fn new(targets: usize) -> Self {
        Self {
            arrivals: ArrayQueue::new(2 * NESTED + 4 * targets),
            departed: ArrayQueue::new(targets),
        }
    }

    /// Frees what is over.
    pub fn sweep(&self) {
        while let Some(departed) = self.departed.pop() {
            drop(departed);
        }
    }
}

/// The way to the deciding thread.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where things are put for it.
    pub inbox: Arc<Inbox>,
    /// By which it is woken.
    pub channel: Arc<Channel>,
}

impl Way {
    /// Hands over; `false` if there is no room.
    pub fn send(&self, arrival: Arrival) -> bool {
        let sent = self.inbox.arrivals.push(arrival).is_ok();
        self.channel.wake_decider();
        sent
    }
}

/// A sign of life to whoever started memwatch; given at every turn of the loop, and so must not wait.
pub type Feed = Box<dyn FnMut(Duration) + Send>;

/// What the deciding thread works with.
pub struct Decider {
    eyes: Eyes,
    passes: Vec<Box<Pass>>,
    /// Tables of processes, for the targets that need one.
    spare: Vec<Members>,
    channel: Arc<Channel>,
    inbox: Arc<Inbox>,
    feed: Option<Feed>,
    /// Standing in for systemd-oomd, and when that is due.
    takeover: Option<(Takeover, Duration)>,
    stir: Stir,
    stir_due: Duration,
    /// Killing has been shown not to work: no signs of life are given, so that the guard takes it for dead.
    left_to_guard: bool,
    /// The time in the drill, where nothing is waited for.
    made_up_now: Option<Duration>,
}

/// The longest that the loop sleeps: the guard must see that it lives.
const TURN: Duration = Duration::from_secs(1);

impl Decider {
    /// A decider for at most `targets` at a time, of which as many as there are `tables` can be looked at
    /// closely at once.
    pub fn new(
        eyes: Eyes,
        tables: Vec<Members>,
        targets: usize,
        way: Way,
        feed: Option<Feed>,
    ) -> Self {
        Self {
            eyes,
            passes: Vec::with_capacity(targets),
            spare: tables,
            channel: way.channel,
            inbox: way.inbox,
            feed,
            takeover: None,
            stir: Stir::default(),
            stir_due: Duration::ZERO,
            left_to_guard: false,
            made_up_now: None,
        }
    }

    /// A turn at a time that is made up, which must not run backwards.
    pub(super) fn turn_at(&mut self, now: Duration) {
        self.made_up_now = Some(now);
        self.turn();
    }

    fn now(&self) -> Duration {
        self.made_up_now.unwrap_or_else(clock::now)
    }

    /// Has it stand in for systemd-oomd, too.
    pub fn beside(mut self, takeover: Takeover) -> Self {
        self.takeover = Some((takeover, Duration::ZERO));
        self
    }

    /// Starts the thread. It answers, at its end, why it was not realtime.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(mut self) -> io::Result<JoinHandle<Option<i32>>> {
        std::thread::Builder::new()
            .name("memwatch-decide".into())
            .stack_size(512 << 10)
            .spawn(move || {
                grow_stack();
                // Where no child can be made the rehearsal says so.
                let _ = drill::run_all();
                let rehearsal = rehearsal::rehearse();
                self.left_to_guard = rehearsal.as_ref().is_err_and(|e| e.is_refusal());
                self.channel.tell_rehearsal(rehearsal);
                let refused = become_realtime().err().and_then(|e| e.raw_os_error());
                while !self.channel.is_stopped() {
                    let pause = self.turn();
                    self.rest(pause);
                }
                let now = clock::now();
                self.passes.iter_mut().for_each(|pass| pass.leave(now));
                refused
            })
    }

    /// Until something is to be seen or taken in, and not for longer than `pause`.
    pub(super) fn rest(&self, pause: Duration) {
        let ring = self.eyes.kernel().and_then(|kernel| kernel.reader.fd());
        wait(ring, self.channel.deciding_side(), pause);
    }

    /// One turn: takes in what has come, looks at every target that is due, gives a sign of life; how long
    /// until the next. Those that rest are looked at together, at a beat: a thousand would wake it as often else.
    pub fn turn(&mut self) -> Duration {
        // First: what happened to a target that is let go now is still told.
        self.drain_ring();
        self.take_arrivals();
        let mut now = self.now();
        self.give_sign_of_life(now);
        let mut next = now + self.stand_in(now);
        let is_beat = self.stir_due <= now;
        if is_beat {
            self.stir_due = now + stir::EVERY;
            self.mind_resting(now);
        }
        let mut at = 0;
        while let Some(pass) = self.passes.get(at) {
            let target = pass.target();
            if pass.due() <= now && (is_beat || !pass.rests()) {
                self.look(at, now, false);
                now = self.now();
                self.give_sign_of_life(now);
            }
            // One that is gone has given its place to another.
            match self.passes.get(at) {
                Some(pass) if pass.target() == target => {
                    let due = if pass.rests() {
                        self.stir_due
                    } else {
                        pass.due()
                    };
                    next = next.min(due);
                    at += 1;
                }
                _ => {}
            }
        }
        next.saturating_sub(now)
    }

    /// Looks at the machine for those that rest: when it stirs, they are due.
    fn mind_resting(&mut self, now: Duration) {
        if !self.passes.iter().any(|pass| pass.rests()) {
            return;
        }
        let machine = self.eyes.machine(now);
        if self.stir.see(now, machine.as_ref()) {
            for pass in self.passes.iter_mut().filter(|pass| pass.rests()) {
                pass.wake(now);
            }
        }
    }

    /// Looks after what was systemd-oomd's, when that is due; how long until it is again.
    fn stand_in(&mut self, now: Duration) -> Duration {
        let Some((takeover, due)) = &mut self.takeover else {
            return TURN;
        };
        if *due <= now {
            let machine = self.eyes.machine(now);
            *due = now + takeover.once(now, machine.as_ref());
        }
        due.saturating_sub(now)
    }

    fn look(&mut self, at: usize, now: Duration, woken: bool) {
        let pass = &mut self.passes[at];
        if pass
            .once(now, woken, &mut self.eyes, &mut self.spare)
            .is_err()
        {
            let target = pass.target();
            self.let_go(at);
            self.channel.tell(target, Notice::TargetGone);
        }
    }

    fn give_sign_of_life(&mut self, now: Duration) {
        if let Some(feed) = &mut self.feed {
            feed(now);
        }
        if let Some(KernelEyes { reader, slot, .. }) = self.eyes.kernel()
            && !self.left_to_guard
        {
            reader.beat(*slot, now);
        }
    }

    fn take_arrivals(&mut self) {
        while let Some(arrival) = self.inbox.arrivals.pop() {
            match arrival {
                Arrival::Kernel(eyes) => self.eyes.open_kernel(eyes),
                // One too many would have to be allocated for: nobody hands over more than was agreed.
                Arrival::Target(pass) => self.passes.push(pass),
                Arrival::Row(target, row) => {
                    if let Some(pass) = self.pass_of(target) {
                        pass.count_in(row);
                    }
                }
                Arrival::Nested(target, procs) => {
                    if let Some(pass) = self.pass_of(target) {
                        pass.look_into(procs);
                    }
                }
                Arrival::Departure(target) => {
                    let at = self.passes.iter().position(|p| p.target() == target);
                    if let Some(at) = at {
                        self.let_go(at);
                    }
                    self.channel.tell(target, Notice::Departed);
                }
            }
        }
    }

    fn pass_of(&mut self, target: TargetId) -> Option<&mut Box<Pass>> {
        self.passes.iter_mut().find(|pass| pass.target() == target)
    }

    fn let_go(&mut self, at: usize) {
        let now = self.now();
        let mut pass = self.passes.swap_remove(at);
        pass.leave(now);
        self.spare.extend(pass.part_with_members());
        // Full: it is freed here, which may take the allocator's lock for once.
        drop(self.inbox.departed.push(pass));
    }

    /// Empties the ring, and looks at once where reclaim has begun. What the slow side cannot take is lost to
    /// it, but the deciding thread has seen it.
    fn drain_ring(&mut self) {
        // Bounded: a storm of events must not keep this thread from its looks.
        for _ in 0..256 {
            let Some(event) = self.eyes.next_event() else {
                break;
            };
            match event {
                bpf::Event::ReclaimStarted { row, .. } => {
                    if let Some(at) = self.passes.iter().position(|p| p.row() == Some(row)) {
                        self.look(at, self.now(), true);
                    }
                }
                // The row is that of whoever asked for memory; the victim may be anybody. Asked at once: a
                // dying process is listed until it is dead.
                bpf::Event::OomVictim { pid, row, .. } => {
                    if let Some(target) = self.target_of(pid, row) {
                        self.channel.hand_on(Some(target), event);
                    }
                }
                bpf::Event::Hang { .. } => self.channel.hand_on(None, event),
            }
        }
    }

    /// Whose a process is: known from the last look, or listed now in the likeliest.
    fn target_of(&mut self, pid: u32, likely: Option<bpf::Row>) -> Option<TargetId> {
        let Self { eyes, passes, .. } = self;
        let known = passes.iter().find(|pass| pass.had_member(pid, eyes));
        if let Some(pass) = known {
            return Some(pass.target());
        }
        let only = passes.len() == 1;
        let likely = passes
            .iter()
            .find(|pass| only || (likely.is_some() && pass.row() == likely))?;
        likely.has_member(pid, eyes).then(|| likely.target())
    }
}

fn wait(ring: Option<BorrowedFd<'_>>, wanted: BorrowedFd<'_>, pause: Duration) {
    let readable = |fd: BorrowedFd<'_>| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut fds = [readable(wanted), readable(ring.unwrap_or(wanted))];
    let timeout = libc::timespec {
        tv_sec: pause.as_secs() as i64,
        tv_nsec: pause.subsec_nanos().into(),
    };
    // SAFETY: two valid pollfds and a valid timespec. EINTR only makes the next look early.
    unsafe {
        libc::ppoll(
            fds.as_mut_ptr(),
            fds.len() as u64,
            &timeout,
            std::ptr::null(),
        )
    };
    if fds[0].revents != 0 {
        let mut count = [0u8; 8];
        // SAFETY: the buffer is writable and as long as said; the descriptor does not block.
        unsafe {
            libc::read(
                wanted.as_fd().as_raw_fd(),
                count.as_mut_ptr().cast(),
                count.len(),
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::Mode;
    use crate::agent::channel::Status;
    use crate::agent::eyes::{Listing, TargetEyes};
    use crate::agent::guarded::machine_eyes;
    use crate::agent::pass::Charge;
    use crate::watch::{Policy, Response, Settings};
    use std::path::Path;
    use std::sync::atomic::Ordering;

    fn pass(id: TargetId, procs: &Path, channel: &Arc<Channel>) -> (Box<Pass>, Arc<Status>) {
        let status = Arc::new(Status::default());
        let charge = Charge {
            id,
            leader: None,
            uid: None,
            mode: Mode::DryRun,
            status: Arc::clone(&status),
            recorder: None,
            tests: None,
        };
        let eyes = TargetEyes {
            memory: None,
            pressure: None,
            io_pressure: None,
            listing: Listing::Cgroup(vec![Reread::open(procs).expect("it is there")]),
            limit_bytes: None,
            row: None,
        };
        let policy = Policy::new(Settings::default(), Response::Warn);
        let pass = Pass::new(charge, eyes, policy, Arc::clone(channel));
        (Box::new(pass), status)
    }

    fn decider(channel: &Arc<Channel>, inbox: &Arc<Inbox>) -> Decider {
        let eyes = Eyes::new(machine_eyes().expect("/proc/meminfo"));
        let tables = vec![Members::new(4)];
        let way = Way {
            inbox: Arc::clone(inbox),
            channel: Arc::clone(channel),
        };
        Decider::new(eyes, tables, 4, way, None)
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_end_of_the_target() {
        let channel = Arc::new(Channel::new().expect("descriptors"));
        let inbox = Arc::new(Inbox::new(4));
        // Opens, and answers every read with EISDIR.
        let (pass, status) = pass(7, Path::new("/"), &channel);
        assert!(inbox.arrivals.push(Arrival::Target(pass)).is_ok());
        let decider = decider(&channel, &inbox).start().expect("a thread");
        while status.failed_looks.load(Ordering::Relaxed) < 2 {
            assert!(!decider.is_finished(), "it looks again");
            std::thread::sleep(Duration::from_millis(1));
        }
        channel.stop();
        decider.join().expect("no panic");
        assert!(channel.next().is_none(), "nobody was told that it is gone");
    }

    #[test]
    fn many_targets_share_one_table_and_each_is_looked_at() {
        let channel = Arc::new(Channel::new().expect("descriptors"));
        let inbox = Arc::new(Inbox::new(4));
        let list = tempfile::NamedTempFile::new().expect("a file");
        let passes: Vec<_> = (1..=3).map(|id| pass(id, list.path(), &channel)).collect();
        let statuses: Vec<_> = passes
            .iter()
            .map(|(_, status)| Arc::clone(status))
            .collect();
        for (pass, _) in passes {
            assert!(inbox.arrivals.push(Arrival::Target(pass)).is_ok());
        }
        let mut decider = decider(&channel, &inbox);
        decider.turn();
        let count = |of: fn(&Status) -> u64| statuses.iter().map(|s| of(s)).collect::<Vec<_>>();
        assert_eq!(count(|s| s.looks.load(Ordering::Relaxed)), [1, 1, 1]);
        let without = count(|s| s.without_table.load(Ordering::Relaxed));
        assert_eq!(without.iter().sum::<u64>(), 2, "one had the table");
        let owner = 1 + without.iter().position(|&n| n == 0).expect("one") as TargetId;
        assert!(inbox.arrivals.push(Arrival::Departure(owner)).is_ok());
        std::thread::sleep(Settings::default().longest_look);
        decider.turn();
        let after = count(|s| s.without_table.load(Ordering::Relaxed));
        assert_eq!(after.iter().sum::<u64>(), 3, "its table went to another");
    }
}
