//! A target's processes, tracked from look to look in fixed memory.
//!
//! Owns the open descriptors (pidfd, `stat`, `statm`) and the short history of each process, and turns
//! them into the [`Member`]s that the policy reads. The deciding thread runs this: no allocation after
//! [`Members::new`], no path walks for processes it knows, and never a file that takes a process's mmap
//! lock. What a look could not see is counted.
//!
//! **What it still waits for.** `stat` and `statm` take a reference to the process's memory for a moment.
//! Should it end in just that moment, the last reference is ours, and all of its memory is given back on
//! this thread. Whom memwatch has killed it therefore does not read any more: the pidfd tells the end. Who
//! is killed by somebody else, or ends by itself, leaves that moment open. Taking in a new process opens a
//! pidfd and two files, which takes memory of the kernel's and may have to reclaim some first.

use super::testing::Board;
use crate::act::{may_signal, signal};
use crate::host::clock;
use crate::host::process::{self, Resident, Stat};
use crate::host::reread::Reread;
use crate::watch::Member;
use std::cell::Cell;
use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The most processes that are tracked; three descriptors each.
pub const CAPACITY: usize = 1024;
/// Descriptors that the rest of memwatch needs, to the end: the target's files and the programs', and
/// whatever it takes to kill and to report.
const OTHER_FILES: u64 = 128;

/// How many processes can be tracked with so many open files.
pub fn capacity(open_files: u64) -> usize {
    let room = open_files.saturating_sub(OTHER_FILES) / 3;
    usize::try_from(room).unwrap_or(CAPACITY).clamp(4, CAPACITY)
}

/// Samples kept of each process: the growth window in eighths.
const HISTORY: usize = 9;

/// Whether a process has become the user's is asked this often.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What is remembered of a process at one look.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: Duration,
    resident_bytes: u64,
    stall_ns: u64,
    major_faults: u64,
    minor_faults: u64,
    system_ticks: u64,
}

/// What a process that is seen for the first time did before.
#[derive(Clone, Copy, Debug)]
enum Past {
    /// It began within the window, with so much of its parent's: all else that it has is new.
    Inherited(u64),
    /// It is older than the window, so what it has says nothing about what it did in it.
    Unknown,
}

#[derive(Debug)]
struct Tracked {
    pid: u32,
    start_ticks: u64,
    pidfd: OwnedFd,
    stat: Reread,
    statm: Reread,
    history: [Sample; HISTORY],
    len: usize,
    seen: u64,
    last: Member,
    /// memwatch has sent it SIGKILL: from then on its files are not read.
    killed: Cell<bool>,
    /// Not the user's to signal, for whom the target is guarded, when that was last asked.
    foreign_at: Option<Duration>,
}

/// What a look could not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Processes beyond what the table has room for, at the last look.
    pub untracked: u64,
    /// Processes whose files could not be opened or read although they are there, so far.
    pub unreadable: u64,
}

/// All tracked processes of one target.
#[derive(Debug)]
pub struct Members {
    leader: Option<u32>,
    /// For whom, if not for root: who is not this user's to signal is no member.
    uid: Option<u32>,
    window: Duration,
    page_bytes: u64,
    ticks_per_s: u64,
    capacity: usize,
    tracked: Vec<Tracked>,
    views: Vec<Member>,
    look: u64,
    unseen: Unseen,
}

impl Members {
    /// An empty table with room for `capacity` processes. Room that is not used takes no memory.
    pub fn new(capacity: usize) -> Self {
        Self {
            leader: None,
            uid: None,
            window: Duration::ZERO,
            // SAFETY: sysconf reads no memory of ours.
            page_bytes: unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64,
            ticks_per_s: clock::ticks_per_s(),
            capacity,
            tracked: Vec::with_capacity(capacity),
            views: Vec::with_capacity(capacity),
            look: 0,
            unseen: Unseen::default(),
        }
    }

    /// Begins with another target. `leader` is the process that was started, or given with `--pid`; `uid` the
    /// user for whom it is guarded: a process that kill(2) would not let this user signal is not seen. Growth is
    /// measured over `window`.
    pub fn begin(&mut self, leader: Option<u32>, uid: Option<u32>, window: Duration) {
        self.window = window;
        self.leader = leader;
        self.uid = uid;
        self.tracked.clear();
        self.views.clear();
        self.unseen = Unseen::default();
    }

