//! The socket itself: there for everybody while its daemon lives, in its place when it is dead, within bounds.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    process::Command,
};

use memwatch::control::{
    Attach, BindError, Client, ClientError, Event, Server, protocol, server::CONNECTIONS_PER_UID,
};

use super::daemon::{Daemon, NOBODY, OTHER, as_user, block_on, cgroup_of, open, wait_until};

const MEMWATCH: &str = env!("CARGO_BIN_EXE_memwatch");

fn bind(path: &Path) -> Result<Server, BindError> {
    block_on(async { Server::bind(path) })
}

#[test]
fn one_daemon_at_a_time_and_a_dead_ones_socket_is_in_nobodys_way() {
    let mut daemon = Daemon::start();
    let socket = daemon.socket();
    let live = bind(&socket).expect_err("somebody listens").to_string();
    assert!(
        live.contains("a daemon listens at") && live.contains("systemctl stop"),
        "{live}"
    );
    daemon.talk(async |mut client| client.status().await.expect("it lives on"));
    daemon.stop();
    assert!(!socket.exists(), "it was removed");

    drop(UnixListener::bind(&socket).expect("a socket that nobody listens on"));
    assert!(socket.exists());
    let server = bind(&socket).expect("in place of the dead one");
    // Somebody else's, made in its place, stays.
    fs::rename(&socket, socket.with_extension("moved")).expect("root");
    fs::write(&socket, "a file").expect("root");
    drop(server);
    let other = bind(&socket).expect_err("no socket").to_string();
    assert!(other.contains("is no socket; remove it"), "{other}");
    assert_eq!(fs::read(&socket).expect("untouched"), b"a file");
    let nowhere = bind(Path::new("/nowhere/control.sock")).expect_err("no directory");
    assert!(
        nowhere.to_string().contains("/nowhere: No such file"),
        "{nowhere}"
    );
}

#[test]
fn what_stands_between_a_user_and_the_daemon_is_told() {
    let mut daemon = Daemon::start();
    let socket = daemon.socket();
    let dir = socket.parent().expect("its directory");
    fs::set_permissions(dir, Permissions::from_mode(0o700)).expect("ours");
    let error = as_user(NOBODY, || block_on(daemon.connect())).expect_err("no way");
    assert!(matches!(error, ClientError::NoWay { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("Permission denied (os error 13)"),
        "{error}"
    );
    daemon.stop();
    let error = block_on(daemon.connect()).expect_err("nobody there");
    assert!(matches!(error, ClientError::NoDaemon { .. }), "{error}");
    assert!(
        error
            .to_string()
            .ends_with("start it with: systemctl start memwatch"),
        "{error}"
    );
}

#[test]
fn another_version_is_refused_with_both_named() {
    let daemon = Daemon::start();
    let hello = protocol::encode(&protocol::Hello { version: 7 }, 100).expect("short");
    let mut said = Vec::new();
    let mut stream = UnixStream::connect(daemon.socket()).expect("it listens");
    stream.write_all(&hello).expect("taken");
    stream.read_to_end(&mut said).expect("until it hangs up");
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("version 7") && said.contains("version 1"),
        "{said}"
    );
}

#[test]
fn a_daemon_of_another_version_is_told_from_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("control.sock");
    let listener = UnixListener::bind(&socket).expect("bound");
    let old = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let refusal = memwatch::control::Refusal::new("I speak version 0", "restart me");
        let refusal = protocol::FromDaemon::Reply(protocol::Reply::Refused(refusal));
        let frame = protocol::encode(&refusal, 1000).expect("short");
        stream.write_all(&frame).expect("taken");
    });
    let error = block_on(Client::connect(&socket)).expect_err("refused");
    assert_eq!(error.to_string(), "I speak version 0; restart me");
    old.join().expect("it said so");
}

