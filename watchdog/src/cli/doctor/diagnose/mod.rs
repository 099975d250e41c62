//! The judgement: pure, from facts to checks. One small rule per check, one file per subject.

mod cgroups;
mod kernel;
mod memory;
mod peers;
mod pressure;
mod rights;

use super::check::{Check, Group, Severity};
use super::facts::MachineFacts;

type Rule = fn(&MachineFacts) -> Option<Check>;

/// In the order in which they are printed.
const RULES: &[Rule] = &[
    kernel::release,
    kernel::btf,
    kernel::programs,
    kernel::kfuncs,
    kernel::fentry,
    kernel::mglru,
    kernel::hung_task,
    kernel::sysrq,
    pressure::psi,
    pressure::triggers,
    cgroups::unified,
    cgroups::place,
    cgroups::limits,
    cgroups::own_limit,
    cgroups::own_group,
    rights::user,
    rights::capabilities,
    rights::kill,
    rights::memlock,
    rights::realtime,
    rights::oom_score,
    rights::kernel_log,
    rights::open_files,
    rights::hidepid,
    rights::unread,
    memory::ram,
    memory::swap,
    memory::zvol_swap,
    memory::arc,
    peers::init,
    peers::oomd,
];

/// Judges a machine. A rule that has no subject here (the ARC of a machine without ZFS) is left out.
pub fn diagnose(facts: &MachineFacts) -> Vec<Check> {
    RULES.iter().filter_map(|rule| rule(facts)).collect()
}

/// Bytes as people read them.
fn human(bytes: u64) -> String {
    const GIB: f64 = (1u64 << 30) as f64;
    const MIB: f64 = (1u64 << 20) as f64;
    let bytes = bytes as f64;
    if bytes >= GIB {
        format!("{:.1} GiB", bytes / GIB)
    } else {
        format!("{:.0} MiB", bytes / MIB)
    }
}
