//! From facts to what is attached. Pure: the same facts give the same plan, and a test flips one fact
//! at a time.

use super::facts::{Facts, Kfuncs, Probe};
use memwatch_ebpf::{KFUNCS, KernelLayout, VICTIM_IS_PID, VICTIM_IS_TASK};
use serde::Serialize;

/// What is to be attached, and what is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Programs for raw tracepoints.
    pub tracepoints: Vec<Tracepoint>,
    /// Whether faults are sampled while a target is hot.
    pub sample_faults: bool,
    /// The guard's clock; without, the guard acts at the end of a stall alone.
    pub guard_clock: Option<GuardClock>,
    /// Whether the guard sees every wait for memory; without, reclaim alone.
    pub guard_stalls: bool,
    /// What the programs are told of this kernel.
    pub layout: KernelLayout,
    /// What this kernel or these privileges do not offer.
    pub losses: Vec<Loss>,
}

/// Whom the guard reaches when its clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardClock {
    /// Members that are running.
    Running,
    /// Those that the agent has named, too: with the numbers of the kernel's functions for it.
    Named([u32; KFUNCS.len()]),
}

/// One program and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracepoint {
    /// Name of the program in the object.
    pub program: &'static str,
    /// Name of the raw tracepoint.
    pub tracepoint: &'static str,
    /// What it is for.
    pub feature: Feature,
}

/// What the programs are for. Each can be missing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Time and pages of reclaim, per target and process; the early wake-up.
    Reclaim,
    /// Wake-ups of kswapd.
    Kswapd,
    /// Exits of tasks.
    Exit,
    /// Victims of the kernel's OOM killer, by name.
    OomVictim,
    /// Tasks that the kernel reports as hung.
    Hang,
    /// Page faults, by sampling.
    Faults,
    /// The guard's clock.
    GuardClock,
    /// The guard's reach to sleeping processes.
    GuardNames,
    /// The guard's sight of waits for memory other than reclaim.
    GuardStalls,
}

/// A feature that is missing, what stands in for it, and what that costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// What is missing.
    pub feature: Feature,
    /// Why.
    pub why: String,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Reclaim,
        Self::Kswapd,
        Self::Exit,
        Self::OomVictim,
        Self::Hang,
        Self::Faults,
        Self::GuardClock,
        Self::GuardNames,
        Self::GuardStalls,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reclaim => "reclaim per process",
            Self::Kswapd => "kswapd wake-ups",
            Self::Exit => "exits of processes",
            Self::OomVictim => "the kernel's OOM victims",
            Self::Hang => "hung tasks",
            Self::Faults => "sampled page faults",
            Self::GuardClock => "the guard's clock",
            Self::GuardNames => "the guard's reach to sleeping processes",
            Self::GuardStalls => "the guard's sight of refaults, swap-in and memory.high",
        }
    }

    /// What is used in its place.
    pub fn fallback(self) -> &'static str {
        match self {
            Self::Reclaim => "PSI and memory.stat of the target, major faults of each process",
            Self::Kswapd | Self::Exit | Self::Hang => "nothing",
            Self::OomVictim => "the oom_kill counter of the target",
            Self::Faults => "counts from memory.stat and /proc",
            Self::GuardClock => "the guard acts at the end of a stall",
            Self::GuardNames => "the guard reaches who is running or ends a stall",
            Self::GuardStalls => "the guard sees reclaim",
        }
    }

    /// What that costs.
    pub fn cost(self) -> &'static str {
        match self {
            Self::Reclaim => {
                "the first reclaim does not wake memwatch, and in a stall the victim is judged by its faults"
            }
            Self::Kswapd => "the record lacks them",
            Self::Exit => "what was kept of a process stays until another needs its place",
            Self::OomVictim => "the record tells how many, not who",
            Self::Hang => "the record lacks them; they are in the kernel's log",
            Self::Faults => "none but detail",
            Self::GuardClock => {
                "if memwatch is stopped or dead, a target that hangs inside one stall is not ended"
            }
            Self::GuardNames => {
                "if memwatch is stopped or dead, a target whose processes all sleep is not ended"
            }
            Self::GuardStalls => {
                "if memwatch is stopped or dead, a target that waits for its pages, or is held up by memory.high, may not be ended"
            }
        }
    }
}

const fn tracepoint(
    program: &'static str,
    tracepoint: &'static str,
    feature: Feature,
) -> Tracepoint {
    Tracepoint {
        program,
        tracepoint,
        feature,
    }
}

