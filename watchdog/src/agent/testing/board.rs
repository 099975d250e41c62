//! Which processes are of a session of pytest, and which of them run a test that can be asked to fail: put up by
//! the slow thread that reads the slots, read by the deciding thread at its looks. A few atomics; nobody waits.

use crate::watch::Member;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most processes of pytest at a time.
const PLACES: usize = 128;

/// The board.
#[derive(Debug)]
pub struct Board([Place; PLACES]);

#[derive(Debug, Default)]
struct Place {
    /// Pid above, the test's serial below; 0 while it is free.
    who: AtomicU64,
    start_ticks: AtomicU64,
    /// What the process has spent in reclaim so far, in ns, as the deciding thread saw it last, this one or the
    /// daemon's; and whose that is.
    stall_ns: AtomicU64,
    stalled: AtomicU64,
}

/// A process and its test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The process.
    pub pid: u32,
    /// With the pid its identity.
    pub start_ticks: u64,
    /// The test; 0 if it runs none that can be asked to fail.
    pub serial: u32,
}

impl Default for Board {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Place::default()))
    }
}

impl Board {
    /// Puts up these and no others; of more than there is room for, the first.
    pub fn put_up(&self, notices: impl Iterator<Item = Notice>) {
        let mut places = self.0.iter();
        for notice in notices {
            let Some(place) = places.next() else {
                return;
            };
            // A reader between the two takes the pid for somebody who started at another time: nobody.
            place
                .start_ticks
                .store(notice.start_ticks, Ordering::Release);
            let who = u64::from(notice.pid) << 32 | u64::from(notice.serial);
            place.who.store(who, Ordering::Release);
        }
        for place in places {
            place.who.store(0, Ordering::Release);
        }
    }

    /// Puts down what each has spent in reclaim so far, in ns, given its pid and serial; `None` where that is not
    /// known.
    pub fn put_down_stalls(&self, stall_ns: impl Fn(u32, u32) -> Option<u64>) {
        for place in &self.0 {
            let who = place.who.load(Ordering::Acquire);
            if who == 0 {
                return;
            }
            // A reader between the two finds another's name, and takes nothing.
            place.stalled.store(0, Ordering::Release);
            if let Some(stall_ns) = stall_ns((who >> 32) as u32, who as u32) {
                place.stall_ns.store(stall_ns, Ordering::Release);
                place.stalled.store(who, Ordering::Release);
            }
        }
    }

    /// What a process has spent in reclaim, by the last look of the deciding thread while it ran this test.
    pub fn stall_ns(&self, notice: &Notice) -> Option<u64> {
        let who = u64::from(notice.pid) << 32 | u64::from(notice.serial);
        let place = self
            .0
            .iter()
            .find(|place| place.stalled.load(Ordering::Acquire) == who)?;
        let stall_ns = place.stall_ns.load(Ordering::Acquire);
        (place.stalled.load(Ordering::Acquire) == who).then_some(stall_ns)
    }

    /// Marks those of `members` that are of a session, with the serial of the test that can be asked to fail.
    pub fn mark(&self, members: &mut [Member]) {
        for place in &self.0 {
            let who = place.who.load(Ordering::Acquire);
            if who == 0 {
                return;
            }
            let (pid, serial) = ((who >> 32) as u32, who as u32);
            let start_ticks = place.start_ticks.load(Ordering::Acquire);
            let named = members
                .iter_mut()
                .find(|m| m.pid == pid && m.start_ticks == start_ticks);
            if let Some(member) = named {
                member.test = serial;
                member.of_pytest = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pid: u32, start_ticks: u64) -> Member {
        Member {
            pid,
            start_ticks,
            ..Member::default()
        }
    }

    #[test]
    fn who_is_put_up_is_marked_and_nobody_else() {
        let board = Board::default();
        let notice = |pid, serial| Notice {
            pid,
            start_ticks: 5,
            serial,
        };
        board.put_up([notice(7, 3), notice(8, 4)].into_iter());
        let mut members = [member(7, 5), member(8, 6), member(9, 5)];
        board.mark(&mut members);
        assert_eq!(
            members.map(|m| (m.test, m.of_pytest)),
            [(3, true), (0, false), (0, false)],
            "8 is another process of that number"
        );
        assert_eq!(board.stall_ns(&notice(8, 4)), None, "not looked at yet");
        board.put_down_stalls(|pid, serial| (serial == 4).then_some(u64::from(pid) * 100));
        assert_eq!(board.stall_ns(&notice(7, 3)), None, "not known");
        assert_eq!(board.stall_ns(&notice(8, 4)), Some(800));
        assert_eq!(board.stall_ns(&notice(8, 5)), None, "another test");
        board.put_up([notice(9, 1)].into_iter());
        let mut members = [member(7, 5), member(8, 5), member(9, 5)];
        board.mark(&mut members);
        assert_eq!(members.map(|m| m.test), [0, 0, 1]);
        board.put_up([notice(9, 0)].into_iter());
        let mut members = [member(9, 5)];
        board.mark(&mut members);
        let idle = members.map(|m| (m.test, m.of_pytest));
        assert_eq!(idle, [(0, true)], "a controller");
        board.put_up(std::iter::empty());
        let mut members = [member(8, 5), member(9, 5)];
        board.mark(&mut members);
        assert_eq!(members.map(|m| m.test), [0, 0], "none runs any more");
        let more = (1..=PLACES as u32 + 1).map(|pid| notice(pid, 1));
        board.put_up(more);
        let mut members = [member(PLACES as u32, 5), member(PLACES as u32 + 1, 5)];
        board.mark(&mut members);
        assert_eq!(members.map(|m| m.test), [1, 0]);
    }
}
