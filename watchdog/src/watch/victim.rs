//! Who inside the target: by growth, stall caused and memory held, not by who happens to be running.
//!
//! Pure. Chooses and says how much of the target goes with the victim; which pids that is at the moment
//! of the kill is worked out there again ([`in_scope`]), and signalling them is `act`'s.

use super::facts::Member;
use super::trouble::Rule;
use serde::{Deserialize, Serialize};

/// How much ends with the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The process and its descendants.
    Process,
    /// The victim's process group and the descendants of its members: a job that called `setsid` or
    /// `setpgid`. Not one with a session of pytest in it, whatever started that: workers of pytest-xdist share the
    /// controller's group, and the run is not to end with one of them.
    Group,
    /// All of it: the victim is the command itself.
    Target,
}

/// What made it this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ground {
    /// It grew the most over the window.
    Growth,
    /// It spent the most time in reclaim.
    Stall,
    /// It took the most major faults.
    MajorFaults,
    /// The target grew, or stalls, and no process shows it (tmpfs, page tables): it spent the most time
    /// in the kernel, which is where such memory is made, and taken back.
    SystemTime,
    /// Nothing moves: it holds the most anonymous memory.
    Size,
}

/// The victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The process.
    pub member: Member,
    /// What ends with it.
    pub scope: Scope,
    /// Why it.
    pub ground: Ground,
}

/// Growth below this is noise: a process that runs touches this much at any time.
const NOISE_BYTES: u64 = 1 << 20;

/// Chooses among `members`. `target_growth_bytes` is how much the whole target grew over the same
/// window, where that is known. `None` if nobody has anything to do with it.
pub fn choose(members: &[Member], rule: Rule, target_growth_bytes: Option<u64>) -> Option<Choice> {
    let most = |key: fn(&Member) -> u64, least: u64| {
        members
            .iter()
            .max_by_key(|m| (key(m), m.anon_bytes, m.start_ticks))
            .filter(|m| key(m) >= least)
    };
    // Growth is the processes' if together they show half of it: ten compilers grow alike, and a tmpfs
    // writer shows next to nothing.
    let shown = members.iter().map(|m| m.growth_bytes).sum::<u64>();
    let explained = target_growth_bytes.is_none_or(|growth| shown >= growth / 2);
    let by_growth = || {
        let grower = most(|m| m.growth_bytes, NOISE_BYTES);
        grower.filter(|_| explained).map(|m| (m, Ground::Growth))
    };
    let by_stall = || most(|m| m.stall_ns, 1).map(|m| (m, Ground::Stall));
    let by_faults = || most(|m| m.major_faults, 1).map(|m| (m, Ground::MajorFaults));
    let by_system = || most(|m| m.system_ticks, 1).map(|m| (m, Ground::SystemTime));
    let by_size = || most(|m| m.anon_bytes, 0).map(|m| (m, Ground::Size));
    let (member, ground) = match rule {
        Rule::Exhaustion | Rule::MachineExhaustion => by_growth()
            .or_else(|| {
                target_growth_bytes.filter(|&growth| growth >= NOISE_BYTES)?;
                by_system()
            })
            .or_else(by_stall)
            .or_else(by_size),
        // Reclaim is work in the kernel, also where no program of ours can time it. Not by size: who
        // is large and does nothing does not stall.
        Rule::Stall | Rule::MachineStall => by_stall()
            .or_else(by_faults)
            .or_else(by_growth)
            .or_else(by_system),
    }?;
    Some(Choice {
        member: *member,
        scope: scope_of(member, members),
        ground,
    })
}

fn scope_of(victim: &Member, members: &[Member]) -> Scope {
    let leaders_group = members.iter().find(|m| m.leader).map(|m| m.pgid);
    let is_of_pytest = |m: &Member| m.pgid == victim.pgid && (m.of_pytest || m.test != 0);
    if victim.leader {
        Scope::Target
    } else if members.iter().any(is_of_pytest) {
        Scope::Process
    } else if leaders_group.is_some_and(|pgid| pgid != victim.pgid) {
        Scope::Group
    } else {
        Scope::Process
    }
}

/// Whether `member` ends with `victim`. Linear in the depth of the process tree.
pub fn in_scope(member: &Member, victim: &Member, scope: Scope, members: &[Member]) -> bool {
    match scope {
        Scope::Target => true,
        Scope::Process => descends(member, members, |m| m.pid == victim.pid),
        Scope::Group => descends(member, members, |m| m.pgid == victim.pgid),
    }
}

