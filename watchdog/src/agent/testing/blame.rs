//! Which test is to blame for what a process holds: by growth, not by which happened to run. Pure.

use crate::pytest::results::{Results, TestLine};

/// What a process's memory is laid to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blame {
    /// Node id.
    pub(super) id: String,
    /// By how much its process grew in it.
    pub(super) growth_bytes: u64,
    /// What share that is of all that the process grew in its tests: how sure this is.
    pub(super) sure_permille: u32,
    /// What it was when its process was looked at.
    pub(super) what: What,
}

/// What grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A module or the like that was collected, and that memwatch had fail.
    Collected,
    /// A test that is over.
    Over,
    /// What still runs.
    Runs,
}

/// What a test that is over must have retained to be to blame. Less is what a few modules and caches take, which
/// stay for those that come after.
const LEAST: u64 = 32 << 20;

/// Why a process is no more, for the question whose doing that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Killed {
    /// The test that ran was over a limit of its own: nobody else is.
    OverItsLimit,
    /// For memory, by memwatch, which saw that the process held so much.
    ForMemory { rss_bytes: u64 },
    /// For memory, by the kernel or the guard in it, in a target of that limit. What the process held at the end
    /// nobody saw: a test can take all there is between two looks.
    Unseen { limit_bytes: Option<u64> },
}

/// Whether the test that ran, and had grown by `growth_bytes`, only happened to: what another kept is several
/// times as much, and a large part of what the process was killed for.
pub(super) fn is_bystander(blame: &Blame, growth_bytes: u64, killed: Killed) -> bool {
    let part = match killed {
        Killed::OverItsLimit => return false,
        Killed::ForMemory { rss_bytes } => rss_bytes / 4,
        Killed::Unseen { limit_bytes: None } => return false,
        Killed::Unseen {
            limit_bytes: Some(limit),
        } => limit / 2,
    };
    blame.what != What::Runs
        && blame.growth_bytes > growth_bytes.saturating_mul(4)
        && blame.growth_bytes >= part
}

/// Lays the growth of a process to the test in which it grew the most: to the one that runs, if any, by what
/// it has grown, to those that are over by what they retained, if that is worth a word. `None` where nothing grew.
pub(super) fn blame(running: Option<(&str, u64)>, told: &Results) -> Option<Blame> {
    let retained = |test: &TestLine| {
        let after = test.rss_after_bytes?;
        Some(after.saturating_sub(test.rss_before_bytes?))
    };
    let over = told
        .tests
        .iter()
        .map(|test| (test.test.as_str(), retained(test).unwrap_or(0), What::Over));
    let collected = told.collected.iter().map(|it| {
        let growth = it.rss_after_bytes.saturating_sub(it.rss_before_bytes);
        (it.collected.as_str(), growth, What::Collected)
    });
    let running = running.map(|(id, growth)| (id, growth, What::Runs));
    let all: Vec<_> = collected.chain(over).chain(running).collect();
    let total: u64 = all.iter().map(|(_, growth, _)| growth).sum();
    // The last of equals: what runs is nearer to the cause than what is over.
    let (id, growth_bytes, what) = all
        .into_iter()
        .filter(|(_, growth, what)| *what == What::Runs || *growth >= LEAST)
        .max_by_key(|(_, growth, what)| (*growth, *what))?;
    (growth_bytes > 0).then(|| Blame {
        id: id.to_owned(),
        growth_bytes,
        sure_permille: u32::try_from(growth_bytes.saturating_mul(1000) / total.max(1))
            .unwrap_or(1000),
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pytest::results::CollectorLine;

    const MIB: u64 = 1 << 20;

    fn over(id: &str, before_mib: u64, after_mib: u64) -> TestLine {
        TestLine {
            test: id.to_owned(),
            rss_before_bytes: Some(before_mib * MIB),
            rss_after_bytes: Some(after_mib * MIB),
            ..TestLine::default()
        }
    }

    #[test]
    fn who_grew_is_to_blame_and_not_who_runs() {
        let mut told = Results {
            tests: vec![
                over("a", 100, 110),
                over("leaky", 110, 900),
                over("c", 900, 880),
            ],
            ..Results::default()
        };
        let found = blame(Some(("d", 10 * MIB)), &told).expect("somebody grew");
        assert_eq!(
            (found.id.as_str(), found.growth_bytes, found.what),
            ("leaky", 790 * MIB, What::Over)
        );
        assert_eq!(found.sure_permille, 790 * 1000 / 810);
        let found = blame(Some(("d", 2000 * MIB)), &told).expect("somebody grew");
        assert_eq!((found.id.as_str(), found.what), ("d", What::Runs));
        told.collected.push(CollectorLine {
            collected: "m.py".to_owned(),
            rss_before_bytes: MIB,
            rss_after_bytes: 1001 * MIB,
        });
        let found = blame(Some(("d", 10 * MIB)), &told).expect("somebody grew");
        assert_eq!((found.id.as_str(), found.what), ("m.py", What::Collected));
    }

    #[test]
    fn where_nothing_grew_or_little_was_kept_nobody_is_to_blame() {
        let told = Results {
            tests: vec![over("a", 5, 5), over("b", 5, 36)],
            ..Results::default()
        };
        assert_eq!(blame(Some(("d", 0)), &told), None);
        assert_eq!(blame(None, &Results::default()), None);
        let found = blame(Some(("d", MIB)), &told).expect("it grew");
        assert_eq!((found.id.as_str(), found.what), ("d", What::Runs));
    }

    #[test]
    fn who_ran_is_a_bystander_only_where_another_holds_what_the_process_was_killed_for() {
        let kept = |mib: u64| Blame {
            id: "leaky".to_owned(),
            growth_bytes: mib * MIB,
            sure_permille: 1000,
            what: What::Over,
        };
        let memory = |mib: u64| Killed::ForMemory {
            rss_bytes: mib * MIB,
        };
        assert!(is_bystander(&kept(790), 10 * MIB, memory(850)));
        assert!(!is_bystander(&kept(790), 200 * MIB, memory(1050)));
        assert!(
            !is_bystander(&kept(60), 0, memory(900)),
            "what was imported once is not why it is large"
        );
        assert!(!is_bystander(&kept(790), 0, Killed::OverItsLimit));
        let unseen = |mib: u64| Killed::Unseen {
            limit_bytes: Some(mib * MIB),
        };
        assert!(is_bystander(&kept(790), 0, unseen(1000)));
        assert!(
            !is_bystander(&kept(300), 0, unseen(1000)),
            "it may have taken the rest"
        );
        let nobody_knows = Killed::Unseen { limit_bytes: None };
        assert!(!is_bystander(&kept(790), 0, nobody_knows));
        let runs = Blame {
            what: What::Runs,
            ..kept(790)
        };
        assert!(!is_bystander(&runs, 0, memory(850)));
    }
}
