//! What a guest's console says: which scenario runs, how it ended, and whether the kernel complained
//! meanwhile. Pure; the guest's side is `guest/run-scenarios.sh`, which writes its marks into the kernel's log, so
//! that they stand in one order with the kernel's own words.

const MARK: &str = "memwatch-vm: ";

/// What no kernel says that is well, and how it is told.
const COMPLAINTS: [(&[&str], &str); 7] = [
    (&["Kernel panic"], "panic"),
    (&["rcu", "stall"], "RCU stall"),
    (&["soft lockup"], "soft lockup"),
    (&["hard LOCKUP"], "hard lockup"),
    (&["blocked for more than"], "hung task"),
    (&["Oops"], "oops"),
    (&["BUG: "], "kernel bug"),
];

/// A scenario that has ended, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) name: String,
    pub(super) exit_code: i32,
    /// On the guest's clock.
    pub(super) seconds: f64,
    /// What the kernel said since the last one had ended.
    pub(super) complaint: Option<String>,
}

/// A console that is read as it grows.
#[derive(Default)]
pub(super) struct Console {
    /// A line whose end has not come yet.
    rest: Vec<u8>,
    /// Whose turn it is, and since when on the guest's clock.
    running: Option<(String, f64)>,
    complaint: Option<String>,
    ended: Vec<Ended>,
    marks: usize,
    /// The scenario that runs wants the machine's power cut.
    cut: bool,
}

impl Console {
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<_> = self.rest.drain(..=end).collect();
            self.line(String::from_utf8_lossy(&line).trim_end());
        }
    }

    fn line(&mut self, line: &str) {
        let Some((at, text)) = timed(line) else {
            return;
        };
        let Some(mark) = text.strip_prefix(MARK) else {
            if self.complaint.is_none() {
                self.complaint = complaint(text);
            }
            return;
        };
        match mark.split(' ').collect::<Vec<_>>()[..] {
            ["begin", name] => self.running = Some((name.to_owned(), at)),
            ["end", name, code] => {
                let began = self.running.take().map_or(at, |(_, began)| began);
                self.ended.push(Ended {
                    name: name.to_owned(),
                    exit_code: code.parse().unwrap_or(-1),
                    seconds: at - began,
                    complaint: self.complaint.take(),
                });
            }
            ["cut"] => self.cut = true,
            _ => return,
        }
        self.marks += 1;
    }

    /// The scenarios that have ended.
    pub(super) fn ended(&self) -> &[Ended] {
        &self.ended
    }

    /// The scenario that runs.
    pub(super) fn running(&self) -> Option<&str> {
        self.running.as_ref().map(|(name, _)| name.as_str())
    }

    /// What the kernel said since the last scenario ended.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// Whether the power is to be cut now. What follows is another life of the machine: a line that was cut off is
    /// none of it.
    pub(super) fn take_cut(&mut self) -> bool {
        let cut = std::mem::take(&mut self.cut);
        if cut {
            self.rest.clear();
        }
        cut
    }

    /// Grows with each scenario that begins or ends, and with each cut.
    pub(super) fn marks(&self) -> usize {
        self.marks
    }
}

/// The time and the text of `[   12.345678] text`, behind whatever was on the line already.
fn timed(line: &str) -> Option<(f64, &str)> {
    line.match_indices('[').find_map(|(at, _)| {
        let (time, text) = line[at + 1..].split_once("] ")?;
        Some((time.trim().parse().ok()?, text))
    })
}

fn complaint(text: &str) -> Option<String> {
    COMPLAINTS
        .iter()
        .find(|(words, _)| words.iter().all(|word| text.contains(word)))
        .map(|(_, what)| format!("{what}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: &str = "SeaBIOS\n\
        [    0.000000] Linux version 6.12\n\
        [    9.500000] memwatch-vm: begin boot\r\n\
        [   10.000000] Memory cgroup out of memory: Killed process 7 (hog)\n\
        [   11.750000] memwatch-vm: end boot 0\n\
        [   12.000000] memwatch-vm: begin load\n";

    #[test]
    fn marks_are_followed() {
        let mut console = Console::default();
        console.read(CALM.as_bytes());
        assert_eq!(
            console.ended(),
            [Ended {
                name: "boot".to_owned(),
                exit_code: 0,
                seconds: 2.25,
                complaint: None,
            }]
        );
        assert_eq!(console.running(), Some("load"));
        assert_eq!(console.marks(), 3);
    }

    #[test]
    fn a_scenario_goes_on_in_the_next_life_of_the_machine() {
        let mut console = Console::default();
        console.read(
            b"[   21.5] memwatch-vm: begin power-cut\n[   30.0] memwatch-vm: cut\n[   30.1] some",
        );
        assert!(console.take_cut());
        assert!(!console.take_cut(), "once");
        console.read(b"[    0.0] Linux\n[   20.0] memwatch-vm: begin power-cut\n");
        assert_eq!(console.running(), Some("power-cut"));
        console.read(b"[   23.5] memwatch-vm: end power-cut 0\n");
        assert_eq!(
            (console.ended().len(), console.ended()[0].seconds),
            (1, 3.5)
        );
    }

    #[test]
    fn what_others_wrote_before_a_mark_on_its_line_is_skipped() {
        let mut console = Console::default();
        console.read(b"\x1b[!p\x1b]104\x07\x1b[?7h[   21.5] memwatch-vm: begin boot\n");
        console.read(b"[   23.0] memwatch-vm: end boot 0\n");
        assert_eq!(console.ended()[0].seconds, 1.5);
    }

    #[test]
    fn it_does_not_matter_in_which_pieces_a_console_is_read() {
        let mut console = Console::default();
        for byte in CALM.as_bytes() {
            console.read(&[*byte]);
        }
        assert_eq!(console.ended().len(), 1);
        assert_eq!(console.running(), Some("load"));
    }

    #[test]
    fn what_the_kernel_says_is_held_against_the_scenario_that_runs() {
        for (line, what) in [
            ("Kernel panic - not syncing: VFS", "panic"),
            (
                "rcu: INFO: rcu_preempt self-detected stall on CPU",
                "RCU stall",
            ),
            (
                "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
                "RCU stall",
            ),
            (
                "watchdog: BUG: soft lockup - CPU#0 stuck for 23s!",
                "soft lockup",
            ),
            ("Watchdog detected hard LOCKUP on cpu 1", "hard lockup"),
            (
                "INFO: task dd:7 blocked for more than 120 seconds.",
                "hung task",
            ),
            ("Oops: 0000 [#1] SMP", "oops"),
            ("BUG: kernel NULL pointer dereference", "kernel bug"),
        ] {
            let mut console = Console::default();
            console.read(format!("[    1.0] {line}\n{CALM}").as_bytes());
            let complaint = console.ended()[0].complaint.as_deref().expect(line);
            assert_eq!(complaint, format!("{what}: {line}"));
            assert_eq!(console.complaint(), None);
        }
    }

    #[test]
    fn the_first_complaint_is_kept_while_nothing_ends() {
        let mut console = Console::default();
        console.read(CALM.as_bytes());
        console.read(b"[   13.0] watchdog: BUG: soft lockup - CPU#0\n[   14.0] Kernel panic - x\n");
        let complaint = console.complaint().expect("one");
        assert!(complaint.starts_with("soft lockup"), "{complaint}");
    }
}
