//! Summaries of made-up records, word for word.

use super::*;
use crate::incident::{Process, Rival, Text, sample};

fn style(width: Option<usize>) -> Style {
    Style {
        color: false,
        width,
    }
}

#[test]
fn when_nothing_happened_it_is_short() {
    let expected = "\
memwatch: pytest finished in 2m 14s (exit code 0)
memwatch:   memory   peak 1.2 GiB of 2.0 GiB (60%); stalled for 412ms (0.3%)
memwatch:   faults   1.2M minor, 312 major; reclaimed 14 times in 38ms
";
    assert_eq!(summary(&sample::quiet(), style(None)), expected);
    assert_eq!(summary(&sample::quiet(), style(Some(80))), expected);
}

#[test]
fn what_is_not_known_is_not_told() {
    let known = sample::quiet();
    let bare = Record {
        command: None,
        peak_bytes: None,
        stall_us: None,
        exit_code: None,
        ..known
    };
    let bare = Record {
        faults: Default::default(),
        reclaim: Default::default(),
        ..bare
    };
    assert_eq!(
        summary(&bare, style(None)),
        "memwatch: the target finished in 2m 14s\n"
    );
}

#[test]
fn a_kill_is_told_with_who_and_why_and_what_came_back() {
    let expected = "\
memwatch: pytest finished in 2m 14s (exit code 1); python3 (pid 4250) was killed
memwatch:   why      exhaustion at 12.3s: limit full in 35ms (48 MiB left,
memwatch:            filling at 1.3 GiB/s)
memwatch:   rule     50ms or less; it held for 250ms
memwatch:   victim   python3 (pid 4250), 1.4 GiB, grew 800 MiB; it grew the
memwatch:            most, taken with its children
memwatch:   rivals   python3 (pid 4251): grew 1.0 MiB, the victim 800 MiB
memwatch:   rungs    SIGTERM after 400us, SIGKILL after 18ms
memwatch:   freed    1.4 GiB in 24ms, from 2.0 GiB to 566 MiB
memwatch:
memwatch:   memory   peak 2.0 GiB of 2.0 GiB (98%); stalled for 412ms (0.3%)
memwatch:   faults   1.2M minor, 312 major; reclaimed 14 times in 38ms
";
    assert_eq!(summary(&sample::killed(), style(Some(80))), expected);
}

