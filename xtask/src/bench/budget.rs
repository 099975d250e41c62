//! When was a stall's budget used up? The stall rule by its definition, held against a recording of
//! looks at every millisecond: pure, and not with memwatch's own code, since it judges that. Between
//! two looks counters are taken to grow in a straight line.

use anyhow::{Context, Result};
use serde_json::Value;

/// One recorded look; times in µs of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Look {
    pub(crate) at_us: u64,
    pub(crate) current_bytes: f64,
    pub(crate) limit_bytes: f64,
    /// Time that all of the target waited for memory, and that any of it did.
    pub(crate) full_us: f64,
    pub(crate) some_us: f64,
    /// Time that all of it waited for the disk.
    pub(crate) io_full_us: f64,
    pub(crate) refault_pages: f64,
}

/// What the stall rule holds a target against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StallRule {
    pub(crate) window_us: u64,
    pub(crate) full_permille: f64,
    pub(crate) some_permille: f64,
    pub(crate) thrash_permille: f64,
    pub(crate) refault_pages_per_s: f64,
    pub(crate) near_limit_permille: f64,
}

/// The looks of a recording, of a target with a limit.
///
/// # Errors
/// If a line is no look.
pub(crate) fn looks(recording: &str) -> Result<Vec<Look>> {
    let (mut refault_pages, mut io_full_us) = (0.0, 0.0);
    recording
        .lines()
        .map(|line| {
            let look: Value = serde_json::from_str(line)?;
            let target = &look["target"];
            // Not every look reads the breakdown and I/O pressure: what they said last stands.
            refault_pages = target["stat"]["refault_pages"]
                .as_f64()
                .unwrap_or(refault_pages);
            io_full_us = target["io_psi"]["full_us"].as_f64().unwrap_or(io_full_us);
            let number = |value: &Value| value.as_f64().context("a look without a figure");
            Ok(Look {
                at_us: look["at_us"].as_u64().context("a look without a time")?,
                current_bytes: number(&target["current_bytes"])?,
                limit_bytes: number(&target["limit_bytes"])?,
                full_us: number(&target["psi"]["full_us"])?,
                some_us: number(&target["psi"]["some_us"])?,
                io_full_us,
                refault_pages,
            })
        })
        .collect()
}

impl StallRule {
    /// The rule that a run went by, from its report.
    ///
    /// # Errors
    /// If the report does not tell.
    pub(crate) fn of_report(report: &Value) -> Result<Self> {
        let setting = |name: &str| {
            let number = report["settings"][name].as_f64();
            number.with_context(|| format!("the report has no setting {name}"))
        };
        Ok(Self {
            window_us: report["interventions"][0]["duration_us"]
                .as_u64()
                .context("the report does not tell how long the stall lasted")?,
            full_permille: setting("stall_full_permille")?,
            some_permille: setting("stall_some_permille")?,
            thrash_permille: setting("thrash_full_permille")?,
            refault_pages_per_s: setting("refault_pages_per_s")?,
            near_limit_permille: setting("near_limit_permille")?,
        })
    }

    /// The first millisecond at which the rule holds.
    pub(crate) fn first_held_us(&self, looks: &[Look]) -> Option<u64> {
        let (first, last) = looks.first().zip(looks.last())?;
        let first_whole_window = first.at_us + self.window_us;
        (first_whole_window..=last.at_us)
            .step_by(1_000)
            .find(|&at_us| self.holds(looks, at_us))
    }

    fn holds(&self, looks: &[Look], at_us: u64) -> bool {
        let now = at(looks, at_us);
        let since = |us: u64| at(looks, at_us - us);
        let (whole, half, quarter) = (
            since(self.window_us),
            since(self.window_us / 2),
            since(self.window_us / 4),
        );

        let refaults_per_s =
            (now.refault_pages - half.refault_pages) / (self.window_us as f64 / 2.0 / 1_000_000.0);
        let short = now.current_bytes >= now.limit_bytes * self.near_limit_permille / 1000.0
            && refaults_per_s >= self.refault_pages_per_s;

        let stalled = |stall_us: fn(&Look) -> f64, permille: f64| {
            let share =
                |then: &Look, us: u64| (stall_us(&now) - stall_us(then)) / us as f64 * 1000.0;
            // Lately too: it may be getting better already.
            share(&whole, self.window_us) >= permille
                && share(&quarter, self.window_us / 4) >= permille / 2.0
        };
        // A target that thrashes waits on the disk for its own pages.
        let thrashes =
            (now.full_us - whole.full_us) / self.window_us as f64 * 1000.0 >= self.thrash_permille;
        let lost = if thrashes {
            |look: &Look| look.full_us + look.io_full_us
        } else {
            |look: &Look| look.full_us
        };
        short
            && (stalled(lost, self.full_permille)
                || stalled(|look| look.some_us, self.some_permille))
    }
}

