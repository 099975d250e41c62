//! Who may have what guarded, and let it go: users of the kernel's, on descriptors of real cgroups.

use std::{fs, os::fd::AsFd, path::Path, process::Command};

use memwatch::control::{Attach, Client, ClientError, Event};

use super::cgroups::Pair;
use super::daemon::{Daemon, NOBODY, OTHER, TARGETS_PER_UID, block_on, cgroup_of, open, v2};

async fn attach(client: &mut Client, dir: &Path) -> Result<u64, ClientError> {
    let attached = client.attach(open(dir).as_fd(), Attach::default()).await;
    attached.map(|(id, _)| id)
}

/// Fails unless the daemon refuses to guard `dir` for `uid`, in these words.
#[track_caller]
fn expect_refusal(daemon: &Daemon, uid: u32, dir: &Path, words: &str) {
    let attached = daemon.talk_as(uid, async |mut client| attach(&mut client, dir).await);
    let said = attached.expect_err("refused").to_string();
    assert!(said.contains(words), "{said}");
}

fn id(pair: &Pair) -> u64 {
    memwatch::host::cgroup::id(&pair.v2).expect("it is there")
}

#[test]
fn user_a_may_user_b_may_not_root_may() {
    let daemon = Daemon::start();
    let pair = cgroup_of(NOBODY);
    expect_refusal(
        &daemon,
        OTHER,
        &pair.v2,
        "this cgroup belongs to uid 65534, not to uid 65533; give a cgroup that is yours",
    );
    for uid in [NOBODY, 0] {
        let attached = daemon.talk_as(uid, async |mut client| attach(&mut client, &pair.v2).await);
        assert_eq!(attached.expect("it may"), id(&pair));
    }
    let peers: Vec<_> = daemon
        .targets
        .lock()
        .expect("whole")
        .iter()
        .map(|target| target.peer)
        .collect();
    assert_eq!(
        peers.iter().map(|peer| peer.uid).collect::<Vec<_>>(),
        [NOBODY, 0]
    );
    assert!(peers.iter().all(|peer| peer.pid == std::process::id()));
}

#[test]
fn only_who_attached_it_and_root_let_it_go() {
    let daemon = Daemon::start();
    let pair = cgroup_of(NOBODY);
    for last in [NOBODY, 0] {
        let id = daemon
            .talk_as(NOBODY, async |mut client| {
                attach(&mut client, &pair.v2).await
            })
            .expect("it may");
        let refused = daemon.talk_as(OTHER, async |mut client| client.detach(id).await);
        let said = refused.expect_err("not that user's").to_string();
        assert!(
            said.starts_with(&format!("uid 65533 has attached no target {id};")),
            "{said}"
        );
        let record = daemon.talk_as(last, async |mut client| client.detach(id).await);
        assert_eq!(
            record.expect("it may").expect("a record")["verdict"],
            "detached"
        );
    }
}

#[test]
fn what_is_no_cgroup_of_a_users_own_is_refused() {
    let daemon = Daemon::start();
    let scratch = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::chown(scratch.path(), Some(NOBODY), None).expect("root");
    expect_refusal(
        &daemon,
        0,
        scratch.path(),
        "not that of a cgroup v2 directory",
    );
    expect_refusal(
        &daemon,
        0,
        Path::new("/proc"),
        "not that of a cgroup v2 directory",
    );
    // A v1 memory group is another hierarchy.
    let pair = cgroup_of(NOBODY);
    expect_refusal(
        &daemon,
        0,
        &pair.memory,
        "not that of a cgroup v2 directory",
    );
    let v2 = v2();
    for above in v2
        .own_dir()
        .ancestors()
        .take_while(|dir| dir.starts_with(&v2.mount))
    {
        expect_refusal(&daemon, 0, above, "holds the daemon itself");
        expect_refusal(&daemon, NOBODY, above, "belongs to uid 0, not to uid 65534");
    }
    assert!(daemon.targets.lock().expect("whole").is_empty());
}

