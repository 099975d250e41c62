//! Which test is to blame for what a process holds: by growth, not by which happened to run. Pure.

use crate::pytest::results::TestLine;

/// What a process's memory is laid to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blame {
    /// Node id.
    pub(super) id: String,
    /// By how much its process grew in it.
    pub(super) growth_bytes: u64,
    /// What share that is of all that the process grew in its tests: how sure this is.
    pub(super) sure_permille: u32,
    /// Whether it still ran.
    pub(super) runs: bool,
}

/// Lays the growth of a process to the test in which it grew the most: to the one that runs, if any, by what
/// it has grown, to those that are over by what they retained. `None` where nothing grew.
pub(super) fn blame(running: Option<(&str, u64)>, over: &[TestLine]) -> Option<Blame> {
    let retained = |test: &TestLine| {
        let after = test.rss_after_bytes?;
        Some(after.saturating_sub(test.rss_before_bytes?))
    };
    let over = over
        .iter()
        .map(|test| (test.test.as_str(), retained(test).unwrap_or(0), false));
    let running = running.map(|(id, growth)| (id, growth, true));
    let all: Vec<_> = over.chain(running).collect();
    let total: u64 = all.iter().map(|(_, growth, _)| growth).sum();
    // The last of equals: what runs is nearer to the cause than what is over.
    let (id, growth_bytes, runs) = all
        .into_iter()
        .max_by_key(|(_, growth, runs)| (*growth, *runs))?;
    (growth_bytes > 0).then(|| Blame {
        id: id.to_owned(),
        growth_bytes,
        sure_permille: u32::try_from(growth_bytes.saturating_mul(1000) / total.max(1))
            .unwrap_or(1000),
        runs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let tests = [
            over("a", 100, 110),
            over("leaky", 110, 900),
            over("c", 900, 880),
        ];
        let found = blame(Some(("d", 10)), &tests).expect("somebody grew");
        assert_eq!(
            (found.id.as_str(), found.growth_bytes, found.runs),
            ("leaky", 790, false)
        );
        assert_eq!(found.sure_permille, 790 * 1000 / 810);
        let found = blame(Some(("d", 2000)), &tests).expect("somebody grew");
        assert_eq!((found.id.as_str(), found.runs), ("d", true));
    }

    #[test]
    fn where_nothing_grew_nobody_is_to_blame() {
        assert_eq!(blame(Some(("d", 0)), &[over("a", 5, 5)]), None);
        assert_eq!(blame(None, &[]), None);
    }
}