#[test]
fn everything_at_once_is_told_and_no_name_speaks_for_itself() {
    let expected = r"memwatch: pytest was killed by the kernel's OOM killer after 2m 14s (SIGKILL, exit code 137)
memwatch:   why      exhaustion at 12.3s: limit full in 35ms (48 MiB left, filling at 1.3 GiB/s)
memwatch:   rule     50ms or less; it held for 250ms
memwatch:   victim   python3 (pid 4250), 1.4 GiB, grew 800 MiB; it grew the most, taken with its children
memwatch:   test     tests/test_b.py::test_index (gw1), running for 4.2s, grew 12 MiB
memwatch:   culprit  tests/test_b.py::test_load grew 900 MiB, 97% of what its process grew in its tests
memwatch:   rivals   python3 (pid 4251): grew 1.0 MiB, the victim 800 MiB
memwatch:   rungs    SIGTERM after 400us, SIGKILL after 18ms
memwatch:   freed    1.4 GiB in 24ms, from 2.0 GiB to 566 MiB
memwatch:
memwatch:   why      stall at 1m 00s: stalled for 41% of 3.0s, 2.0 MiB from the limit
memwatch:   rule     25% or more; it held for 3.0s
memwatch:   test     tests/test_b.py::test_index (gw1), running for 4.2s, grew 12 MiB
memwatch:   culprit  tests/test_b.py::test_load grew 900 MiB, 97% of what its process grew in its tests
memwatch:   rivals   python3 (pid 4251): grew 1.0 MiB, the victim 800 MiB
memwatch:            /sys/fs/cgroup/user.slice/b.scope: 300 MiB, grew 2.0 MiB
memwatch:   rungs    warning after 100us (dry run), freeze after 100us (refused: Operation not permitted)
memwatch:
memwatch:   near     exhaustion at 3.2s: limit full in 90ms (120 MiB left, filling at 1.3 GiB/s); memwatch steps in at 50ms or less
memwatch:   killed   a\nb\x1b[31m\xff (pid 4300) by the kernel's OOM killer at 20.0s
memwatch:   killed   2 processes by the kernel's OOM killer, unseen
memwatch:   hung     txg_sync (tid 611), reported by the kernel at 2m 10s
memwatch:   blocked  txg_sync (tid 611) in uninterruptible sleep from 8.0s on, for 2m 05s, in cv_wait_common
memwatch:   tests    2 of 589: 1 passed, 1 killed; 1 left something behind
memwatch:   grew     1.2 GiB  tests/test_b.py::test_index
memwatch:   left     1 open file descriptor by tests/test_a.py::test_open[\x1b[31m]
memwatch:            1 file by one of the tests that ran together, such as /tmp/b.txt
memwatch:   memory   peak 2.0 GiB of 2.0 GiB (98%); stalled for 412ms (0.3%)
memwatch:   faults   1.2M minor, 312 major; reclaimed 14 times in 38ms
memwatch:   lost     12 events dropped, 3 looks came late, 1 helper threads hung, 2 lines of the kernel's log not read or kept
memwatch:   without  BPF programs, PSI and /proc instead: reclaim is not told per process
memwatch:   note     what pid 4242 was charged before it was adopted stays where it was
";
    assert_eq!(summary(&sample::grave(), style(None)), expected);
}

#[test]
fn each_end_has_a_headline_of_its_own() {
    let mut record = sample::quiet();
    record.exit_code = None;
    let mut told = |verdict| {
        record.verdict = verdict;
        summary(&record, style(None))
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    for (verdict, headline) in [
        (
            Verdict::Timeout,
            "memwatch: pytest ran out of time and was ended after 2m 14s",
        ),
        (
            Verdict::KilledByMemwatch,
            "memwatch: pytest was killed by memwatch after 2m 14s",
        ),
        (
            Verdict::KilledByGuard,
            "memwatch: pytest was killed by memwatch's guard in the kernel after 2m 14s",
        ),
        (
            Verdict::Signalled,
            "memwatch: pytest was ended by a signal after 2m 14s",
        ),
    ] {
        assert_eq!(told(verdict), headline);
    }
    record.dry_run = true;
    assert!(summary(&record, style(None)).contains("; dry run, memwatch signalled nobody\n"));
}

#[test]
fn a_crowd_is_counted_and_not_listed() {
    let mut record = sample::killed();
    let rival = record.interventions[0].rivals[0].clone();
    record.interventions[0].rivals = vec![rival; 9];
    let asked = record.interventions[0].rungs[0].clone();
    record.interventions[0].rungs.splice(..1, vec![asked; 12]);
    let one = record.interventions[0].clone();
    record.interventions = vec![one; 7];
    let victim = record.victims[0].clone();
    record.victims.extend((5000..5008).map(|pid| {
        let mut victim = victim.clone();
        victim.process.pid = pid;
        victim
    }));
    let told = summary(&record, style(None));
    assert!(
        told.contains("memwatch:            and 6 more, further behind\n"),
        "{told}"
    );
    assert!(
        told.contains("rungs    SIGTERM to 12 processes after 400us, SIGKILL after 18ms\n"),
        "{told}"
    );
    assert!(
        told.contains("and 4 times more, which `--report FILE` keeps\n"),
        "{told}"
    );
    assert!(
        told.contains("memwatch:   killed   python3 (pid 5002) by memwatch at 12.4s\n"),
        "{told}"
    );
    assert!(told.contains("memwatch:            and 5 more\n"), "{told}");
    assert!(
        told.contains("; 9 of its processes were killed\n"),
        "{told}"
    );
    assert!(told.lines().count() < 45, "{told}");
}

#[test]
fn every_line_is_memwatchs_own_whatever_the_names_hold() {
    let mut record = sample::grave();
    let hostile = b"x\nmemwatch: all is well\r\x1b[2J\x9b";
    if let Some(command) = &mut record.command {
        command.program = Text::of_name(hostile);
    }
    let process = Process {
        comm: crate::incident::Comm::new(hostile),
        ..Process::default()
    };
    record.interventions[0].victim = Some(process.clone());
    record.interventions[0].rivals.push(Rival {
        process,
        why_not: "\x1b]0;title\x07".into(),
    });
    let told = summary(&record, style(Some(80)));
    assert!(told.lines().all(|line| line.starts_with("memwatch:")));
    assert!(
        !told.contains(|c: char| c.is_control() && c != '\n'),
        "{told:?}"
    );
}
