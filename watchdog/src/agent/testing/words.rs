//! What is said of a test to the person who wrote it. Pure.

use crate::incident::{Quantity, Rule, Text, Unit, bytes, duration};
use crate::watch::Excess;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// Over which limit, and by how much: `grew by 812 MiB, and may by 500 MiB`.
pub(super) fn excess(excess: &Excess) -> String {
    match excess {
        Excess::Memory {
            growth_bytes,
            limit_bytes,
        } => format!(
            "this test grew by {}, and may by {}",
            bytes(*growth_bytes),
            bytes(*limit_bytes)
        ),
        Excess::Time { elapsed, limit } => format!(
            "this test took {}, and may take {}",
            duration(elapsed.as_micros() as u64),
            duration(limit.as_micros() as u64)
        ),
    }
}

/// Where the person who reads of a failed test finds the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Rest {
    /// In the file of `--report`.
    Report(PathBuf),
    /// Among the incidents that are kept.
    Kept,
    /// Nowhere but on the terminal.
    Summary,
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report(path) => {
                let path = Text::of_name(path.as_os_str().as_bytes());
                write!(f, "The report is in {}.", path.as_str())
            }
            Self::Kept => f.write_str("The report: memwatch incidents show last."),
            Self::Summary => f.write_str("The summary at the end of the run has the rest."),
        }
    }
}

/// What was short when a test was failed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    /// Nothing but what the test may take by itself.
    Nothing,
    /// What the target may hold, if it is known how much that is.
    Target(Option<u64>),
    /// The machine's memory.
    Machine,
}

/// What a test that is failed used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// By how much it grew, if the reason does not tell.
    pub(super) growth_bytes: Option<u64>,
    /// What its process held.
    pub(super) rss_bytes: u64,
}

/// What the failed test reports: why, what it used, what the limit was, and where the rest is.
pub(super) fn failed(why: &str, used: Option<Used>, short: Short, rest: &Rest) -> String {
    let mut text = format!("memwatch failed this test: {why}.");
    if let Some(used) = used {
        let rss = bytes(used.rss_bytes);
        text += &match used.growth_bytes {
            Some(growth) => format!(
                " It grew by {}, and its process holds {rss}.",
                bytes(growth)
            ),
            None => format!(" Its process holds {rss}."),
        };
    }
    match short {
        Short::Target(Some(limit)) => text += &format!(" The limit is {}.", bytes(limit)),
        Short::Machine => text += " The machine is out of memory.",
        Short::Nothing | Short::Target(None) => {}
    }
    format!("{text} {rest}")
}

/// For the record: the rule, what was seen, what is allowed.
pub(super) fn quantities(excess: &Excess) -> (Rule, Quantity, Quantity) {
    let quantity = |value: u64, unit: Unit, text: String| Quantity {
        value,
        unit,
        text: text.into(),
    };
    match *excess {
        Excess::Memory {
            growth_bytes,
            limit_bytes,
        } => (
            Rule::TestMemory,
            quantity(
                growth_bytes,
                Unit::Bytes,
                format!("the test grew by {}", bytes(growth_bytes)),
            ),
            quantity(
                limit_bytes,
                Unit::Bytes,
                format!("{} or less", bytes(limit_bytes)),
            ),
        ),
        Excess::Time { elapsed, limit } => {
            let [elapsed, limit] = [elapsed, limit].map(|time| time.as_micros() as u64);
            (
                Rule::TestTimeout,
                quantity(
                    elapsed,
                    Unit::Us,
                    format!("the test took {}", duration(elapsed)),
                ),
                quantity(limit, Unit::Us, format!("{} or less", duration(limit))),
            )
        }
    }
}

/// The same for a run in which nothing goes on any more.
pub(super) fn no_progress(idle: Duration) -> (Quantity, Quantity) {
    let idle_us = idle.as_micros() as u64;
    let observed = format!(
        "no test ran and nothing was computed for {} after a process of pytest had died",
        duration(idle_us)
    );
    let quantity = |value: u64, text: String| Quantity {
        value,
        unit: Unit::Us,
        text: text.into(),
    };
    (
        quantity(idle_us, observed),
        quantity(30_000_000, "30s or less".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_failed_test_says_what_it_used_what_the_limit_was_and_where_the_rest_is() {
        let used = |growth: Option<u64>| {
            Some(Used {
                growth_bytes: growth,
                rss_bytes: 950 * MIB,
            })
        };
        let report = Rest::Report("/ci/out\n.json".into());
        let why = "limit full in 35ms (allowed: 2s or more)";
        let grew = used(Some(812 * MIB));
        let limit = Short::Target(Some(1024 * MIB));
        assert_eq!(
            failed(why, grew, limit, &report),
            "memwatch failed this test: limit full in 35ms (allowed: 2s or more). It grew by 812 MiB, and its process \
             holds 950 MiB. The limit is 1.0 GiB. The report is in /ci/out\\n.json."
        );
        assert_eq!(
            failed("machine full in 1s", grew, Short::Machine, &Rest::Kept),
            "memwatch failed this test: machine full in 1s. It grew by 812 MiB, and its process holds 950 MiB. The \
             machine is out of memory. The report: memwatch incidents show last."
        );
        let own = "this test grew by 812 MiB, and may by 500 MiB";
        assert_eq!(
            failed(own, used(None), Short::Nothing, &Rest::Summary),
            "memwatch failed this test: this test grew by 812 MiB, and may by 500 MiB. Its process holds 950 MiB. The \
             summary at the end of the run has the rest."
        );
    }
}
