//! What lines of logs say: systemd's about a service that gave no sign of life, the kernel's about a task that is
//! blocked. Pure. A program can write such a line too; the record keeps apart what the kernel and systemd said.

/// How long the watchdog waited, from systemd's `Watchdog timeout (limit 3min)!` (src/core/service.c).
pub(super) fn watchdog_limit_us(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("Watchdog timeout (limit ")?;
    let (limit, _) = rest.split_once(')')?;
    let mut all = 0_u64;
    for part in limit.split_ascii_whitespace() {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = part.split_at(digits);
        let unit_us = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "min" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return None,
        };
        let us = number.parse::<u64>().ok()?.checked_mul(unit_us)?;
        all = all.checked_add(us)?;
    }
    (all > 0).then_some(all)
}

/// The task and for how long, from the kernel's `INFO: task txg_sync:611 blocked for more than 122 seconds.`
/// (kernel/hung_task.c). A name may hold blanks and colons; the number comes last.
pub(super) fn blocked_for_s(line: &str) -> Option<(&str, u64)> {
    let (_, rest) = line.split_once("INFO: task ")?;
    let (task, rest) = rest.rsplit_once(" blocked ")?;
    let (_, rest) = rest.rsplit_once("for more than ")?;
    let (seconds, _) = rest.split_once(" seconds")?;
    let (name, tid) = task.rsplit_once(':')?;
    let is_tid = !tid.is_empty() && tid.bytes().all(|byte| byte.is_ascii_digit());
    Some((name, seconds.parse().ok().filter(|_| is_tid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdogs_limit_is_read_in_systemds_own_spelling() {
        let limit = |line: &str| watchdog_limit_us(line).map(|us| us / 1_000);
        assert_eq!(
            limit("systemd-oomd.service: Watchdog timeout (limit 3min)!"),
            Some(180_000)
        );
        assert_eq!(limit("x: Watchdog timeout (limit 1min 30s)!"), Some(90_000));
        assert_eq!(limit("x: Watchdog timeout (limit 2s 500ms)!"), Some(2_500));
        for line in [
            "",
            "Watchdog timeout",
            "Watchdog timeout (limit ",
            "Watchdog timeout (limit )!",
            "Watchdog timeout (limit 3)!",
            "Watchdog timeout (limit 99999999999999999999d)!",
            "Watchdog timeout (limit 9999999999999999d)!",
        ] {
            assert_eq!(limit(line), None, "{line}");
        }
    }

    #[test]
    fn a_blocked_task_is_read_whatever_it_is_called() {
        let line = |task: &str| format!("INFO: task {task} blocked for more than 122 seconds.");
        for (task, name) in [
            ("txg_sync:611", "txg_sync"),
            ("a b:c:7", "a b:c"),
            ("x blocked for :8", "x blocked for "),
        ] {
            let line = line(task);
            assert_eq!(blocked_for_s(&line), Some((name, 122)), "{line}");
        }
        assert_eq!(
            blocked_for_s("INFO: task jbd2:9 blocked in I/O wait for more than 245 seconds."),
            Some(("jbd2", 245))
        );
        for other in [
            "",
            "INFO: task x blocked",
            "task x:1 blocked for more than 5 seconds",
            &line("no tid"),
            &line("x:"),
        ] {
            assert_eq!(blocked_for_s(other), None, "{other}");
        }
    }
}
