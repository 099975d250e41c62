//! Frames that no honest client sends. Each harms its own connection at most; afterwards the daemon answers,
//! and holds no descriptor more than before.

use std::{
    fs::{self, File},
    io::{ErrorKind, IoSlice, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use memwatch::control::{
    Attach, Request,
    protocol::{FROM_CLIENT_BYTES, Hello, VERSION, encode},
};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::daemon::{Daemon, NOBODY, as_user, cgroup_of, open, wait_until};

/// Connections in all.
const ROUNDS: usize = 1000;

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short");
    [&length.to_le_bytes(), body].concat()
}

fn hello() -> Vec<u8> {
    encode(&Hello { version: VERSION }, FROM_CLIENT_BYTES).expect("short")
}

fn request(request: &Request) -> Vec<u8> {
    encode(request, FROM_CLIENT_BYTES).expect("short")
}

/// The same numbers at each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        // xorshift64 (Marsaglia 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).expect("small")
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll() as u8).collect()
    }
}

/// Bytes after the hello, and descriptors with the first of them.
fn hostile(kind: usize, dice: &mut Dice) -> (Vec<u8>, Vec<OwnedFd>) {
    let null = || File::open("/dev/null").expect("there").into();
    let attach = || request(&Request::Attach(Attach::default()));
    let status = || request(&Request::Status {});
    match kind {
        // Lengths that are not kept, or beyond all bounds.
        0 => (dice.bytes(3), vec![]),
        1 => (status()[..dice.below(17)].to_vec(), vec![]),
        2 => (vec![0xff; 4], vec![]),
        3 => {
            let most = u32::try_from(FROM_CLIENT_BYTES + 1 + dice.below(1 << 20)).expect("short");
            ([&most.to_le_bytes()[..], b"{}"].concat(), vec![])
        }
        // Bodies that are none.
        4 => (frame(b""), vec![]),
        5 => (frame(&dice.bytes(40)), vec![]),
        6 => (
            frame(&b"[".repeat(1 + dice.below(FROM_CLIENT_BYTES))),
            vec![],
        ),
        7 => (frame("{\"status\":".repeat(5000).as_bytes()), vec![]),
        8 => (
            frame(br#"{"attach":{"on_pressure":"kill","dry_run":false,"run":"id"}}"#),
            vec![null()],
        ),
        9 => (frame(br#"{"detach":{"id":1e999}}"#), vec![]),
        10 => (hello(), vec![]),
        11 => (dice.bytes(300), vec![]),
        // Descriptors that are wrong, missing, too many, or where none belongs.
        12 => (attach(), vec![]),
        13 => (attach(), vec![null()]),
        14 => (attach(), (0..2 + dice.below(250)).map(|_| null()).collect()),
        15 => (status(), vec![null()]),
        16 => {
            let (ours, theirs) = UnixStream::pair().expect("two sockets");
            (attach(), vec![ours.into(), theirs.into()])
        }
        17 => (
            attach(),
            vec![UnixStream::pair().expect("two sockets").0.into()],
        ),
        // Incidents that are none, or asked for as they cannot be.
        18 => (
            frame(br#"{"incident":{"id":"../../../etc/shadow","from":0}}"#),
            vec![],
        ),
        19 => (frame(br#"{"incidents":{"before":7}}"#), vec![]),
        20 => (
            frame(br#"{"incident":{"id":"01000000-0000-0000-0000-000000000000","from":-1}}"#),
            vec![],
        ),
        21 => (
            request(&Request::Incident {
                id: uuid::Uuid::from_u128(u128::from(dice.roll())),
                from: dice.roll(),
            }),
            vec![],
        ),
        _ => (attach()[..3].to_vec(), vec![null()]),
    }
}

const KINDS: usize = 23;

fn send(stream: &mut UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) {
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    let parts = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    match sendmsg::<()>(stream.as_raw_fd(), &parts, rights, flags, None) {
        Ok(sent) => {
            // It may have hung up at the first bad byte.
            let _ = stream.write_all(&bytes[sent..]);
        }
        Err(error) => assert!(
            matches!(error, nix::Error::EPIPE | nix::Error::ECONNRESET),
            "{error}"
        ),
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("procfs").count()
}

#[test]
fn a_thousand_hostile_frames_change_nothing() {
    let daemon = Daemon::start();
    let status = || daemon.talk_as(NOBODY, async |mut client| client.status().await);
    status().expect("it answers");
    let connected = || UnixStream::connect(daemon.socket()).expect("it listens");
    wait_until("an end of that connection", descriptors_are_stable);
    let before = descriptors();

    let mut dice = Dice(0x6d65_6d77_6174_6368);
    let mut refused = 0;
    as_user(NOBODY, || {
        for round in 0..ROUNDS {
            let kind = round % KINDS;
            let mut stream = connected();
            // A tenth do not even greet; where the frame is itself a greeting, it is a second one.
            if round % 10 > 0 || kind == 10 {
                send(&mut stream, &hello(), &[]);
            }
            let (bytes, with) = hostile(kind, &mut dice);
            send(&mut stream, &bytes, &with);
            drop(with);
            match dice.below(3) {
                0 => continue, // gone in the middle of it
                1 => stream.shutdown(std::net::Shutdown::Write).expect("ours"),
                _ => {}
            }
            if expects_an_end(kind) {
                let mut said = Vec::new();
                match stream.read_to_end(&mut said) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
                refused += usize::from(String::from_utf8_lossy(&said).contains("refused"));
            }
        }
    });
    assert!(refused > ROUNDS / 10, "only {refused} were told");
    wait_until("an end of all of them", || descriptors() <= before);
    status().expect("it answers");
    assert!(daemon.targets.lock().expect("whole").is_empty());
}

/// Of a whole frame that breaks the protocol: the daemon says so and hangs up.
fn expects_an_end(kind: usize) -> bool {
    matches!(kind, 2..=10 | 12 | 14 | 15 | 16 | 18..=20)
}

fn descriptors_are_stable() -> bool {
    let first = descriptors();
    std::thread::sleep(Duration::from_millis(50));
    first == descriptors()
}

#[test]
fn who_sends_half_a_frame_is_hung_up_on_and_the_others_are_served_meanwhile() {
    let daemon = Daemon::start();
    let connected = || UnixStream::connect(daemon.socket()).expect("it listens");
    let mut silent = connected();
    let mut slow = connected();
    slow.write_all(&hello()).expect("taken");
    slow.write_all(&frame(b"{}")[..5]).expect("taken");
    let mut idle = connected();
    idle.write_all(&hello()).expect("taken");
    daemon.talk(async |mut client| client.status().await.expect("others are served"));
    for stream in [&mut silent, &mut slow] {
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("until it hangs up");
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("no whole frame came within 5 s"), "{said}");
    }
    // Who has said hello may wait as long as it likes between two frames.
    idle.write_all(&request(&Request::Watch {})).expect("taken");
    idle.set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a socket");
    let mut said = Vec::new();
    let mut part = [0; 100];
    while !String::from_utf8_lossy(&said).contains("watching") {
        let bytes = idle.read(&mut part).expect("it answers");
        assert!(bytes > 0, "it has hung up");
        said.extend_from_slice(&part[..bytes]);
    }
}

#[test]
fn a_descriptor_may_come_with_any_byte_of_its_frame() {
    let daemon = Daemon::start();
    let pair = cgroup_of(NOBODY);
    let attach = request(&Request::Attach(Attach::default()));
    let mut stream = as_user(NOBODY, || {
        UnixStream::connect(daemon.socket()).expect("it listens")
    });
    stream.write_all(&hello()).expect("taken");
    let (first, rest) = attach.split_at(20);
    stream.write_all(first).expect("taken");
    send(&mut stream, rest, &[open(&pair.v2)]);
    wait_until("the target", || {
        daemon.targets.lock().expect("whole").len() == 1
    });
    // Two of one in one frame are one too many, however they come.
    send(&mut stream, first, &[open(&pair.v2)]);
    send(&mut stream, rest, &[open(&pair.v2)]);
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("until it hangs up");
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("more than one descriptor"), "{said}");
    assert_eq!(daemon.targets.lock().expect("whole").len(), 1);
}
