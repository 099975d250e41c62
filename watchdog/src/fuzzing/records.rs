//! Incident records and recordings that others may have written, and everything that is made of them.

use super::{Check, is_one_line};
use crate::cli::replay;
use crate::export::{ctrf, github, junit, trace};
use crate::incident::{
    Comm, Headline, Record, Style, Suite, Text, Verdict, diagnose, picture, sparklines, summary,
};
use crate::tests::{Bounds, Limit, Run, classify, compare};
use crate::watch::Settings;
use std::time::{Duration, SystemTime};

pub(super) const CHECKS: &[Check] = &[
    ("a record", record),
    ("a recording", recording),
    ("a name, and a sentence with names in it", text),
    ("a black box", crate::blackbox::fuzzing::bytes),
    ("pages of a black box", crate::blackbox::fuzzing::pages),
    ("the head of a record", headline),
];

fn record(bytes: &[u8]) {
    let Ok(read) = Record::from_json(bytes) else {
        return;
    };
    let written = read.to_json();
    let again = Record::from_json(&written).expect("what was written");
    assert_eq!(again, read);
    assert_eq!(again.to_json(), written);
    faces(&read);
    let mut both = read.clone();
    both.absorb(read, Duration::from_secs(7));
    faces(&both);
    both.shorten();
    faces(&both);
}

/// A record that was made of something else that was read.
pub(crate) fn of_record(record: &Record) {
    self::record(&record.to_json());
}

/// What a list shows of a record: there is a head if there is a record.
fn headline(bytes: &[u8]) {
    let head = Headline::from_json(bytes);
    assert!(head.is_ok() || Record::from_json(bytes).is_err());
}

/// A suite that was told, in a record of which nothing else is known.
pub(crate) fn of_suite(suite: Suite) {
    let began = SystemTime::UNIX_EPOCH;
    let mut record = Record::new(began, began, 0, Verdict::Finished);
    record.suite = Some(suite);
    self::record(&record.to_json());
}

/// Whatever a record holds, it drives no terminal, breaks no format, and is no worse than itself.
fn faces(record: &Record) {
    let _ = record.gravest();
    for width in [None, Some(0), Some(40)] {
        let style = Style {
            color: false,
            width,
        };
        let text = summary(record, style);
        assert!(text.lines().all(is_one_line), "{text:?}");
        let sparks = sparklines(record, style);
        assert!(sparks.lines().all(is_one_line), "{sparks:?}");
    }
    let ctrf = ctrf::render(record, SystemTime::UNIX_EPOCH);
    assert!(serde_json::from_slice::<serde_json::Value>(&ctrf).is_ok());
    let trace = trace::render(record);
    assert!(serde_json::from_slice::<serde_json::Value>(&trace).is_ok());
    assert!(!picture::page(record).contains('\0'));
    if let Some(diagnosis) = diagnose(record) {
        let _ = format!("{diagnosis:?}");
    }
    let annotations = github::annotations(record, Some("/w"));
    assert!(annotations.lines().all(|line| line.starts_with("::error ")));
    let _ = github::summary(record);
    if let Some(flight) = &record.flight {
        let _ = flight.was_pressed();
        let marks = flight.marks(&record.interventions);
        assert!(marks.len() <= record.interventions.len());
        for look in &flight.looks {
            let _ = flight.since_start_us(look);
        }
    }
    if let Some(suite) = &record.suite {
        let tests: Vec<_> = suite.tests.iter().collect();
        let not_run: Vec<_> = suite.not_run.iter().map(|one| &one.id).collect();
        let _ = junit::render(&tests, &not_run, "why");
    }
    if let Ok(run) = Run::of(record) {
        let _ = run.total_us();
        let runs = [run];
        assert_eq!(
            classify(&runs, Bounds::default()).len(),
            runs[0].tests.len()
        );
        assert!(!compare(&runs, &runs, &Limit::DEFAULT).is_regression());
    }
}

/// In lines, or those of an incident, with the settings that it says.
fn recording(bytes: &[u8]) {
    let Ok(replay::Recording { looks, settings }) = replay::parse(bytes, "FILE".as_ref()) else {
        return;
    };
    // A minute between two of them is thousands of steps.
    if looks.len() > 64 {
        return;
    }
    for (settings, late_us) in [
        (Settings::default(), 0),
        (settings.unwrap_or_default(), 30_000),
    ] {
        let orders = crate::watch::replay::replay(&looks, settings, || late_us);
        let times: Vec<u64> = orders.iter().map(|(at_us, _)| *at_us).collect();
        assert!(times.is_sorted(), "{times:?}");
        let within = |us: &u64| {
            let (first, last) = (looks.first(), looks.last());
            first.is_some_and(|look| look.at_us <= *us) && last.is_some_and(|l| *us <= l.at_us)
        };
        assert!(times.iter().all(within), "{times:?}");
    }
}

fn text(bytes: &[u8]) {
    let name = Text::of_name(bytes);
    assert!(is_one_line(name.as_str()));
    assert_eq!(name.to_name(), bytes, "{name}");
    let sentence = Text::from(&*String::from_utf8_lossy(bytes));
    assert!(is_one_line(sentence.as_str()));
    assert_eq!(Text::from(sentence.as_str()), sentence);
    let comm = Comm::new(bytes);
    let json = serde_json::to_string(&comm).expect("JSON");
    assert_eq!(serde_json::from_str::<Comm>(&json).expect("a name"), comm);
}
