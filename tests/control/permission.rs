//! Whom memwatch signals for a user: whom the kernel lets that user signal, asked in the same moment.

use std::{
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, Command},
};

use memwatch::act::{permission::may_signal, signal::pidfd_open};
use memwatch::control::Client;

use super::daemon::{Daemon, NOBODY, OTHER, OTHERS, OWN, incident};

/// A process with these real, effective and saved users.
fn sleeper(real: u32, effective: u32, saved: u32) -> Child {
    let mut command = Command::new("sleep");
    command.arg("60");
    // SAFETY: one system call. The exec that follows makes the saved user the effective one.
    unsafe {
        command.pre_exec(move || match libc::setresuid(real, effective, saved) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    command.spawn().expect("root may be anybody")
}

/// What the kernel says to `uid` about `pid`.
fn kernel_lets(uid: u32, pid: u32) -> bool {
    let mut command = Command::new("true");
    // SAFETY: system calls alone.
    unsafe {
        command.pre_exec(move || {
            if libc::setresuid(uid, uid, uid) != 0 {
                return Err(std::io::Error::from_raw_os_error(libc::ENOTSUP));
            }
            match libc::kill(pid as i32, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    };
    match command.spawn() {
        Ok(mut child) => child.wait().is_ok(),
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
            false
        }
    }
}

#[test]
fn each_user_reads_the_own_incidents_and_root_all() {
    let daemon = Daemon::start();
    let listed = |uid| {
        let list = async |mut client: Client| client.incidents().await.expect("it answers");
        let all = daemon.talk_as(uid, list).into_iter();
        all.map(|headline| (headline.id, headline.uid.expect("a user")))
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(NOBODY), [OWN]);
    assert_eq!(listed(OTHER), [OTHERS]);
    assert_eq!(listed(0), [OTHERS, OWN], "the newest first");
    for (uid, (id, of), may) in [
        (NOBODY, OWN, true),
        (NOBODY, OTHERS, false),
        (OTHER, OWN, false),
        (0, OTHERS, true),
    ] {
        let read = daemon.talk_as(uid, async |mut client: Client| client.incident(id).await);
        match read {
            Ok(record) => assert_eq!((may, record), (true, incident(id, of))),
            Err(error) => {
                let refusal = format!("there is no incident {id} of a target of uid {uid}");
                assert!(!may && error.to_string().contains(&refusal), "{error}");
            }
        }
    }
}

#[test]
fn it_is_what_the_kernel_lets_the_user_do() {
    let mut answers = Vec::new();
    for (real, effective) in [
        (0, 0),
        (NOBODY, NOBODY),
        (OTHER, OTHER),
        (NOBODY, OTHER),
        (OTHER, NOBODY),
        (0, NOBODY),
        (NOBODY, 0),
    ] {
        let mut child = sleeper(real, effective, effective);
        let pidfd = pidfd_open(child.id()).expect("it runs");
        for uid in [0, NOBODY, OTHER] {
            let may = may_signal(uid, child.id(), pidfd.as_fd());
            assert_eq!(
                may,
                kernel_lets(uid, child.id()),
                "{uid}: {real} {effective}"
            );
            answers.push(may);
        }
        child.kill().expect("ours");
        child.wait().expect("ours");
        assert!(
            !may_signal(NOBODY, child.id(), pidfd.as_fd()),
            "it has ended"
        );
    }
    assert!(answers.contains(&true) && answers.contains(&false));
}

#[test]
fn a_number_that_is_somebody_elses_now_is_not_taken_for_it() {
    let mut gone = sleeper(NOBODY, NOBODY, NOBODY);
    let pidfd = pidfd_open(gone.id()).expect("it runs");
    gone.kill().expect("ours");
    gone.wait().expect("ours");
    let mut other = sleeper(NOBODY, NOBODY, NOBODY);
    assert!(!may_signal(NOBODY, other.id(), pidfd.as_fd()));
    other.kill().expect("ours");
    other.wait().expect("ours");
}
