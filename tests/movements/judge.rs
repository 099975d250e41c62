//! Who was hit, and was it a member of a target then? Judged after everything is over, from what the kernel
//! told in between. Pure; where the events come from is `trace`'s.
//!
//! What counts is the task that the signal names: the guard asks for that task's cgroup, and in a threaded
//! cgroup the others of its process may be elsewhere.

use std::collections::{BTreeSet, HashMap, HashSet};

/// How long after it has left a target a task may still be hit, in microseconds: from an interrupt the
/// signal goes out by `irq_work`, right after the interrupt in which the guard has looked. On 6.18 half of 500
/// took less than 50 µs and the slowest 252; the rest is for a CPU that the hypervisor takes away in between.
pub(crate) const GAP_US: u64 = 1_000;

/// One thing that the kernel told, or that the mover did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// When, by `CLOCK_MONOTONIC`.
    pub(crate) at_us: u64,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The mover is about to move a task: alone, or with all of its process.
    Moving { task: u32, whole: bool },
    /// It is in that cgroup of the v2 hierarchy.
    Attached { task: u32, cgroup: u64 },
    /// A task was made: a thread of its maker's process, or a process.
    Born {
        task: u32,
        maker: u32,
        is_thread: bool,
    },
    /// A process executes another program. The thread that did so, `before`, goes on as its only one.
    Executed { task: u32, before: u32 },
    /// SIGKILL by the kernel itself.
    Killed { task: u32 },
    /// SIGKILL was the OOM killer's.
    OomVictim { task: u32 },
}

/// Somebody who was hit and was in no target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stranger {
    pub(crate) task: u32,
    pub(crate) at_us: u64,
    /// Since when it had been in no target; `None` if it never was in one.
    pub(crate) outside_for_us: Option<u64>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Movements that the mover ordered and the kernel told of.
    pub(crate) movements: usize,
    /// Members that were hit.
    pub(crate) members: usize,
    pub(crate) strangers: Vec<Stranger>,
}

/// A task may have been in a cgroup from the order to go there until it had arrived in the next.
#[derive(Clone, Copy, Debug)]
struct Stay {
    cgroup: u64,
    from_us: u64,
    until_us: u64,
}

const OPEN: u64 = u64::MAX;

#[derive(Default)]
struct Histories {
    stays: HashMap<u32, Vec<Stay>>,
    process_of: HashMap<u32, u32>,
    /// Beside the first one, by process.
    threads: HashMap<u32, Vec<u32>>,
    ordered: HashMap<u32, (u64, bool)>,
    movements: usize,
}

impl Histories {
    fn close(&mut self, task: u32, at_us: u64) {
        for stay in self.stays.entry(task).or_default() {
            stay.until_us = stay.until_us.min(at_us);
        }
    }

    fn arrive(&mut self, task: u32, cgroup: u64, from_us: u64, at_us: u64) {
        self.close(task, at_us);
        self.stays.entry(task).or_default().push(Stay {
            cgroup,
            from_us,
            until_us: OPEN,
        });
    }

    fn see(&mut self, Event { at_us, what }: Event) {
        match what {
            What::Moving { task, whole } => drop(self.ordered.insert(task, (at_us, whole))),
            What::Attached { task, cgroup } => {
                // Who moves itself does so before it is anybody's to move.
                let order = self.ordered.remove(&task);
                self.movements += usize::from(order.is_some());
                let (from_us, whole) = order.unwrap_or((at_us, true));
                self.arrive(task, cgroup, from_us, at_us);
                if whole {
                    for thread in self.threads.get(&task).cloned().unwrap_or_default() {
                        self.arrive(thread, cgroup, from_us, at_us);
                    }
                }
            }
            What::Born {
                task,
                maker,
                is_thread,
            } => {
                // Whoever had that number before is gone.
                self.close(task, at_us);
                if is_thread {
                    let process = self.process_of.get(&maker).copied().unwrap_or(maker);
                    self.process_of.insert(task, process);
                    self.threads.entry(process).or_default().push(task);
                } else {
                    self.process_of.remove(&task);
                    self.threads.remove(&task);
                }
                let makers = self.stays.get(&maker).cloned().unwrap_or_default();
                let open = makers.into_iter().filter(|stay| stay.until_us == OPEN);
                self.stays.entry(task).or_default().extend(open);
            }
            What::Executed { task, before } if task != before => {
                self.close(task, at_us);
                let taken_over = self.stays.remove(&before).unwrap_or_default();
                self.stays.entry(task).or_default().extend(taken_over);
                self.threads.remove(&task);
            }
            What::Executed { .. } | What::Killed { .. } | What::OomVictim { .. } => {}
        }
    }
}

