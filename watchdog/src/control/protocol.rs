//! What client and daemon say to each other, and its frames. Pure; descriptors are `descriptors`', who may
//! say what is `rights`'.
//!
//! A frame is the length of its body (u32, little endian) and the body, one JSON value. The client speaks
//! first and says [`Hello`]; from then on it sends a [`Request`] at a time and gets a [`Reply`] to each, with
//! [`Event`]s of its targets in between.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::causes::with_causes;
use crate::config::OnPressure;
use crate::incident::{BlamedTest, Headline, Text};
use crate::watch::Rung;

use super::status::Status;

/// Of the protocol. Another one is refused; within one, fields of replies and events may be added.
pub const VERSION: u32 = 1;

/// This memwatch's own.
pub const MEMWATCH: &str = env!("CARGO_PKG_VERSION");

/// The longest body that a client may send.
pub const FROM_CLIENT_BYTES: usize = 64 << 10;
/// The longest body that the daemon sends.
pub const FROM_DAEMON_BYTES: usize = 1 << 20;

/// A client's first frame. It looks like this in every version, so that a daemon can say which it speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
}

/// Every later frame of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Guard the cgroup whose directory comes as the frame's one descriptor. It is guarded until it is gone or
    /// detached, however long the connection lasts.
    Attach(Attach),
    /// Guard it no more.
    Detach {
        /// From [`Reply::Attached`].
        id: u64,
    },
    /// Tests of pytest that run in a target and can be asked to fail, all of them, and who hands tests out: a test
    /// is failed before its process is ended, and no process group is with a session in it. Believed as far as the processes are in the target.
    Tests {
        /// From [`Reply::Attached`].
        id: u64,
        /// At most [`TESTS`].
        running: Vec<RunningTest>,
    },
    /// A process of a target that was signalled ran this test: for the target's record.
    Blame(Blame),
    /// Tell how things are.
    Status {},
    /// Send the events of all targets of this user from now on; root's: of all.
    Watch {},
    /// List the incidents of this user's targets, the newest first; root's: all. A part at a time.
    Incidents {
        /// Only older ones than this: [`Reply::Incidents`]'s `next`, for the next part.
        before: Option<Uuid>,
    },
    /// Send one of them, a part at a time.
    Incident {
        /// Which.
        id: Uuid,
        /// From which byte on.
        from: u64,
    },
}

/// The longest part of a record that comes at once: within a frame also where each of its bytes is escaped.
pub const PART_BYTES: usize = 400 << 10;

/// How a cgroup is to be guarded. The client has made it and set its limits; the daemon sets none, opens no
/// path and runs no command of a client's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// What is done to it under pressure.
    pub on_pressure: OnPressure,
    /// Only say what would be done.
    pub dry_run: bool,
    /// The hard limit that the client has set.
    pub limit_bytes: Option<u64>,
    /// The brake that it has set.
    pub high_bytes: Option<u64>,
    /// The process that the rest belong to, spared as long as another will do. Believed only if it is in the
    /// target.
    pub leader: Option<u32>,
}

/// The most tests that can run in a target at a time.
pub const TESTS: usize = 64;

/// A test that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningTest {
    /// In which process, as the daemon numbers it.
    pub pid: u32,
    /// When that started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Counts the tests of the process; 0 if it is of a session, and none is to be asked to fail.
    pub serial: u32,
}

/// What a process ran that was signalled, as its user says. Evidence for who reads the record: the daemon does
/// nothing by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blame {
    /// From [`Reply::Attached`].
    pub id: u64,
    /// The process, from [`Hit`].
    pub pid: u32,
    /// What it ran, and which test is to blame.
    pub test: BlamedTest,
    /// Where its Python was.
    pub python_stack: Vec<Text>,
}

/// The longest stack that is said, in bytes: escaped, and with the names of tests, it fits a frame.
pub const STACK_BYTES: usize = FROM_CLIENT_BYTES / 4;