/// The counters at a time between the first look and the last.
fn at(looks: &[Look], at_us: u64) -> Look {
    let next = looks.partition_point(|look| look.at_us <= at_us);
    let before = looks[next.saturating_sub(1)];
    let Some(after) = looks.get(next) else {
        return before;
    };
    let share = (at_us.saturating_sub(before.at_us)) as f64 / (after.at_us - before.at_us) as f64;
    let between =
        |value: fn(&Look) -> f64| value(&before) + (value(after) - value(&before)) * share;
    Look {
        at_us,
        current_bytes: between(|look| look.current_bytes),
        limit_bytes: after.limit_bytes,
        full_us: between(|look| look.full_us),
        some_us: between(|look| look.some_us),
        io_full_us: between(|look| look.io_full_us),
        refault_pages: between(|look| look.refault_pages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: StallRule = StallRule {
        window_us: 3_000_000,
        full_permille: 300.0,
        some_permille: 600.0,
        thrash_permille: 50.0,
        refault_pages_per_s: 512.0,
        near_limit_permille: 950.0,
    };

    /// Five calm seconds, then a stall of which `full` and `io_full` are these shares; a look each 90 ms.
    fn stall_from_5s(full: f64, io_full: f64, refaults_per_s: f64) -> Vec<Look> {
        (0..120)
            .map(|number| {
                let at_us: u64 = number * 90_000;
                let stalled_us = at_us.saturating_sub(5_000_000) as f64;
                Look {
                    at_us,
                    current_bytes: 99.0,
                    limit_bytes: 100.0,
                    full_us: stalled_us * full,
                    some_us: stalled_us * full,
                    io_full_us: stalled_us * io_full,
                    refault_pages: stalled_us / 1e6 * refaults_per_s,
                }
            })
            .collect()
    }

    fn assert_held_at(looks: &[Look], expected_us: u64) {
        let held = RULE.first_held_us(looks).expect("it holds");
        // Lines between looks bend where the stall begins.
        assert!(
            held.abs_diff(expected_us) <= 90_000,
            "{held} for {expected_us}"
        );
    }

    #[test]
    fn the_budget_is_a_share_of_the_window() {
        // 900 ms of it at full stall.
        assert_held_at(&stall_from_5s(1.0, 0.0, 5000.0), 5_900_000);
        assert_held_at(&stall_from_5s(0.3, 0.3, 5000.0), 6_500_000);
    }

    #[test]
    fn a_window_must_be_whole() {
        let looks: Vec<_> = stall_from_5s(1.0, 0.0, 5000.0)
            .into_iter()
            .filter(|look| look.at_us >= 4_950_000)
            .collect();
        assert_held_at(&looks, 7_950_000);
    }

    #[test]
    fn waiting_for_the_disk_alone_uses_nothing_up() {
        assert_eq!(RULE.first_held_us(&stall_from_5s(0.0, 1.0, 5000.0)), None);
        assert_eq!(RULE.first_held_us(&stall_from_5s(1.0, 0.0, 100.0)), None);
        assert_eq!(RULE.first_held_us(&[]), None);
    }

    #[test]
    fn a_look_is_read_from_its_line() {
        let line = r#"{"at_us":7,"target":{"current_bytes":1,"limit_bytes":2,"stat":{"refault_pages":3},
            "psi":{"some_us":4,"full_us":5},"io_psi":{"some_us":6,"full_us":7}},"victim_gone":false}"#;
        let expected = Look {
            at_us: 7,
            current_bytes: 1.0,
            limit_bytes: 2.0,
            full_us: 5.0,
            some_us: 4.0,
            io_full_us: 7.0,
            refault_pages: 3.0,
        };
        assert_eq!(looks(&line.replace('\n', "")).expect("a look"), [expected]);
    }
}
