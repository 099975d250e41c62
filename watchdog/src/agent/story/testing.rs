//! What is told of tests of pytest: which is to blame for an intervention, where it was, and what no policy ordered.

use super::{Story, reason};
use crate::incident::{self, Intervention, Rule, Victim};
use std::time::Duration;

impl Story {
    /// Which test the victim of an intervention ran, and which is to blame.
    pub fn blame(&mut self, number: u32, test: incident::BlamedTest) {
        if let Some(it) = self.interventions.get_mut(&number) {
            it.test.get_or_insert(test);
        }
    }

    /// Why memwatch stepped in, in a phrase.
    pub fn reason(&self, number: u32) -> Option<String> {
        self.interventions.get(&number).map(reason)
    }

    /// Whether that was for the machine's memory, and not for the target's alone.
    pub fn is_of_machine(&self, number: u32) -> bool {
        let rule = self.interventions.get(&number).map(|it| it.rule);
        matches!(rule, Some(Rule::MachineExhaustion | Rule::MachineStall))
    }

    /// The first intervention in a process of which no test is known.
    pub fn unblamed(&self, pid: u32) -> Option<u32> {
        let of_it = |it: &Intervention| {
            it.test.is_none() && it.rungs.iter().any(|taken| taken.pid == Some(pid))
        };
        self.interventions
            .iter()
            .find(|(_, it)| of_it(it))
            .map(|(number, _)| *number)
    }

    /// Where the victim's Python was.
    pub fn python_stack(&mut self, number: u32, lines: Vec<incident::Text>) {
        if let Some(it) = self.interventions.get_mut(&number) {
            it.python_stack.extend(lines);
        }
    }

    /// Something that no policy ordered: a test was over a limit of its own. What follows on it is `again`.
    pub fn test_limit(
        &mut self,
        number: u32,
        again: bool,
        told: Intervention,
        victims: Vec<Victim>,
    ) {
        match self.interventions.get_mut(&number) {
            Some(it) if again => it.rungs.extend(told.rungs),
            _ => drop(self.interventions.insert(number, told)),
        }
        self.victims.extend(victims);
    }

    /// From the begin of the run, in µs.
    pub fn at_us(&self, at: Duration) -> u64 {
        self.since(at)
    }
}