/// All of them. Every one is in 5.15 and later.
const TRACEPOINTS: [Tracepoint; 10] = [
    tracepoint(
        "direct_begin",
        "mm_vmscan_direct_reclaim_begin",
        Feature::Reclaim,
    ),
    tracepoint(
        "direct_end",
        "mm_vmscan_direct_reclaim_end",
        Feature::Reclaim,
    ),
    tracepoint(
        "memcg_begin",
        "mm_vmscan_memcg_reclaim_begin",
        Feature::Reclaim,
    ),
    tracepoint("memcg_end", "mm_vmscan_memcg_reclaim_end", Feature::Reclaim),
    tracepoint(
        "shrink_inactive",
        "mm_vmscan_lru_shrink_inactive",
        Feature::Reclaim,
    ),
    tracepoint("wakeup_kswapd", "mm_vmscan_wakeup_kswapd", Feature::Kswapd),
    tracepoint("kswapd_wake", "mm_vmscan_kswapd_wake", Feature::Kswapd),
    tracepoint("process_exit", "sched_process_exit", Feature::Exit),
    tracepoint("mark_victim", "mark_victim", Feature::OomVictim),
    tracepoint("process_hang", "sched_process_hang", Feature::Hang),
];

/// Decides what is attached.
pub fn plan(facts: &Facts) -> Plan {
    let layout = layout(facts);
    let mut losses = Vec::new();
    let mut lose = |feature, why: &str| {
        losses.push(Loss {
            feature,
            why: why.to_owned(),
        })
    };

    let traces = facts.raw_tracepoint == Probe::Works;
    let names_tasks = layout.task_comm != 0;
    let knows_victim = names_tasks && layout.mark_victim != 0;
    if !traces {
        use Feature::{Exit, Hang, Kswapd, OomVictim, Reclaim};
        for feature in [Reclaim, Kswapd, Exit, OomVictim, Hang] {
            lose(feature, why_not(facts.raw_tracepoint));
        }
    } else {
        if !knows_victim {
            lose(
                Feature::OomVictim,
                "the kernel's BTF does not describe the tracepoint",
            );
        }
        if !names_tasks {
            lose(Feature::Hang, "the kernel's BTF does not describe a task");
        }
    }
    let sample_faults = traces && facts.perf_event == Probe::Works;
    let needed = if traces {
        facts.perf_event
    } else {
        facts.raw_tracepoint
    };
    if !sample_faults {
        lose(Feature::Faults, why_not(needed));
    }
    let guard_clock = sample_faults.then(|| guard_clock(facts, &layout));
    match guard_clock {
        None => lose(Feature::GuardClock, why_not(needed)),
        Some(GuardClock::Running) => lose(
            Feature::GuardNames,
            "this kernel has no functions for it (Linux 6.13 has)",
        ),
        Some(GuardClock::Named(_)) => {}
    }
    let blind = blind_to_stalls(facts);
    if let Some(why) = blind {
        lose(Feature::GuardStalls, why);
    }
    let wanted = |t: &Tracepoint| match t.feature {
        Feature::OomVictim => knows_victim,
        Feature::Hang => names_tasks,
        _ => true,
    };
    let tracepoints = if traces {
        TRACEPOINTS.into_iter().filter(wanted).collect()
    } else {
        Vec::new()
    };
    Plan {
        tracepoints,
        sample_faults,
        guard_clock,
        guard_stalls: blind.is_none(),
        layout,
        losses,
    }
}

/// Why the guard sees no wait for memory but reclaim; `None` if it does.
fn blind_to_stalls(facts: &Facts) -> Option<&'static str> {
    if facts.raw_tracepoint != Probe::Works {
        Some(why_not(facts.raw_tracepoint))
    } else if facts.tracing != Probe::Works {
        Some("this kernel refuses fentry programs")
    } else if !facts.types.is_some_and(|types| types.memstall) {
        Some("the kernel's BTF does not describe psi_memstall_enter and psi_memstall_leave")
    } else if !facts.pressure {
        Some("pressure stall information is off")
    } else {
        None
    }
}

/// Names are compared by when a process started, so that has to be readable too.
fn guard_clock(facts: &Facts, layout: &KernelLayout) -> GuardClock {
    let Kfuncs(numbers) = facts.types.unwrap_or_default().kfuncs;
    let mut named = [0; KFUNCS.len()];
    for (to, from) in named.iter_mut().zip(numbers) {
        match from {
            Some(number) => *to = number,
            None => return GuardClock::Running,
        }
    }
    if layout.task_start_boottime == 0 {
        return GuardClock::Running;
    }
    GuardClock::Named(named)
}

fn why_not(probe: Probe) -> &'static str {
    match probe {
        Probe::Refused {
            errno: libc::EPERM | libc::EACCES,
        } => "loading BPF programs is not permitted: run as root, or give CAP_BPF and CAP_PERFMON",
        Probe::Refused { .. } | Probe::Missing => "this kernel does not load such programs",
        Probe::Works => "it was not asked for",
    }
}

