//! What a kernel does not offer to the BPF programs: exactly that may be missing when they are loaded.

use memwatch::bpf::{Facts, Feature, Probe, Programs};

/// The features that this kernel lacks, of those that some kernels on which the tests run do.
pub(crate) fn lacking(facts: &Facts) -> Vec<Feature> {
    let names = facts
        .types
        .is_some_and(|types| types.kfuncs.missing().next().is_none());
    let stalls = facts.tracing == Probe::Works;
    let needs = [(Feature::GuardNames, names), (Feature::GuardStalls, stalls)];
    let lacking = needs.into_iter().filter(|&(_, offered)| !offered);
    lacking.map(|(feature, _)| feature).collect()
}

/// The features that were lost.
pub(crate) fn lost(programs: &Programs) -> Vec<Feature> {
    let losses = programs.losses().iter();
    losses.map(|loss| loss.feature).collect()
}
