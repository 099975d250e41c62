//! What came of the scenarios of one boot, from what the console said and how the machine ended. Pure, as
//! is the row that a verdict has in the table.

use super::boot::End;
use super::console::Console;
use super::scenario::Scenario;

/// What timeout(1) in the guest says of a scenario that was over its time.
const OVER_TIME: i32 = 124;

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) name: String,
    /// On the guest's clock; `None` if it did not end.
    pub(super) seconds: Option<f64>,
    /// What was wrong; nothing if it is empty.
    pub(super) wrong: Vec<String>,
}

/// The outcomes of those that ran, and of the next one, which the end of their machine cut off. The others
/// have not had their turn, unless the machine never came up: then it would not for them either.
pub(super) fn outcomes(scenarios: &[&Scenario], console: &Console, end: &End) -> Vec<Outcome> {
    let mut outcomes: Vec<_> = console
        .ended()
        .iter()
        .map(|ended| {
            let code = match ended.exit_code {
                0 => None,
                OVER_TIME => Some("over its time".to_owned()),
                code => Some(format!("exit code {code}")),
            };
            Outcome {
                name: ended.name.clone(),
                seconds: Some(ended.seconds),
                wrong: ended.complaint.iter().cloned().chain(code).collect(),
            }
        })
        .collect();
    let cut_off = scenarios.iter().skip(outcomes.len());
    let how = match end {
        End::Off => "the machine ended".to_owned(),
        End::Hung(after) => format!("the machine hung for {} s", after.as_secs()),
    };
    let (how, many) = match console.running() {
        Some(_) => (how, 1),
        None if console.marks() > 0 => (how + " before it began", 1),
        None => (how + " and was never up", usize::MAX),
    };
    outcomes.extend(cut_off.take(many).map(|scenario| {
        Outcome {
            name: scenario.name.clone(),
            seconds: None,
            wrong: console
                .complaint()
                .map(str::to_owned)
                .into_iter()
                .chain([how.clone()])
                .collect(),
        }
    }));
    outcomes
}

/// The columns of [`row`].
pub(super) fn columns() -> String {
    format!(
        "{:<7} {:<18} {:>7}  verdict",
        "kernel", "scenario", "seconds"
    )
}

/// An outcome's row in the table.
pub(super) fn row(kernel: &str, outcome: &Outcome) -> String {
    let seconds = match outcome.seconds {
        Some(seconds) => format!("{seconds:.1}"),
        None => "-".to_owned(),
    };
    let verdict = match &outcome.wrong[..] {
        [] => "ok".to_owned(),
        wrong => format!("FAILED: {}", wrong.join("; ")),
    };
    format!("{kernel:<7} {:<18} {seconds:>7}  {verdict}", outcome.name)
}

/// The row of a whole machine, with the time on the clock of who waits for it.
pub(super) fn machine_row(kernel: &str, number: u32, seconds: f64) -> String {
    let name = format!("machine {number}");
    format!("{kernel:<7} {name:<18} {seconds:>7.1}  from disks to disks, with:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn scenario(name: &str) -> Scenario {
        Scenario {
            name: name.to_owned(),
            shows: String::new(),
            kernels: Vec::new(),
            in_ci: Vec::new(),
            limit: Duration::from_secs(10),
            needs_fresh_machine: false,
        }
    }

    fn verdicts(console: &str, end: &End) -> Vec<String> {
        let (a, b) = (scenario("a"), scenario("b"));
        let mut read = Console::default();
        read.read(console.as_bytes());
        let outcomes = outcomes(&[&a, &b], &read, end);
        outcomes.iter().map(|outcome| row("6.1", outcome)).collect()
    }

    const A_IS_WELL: &str = "[ 1.0] memwatch-vm: begin a\n[ 2.5] memwatch-vm: end a 0\n";
    const A_OK: &str = "6.1     a                      1.5  ok";

    #[test]
    fn each_scenario_has_its_row() {
        let b = "[ 3.0] memwatch-vm: begin b\n[ 4.0] memwatch-vm: end b 1\n";
        assert_eq!(
            verdicts(&format!("{A_IS_WELL}{b}"), &End::Off),
            [
                A_OK,
                "6.1     b                      1.0  FAILED: exit code 1"
            ]
        );
    }

    #[test]
    fn a_complaint_of_the_kernel_fails_a_scenario_that_ended_well() {
        let b = "[ 3.0] memwatch-vm: begin b\n[ 3.5] Oops: 0\n[ 4.0] memwatch-vm: end b 0\n";
        assert_eq!(
            verdicts(&format!("{A_IS_WELL}{b}"), &End::Off),
            [
                A_OK,
                "6.1     b                      1.0  FAILED: oops: Oops: 0"
            ]
        );
    }

    #[test]
    fn over_its_time_is_said_so() {
        let console = "[ 1.0] memwatch-vm: begin a\n[ 11.0] memwatch-vm: end a 124\n";
        let verdict = &verdicts(console, &End::Off)[0];
        assert!(verdict.ends_with("FAILED: over its time"), "{verdict}");
    }

    #[test]
    fn a_machine_that_dies_fails_who_ran() {
        let b = "[ 3.0] memwatch-vm: begin b\n[ 4.0] Kernel panic - not syncing: x\n";
        assert_eq!(
            verdicts(&format!("{A_IS_WELL}{b}"), &End::Off),
            [
                A_OK,
                "6.1     b                        -  FAILED: panic: Kernel panic - not syncing: x; \
                 the machine ended"
            ]
        );
        let hung = End::Hung(Duration::from_secs(70));
        let verdict = &verdicts("[ 3.0] memwatch-vm: begin a\n", &hung)[0];
        assert!(
            verdict.ends_with("FAILED: the machine hung for 70 s"),
            "{verdict}"
        );
    }

    #[test]
    fn a_machine_that_dies_between_two_fails_the_next() {
        let verdict = verdicts(A_IS_WELL, &End::Off);
        assert_eq!(
            verdict,
            [
                A_OK,
                "6.1     b                        -  FAILED: the machine ended before it began"
            ]
        );
    }

    #[test]
    fn a_machine_that_does_not_come_up_fails_all() {
        let verdict = verdicts("", &End::Off);
        assert_eq!(verdict.len(), 2);
        for row in verdict {
            assert!(row.ends_with("FAILED: the machine ended and was never up"));
        }
    }
}