#[test]
fn a_file_of_a_cgroup_is_no_cgroup() {
    let daemon = Daemon::start();
    let pair = cgroup_of(NOBODY);
    let file = fs::File::open(pair.v2.join("cgroup.procs")).expect("ours");
    let attached =
        daemon.talk(async |mut client| client.attach(file.as_fd(), Attach::default()).await);
    let said = attached.expect_err("refused").to_string();
    assert!(said.contains("not that of a cgroup v2 directory"), "{said}");
}

#[test]
fn a_cgroup_that_is_gone_or_another_by_now_is_refused() {
    let daemon = Daemon::start();
    let pair = cgroup_of(0);
    let below = pair.v2.join("below");
    for made_again in [false, true] {
        fs::create_dir(&below).expect("ours");
        let descriptor = open(&below);
        fs::remove_dir(&below).expect("empty");
        if made_again {
            fs::create_dir(&below).expect("ours");
        }
        let attached = daemon
            .talk(async |mut client| client.attach(descriptor.as_fd(), Attach::default()).await);
        let said = attached.expect_err("refused").to_string();
        assert!(said.contains("is not at /"), "{said}");
    }
}

#[test]
fn a_leader_is_believed_only_inside() {
    let daemon = Daemon::start();
    let pair = cgroup_of(NOBODY);
    let mut member = Command::new("sleep");
    member.arg("60");
    pair.confine(&mut member);
    let mut member = member.spawn().expect("sleep");
    for (claimed, believed) in [(member.id(), Some(member.id())), (1, None)] {
        let attach = Attach {
            leader: Some(claimed),
            ..Attach::default()
        };
        daemon
            .talk_as(NOBODY, async |mut client| {
                client.attach(open(&pair.v2).as_fd(), attach).await
            })
            .expect("it may");
        let last = daemon
            .targets
            .lock()
            .expect("whole")
            .pop()
            .expect("attached");
        assert_eq!(last.leader, believed);
    }
    member.kill().expect("ours");
    member.wait().expect("ours");
}

#[test]
fn a_user_has_a_quota_and_root_has_none() {
    let daemon = Daemon::start();
    let pair = cgroup_of(NOBODY);
    let several = |uid, count| {
        daemon.talk_as(uid, async |mut client| {
            for _ in 0..count {
                attach(&mut client, &pair.v2).await?;
            }
            Ok::<_, ClientError>(())
        })
    };
    several(NOBODY, TARGETS_PER_UID).expect("within the quota");
    let said = several(NOBODY, 1).expect_err("one too many").to_string();
    assert!(said.contains("uid 65534 has 16 targets"), "{said}");
    several(0, TARGETS_PER_UID + 1).expect("root has none");
}

#[test]
fn who_attaches_hears_of_the_target_and_who_watches_of_what_is_ones_own() {
    let daemon = Daemon::start();
    let pair = cgroup_of(NOBODY);
    let heard = daemon.talk_as(NOBODY, async |mut client| {
        let id = attach(&mut client, &pair.v2).await?;
        daemon.talk_on_the_side(id);
        let first = client.event().await?;
        // What comes before an answer is not lost.
        client.detach(id).await?;
        Ok::<_, ClientError>((first, client.event().await?, id))
    });
    let (first, second, id) = heard.expect("it may");
    assert_eq!(
        first,
        Event::Said {
            id,
            line: "held".into(),
            told_at_end: true
        }
    );
    assert_eq!(second, Event::Gone { id, record: None });
    block_on(async {
        let mut client = daemon.connect().await.expect("it listens");
        client.watch().await.expect("anybody may");
        let (peer, events) = {
            let mut watchers = daemon.watchers.lock().expect("whole");
            watchers.pop().expect("it was taken on")
        };
        assert_eq!(peer.uid, 0);
        events.send(Event::Gone {
            id: 3,
            record: None,
        });
        assert_eq!(
            client.event().await.expect("it comes"),
            Event::Gone {
                id: 3,
                record: None
            }
        );
    });
}

impl Daemon {
    /// The target's daemon has something to say.
    fn talk_on_the_side(&self, id: u64) {
        let targets = self.targets.lock().expect("whole");
        let target = targets
            .iter()
            .find(|target| target.id == id)
            .expect("attached");
        target.events.send(Event::Said {
            id,
            line: "held".into(),
            told_at_end: true,
        });
    }
}
