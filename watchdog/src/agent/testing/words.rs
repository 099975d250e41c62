//! What is said of a test to the person who wrote it. Pure.

use crate::incident::{Quantity, Rule, Unit, bytes, duration};
use crate::watch::Excess;
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

/// What the failed test reports.
pub(super) fn failed(why: &str) -> String {
    format!("memwatch failed this test: {why}; the summary at the end of the run has the rest")
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