    /// Looks at the processes `pids` names. `stall_ns` tells the time a process spent in reclaim so
    /// far, where that is known.
    pub fn look(
        &mut self,
        now: Duration,
        pids: impl Iterator<Item = u32>,
        stall_ns: impl Fn(u32) -> u64,
    ) -> &[Member] {
        self.look += 1;
        self.unseen.untracked = 0;
        for (hint, pid) in pids.enumerate() {
            match self.find_or_open(hint, pid) {
                Ok(Some(at)) => self.tracked[at].seen = self.look,
                Ok(None) => self.unseen.untracked += 1,
                Err(e) if gone(&e) => {}
                Err(_) => self.unseen.unreadable += 1,
            }
        }
        let look = self.look;
        self.tracked.retain(|t| t.seen == look);

        self.views.clear();
        let mut buf = [0; 1024];
        let newborn_since = self.ticks(clock::since_boot().saturating_sub(self.window));
        for at in 0..self.tracked.len() {
            let tracked = &self.tracked[at];
            if tracked.killed.get() {
                if !signal::has_exited(&tracked.pidfd) {
                    self.views.push(tracked.dying());
                }
                continue;
            }
            if self
                .uid
                .is_some_and(|uid| self.tracked[at].is_foreign(now, uid))
            {
                continue;
            }
            let inherited = self.inherited_bytes(at);
            let tracked = &mut self.tracked[at];
            let past = if tracked.start_ticks < newborn_since {
                Past::Unknown
            } else {
                Past::Inherited(inherited)
            };
            match tracked.read(&mut buf, self.page_bytes) {
                Ok((stat, resident)) => {
                    let stall = stall_ns(tracked.pid);
                    tracked.record(now, &stat, resident, stall, past, self.window);
                    tracked.last = tracked.view(&stat, resident, self.leader);
                    self.views.push(tracked.last);
                }
                Err(e) if gone(&e) => {}
                Err(_) => self.unseen.unreadable += 1,
            }
        }
        &self.views
    }

    /// Marks those that are of a session of pytest, and the test that they run.
    pub fn mark_tests(&mut self, board: &Board) {
        board.mark(&mut self.views);
    }

    /// The processes as the last look saw them.
    pub fn views(&self) -> &[Member] {
        &self.views
    }

    /// What the looks could not see.
    pub fn unseen(&self) -> Unseen {
        self.unseen
    }

    /// `member` was sent SIGKILL. Until it is gone it stays what it was, and does nothing any more: what
    /// grows from here on is somebody else.
    pub fn has_been_killed(&self, member: &Member) {
        if let Some(tracked) = self.find(member) {
            tracked.killed.set(true);
        }
    }

    /// The pidfd of a tracked process, if it is still the one that was looked at and has not exited.
    pub fn pidfd(&self, member: &Member) -> Option<BorrowedFd<'_>> {
        let pidfd = self.find(member)?.pidfd.as_fd();
        (!signal::has_exited(pidfd)).then_some(pidfd)
    }

    fn find(&self, member: &Member) -> Option<&Tracked> {
        let is_it = |t: &&Tracked| (t.pid, t.start_ticks) == (member.pid, member.start_ticks);
        self.tracked.iter().find(is_it)
    }

    /// Where `pid` stands in the table; `None` if the table is full. The kernel lists a cgroup's
    /// processes in a stable order, so it mostly stands where it stood.
    fn find_or_open(&mut self, hint: usize, pid: u32) -> std::io::Result<Option<usize>> {
        let at_hint = self.tracked.get(hint).is_some_and(|t| t.pid == pid);
        let found = if at_hint {
            Some(hint)
        } else {
            self.tracked.iter().position(|t| t.pid == pid)
        };
        if let Some(at) = found {
            if !signal::has_exited(&self.tracked[at].pidfd) {
                return Ok(Some(at));
            }
            // The number was given to a new process between two looks.
            self.tracked[at] = Tracked::open(pid)?;
            return Ok(Some(at));
        }
        if self.tracked.len() == self.capacity {
            return Ok(None);
        }
        self.tracked.push(Tracked::open(pid)?);
        Ok(Some(self.tracked.len() - 1))
    }

    fn ticks(&self, time: Duration) -> u64 {
        time.as_secs() * self.ticks_per_s
            + u64::from(time.subsec_nanos()) * self.ticks_per_s / 1_000_000_000
    }

    /// What a process that is seen for the first time may have been born with: a fork shares its
    /// parent's pages, and they are not its growth.
    fn inherited_bytes(&self, at: usize) -> u64 {
        let tracked = &self.tracked[at];
        if tracked.len > 0 {
            return 0;
        }
        let mut buf = [0; 1024];
        let ppid = tracked
            .stat
            .read_short(&mut buf)
            .ok()
            .and_then(process::parse_stat)
            .map(|stat| stat.ppid);
        self.tracked
            .iter()
            .find(|t| Some(t.pid) == ppid && t.len > 0)
            .map_or(0, |parent| parent.history[0].resident_bytes)
    }
}