/// The daemon's answer to a frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Hello`].
    Welcome {
        /// [`VERSION`].
        version: u32,
        /// The daemon's own.
        memwatch: Text,
    },
    /// To [`Request::Attach`].
    Attached {
        /// What the target is called from now on: the cgroup's id.
        id: u64,
        /// What the user should know about how it is guarded, a sentence each.
        notes: Vec<Text>,
    },
    /// To [`Request::Detach`].
    Detached {
        /// The incident record: everything since it was attached. `null` for what the configuration names.
        record: Option<serde_json::Value>,
    },
    /// To [`Request::Tests`].
    Stalls {
        /// What the process of each has spent in reclaim so far, in ns, as it was seen last while it ran that test;
        /// `null` where that is not known. In their order.
        stall_ns: Vec<Option<u64>>,
    },
    /// To [`Request::Blame`].
    Noted {},
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Watch`].
    Watching {},
    /// To [`Request::Incidents`].
    Incidents {
        /// Some of them.
        incidents: Vec<Headline>,
        /// From where on there may be more: to be asked for with `before`.
        next: Option<Uuid>,
    },
    /// To [`Request::Incident`].
    Incident {
        /// A part of its record, JSON.
        part: String,
        /// How long the whole is.
        bytes: u64,
    },
    /// To anything. After a frame that breaks the protocol the daemon hangs up.
    Refused(Refusal),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}; {what_to_do}")]
pub struct Refusal {
    /// In words.
    pub reason: Text,
    /// What helps.
    pub what_to_do: Text,
}

impl Refusal {
    /// Both in words.
    pub fn new(reason: impl Into<Text>, what_to_do: impl Into<Text>) -> Self {
        Self {
            reason: reason.into(),
            what_to_do: what_to_do.into(),
        }
    }
}

/// What happens to a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A line for the terminal of who watches.
    Said {
        /// Of which target.
        id: u64,
        /// Without a newline.
        line: Text,
        /// The record at the end tells it whole: a kill.
        #[serde(default)]
        told_at_end: bool,
    },
    /// One of its processes was signalled.
    Hit(Hit),
    /// It is guarded no more: it is not there any more, or the daemon ends.
    Gone {
        /// Which.
        id: u64,
        /// What [`Reply::Detached`] would bring, for whose it was.
        #[serde(default)]
        record: Option<serde_json::Value>,
    },
    /// Events that the client did not read in time.
    Lost {
        /// How many since the last.
        events: u64,
    },
}

/// A process that the daemon signalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// Of which target.
    pub id: u64,
    /// The process.
    pub pid: u32,
    /// Its parent.
    pub ppid: u32,
    /// What for: `abort` wants its test to fail, which is for whoever can say why to it.
    pub rung: Rung,
    /// What it held resident.
    pub rss_bytes: u64,
    /// Why, in a phrase.
    pub why: Text,
    /// Whether it is the machine's memory that is short, and not the target's alone.
    #[serde(default)]
    pub of_machine: bool,
}

/// Every frame of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromDaemon {
    /// To what was said last.
    Reply(Reply),
    /// Unasked.
    Event(Event),
}

/// A frame that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than the other end takes.
    #[error("a frame of {bytes} bytes, where {most} are the most")]
    TooLong {
        /// Its body.
        bytes: usize,
        /// What may be.
        most: usize,
    },
    /// The body is no such JSON.
    #[error("a frame that cannot be understood: {0}")]
    Body(#[from] serde_json::Error),
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        Self::new(
            with_causes(&error),
            format!(
                "use a client that speaks version {VERSION} of the protocol, as memwatch {MEMWATCH} does"
            ),
        )
    }
}

/// The frame of `message`.
///
/// # Errors
/// Its body would be longer than `most` bytes.
pub fn encode(message: &impl Serialize, most: usize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = length_within(frame.len() - 4, most)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// The length of the body that `header` announces.
///
/// # Errors
/// It is more than `most` bytes.
pub fn body_length(header: [u8; 4], most: usize) -> Result<usize, FrameError> {
    let bytes = u32::from_le_bytes(header) as usize;
    length_within(bytes, most).map(|_| bytes)
}

/// The message in a body.
///
/// # Errors
/// It is no JSON of that shape.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

fn length_within(bytes: usize, most: usize) -> Result<u32, FrameError> {
    let length = u32::try_from(bytes).ok();
    length
        .filter(|_| bytes <= most)
        .ok_or(FrameError::TooLong { bytes, most })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::TestPhase;
    use proptest::prelude::*;

    fn body(text: &str) -> Result<Request, FrameError> {
        decode(text.as_bytes())
    }

    #[test]
    fn requests_are_spelled_like_this() {
        let attach = Attach {
            limit_bytes: Some(1 << 30),
            leader: Some(42),
            ..Attach::default()
        };
        for (request, text) in [
            (Request::Status {}, r#"{"status":{}}"#),
            (Request::Watch {}, r#"{"watch":{}}"#),
            (
                Request::Incidents { before: None },
                r#"{"incidents":{"before":null}}"#,
            ),
            (
                Request::Incident {
                    id: Uuid::from_u128(1 << 120),
                    from: 9,
                },
                r#"{"incident":{"id":"01000000-0000-0000-0000-000000000000","from":9}}"#,
            ),
            (
                Request::Tests {
                    id: 7,
                    running: vec![RunningTest {
                        pid: 4,
                        start_ticks: 5,
                        serial: 6,
                    }],
                },
                r#"{"tests":{"id":7,"running":[{"pid":4,"start_ticks":5,"serial":6}]}}"#,
            ),
            (
                Request::Blame(Blame {
                    id: 7,
                    pid: 4,
                    test: BlamedTest {
                        id: "t.py::a".into(),
                        worker: None,
                        phase: TestPhase::Call,
                        elapsed_us: Some(1),
                        growth_bytes: None,
                        culprit: None,
                    },
                    python_stack: vec!["File \"t.py\", line 3 in a".into()],
                }),
                r#"{"blame":{"id":7,"pid":4,"test":{"id":"t.py::a","worker":null,"phase":"call","elapsed_us":1,"growth_bytes":null,"culprit":null},"python_stack":["File \"t.py\", line 3 in a"]}}"#,
            ),
            (Request::Detach { id: 7 }, r#"{"detach":{"id":7}}"#),
            (
                Request::Attach(attach),
                r#"{"attach":{"on_pressure":"kill","dry_run":false,"limit_bytes":1073741824,"high_bytes":null,"leader":42}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).expect("JSON"), text);
            assert_eq!(body(text).expect("a request"), request);
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            r#"{"status":{"path":"/etc/shadow"}}"#,
            r#"{"status":null}"#,
            r#"{"detach":{"id":-1}}"#,
            r#"{"detach":{"id":1},"status":{}}"#,
            r#"{"attach":{"on_pressure":"kill","dry_run":false,"command":"id"}}"#,
            r#"{"attach":{"on_pressure":"explode","dry_run":false}}"#,
            r#"{"incident":{"id":"../../../../etc/shadow","from":0}}"#,
            r#"{"incident":{"id":"01000000-0000-0000-0000-000000000000","from":0,"uid":0}}"#,
            r#"{"incidents":{"dir":"/root"}}"#,
            r#"{"reboot":{}}"#,
            r#"{"status":{}} {"status":{}}"#,
            "",
        ] {
            assert!(body(text).is_err(), "{text}");
        }
        assert!(decode::<Hello>(br#"{"version":1,"more":2}"#).is_err());
        let deep = "[".repeat(30_000);
        assert!(body(&deep).is_err());
    }

    #[test]
    fn a_frame_is_its_length_and_its_body() {
        let frame = encode(&Request::Status {}, FROM_CLIENT_BYTES).expect("short");
        assert_eq!(frame, b"\x0d\0\0\0{\"status\":{}}");
        let header = [frame[0], frame[1], frame[2], frame[3]];
        assert_eq!(body_length(header, 13).expect("as long as may be"), 13);
        let error = body_length(header, 12).expect_err("longer");
        assert_eq!(
            error.to_string(),
            "a frame of 13 bytes, where 12 are the most"
        );
        assert!(encode(&Request::Status {}, 12).is_err());
        assert!(body_length([0xff; 4], FROM_DAEMON_BYTES).is_err());
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Hello>(&bytes);
            let _ = decode::<FromDaemon>(&bytes);
        }
    }
}
