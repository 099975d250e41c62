//! The one line that a terminal shows during a long run. Pure; redrawing it is the agent's, which
//! also knows when the terminal belongs to the command alone.

use super::human;

/// What the line tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveStatus {
    /// Since the start of the run.
    pub elapsed_us: u64,
    /// What the target holds.
    pub memory_bytes: Option<u64>,
    /// Its limit.
    pub limit_bytes: Option<u64>,
    /// Share of the last window in which some of its tasks waited for memory.
    pub some_permille: Option<u32>,
    /// Share in which all of them did.
    pub full_permille: Option<u32>,
}

const PREFIX: &str = "memwatch: ";
const BETWEEN: &str = " | ";

/// The line for a terminal of `width` columns: never wider, ASCII only, without a newline. Where
/// room is short, the parts that matter less go first: elapsed, then pressure, then the prefix.
#[must_use]
pub fn live_line(status: LiveStatus, width: usize) -> String {
    let parts: Vec<String> = [
        memory(&status),
        pressure(&status),
        Some(human::duration(status.elapsed_us)),
    ]
    .into_iter()
    .flatten()
    .collect();
    (1..=parts.len())
        .rev()
        .map(|kept| [PREFIX, &parts[..kept].join(BETWEEN)].concat())
        .chain([parts[0].clone()])
        .find(|line| line.len() <= width)
        .unwrap_or_default()
}

fn memory(status: &LiveStatus) -> Option<String> {
    let held = status.memory_bytes?;
    let of_limit = status.limit_bytes.and_then(|limit| {
        Some(format!(
            " of {} ({})",
            human::bytes(limit),
            human::percent(held, limit)?
        ))
    });
    Some(human::bytes(held) + &of_limit.unwrap_or_default())
}

fn pressure(status: &LiveStatus) -> Option<String> {
    let share = |permille: u32| human::percent(permille.into(), 1000);
    let some = share(status.some_permille?)?;
    Some(
        match status
            .full_permille
            .filter(|&full| full > 0)
            .and_then(share)
        {
            Some(full) => format!("stalled {some}, full {full}"),
            None => format!("stalled {some}"),
        },
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATUS: LiveStatus = LiveStatus {
        elapsed_us: 134_000_000,
        memory_bytes: Some(1229 << 20),
        limit_bytes: Some(2 << 30),
        some_permille: Some(41),
        full_permille: Some(12),
    };

    #[test]
    fn what_matters_less_goes_first() {
        for (width, line) in [
            (
                80,
                "memwatch: 1.2 GiB of 2.0 GiB (60%) | stalled 4.1%, full 1.2% | 2m 14s",
            ),
            (
                69,
                "memwatch: 1.2 GiB of 2.0 GiB (60%) | stalled 4.1%, full 1.2% | 2m 14s",
            ),
            (
                68,
                "memwatch: 1.2 GiB of 2.0 GiB (60%) | stalled 4.1%, full 1.2%",
            ),
            (40, "memwatch: 1.2 GiB of 2.0 GiB (60%)"),
            (30, "1.2 GiB of 2.0 GiB (60%)"),
            (10, ""),
        ] {
            assert_eq!(live_line(STATUS, width), line, "{width}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let status = LiveStatus {
            limit_bytes: None,
            full_permille: Some(0),
            ..STATUS
        };
        assert_eq!(
            live_line(status, 80),
            "memwatch: 1.2 GiB | stalled 4.1% | 2m 14s"
        );
        assert_eq!(live_line(LiveStatus::default(), 80), "memwatch: 0s");
    }

    proptest! {
        #[test]
        fn never_wider_than_the_terminal(
            width in 0usize..120,
            elapsed_us: u64,
            memory_bytes: Option<u64>,
            limit_bytes: Option<u64>,
            some_permille: Option<u32>,
            full_permille: Option<u32>,
        ) {
            let status =
                LiveStatus { elapsed_us, memory_bytes, limit_bytes, some_permille, full_permille };
            let line = live_line(status, width);
            prop_assert!(line.len() <= width && line.is_ascii(), "{}", line);
        }
    }
}
