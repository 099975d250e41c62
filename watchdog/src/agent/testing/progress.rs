//! Whether a session of pytest goes on after one of its processes has died: pytest-xdist can wait for ever then.
//! Pure. Who belongs to a session, and what is done to it, is [`super::eye`]'s.

use std::time::Duration;

/// Nobody runs a test, collects, or computes for so long. A worker is there again in a third of a second.
const NO_PROGRESS: Duration = Duration::from_secs(30);
/// Less CPU time than this in that time is waiting: one part in a hundred.
const NO_WORK: Duration = Duration::from_millis(300);
/// How long pytest is given to end with its reports when it is interrupted.
const INTERRUPTED: Duration = Duration::from_secs(10);

/// CPU time that was spent up to a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// By the processes of the session, and by those of theirs that are over and were waited for. It falls when
    /// one ends, and rises again when it is waited for.
    pub(super) session: Duration,
    /// By the whole target, whoever is over: more than the session's. `None` where no cgroup counts it.
    pub(super) target: Option<Duration>,
}

/// What is to be done to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Interrupt it, which has not gone on for so long.
    Interrupt { idle: Duration },
    /// End it, which has not ended by itself.
    End,
}

/// A session that has lost one of its processes, while its first lives.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// What its processes have spent as far as it rose, and what they had at the last look.
    worked: Duration,
    last: Option<Duration>,
    idle_since: Option<(Duration, Spent)>,
    interrupted: Option<Duration>,
    was_ended: bool,
}

impl Progress {
    /// Takes in whether something of the session runs, and what was spent so far. Each order is given once.
    pub(super) fn step(&mut self, now: Duration, runs: bool, spent: Spent) -> Option<Order> {
        if let Some(at) = self.interrupted {
            let is_over = !self.was_ended && now.saturating_sub(at) >= INTERRUPTED;
            self.was_ended |= is_over;
            return is_over.then_some(Order::End);
        }
        let last = self.last.replace(spent.session).unwrap_or(spent.session);
        self.worked += spent.session.saturating_sub(last);
        if runs {
            self.idle_since = None;
            return None;
        }
        let so_far = Spent {
            session: self.worked,
            ..spent
        };
        let (since, then) = *self.idle_since.get_or_insert((now, so_far));
        let idle = now.saturating_sub(since);
        if idle < NO_PROGRESS {
            return None;
        }
        if so_far.since(&then) > NO_WORK {
            self.idle_since = Some((now, so_far));
            return None;
        }
        self.interrupted = Some(now);
        Some(Order::Interrupt { idle })
    }
}

impl Spent {
    /// What the session spent since: not more than either tells.
    fn since(&self, then: &Self) -> Duration {
        let session = self.session.saturating_sub(then.session);
        let target = self.target.zip(then.target);
        target.map_or(session, |(now, then)| now.saturating_sub(then).min(session))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn spent(ms: u64) -> Spent {
        Spent {
            session: Duration::from_millis(ms),
            target: None,
        }
    }

    #[test]
    fn who_waits_is_interrupted_once_and_ended_once() {
        let mut progress = Progress::default();
        assert_eq!(progress.step(s(100), false, spent(0)), None);
        assert_eq!(progress.step(s(129), false, spent(50)), None);
        let order = progress.step(s(131), false, spent(100));
        assert_eq!(order, Some(Order::Interrupt { idle: s(31) }));
        assert_eq!(progress.step(s(140), false, spent(100)), None);
        assert_eq!(progress.step(s(141), false, spent(100)), Some(Order::End));
        assert_eq!(progress.step(s(200), false, spent(100)), None);
    }

    #[test]
    fn a_test_that_runs_and_work_between_tests_are_progress() {
        let mut progress = Progress::default();
        progress.step(s(0), false, spent(0));
        assert_eq!(progress.step(s(20), true, spent(0)), None);
        assert_eq!(progress.step(s(40), false, spent(0)), None);
        let computes = progress.step(s(70), false, spent(5000));
        assert_eq!(computes, None);
        assert_eq!(progress.step(s(99), false, spent(5100)), None);
        let order = progress.step(s(100), false, spent(5100));
        assert_eq!(order, Some(Order::Interrupt { idle: s(30) }));
    }

    #[test]
    fn work_of_processes_that_are_over_counts_though_what_they_spent_goes_with_them() {
        let mut progress = Progress::default();
        // Each second one comes, works for 40 ms and goes, and nobody waits for it.
        for second in 0..120 {
            let at = s(second);
            assert_eq!(progress.step(at, false, spent(0)), None, "{second}");
            let half = at + Duration::from_millis(500);
            assert_eq!(progress.step(half, false, spent(40)), None, "{second}");
        }
    }

    #[test]
    fn what_a_dead_process_had_spent_is_no_work_when_it_is_waited_for() {
        let spent = |session: u64, target: u64| Spent {
            session: s(session),
            target: Some(s(target)),
        };
        let mut progress = Progress::default();
        progress.step(s(0), false, spent(1, 9));
        progress.step(s(10), false, spent(6, 9));
        let order = progress.step(s(30), false, spent(6, 9));
        assert_eq!(order, Some(Order::Interrupt { idle: s(30) }));
        let mut progress = Progress::default();
        progress.step(s(0), false, spent(1, 9));
        let order = progress.step(s(30), false, spent(1, 30));
        assert!(order.is_some(), "others' work is none of the session's");
    }
}
