//! Whether systemd-oomd makes progress, from what `/proc` shows of it. Pure.
//!
//! Not by asking it: its bus answers while it does nothing, and hangs while it is fine. A healthy one with
//! something to watch wakes once a second. What is done about an ailment, and after how long, is
//! [`super::takeover`]'s.

use super::window::Window;
use crate::host::oomd::Look;
use serde::Serialize;
use std::time::Duration;

/// What is wrong with one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ailment {
    /// A signal or a debugger holds it.
    Stopped,
    /// It has not run for [`SILENCE`] though it had something to watch.
    Silent,
    /// Its own pages keep coming back from the disk while the machine is short of memory. Each of these
    /// waits is a context switch, so that it looks busy.
    Paging,
    /// It was started again and again and does not live long enough to see a limit exceeded.
    Restarting,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It makes progress, or has nothing to do.
    Well,
    /// It is there and of no use.
    Unwell(Ailment),
    /// There is no process, or a dead one.
    Gone,
}

/// The longest that a healthy one stays away while it has something to watch: four of its rounds.
pub const SILENCE: Duration = Duration::from_secs(4);
/// A look this long after the last one says nothing about what lay between: whoever held us up (a paused
/// virtual machine) may have held it up as well.
const BLIND: Duration = Duration::from_secs(1);
/// Its major faults are counted over this much.
const PAGING_WINDOW: Duration = Duration::from_secs(4);
/// Major faults a second from which it pages itself. Healthy ones showed 2 in their life; one without memory
/// to run in, 40 to 70 a second.
const PAGING_PER_S: i64 = 16;
/// This many starts within [`RESTARTS_WITHIN`] are a crash loop. An upgrade takes two at most.
const RESTARTS: usize = 3;
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);
/// One that lives this long has left its crash loop.
const SETTLED: Duration = Duration::from_secs(10);

/// Its life as far as it was seen.
#[derive(Clone, Debug)]
pub struct Peer {
    life: Option<Life>,
    /// Who was seen last, also after its end.
    known: Option<(u32, u64)>,
    /// When the latest starts were seen, the newest first; not that of the first process.
    starts: [Option<Duration>; RESTARTS],
    faults: Window,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    since: Duration,
    looked_at: Duration,
    switches: u64,
    silent_for: Duration,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            life: None,
            known: None,
            starts: [None; RESTARTS],
            faults: Window::new(PAGING_WINDOW),
        }
    }
}

impl Peer {
    /// Takes a look in; `None` if there is no process. `watches` is whether it has anything to watch, `short`
    /// whether the machine is short of memory.
    pub fn see(
        &mut self,
        now: Duration,
        look: Option<&Look>,
        watches: bool,
        short: bool,
    ) -> Health {
        let Some(look) = look.filter(|look| !matches!(look.state, b'Z' | b'X' | b'x')) else {
            self.life = None;
            return Health::Gone;
        };
        let life = self.live(now, look);
        let gap = now.saturating_sub(life.looked_at);
        let ran = look.switches != life.switches;
        let silent_for = match () {
            _ if ran || !watches => Duration::ZERO,
            _ => life.silent_for + gap.min(BLIND),
        };
        self.life = Some(Life {
            looked_at: now,
            switches: look.switches,
            silent_for,
            ..life
        });
        self.faults.push(now, look.major_faults);
        if matches!(look.state, b'T' | b't') {
            Health::Unwell(Ailment::Stopped)
        } else if silent_for >= SILENCE {
            Health::Unwell(Ailment::Silent)
        } else if short && self.pages() {
            Health::Unwell(Ailment::Paging)
        } else if self.restarts(now) && now.saturating_sub(life.since) < SETTLED {
            Health::Unwell(Ailment::Restarting)
        } else {
            Health::Well
        }
    }

    /// The life that `look` belongs to: the one that is known, or a new one.
    fn live(&mut self, now: Duration, look: &Look) -> Life {
        let identity = (look.pid, look.start_ticks);
        match self.life {
            Some(life) if self.known == Some(identity) => return life,
            _ => {}
        }
        if self.known.is_some_and(|known| known != identity) {
            self.starts.rotate_right(1);
            self.starts[0] = Some(now);
        }
        self.known = Some(identity);
        self.faults.clear();
        Life {
            since: now,
            looked_at: now,
            switches: look.switches,
            silent_for: Duration::ZERO,
        }
    }

    fn pages(&self) -> bool {
        let change = self.faults.change(PAGING_WINDOW);
        change.is_some_and(|change| change.per_second() >= PAGING_PER_S)
    }