/// Judges the events, which are in the order of their times. `inside` are the cgroups of armed targets,
/// those below them among it.
pub(crate) fn judge(events: &[Event], inside: &BTreeSet<u64>) -> Verdict {
    let mut histories = Histories::default();
    events.iter().for_each(|&event| histories.see(event));
    let oom_victims: HashSet<u32> = events
        .iter()
        .filter_map(|event| match event.what {
            What::OomVictim { task } => Some(task),
            _ => None,
        })
        .collect();
    let mut verdict = Verdict {
        movements: histories.movements,
        ..Verdict::default()
    };
    for &Event { at_us, what } in events {
        let What::Killed { task } = what else {
            continue;
        };
        if oom_victims.contains(&task) {
            continue;
        }
        let stays = histories.stays.get(&task).into_iter().flatten();
        let left = stays
            .filter(|stay| inside.contains(&stay.cgroup) && stay.from_us <= at_us)
            .map(|stay| stay.until_us)
            .max();
        let outside_for_us = left.map(|until_us| at_us.saturating_sub(until_us));
        if outside_for_us.is_some_and(|outside_us| outside_us <= GAP_US) {
            verdict.members += 1;
        } else {
            verdict.strangers.push(Stranger {
                task,
                at_us,
                outside_for_us,
            });
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: u64 = 7;
    const ELSEWHERE: u64 = 8;

    fn judged(story: &[(u64, What)]) -> Verdict {
        let events: Vec<Event> = story
            .iter()
            .map(|&(at_us, what)| Event { at_us, what })
            .collect();
        judge(&events, &BTreeSet::from([TARGET]))
    }

    /// A move of a whole process, or of one thread, that takes ten microseconds.
    fn moved(at_us: u64, task: u32, cgroup: u64, whole: bool) -> [(u64, What); 2] {
        [
            (at_us, What::Moving { task, whole }),
            (at_us + 10, What::Attached { task, cgroup }),
        ]
    }

    fn killed(at_us: u64, task: u32) -> [(u64, What); 1] {
        [(at_us, What::Killed { task })]
    }

    fn outside_for(verdict: &Verdict) -> Vec<Option<u64>> {
        let strangers = verdict.strangers.iter();
        strangers.map(|stranger| stranger.outside_for_us).collect()
    }

    #[test]
    fn a_member_may_be_hit_and_who_never_was_one_may_not() {
        let story = [
            &moved(0, 1, TARGET, true)[..],
            &killed(50, 1),
            &killed(60, 2),
        ]
        .concat();
        let verdict = judged(&story);
        assert_eq!((verdict.movements, verdict.members), (1, 1));
        assert_eq!(outside_for(&verdict), [None]);
    }

    #[test]
    fn who_has_left_may_be_hit_for_the_length_of_the_gap_only() {
        let path = [moved(0, 1, TARGET, true), moved(100, 1, ELSEWHERE, true)].concat();
        let just_left = [&path[..], &killed(110 + GAP_US, 1)].concat();
        assert_eq!(judged(&just_left).strangers, []);
        let long_gone = [&path[..], &killed(111 + GAP_US, 1)].concat();
        assert_eq!(outside_for(&judged(&long_gone)), [Some(GAP_US + 1)]);
    }

    #[test]
    fn who_is_on_the_way_is_in_either() {
        let mut story = moved(100, 1, TARGET, true).to_vec();
        story.insert(1, (105, What::Killed { task: 1 }));
        assert_eq!(judged(&story).strangers, []);
        story.insert(0, (99, What::Killed { task: 1 }));
        assert_eq!(outside_for(&judged(&story)), [None]);
    }

    #[test]
    fn a_thread_is_where_it_was_moved_and_its_process_elsewhere() {
        let thread = What::Born {
            task: 2,
            maker: 1,
            is_thread: true,
        };
        let apart = [
            &[(0, thread)][..],
            &moved(10, 1, ELSEWHERE, true),
            &moved(100, 2, TARGET, false),
        ]
        .concat();
        assert_eq!(judged(&[&apart[..], &killed(200, 2)].concat()).members, 1);
        assert_eq!(
            outside_for(&judged(&[&apart[..], &killed(200, 1)].concat())),
            [None]
        );
        let together = [
            &apart[..],
            &moved(200, 1, ELSEWHERE, true),
            &killed(2_000, 2),
        ]
        .concat();
        assert_eq!(outside_for(&judged(&together)), [Some(1_790)]);
    }

    #[test]
    fn a_child_begins_where_its_maker_is_and_goes_its_own_ways() {
        let child = What::Born {
            task: 2,
            maker: 1,
            is_thread: false,
        };
        let story = [
            &moved(0, 1, TARGET, true)[..],
            &[(50, child)],
            &moved(100, 1, ELSEWHERE, true),
            &killed(5_000, 2),
            &killed(5_000, 1),
        ]
        .concat();
        let verdict = judged(&story);
        assert_eq!(verdict.members, 1);
        assert_eq!(outside_for(&verdict), [Some(4_890)]);
    }

    #[test]
    fn who_executes_is_where_the_thread_was_that_did_so() {
        let thread = What::Born {
            task: 2,
            maker: 1,
            is_thread: true,
        };
        let story = [
            &[(0, thread)][..],
            &moved(10, 1, TARGET, false),
            &moved(30, 2, ELSEWHERE, false),
            &[(100, What::Executed { task: 1, before: 2 })],
        ]
        .concat();
        let late = [&story[..], &killed(5_000, 1)].concat();
        assert_eq!(outside_for(&judged(&late)), [Some(4_900)]);
        let before = [&story[..3], &killed(50, 1)].concat();
        assert_eq!(judged(&before).members, 1);
    }

    #[test]
    fn a_number_that_is_given_out_again_means_somebody_else() {
        let newcomer = What::Born {
            task: 1,
            maker: 9,
            is_thread: false,
        };
        let story = [
            &moved(0, 1, TARGET, true)[..],
            &[(100, newcomer)],
            &killed(5_000, 1),
        ]
        .concat();
        assert_eq!(outside_for(&judged(&story)), [Some(4_900)]);
    }

    #[test]
    fn whom_the_oom_killer_hit_is_not_the_guards() {
        let story = [
            (10, What::Killed { task: 1 }),
            (11, What::OomVictim { task: 1 }),
        ];
        assert_eq!(judged(&story), Verdict::default());
    }
}
