//! The control socket: what a client says to the daemon, what a daemon says to a client, and how that is shown.

use super::{Check, is_one_line};
use crate::cli::status;
use crate::control::protocol::{
    Event, FROM_CLIENT_BYTES, FROM_DAEMON_BYTES, FrameError, FromDaemon, Hello, Reply, Request,
    body_length, decode, encode,
};
use crate::control::status::Status;
use crate::incident::Style;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

pub(super) const CHECKS: &[Check] = &[
    ("a stream of a client's frames", stream),
    ("hello", from_client::<Hello>),
    ("a request", from_client::<Request>),
    ("a daemon's frame", from_daemon),
    ("a status", of_status),
];

/// As a connection reads it: a header, and as much as it announces.
fn stream(mut bytes: &[u8]) {
    let mut is_first = true;
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let Ok(length) = body_length(*header, FROM_CLIENT_BYTES) else {
            assert!(u32::from_le_bytes(*header) as usize > FROM_CLIENT_BYTES);
            return;
        };
        let Some((body, rest)) = rest.split_at_checked(length) else {
            return;
        };
        if std::mem::take(&mut is_first) {
            from_client::<Hello>(body);
        } else {
            from_client::<Request>(body);
        }
        bytes = rest;
    }
}

fn from_client<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    let _ = understood::<T>(body, FROM_CLIENT_BYTES);
}

/// What is understood is understood again, and fits where it came from.
fn understood<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    body: &[u8],
    most: usize,
) -> Option<T> {
    let message: T = match decode(body) {
        Ok(message) => message,
        Err(error) => {
            // The refusal says why, and goes to a terminal.
            let refusal = crate::control::protocol::Refusal::from(error);
            assert!(is_one_line(&refusal.to_string()), "{refusal}");
            return None;
        }
    };
    // Escapes may make it longer than it came.
    match encode(&message, most) {
        Ok(frame) => {
            let (header, body) = frame.split_first_chunk().expect("a header");
            assert_eq!(body_length(*header, most).ok(), Some(body.len()));
            let again: T = decode(body).expect("what was understood");
            assert_eq!(again, message);
        }
        Err(FrameError::TooLong { bytes, .. }) => assert!(bytes > most),
        Err(error) => panic!("{error}"),
    }
    Some(message)
}

fn from_daemon(body: &[u8]) {
    match understood::<FromDaemon>(body, FROM_DAEMON_BYTES) {
        Some(FromDaemon::Event(Event::Said { line, .. })) => assert!(is_one_line(line.as_str())),
        Some(FromDaemon::Reply(Reply::Refused(refusal))) => {
            assert!(is_one_line(&refusal.to_string()));
        }
        Some(FromDaemon::Reply(Reply::Status(status))) => shown(&status),
        _ => {}
    }
}

fn of_status(body: &[u8]) {
    if let Some(status) = understood::<Status>(body, FROM_DAEMON_BYTES) {
        shown(&status);
    }
}

fn shown(status: &Status) {
    let style = Style {
        color: false,
        width: Some(60),
    };
    for text in [
        status::page(status, style),
        status::lines(status, &status.since),
    ] {
        assert!(text.lines().all(is_one_line), "{text:?}");
    }
}