fn descends(member: &Member, members: &[Member], is_root: impl Fn(&Member) -> bool) -> bool {
    let mut at = member;
    // Bounded: a torn reading could show two processes as each other's parents.
    for _ in 0..members.len() {
        if is_root(at) {
            return true;
        }
        match members.iter().find(|m| m.pid == at.ppid && m.pid != at.pid) {
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn member(pid: u32, ppid: u32, growth_mib: u64) -> Member {
        Member {
            pid,
            ppid,
            pgid: 1,
            leader: pid == 1,
            anon_bytes: 20 * MIB,
            growth_bytes: growth_mib * MIB,
            ..Member::default()
        }
    }

    fn chosen(members: &[Member], rule: Rule, growth_mib: u64) -> Choice {
        choose(members, rule, Some(growth_mib * MIB)).expect("somebody")
    }

    #[test]
    fn the_one_that_grows_not_the_one_that_is_large() {
        let mut members = [member(1, 0, 0), member(2, 1, 3), member(3, 1, 80)];
        members[1].anon_bytes = 900 * MIB;
        let choice = chosen(&members, Rule::Exhaustion, 90);
        assert_eq!(
            (choice.member.pid, choice.ground, choice.scope),
            (3, Ground::Growth, Scope::Process)
        );
    }

    #[test]
    fn growth_that_no_process_shows_is_the_busiest_in_the_kernel() {
        let mut members = [member(1, 0, 0), member(2, 1, 0), member(3, 1, 2)];
        members[1].system_ticks = 40;
        let choice = chosen(&members, Rule::Exhaustion, 100);
        assert_eq!((choice.member.pid, choice.ground), (2, Ground::SystemTime));
    }

    #[test]
    fn of_many_that_grow_alike_it_is_one_of_them_and_not_their_parent() {
        let mut members: Vec<_> = (2..12).map(|pid| member(pid, 1, 10)).collect();
        members[4].growth_bytes += 1;
        let busy_parent = Member {
            system_ticks: 300,
            ..member(1, 0, 0)
        };
        members.push(busy_parent);
        let choice = chosen(&members, Rule::Exhaustion, 100);
        assert_eq!(
            (choice.member.pid, choice.ground, choice.scope),
            (6, Ground::Growth, Scope::Process)
        );
    }

    #[test]
    fn a_stall_is_the_stallers() {
        let mut members = [member(1, 0, 0), member(2, 1, 50), member(3, 1, 0)];
        members[2].stall_ns = 1_000_000;
        assert_eq!(chosen(&members, Rule::Stall, 50).member.pid, 3);
        members[2].stall_ns = 0;
        members[2].major_faults = 9;
        assert_eq!(
            chosen(&members, Rule::Stall, 50).ground,
            Ground::MajorFaults
        );
    }

    #[test]
    fn a_job_with_a_group_of_its_own_goes_whole_and_takes_its_children() {
        let mut members = [
            member(1, 0, 0),
            member(2, 1, 0),
            member(3, 2, 90),
            member(4, 3, 0),
            member(5, 1, 0),
        ];
        for m in &mut members[1..3] {
            m.pgid = 2;
        }
        let choice = chosen(&members, Rule::Exhaustion, 90);
        assert_eq!(choice.scope, Scope::Group);
        let ended: Vec<u32> = members
            .iter()
            .filter(|m| in_scope(m, &choice.member, choice.scope, &members))
            .map(|m| m.pid)
            .collect();
        assert_eq!(ended, [2, 3, 4]);
    }

    #[test]
    fn a_group_with_a_session_of_pytest_in_it_is_not_taken_though_the_victim_is_on_no_board() {
        // A shell; timeout(1), whose group it is; a controller; two workers; what one of them started.
        let mut members = [
            member(1, 0, 0),
            member(2, 1, 0),
            member(3, 2, 0),
            member(4, 3, 90),
            member(5, 3, 0),
            member(6, 4, 0),
        ];
        for m in &mut members[1..] {
            m.pgid = 2;
        }
        let choice = chosen(&members, Rule::Exhaustion, 90);
        assert_eq!(choice.scope, Scope::Group, "nobody knows of pytest");
        for of_pytest in [2, 4] {
            let mut members = members;
            members[of_pytest].of_pytest = true;
            let choice = chosen(&members, Rule::Exhaustion, 90);
            assert_eq!(choice.scope, Scope::Process);
            let ended = members
                .iter()
                .filter(|m| in_scope(m, &choice.member, choice.scope, &members));
            assert_eq!(ended.map(|m| m.pid).collect::<Vec<_>>(), [4, 6]);
        }
        // A job that a test has started in a group of its own goes whole.
        members[2].of_pytest = true;
        for m in [3, 5] {
            members[m].pgid = 4;
        }
        let choice = chosen(&members, Rule::Exhaustion, 90);
        assert_eq!(choice.scope, Scope::Group);
    }

    #[test]
    fn the_leader_takes_everything() {
        let mut members = [member(1, 0, 90), member(2, 1, 0)];
        members[1].pgid = 7;
        let choice = chosen(&members, Rule::Exhaustion, 90);
        assert_eq!(choice.scope, Scope::Target);
        assert!(
            members
                .iter()
                .all(|m| in_scope(m, &choice.member, choice.scope, &members))
        );
    }

    #[test]
    fn who_is_large_and_does_nothing_has_not_stalled() {
        let mut members = [member(1, 0, 0), member(2, 1, 0)];
        members[0].anon_bytes = 900 * MIB;
        assert_eq!(choose(&members, Rule::Stall, Some(0)), None);
        assert_eq!(choose(&[], Rule::Exhaustion, None), None);
        members[1].system_ticks = 5;
        let choice = chosen(&members, Rule::Stall, 0);
        assert_eq!((choice.member.pid, choice.ground), (2, Ground::SystemTime));
    }

    #[test]
    fn a_ring_of_parents_does_not_hang() {
        let members = [member(2, 3, 0), member(3, 2, 0), member(4, 2, 9)];
        assert!(!in_scope(
            &members[0],
            &members[2],
            Scope::Process,
            &members
        ));
    }
}
