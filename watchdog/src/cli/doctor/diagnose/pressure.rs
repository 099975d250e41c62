//! Pressure stall information.

use super::{Check, Group, MachineFacts, Severity};
use crate::cli::doctor::probe::Feature;

pub(super) fn psi(facts: &MachineFacts) -> Option<Check> {
    let check = |found: String| Check::fine("psi", Group::Pressure, found);
    Some(match &facts.probes.psi {
        Feature::Works => check("on".into()),
        Feature::Missing(why) => check(format!("off: {why}"))
            .costs(
                Severity::Important,
                "every decision by stall: only memory that runs out is seen",
            )
            .advise(
                "boot with psi=1 on the kernel command line (CONFIG_PSI=y)",
                None::<String>,
            ),
    })
}

/// Only multiples of 2 s are allowed without CAP_SYS_RESOURCE (kernel/sched/psi.c,
/// `psi_trigger_create`); before 6.5 no trigger at all.
pub(super) fn triggers(facts: &MachineFacts) -> Option<Check> {
    if !facts.probes.psi.works() {
        return None;
    }
    let allowed: Vec<_> = facts
        .probes
        .psi_triggers
        .iter()
        .filter(|t| t.outcome.works())
        .map(|t| t.window_ms)
        .collect();
    let shortest = facts.probes.psi_triggers.iter().map(|t| t.window_ms).min();
    let check = |found: String| Check::fine("psi_triggers", Group::Pressure, found);
    Some(match allowed.first() {
        Some(window) if Some(*window) == shortest => check(format!("windows from {window} ms")),
        Some(window) => check(format!("windows from {window} ms"))
            .costs(
                Severity::Optional,
                "nothing you will notice: short windows are measured by memwatch",
            )
            .advise("CAP_SYS_RESOURCE allows shorter ones", None::<String>),
        None => check("refused".into()).costs(
            Severity::Optional,
            "a second way to be woken: memwatch samples instead",
        ),
    })
}
