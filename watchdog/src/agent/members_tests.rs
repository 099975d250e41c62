//! Tracking, on processes of the test's own.

use super::*;
use std::process::{Child, Command};

const WINDOW: Duration = Duration::from_secs(4);

fn table(leader: Option<u32>, window: Duration) -> Members {
    let mut members = Members::new(CAPACITY);
    members.begin(leader, None, window);
    members
}

fn sleeper() -> Child {
    Command::new("sleep").arg("60").spawn().expect("sleep")
}

fn end(mut child: Child) {
    child.kill().expect("ours");
    child.wait().expect("ours");
}

#[test]
fn few_open_files_leave_room_for_few_processes_and_for_the_rest() {
    assert_eq!(capacity(u64::MAX), CAPACITY);
    assert_eq!(capacity(1024), (1024 - 128) / 3);
    assert_eq!(capacity(32), 4);
}

#[test]
fn processes_come_and_go_and_keep_their_identity() {
    let (one, two) = (sleeper(), sleeper());
    let pids = [one.id(), two.id()];
    let mut members = table(Some(one.id()), WINDOW);
    let first = members
        .look(Duration::from_secs(1), pids.into_iter(), |_| 0)
        .to_vec();
    assert_eq!(first.iter().map(|m| m.pid).collect::<Vec<_>>(), pids);
    assert!(first[0].leader && !first[1].leader);
    assert_eq!(first[0].ppid, std::process::id());
    assert!(members.pidfd(&first[1]).is_some());

    end(two);
    assert!(
        members.pidfd(&first[1]).is_none(),
        "an exited process is nobody"
    );
    let stranger = Member {
        start_ticks: first[0].start_ticks + 1,
        ..first[0]
    };
    assert!(
        members.pidfd(&stranger).is_none(),
        "the number alone is nobody"
    );

    let later = members.look(Duration::from_secs(2), pids.into_iter(), |_| 0);
    assert_eq!(later.len(), 1);
    assert_eq!(members.unseen(), Unseen::default());
    end(one);
}

#[test]
fn who_was_killed_is_read_no_more_and_is_there_until_it_is_gone() {
    let child = sleeper();
    let pid = child.id();
    let mut members = table(None, WINDOW);
    let look = |members: &mut Members, second| {
        let pids = [pid].into_iter();
        members
            .look(Duration::from_secs(second), pids, |_| second)
            .to_vec()
    };
    let alive = look(&mut members, 1)[0];
    assert!(alive.growth_bytes > 0 && alive.stall_ns == 1, "{alive:?}");
    members.has_been_killed(&alive);
    // Files that would answer something else.
    members.tracked[0].stat = Reread::open_c(c"/proc/self/stat").expect("our own");
    members.tracked[0].statm = Reread::open_c(c"/proc/self/statm").expect("our own");
    let dying = look(&mut members, 2)[0];
    let still = Member {
        growth_bytes: 0,
        stall_ns: 0,
        major_faults: 0,
        minor_faults: 0,
        system_ticks: 0,
        ..alive
    };
    assert_eq!(dying, still);
    end(child);
    assert_eq!(look(&mut members, 3), []);
    assert_eq!(members.unseen(), Unseen::default());
}

#[test]
fn what_an_older_process_has_is_not_what_it_did_lately() {
    let child = sleeper();
    std::thread::sleep(Duration::from_millis(200));
    let look = |window| {
        let mut members = table(None, window);
        members.look(Duration::from_secs(1), [child.id()].into_iter(), |_| 10)[0]
    };
    let newborn = look(WINDOW);
    assert!(
        newborn.growth_bytes > 0 && newborn.stall_ns == 10,
        "{newborn:?}"
    );
    let older = look(Duration::from_millis(100));
    assert!(older.shared_bytes > 0, "{older:?}");
    assert_eq!((older.growth_bytes, older.stall_ns), (0, 0));
    assert_eq!((older.major_faults, older.system_ticks), (0, 0));
    end(child);
}

#[test]
fn differences_are_over_the_window_and_not_over_a_life() {
    let child = sleeper();
    let mut members = table(None, WINDOW);
    let mut stalls = Vec::new();
    for second in 1..20u64 {
        let look = members.look(
            Duration::from_secs(second),
            [child.id()].into_iter(),
            |_| second * 10,
        );
        stalls.push(look[0].stall_ns);
    }
    assert_eq!(stalls[0], 10, "all of a new process's stall is new");
    assert!(
        stalls[10..].iter().all(|&s| (30..=90).contains(&s)),
        "{stalls:?}"
    );
    end(child);
}

#[test]
fn who_is_not_the_users_to_signal_is_no_member() {
    // SAFETY: a number, read.
    assert_eq!(unsafe { libc::geteuid() }, 0, "these tests need root");
    let theirs = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups", "sleep", "60"])
        .spawn()
        .expect("setpriv");
    let ours = sleeper();
    let pids = [theirs.id(), ours.id()];
    let mut members = Members::new(CAPACITY);
    members.begin(None, Some(65534), WINDOW);
    let mut at = Duration::from_secs(1);
    let patience = std::time::Instant::now() + Duration::from_secs(10);
    // Until setpriv has become the user it is root's, too.
    let mut seen: Vec<u32> = Vec::new();
    while seen.is_empty() && std::time::Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(10));
        at += ASK_AGAIN;
        let views = members.look(at, pids.into_iter(), |_| 0);
        seen = views.iter().map(|member| member.pid).collect();
    }
    assert_eq!(seen, [theirs.id()]);
    end(theirs);
    end(ours);
}
