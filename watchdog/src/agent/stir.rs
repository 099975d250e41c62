//! Whether the machine as a whole stirs: while it neither stalls nor fills, no target of it does, and of a thousand
//! that rest none need be looked at.
//!
//! Pure; the machine's figures are given. Which targets rest is the policy's to say.

use crate::watch::MachineFacts;
use std::time::Duration;

/// How often the machine is looked at for those that rest: what is not full for another 250 ms at the fastest
/// fill is looked at twice before.
pub const EVERY: Duration = Duration::from_millis(125);
/// Between two times that all are looked at because it stalls, or because it is as full again as it was.
const PAUSE: Duration = Duration::from_secs(1);
/// Less than an eighth of what a target that rests has left.
const FILLED_BYTES: u64 = 256 << 20;
/// Share of the time that some task of the machine waited for memory, in permille.
const STALLED_PERMILLE: u64 = 10;

/// Watches it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stir {
    /// When all were looked at last.
    stirred_at: Option<Duration>,
    /// What was available then.
    stirred_bytes: u64,
    /// The most that was available since.
    available_bytes: u64,
    /// Stall of the machine at the beginning of the second that is under way, and when that was.
    second: (Duration, u64),
}

impl Stir {
    /// Takes a look in; whether those that rest must be looked at now. A machine that does not tell stirs.
    pub fn see(&mut self, now: Duration, machine: Option<&MachineFacts>) -> bool {
        let some_us = machine.and_then(|machine| Some(machine.psi?.some_us));
        let available_bytes = machine.map_or(0, |machine| machine.meminfo.available_bytes);
        let (began, before_us) = self.second;
        let stalls = some_us.is_none_or(|us| {
            let permille = u128::from(us.saturating_sub(before_us)) * 1000;
            permille > now.saturating_sub(began).as_micros() * u128::from(STALLED_PERMILLE)
        });
        if now.saturating_sub(began) >= PAUSE {
            self.second = (now, some_us.unwrap_or(0));
        }
        self.available_bytes = self.available_bytes.max(available_bytes);
        let fills = self.available_bytes - available_bytes >= FILLED_BYTES;
        // No pause for one that gets fuller all the while: it may be full within it.
        let fills_on = self.stirred_bytes.saturating_sub(available_bytes) >= FILLED_BYTES;
        let may = self
            .stirred_at
            .is_none_or(|at| now.saturating_sub(at) >= PAUSE);
        let stirs = fills_on || may && (stalls || fills || self.stirred_at.is_none());
        if stirs {
            self.stirred_at = Some(now);
            self.stirred_bytes = available_bytes;
            self.available_bytes = available_bytes;
        }
        stirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::meminfo::MemInfo;
    use crate::host::psi::Psi;

    const GIB: u64 = 1 << 30;

    fn machine(available_bytes: u64, some_us: u64) -> MachineFacts {
        MachineFacts {
            meminfo: MemInfo {
                available_bytes,
                ..MemInfo::default()
            },
            psi: Some(Psi {
                some_us,
                full_us: 0,
            }),
            arc: None,
        }
    }

    /// How often it stirs in ten seconds of looks.
    fn stirs(available: impl Fn(u64) -> u64, some_us: impl Fn(u64) -> u64) -> usize {
        let mut stir = Stir::default();
        let looks = (0..80u64).map(|n| n * 125);
        let stirred = looks.filter(|&ms| {
            let now = Duration::from_millis(100_000 + ms);
            stir.see(now, Some(&machine(available(ms), some_us(ms))))
        });
        stirred.count()
    }

    #[test]
    fn a_calm_machine_stirs_once() {
        assert_eq!(stirs(|_| 20 * GIB, |_| 7), 1, "the first look");
        assert_eq!(stirs(|ms| (20 << 30) + (ms << 20), |_| 7), 1, "it empties");
    }

    #[test]
    fn one_that_fills_stirs_at_every_quarter_of_a_gibibyte() {
        assert_eq!(
            stirs(|ms| (20 << 30) - (ms << 20), |_| 7),
            27,
            "1,000 MiB/s"
        );
        assert_eq!(
            stirs(|ms| (80 << 30) - (ms << 22), |_| 7),
            80,
            "4,000 MiB/s"
        );
    }

    #[test]
    fn one_that_stalls_or_is_filled_again_and_again_stirs_every_second() {
        let to_and_fro = |ms| (20 << 30) - if ms % 250 == 0 { 0 } else { GIB };
        assert_eq!(stirs(to_and_fro, |_| 7), 11);
        assert_eq!(stirs(|_| 20 * GIB, |ms| ms * 20), 10, "2 %");
        assert_eq!(stirs(|_| 20 * GIB, |ms| ms * 5), 1, "0.5 %");
    }

    #[test]
    fn a_slow_filling_is_seen_in_the_end() {
        // 62 MiB a second: every four seconds.
        assert_eq!(stirs(|ms| (20 << 30) - (ms << 16), |_| 7), 3);
    }

    #[test]
    fn a_filling_after_a_long_calm_is_seen_at_the_next_look() {
        let sudden = |from_ms| move |ms| (20 << 30) - if ms >= from_ms { GIB } else { 0 };
        for from_ms in [4000, 4125, 4875] {
            let mut stir = Stir::default();
            let at = |ms| Duration::from_millis(100_000 + ms);
            let looks = (0..80u64).map(|n| n * 125);
            let mut stirred =
                looks.filter(|&ms| stir.see(at(ms), Some(&machine(sudden(from_ms)(ms), 7))));
            assert_eq!(stirred.nth(1), Some(from_ms), "after the first look of all");
        }
    }

    #[test]
    fn one_that_does_not_tell_stirs() {
        let mut stir = Stir::default();
        let at = Duration::from_secs;
        assert!(stir.see(at(1), None));
        assert!(stir.see(at(2), None));
    }
}
