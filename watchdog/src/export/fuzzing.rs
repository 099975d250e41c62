//! What must hold of the parsers of what receivers answer, of what the environment says of them, and of the files in
//! which an exporter leaves how it does. See [`crate::fuzzing`].

use super::discreet::Discreet;
use super::http::{LONGEST_AFTER, add_lines, retry_after};
use super::otlp::{Partial, of_logs, of_metrics, pairs};
use super::standing::{Report, Standing};
use super::{percent, queue};
use crate::config::Headers;
use crate::fuzzing::{Check, is_one_line};
use reqwest::Url;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

pub(crate) const CHECKS: &[Check] = &[
    ("Retry-After", after),
    ("what is answered to logs", |body| partial(of_logs(body))),
    ("what is answered to metrics", |body| {
        partial(of_metrics(body));
    }),
    ("pairs of the environment", of_environment),
    ("a file of headers", headers),
    ("how an exporter does", standing),
    ("what is lost to it", lost),
    ("what a receiver says", excerpt),
];

/// Nobody waits for ever, and a number is that of seconds.
fn after(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
    let Some(after) = retry_after(&text, now) else {
        return;
    };
    assert!(after <= LONGEST_AFTER, "{after:?}");
    let again = retry_after(&after.as_secs().to_string(), now);
    assert_eq!(again, Some(after));
}

fn partial(read: Option<Partial>) {
    if let Some((_, why)) = read {
        let told = Discreet::of(&[], &Headers::default()).excerpt(&why);
        assert!(is_one_line(told.as_str()));
    }
}

/// What was understood is understood again when it is encoded.
fn of_environment(bytes: &[u8]) {
    let read = pairs(&String::from_utf8_lossy(bytes));
    assert!(read.iter().all(|(name, _)| !name.is_empty()));
    let encoded = |text: &str| -> String {
        let bytes = text.bytes().map(|byte| format!("%{byte:02x}"));
        bytes.collect()
    };
    let whole = read
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    let whole = whole.collect::<Vec<_>>().join(",");
    assert_eq!(pairs(&whole), read);
    let _ = percent::decode(&whole);
}

/// What cannot be a header is said, and its value is not.
fn headers(bytes: &[u8]) {
    let mut read = Headers::default();
    if let Err(error) = add_lines(&mut read, Path::new("headers"), bytes) {
        assert!(is_one_line(&error.to_string()), "{error}");
    }
    for (name, value) in read.0 {
        let mut again = Headers::default();
        let line = format!("{name}: {value}\n");
        add_lines(&mut again, Path::new("headers"), line.as_bytes()).expect("what was read");
        assert_eq!(again.0.get(&name), Some(&value));
    }
}

fn standing(bytes: &[u8]) {
    let standing = Standing::parse(bytes);
    let written = serde_json::to_vec(&standing).expect("JSON");
    assert_eq!(Standing::parse(&written), standing);
    let report = Report {
        standing,
        waiting: 1,
        refused: 1,
        ..Report::default()
    };
    assert!(is_one_line(&report.line()), "{:?}", report.line());
}

fn lost(bytes: &[u8]) {
    let lost = queue::count(bytes);
    assert_eq!(queue::count(lost.to_string().as_bytes()), lost);
}

/// Whatever it says, it does not say what opens it.
fn excerpt(bytes: &[u8]) {
    let url = Url::parse("https://me:passw0rd@a/hooks/T0/SECRETS?key=opensesame").expect("one");
    let discreet = Discreet::of(&[&url], &Headers::default());
    let told = discreet.excerpt(&String::from_utf8_lossy(bytes));
    assert!(is_one_line(told.as_str()), "{told}");
    // None begins with what an escape ends with: a tab before `opsecret` is told as `\topsecret`.
    for secret in ["passw0rd", "SECRETS", "opensesame"] {
        assert!(!told.as_str().contains(secret), "{told}");
    }
}
