//! Who is said to have ended the command.

use super::*;
use crate::watch::{self, Cause, Measure};

const LEADER: u32 = 7;

/// A story in which the leader was sent these, each with its outcome.
fn story(signals: &[(Rung, Outcome)]) -> Story {
    let mut story = Story::begin(Duration::ZERO);
    for &(rung, outcome) in signals {
        let order = Order {
            rung,
            cause: Cause {
                rule: watch::Rule::Exhaustion,
                measure: Measure::Fill,
                observed: 15_000,
                threshold: 21_000,
                lasted: Duration::from_millis(750),
                fill_bytes_per_s: 300 << 20,
                headroom_bytes: 4 << 20,
            },
            victim: None,
        };
        let at = Duration::from_secs(1);
        story.hear(&Notice::Ordered {
            number: 1,
            at,
            order,
            current_bytes: 96 << 20,
            rivals: [None; 5],
        });
        story.hear(&Notice::Hit {
            number: 1,
            at,
            rung,
            member: Member {
                pid: LEADER,
                ..Member::default()
            },
            outcome,
        });
    }
    story
}

/// The verdict, the exit code and of which signals memwatch is said to have ended whom.
fn end(mut story: Story, signal: i32) -> (Verdict, u8, Vec<Signal>) {
    let (verdict, code) = story.end(Some((LEADER, Change::Killed(signal))), false);
    (
        verdict,
        code,
        story.victims.iter().map(|v| v.signal).collect(),
    )
}

const ASKED: (Rung, Outcome) = (Rung::Sigterm, Outcome::Delivered);
const KILLED: (Rung, Outcome) = (Rung::Sigkill, Outcome::Delivered);

#[test]
fn who_dies_of_what_memwatch_sent_was_ended_by_memwatch() {
    let sigterm = Signal::from_number(libc::SIGTERM);
    for (sent, fatal, signal) in [
        (&[ASKED][..], libc::SIGTERM, sigterm),
        (&[ASKED, KILLED], libc::SIGKILL, Signal::KILL),
        // It was still dying of the first when the second came.
        (&[ASKED, KILLED], libc::SIGTERM, sigterm),
    ] {
        let expected = (Verdict::KilledByMemwatch, 137, vec![signal]);
        assert_eq!(end(story(sent), fatal), expected, "{sent:?}");
    }
}

#[test]
fn who_dies_of_something_else_was_not() {
    let only_wanted = (Rung::Sigterm, Outcome::DryRun);
    for (sent, fatal) in [
        (&[ASKED][..], libc::SIGSEGV),
        (&[ASKED], libc::SIGKILL),
        (&[ASKED, KILLED], libc::SIGSEGV),
        (&[only_wanted], libc::SIGTERM),
    ] {
        let expected = (Verdict::Signalled, (128 + fatal) as u8, Vec::new());
        assert_eq!(end(story(sent), fatal), expected, "{sent:?}");
    }
}