impl Tracked {
    fn open(pid: u32) -> std::io::Result<Self> {
        let mut path = [0; 32];
        // The pidfd first: while it says that the process lives, the number cannot have been re-used,
        // so the files are the same process's.
        let pidfd = signal::pidfd_open(pid)?;
        let stat = Reread::open_c(proc_path(&mut path, pid, "stat"))?;
        let statm = Reread::open_c(proc_path(&mut path, pid, "statm"))?;
        let mut buf = [0; 1024];
        let start_ticks = process::parse_stat(stat.read_short(&mut buf)?)
            .ok_or(std::io::ErrorKind::InvalidData)?
            .start_ticks;
        Ok(Self {
            pid,
            start_ticks,
            pidfd,
            stat,
            statm,
            history: Default::default(),
            len: 0,
            seen: 0,
            last: Member::default(),
            killed: Cell::new(false),
            foreign_at: None,
        })
    }

    /// Asked once where it is the user's, and again now and then where it is not: it may become so. Before a
    /// signal it is asked anew.
    fn is_foreign(&mut self, now: Duration, uid: u32) -> bool {
        let is_due = match self.foreign_at {
            Some(asked) => now.saturating_sub(asked) >= ASK_AGAIN,
            None => self.len == 0,
        };
        if is_due {
            let is_the_users = may_signal(uid, self.pid, self.pidfd.as_fd());
            self.foreign_at = (!is_the_users).then_some(now);
        }
        self.foreign_at.is_some()
    }

    fn read(&self, buf: &mut [u8], page_bytes: u64) -> std::io::Result<(Stat, Resident)> {
        let torn = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let stat = process::parse_stat(self.stat.read_short(buf)?).ok_or_else(torn)?;
        let resident =
            process::parse_statm(self.statm.read_short(buf)?, page_bytes).ok_or_else(torn)?;
        Ok((stat, resident))
    }

    /// Adds a sample, newest first; samples closer together than an eighth of the window replace one
    /// another.
    fn record(
        &mut self,
        now: Duration,
        stat: &Stat,
        resident: Resident,
        stall_ns: u64,
        past: Past,
        window: Duration,
    ) {
        let sample = Sample {
            at: now,
            resident_bytes: resident.anon_bytes + resident.shared_bytes,
            stall_ns,
            major_faults: stat.major_faults,
            minor_faults: stat.minor_faults,
            system_ticks: stat.system_ticks,
        };
        if self.len == 0 {
            let before = match past {
                Past::Unknown => sample,
                Past::Inherited(bytes) => Sample {
                    at: now,
                    resident_bytes: bytes.min(sample.resident_bytes),
                    ..Sample::default()
                },
            };
            self.history[1] = before;
            self.history[0] = sample;
            self.len = 2;
            return;
        }
        let settled = self.history[1].at;
        if now.saturating_sub(settled) >= window / (HISTORY as u32 - 1) {
            self.history.copy_within(0..HISTORY - 1, 1);
            self.len = (self.len + 1).min(HISTORY);
        }
        self.history[0] = sample;
    }

    /// What is said of it between SIGKILL and its end.
    fn dying(&self) -> Member {
        Member {
            growth_bytes: 0,
            stall_ns: 0,
            major_faults: 0,
            minor_faults: 0,
            system_ticks: 0,
            ..self.last
        }
    }

    fn view(&self, stat: &Stat, resident: Resident, leader: Option<u32>) -> Member {
        let (last, first) = (self.history[0], self.history[self.len - 1]);
        Member {
            pid: self.pid,
            ppid: stat.ppid,
            pgid: stat.pgid,
            start_ticks: self.start_ticks,
            comm: stat.comm,
            leader: leader == Some(self.pid),
            anon_bytes: resident.anon_bytes,
            shared_bytes: resident.shared_bytes,
            growth_bytes: last.resident_bytes.saturating_sub(first.resident_bytes),
            stall_ns: last.stall_ns.saturating_sub(first.stall_ns),
            major_faults: last.major_faults.saturating_sub(first.major_faults),
            minor_faults: last.minor_faults.saturating_sub(first.minor_faults),
            system_ticks: last.system_ticks.saturating_sub(first.system_ticks),
            test: 0,
            of_pytest: false,
        }
    }
}

/// `/proc/PID/NAME` without an allocation.
fn proc_path<'b>(buf: &'b mut [u8; 32], pid: u32, name: &str) -> &'b CStr {
    let mut rest = &mut buf[..31];
    // 10 digits and the longest name fit.
    let written = write!(rest, "/proc/{pid}/{name}").map(|()| rest.len());
    let len = 31 - written.unwrap_or(31);
    buf[len] = 0;
    CStr::from_bytes_until_nul(buf).unwrap_or(c"")
}

/// Whether the error means that the process ended, which is no loss.
fn gone(e: &std::io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