    fn restarts(&self, now: Duration) -> bool {
        let oldest = self.starts[RESTARTS - 1];
        oldest.is_some_and(|at| now.saturating_sub(at) < RESTARTS_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEALTHY: Look = Look {
        pid: 812,
        start_ticks: 700,
        state: b'S',
        switches: 80,
        major_faults: 2,
    };

    const fn half_seconds(n: u64) -> Duration {
        Duration::from_millis(500 * n)
    }

    /// A look every half second for `for_s`; what the last one came to. `change` makes the `n`th look.
    fn watch(peer: &mut Peer, from: u64, count: u64, change: impl Fn(u64) -> Look) -> Health {
        let mut health = Health::Gone;
        for n in from..from + count {
            health = peer.see(half_seconds(n), Some(&change(n)), true, true);
        }
        health
    }

    fn working(n: u64) -> Look {
        Look {
            switches: 80 + n / 2,
            ..HEALTHY
        }
    }

    #[test]
    fn one_that_wakes_once_a_second_is_well() {
        assert_eq!(watch(&mut Peer::default(), 0, 500, working), Health::Well);
    }

    #[test]
    fn silence_counts_only_while_it_has_something_to_watch() {
        let mut peer = Peer::default();
        for n in 0..100 {
            let health = peer.see(half_seconds(n), Some(&HEALTHY), false, false);
            assert_eq!(health, Health::Well);
        }
        // Nor does the silence of before count once it has.
        assert_eq!(watch(&mut peer, 100, 7, |_| HEALTHY), Health::Well);
        assert_eq!(
            watch(&mut peer, 107, 1, |_| HEALTHY),
            Health::Unwell(Ailment::Silent)
        );
        assert_eq!(watch(&mut peer, 109, 1, working), Health::Well);
    }

    #[test]
    fn a_pause_that_held_us_up_is_no_silence() {
        let mut peer = Peer::default();
        let at = |s| Duration::from_secs(s);
        peer.see(at(0), Some(&HEALTHY), true, false);
        assert_eq!(peer.see(at(60), Some(&HEALTHY), true, false), Health::Well);
    }

    #[test]
    fn a_stop_is_seen_at_once_and_so_is_its_end() {
        let mut peer = Peer::default();
        let stopped = |state| move |_| Look { state, ..HEALTHY };
        for state in [b'T', b't'] {
            let health = watch(&mut peer, 0, 1, stopped(state));
            assert_eq!(health, Health::Unwell(Ailment::Stopped));
        }
        for dead in [b'Z', b'X'] {
            assert_eq!(watch(&mut peer, 1, 1, stopped(dead)), Health::Gone);
        }
        assert_eq!(peer.see(half_seconds(3), None, true, true), Health::Gone);
        assert_eq!(watch(&mut peer, 4, 1, working), Health::Well);
    }

    #[test]
    fn one_that_pages_itself_looks_busy_and_is_not_well() {
        let paging = |n| Look {
            switches: 80 + 40 * n,
            major_faults: 2 + 20 * n,
            ..HEALTHY
        };
        let mut peer = Peer::default();
        assert_eq!(watch(&mut peer, 0, 8, paging), Health::Well, "too soon");
        assert_eq!(
            watch(&mut peer, 8, 1, paging),
            Health::Unwell(Ailment::Paging)
        );
        // Pages come back after a shortage, too, and then that is no ailment.
        let look = paging(9);
        assert_eq!(
            peer.see(half_seconds(9), Some(&look), true, false),
            Health::Well
        );
    }

    #[test]
    fn a_crash_loop_is_none_of_a_restart() {
        let born = |pid| move |n: u64| Look { pid, ..working(n) };
        let mut peer = Peer::default();
        assert_eq!(watch(&mut peer, 0, 2, born(1)), Health::Well);
        assert_eq!(watch(&mut peer, 2, 2, born(2)), Health::Well, "a restart");
        assert_eq!(watch(&mut peer, 4, 2, born(3)), Health::Well, "an upgrade");
        let restarting = Health::Unwell(Ailment::Restarting);
        assert_eq!(watch(&mut peer, 6, 20, born(4)), restarting);
        assert_eq!(watch(&mut peer, 26, 1, born(4)), Health::Well, "it lives");
    }

    proptest! {
        /// Whoever runs in every look, with nothing else to see of it, is well, however the looks come.
        #[test]
        fn progress_is_health(gaps in proptest::collection::vec(1u64..5000, 1..200)) {
            let mut peer = Peer::default();
            let mut at = 0;
            for (n, gap) in gaps.into_iter().enumerate() {
                at += gap;
                let look = Look { switches: n as u64, ..HEALTHY };
                let health = peer.see(Duration::from_millis(at), Some(&look), true, true);
                prop_assert_eq!(health, Health::Well);
            }
        }

        /// Whoever never runs while it should is found out within the time that is promised.
        #[test]
        fn silence_is_found(gaps in proptest::collection::vec(1u64..1000, 1..200)) {
            let mut peer = Peer::default();
            let mut at = 0;
            for gap in gaps {
                peer.see(Duration::from_millis(at), Some(&HEALTHY), true, false);
                at += gap;
            }
            let health = peer.see(Duration::from_millis(at), Some(&HEALTHY), true, false);
            prop_assert_eq!(health == Health::Unwell(Ailment::Silent), at >= 4000);
        }
    }
}
