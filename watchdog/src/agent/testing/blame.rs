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

/// Lays the growth of a process to the test in which it grew the most: to the one that runs, if any, by what
/// it has grown, to those that are over by what they retained. `None` where nothing grew.
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

    fn over(id: &str, before: u64, after: u64) -> TestLine {
        TestLine {
            test: id.to_owned(),
            rss_before_bytes: Some(before),
            rss_after_bytes: Some(after),
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
        let found = blame(Some(("d", 10)), &told).expect("somebody grew");
        assert_eq!(
            (found.id.as_str(), found.growth_bytes, found.what),
            ("leaky", 790, What::Over)
        );
        assert_eq!(found.sure_permille, 790 * 1000 / 810);
        let found = blame(Some(("d", 2000)), &told).expect("somebody grew");
        assert_eq!((found.id.as_str(), found.what), ("d", What::Runs));
        told.collected.push(CollectorLine {
            collected: "m.py".to_owned(),
            rss_before_bytes: 1,
            rss_after_bytes: 1001,
        });
        let found = blame(Some(("d", 10)), &told).expect("somebody grew");
        assert_eq!((found.id.as_str(), found.what), ("m.py", What::Collected));
    }

    #[test]
    fn where_nothing_grew_nobody_is_to_blame() {
        let told = Results {
            tests: vec![over("a", 5, 5)],
            ..Results::default()
        };
        assert_eq!(blame(Some(("d", 0)), &told), None);
        assert_eq!(blame(None, &Results::default()), None);
    }
}