/// Zeros where an offset is not known: a program that would need it is not attached.
fn layout(facts: &Facts) -> KernelLayout {
    let types = facts.types.unwrap_or_default();
    let offsets = types.task_pid.zip(types.task_tgid).zip(types.task_comm);
    let ((task_pid, task_tgid), task_comm) = offsets.unwrap_or_default();
    let start = types.task_group_leader.zip(types.task_start_boottime);
    let (task_group_leader, task_start_boottime) = start.unwrap_or_default();
    let mark_victim = match types.mark_victim_is_task {
        Some(true) => VICTIM_IS_TASK,
        Some(false) => VICTIM_IS_PID,
        None => 0,
    };
    KernelLayout {
        task_pid,
        task_tgid,
        task_comm,
        task_group_leader,
        task_start_boottime,
        mark_victim,
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::KernelTypes;
    use super::*;

    fn everything() -> Facts {
        Facts {
            types: Some(KernelTypes {
                task_pid: Some(1000),
                task_tgid: Some(1004),
                task_comm: Some(1500),
                task_group_leader: Some(1600),
                task_start_boottime: Some(1700),
                mark_victim_is_task: Some(true),
                kfuncs: Kfuncs([Some(7); KFUNCS.len()]),
                memstall: true,
            }),
            raw_tracepoint: Probe::Works,
            perf_event: Probe::Works,
            tracing: Probe::Works,
            pressure: true,
            unprivileged_bpf_disabled: Some(2),
        }
    }

    fn lost(facts: &Facts) -> Vec<Feature> {
        plan(facts).losses.iter().map(|loss| loss.feature).collect()
    }

    #[test]
    fn a_kernel_with_everything_loses_nothing() {
        let plan = plan(&everything());
        assert_eq!(plan.tracepoints.len(), TRACEPOINTS.len());
        assert!(plan.sample_faults && plan.guard_stalls);
        assert_eq!(plan.losses, []);
        assert_eq!(plan.layout.mark_victim, VICTIM_IS_TASK);
    }

    #[test]
    fn one_thing_short_the_guard_sees_reclaim_alone_and_nothing_else_is_lost() {
        let mut no_functions = everything();
        no_functions.types.as_mut().expect("set").memstall = false;
        let no_fentry = Facts {
            tracing: Probe::Refused { errno: libc::EPERM },
            ..everything()
        };
        let no_pressure = Facts {
            pressure: false,
            ..everything()
        };
        let whole = plan(&everything());
        for facts in [no_functions, no_fentry, no_pressure] {
            let plan = plan(&facts);
            assert_eq!(lost(&facts), [Feature::GuardStalls]);
            assert!(!plan.guard_stalls);
            assert_eq!(plan.tracepoints, whole.tracepoints);
            assert_eq!(plan.guard_clock, whole.guard_clock);
        }
    }

    #[test]
    fn no_btf_costs_the_names_of_others() {
        let facts = Facts {
            types: None,
            ..everything()
        };
        assert_eq!(
            lost(&facts),
            [
                Feature::OomVictim,
                Feature::Hang,
                Feature::GuardNames,
                Feature::GuardStalls
            ]
        );
        let programs: Vec<_> = plan(&facts).tracepoints.iter().map(|t| t.program).collect();
        assert!(programs.contains(&"memcg_begin") && !programs.contains(&"mark_victim"));
    }

    #[test]
    fn an_older_kernel_hands_over_a_pid() {
        let mut facts = everything();
        facts.types.as_mut().expect("set").mark_victim_is_task = Some(false);
        assert_eq!(plan(&facts).layout.mark_victim, VICTIM_IS_PID);
    }

    #[test]
    fn one_kernel_function_short_the_guard_reaches_no_sleepers() {
        let mut facts = everything();
        assert_eq!(
            plan(&facts).guard_clock,
            Some(GuardClock::Named([7; KFUNCS.len()]))
        );
        facts.types.as_mut().expect("set").kfuncs.0[3] = None;
        assert_eq!(plan(&facts).guard_clock, Some(GuardClock::Running));
        assert_eq!(lost(&facts), [Feature::GuardNames]);
    }

    #[test]
    fn no_perf_events_cost_the_samples_alone() {
        let facts = Facts {
            perf_event: Probe::Missing,
            ..everything()
        };
        assert_eq!(lost(&facts), [Feature::Faults, Feature::GuardClock]);
    }

    #[test]
    fn without_rights_nothing_is_attached_and_everything_is_said() {
        let facts = Facts {
            raw_tracepoint: Probe::Refused { errno: libc::EPERM },
            ..everything()
        };
        let plan = plan(&facts);
        assert!(plan.tracepoints.is_empty() && !plan.sample_faults && !plan.guard_stalls);
        assert_eq!(plan.losses.len(), 8);
        assert!(plan.losses.iter().all(|loss| loss.why.contains("CAP_BPF")));
    }
}