#[test]
fn one_user_cannot_take_every_connection() {
    let daemon = Daemon::start();
    let connect = || block_on(daemon.connect());
    let held: Vec<_> = as_user(NOBODY, || {
        (0..CONNECTIONS_PER_UID)
            .map(|_| connect().expect("within bounds"))
            .collect()
    });
    let error = as_user(NOBODY, connect).expect_err("too many").to_string();
    assert!(error.contains("uid 65534 has 8 connections"), "{error}");
    drop(as_user(OTHER, connect).expect("others are let in"));
    drop(held);
    wait_until("room again", || as_user(NOBODY, connect).is_ok());
}

#[test]
fn who_does_not_listen_loses_events_and_holds_nobody_up() {
    let daemon = Daemon::start();
    let pair = cgroup_of(NOBODY);
    daemon.talk_as(NOBODY, async |mut client| {
        let attached = client
            .attach(open(&pair.v2).as_fd(), Attach::default())
            .await;
        let (id, _) = attached.expect("it may");
        let events = {
            let targets = daemon.targets.lock().expect("whole");
            targets.first().expect("attached").events.clone()
        };
        let line = || Event::Said {
            id,
            line: "x".repeat(10_000).into(),
            told_at_end: false,
        };
        let lost = async || {
            let mut other = daemon.connect().await.expect("others are served");
            let status = other.status().await.expect("others are answered");
            status.losses.dropped_events
        };
        let mut sent = 0;
        while lost().await == 0 {
            assert!(sent < 100_000, "nothing is ever lost");
            for _ in 0..1000 {
                events.send(line());
                sent += 1;
            }
        }
        // Other than a line, the end is heard.
        events.send(Event::Gone { id, record: None });
        let (mut heard, mut told) = (0, 0);
        loop {
            match client.event().await.expect("it goes on") {
                Event::Said { .. } => heard += 1,
                Event::Hit(hit) => panic!("nobody was: {hit:?}"),
                Event::Lost { events } => told += events,
                Event::Gone { .. } => break,
            }
        }
        assert!(told > 0);
        assert_eq!(heard + told, sent);
        assert_eq!(lost().await, told);
    });
}

#[test]
fn the_status_command_answers_or_says_what_to_do() {
    let mut daemon = Daemon::start();
    let socket = daemon.socket();
    let status = |arguments: &[&str]| {
        let mut command = Command::new(MEMWATCH);
        command
            .arg("status")
            .arg("--socket")
            .arg(&socket)
            .args(arguments);
        let output = command.output().expect("memwatch");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, out, err) = status(&[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("memwatch 0.0.0-test, process "), "{out}");
    let (code, out, _) = status(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, json["schema_version"].as_u64()), (Some(0), Some(1)));
    let (code, out, _) = status(&[r"/sys/fs/cgroup/app-a\x2db.scope/"]);
    assert_eq!(
        (code, out.contains(r"app-a\\x2db.scope")),
        (Some(0), true),
        "{out}"
    );
    let (code, _, err) = status(&["/sys/fs/cgroup/none"]);
    assert_eq!(code, Some(125));
    assert!(
        err.contains("guards no target /sys/fs/cgroup/none"),
        "{err}"
    );
    daemon.stop();
    let (code, out, err) = status(&[]);
    assert_eq!((code, out.as_str()), (Some(125), ""));
    assert!(
        err.starts_with("memwatch: no daemon listens at ") && err.contains("systemctl start"),
        "{err}"
    );
}

#[test]
fn a_status_that_is_watched_ends_when_nobody_reads_it() {
    let daemon = Daemon::start();
    let mut command = Command::new(MEMWATCH);
    command
        .args(["status", "--watch", "--socket"])
        .arg(daemon.socket());
    let mut watching = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("memwatch");
    let mut out = watching.stdout.take().expect("a pipe");
    let mut first = [0; 20];
    out.read_exact(&mut first).expect("a line");
    drop(out);
    assert_eq!(watching.wait().expect("ours").code(), Some(0));
}
