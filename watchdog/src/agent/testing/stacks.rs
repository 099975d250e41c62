//! Where the Python of a process was: asked for, waited for where that can matter, and cut out of what it wrote.

use super::{Testing, poke};
use crate::act::Outcome;
use crate::incident::Text;
use std::time::Duration;

/// Stacks are written in less than a millisecond by who is let run: looked for so often, so many times.
const STACK_LOOK: Duration = Duration::from_millis(2);
const STACK_LOOKS: usize = 50;
/// The most lines of a stack that are kept.
const STACK_LINES: usize = 200;

impl Testing {
    /// Everybody is about to be told to end: where are they? Waits for them to write it down, for as long as that
    /// can matter.
    pub(in crate::agent) fn ask_for_stacks(&mut self, number: u32) {
        let home = &self.shared.home;
        let written = |pid| home.stacks(pid).map_or(0, |stacks| stacks.len());
        let slots = home
            .processes()
            .into_iter()
            .filter_map(|pid| self.shared.slot(pid));
        let asked: Vec<(u32, usize)> = slots
            .filter(|slot| slot.can_abort && poke(slot, self.mode) == Outcome::Delivered)
            .map(|slot| (slot.pid, written(slot.pid)))
            .collect();
        for _ in 0..STACK_LOOKS {
            if asked.iter().all(|&(pid, before)| written(pid) > before) {
                break;
            }
            std::thread::sleep(STACK_LOOK);
        }
        for (pid, _) in asked {
            self.expect_stack(number, pid);
        }
    }

    pub(super) fn expect_stack(&mut self, number: u32, pid: u32) {
        let from = self.old_stacks.get(&pid).copied().unwrap_or(0);
        self.stacks.entry((number, pid)).or_insert(from);
    }
}

/// The first of the dumps in `text`: it ends where its first line comes again.
pub(super) fn stack_lines(text: &[u8]) -> Vec<Text> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let Some(first) = lines.next() else {
        return Vec::new();
    };
    let rest = lines.take_while(|line| *line != first);
    [first]
        .into_iter()
        .chain(rest)
        .take(STACK_LINES)
        .map(|line| Text::of_name(line.as_bytes()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_dumps_the_first_is_kept_whole() {
        let dump = "Thread 0x1 (most recent call first):\n  File \"a.py\", line 3 in f\n\n\
                    Current thread 0x2 (most recent call first):\n  File \"b.py\", line 4 in g\n";
        let lines = stack_lines(format!("{dump}{dump}").as_bytes());
        let lines: Vec<_> = lines.iter().map(Text::as_str).collect();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[3], "  File \"b.py\", line 4 in g");
        assert!(stack_lines(b"").is_empty());
    }
}
