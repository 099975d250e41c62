//! What must hold of the parsers of the configuration and of what stands in it. See [`crate::fuzzing`].

use super::keys::{self, show};
use super::search::{Found, NamedBy, What};
use super::value::OrNone;
use super::{ConfigError, Daemon, Layer, Limit, Pattern, Quoted, Size, Span, Verbosity, resolve};
use crate::fuzzing::{Check, is_one_line};
use crate::watch::Settings;
use std::fmt::{Debug, Display};
use std::str::FromStr;

pub(crate) const CHECKS: &[Check] = &[
    ("the machine's file", |text| file(NamedBy::Machine, text)),
    ("a user's file", |text| file(NamedBy::User, text)),
    ("a size", parses_back::<Size>),
    ("a duration", parses_back::<Span>),
    ("a limit of memory", parses_back::<Limit>),
    ("a duration or none", parses_back::<OrNone<Span>>),
    (
        "a limit of a comparison",
        parses_back::<crate::tests::Limit>,
    ),
    ("a pattern and a name", pattern),
    ("--set", set),
];

/// What a file says it says again when it is shown; what is wrong with it is said with a place in it.
fn file(named_by: NamedBy, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let found = Found {
        path: "/etc/memwatch/memwatch.toml".into(),
        what: What::File,
        named_by,
    };
    let mut daemon = Daemon::default();
    let layer = match keys::parse(&found, text, &mut daemon) {
        Ok(layer) => layer,
        Err(error) => return wrong(&error, text),
    };
    let shown = show("[attach]", keys::ATTACH, &layer) + "\n" + &daemon.as_toml();
    let mut again = Daemon::default();
    let machines = Found {
        named_by: NamedBy::Machine,
        ..found
    };
    match keys::parse(&machines, &shown, &mut again) {
        Ok(read) => assert_eq!((read, again), (layer.clone(), daemon.clone()), "{shown}"),
        Err(error) => panic!("{error}: {shown}"),
    }
    for policy in [resolve::check_policy(&daemon.policy).err(), attach(layer)] {
        assert!(policy.is_none_or(|error| is_one_line(&error.to_string())));
    }
}

fn attach(layer: Layer) -> Option<Box<super::Contradiction>> {
    resolve::attach(&[layer], Verbosity::Normal).err()
}

fn wrong(error: &ConfigError, text: &str) {
    let said = error.to_string();
    assert!(said.lines().all(is_one_line), "{said:?}");
    let ConfigError::Line { line, column, .. } = error else {
        panic!("{error} is no error of a text");
    };
    let of_text = text.split('\n').nth(line - 1).expect("a line of the text");
    assert!(
        (1..=of_text.chars().count() + 1).contains(column),
        "{error}"
    );
}

fn parses_back<T: FromStr<Err: Display> + Display + PartialEq + Debug>(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<T>() {
        Ok(value) => {
            let again = value.to_string().parse::<T>();
            assert_eq!(again.ok(), Some(value), "{text:?}");
        }
        Err(error) => assert!(is_one_line(&error.to_string()), "{error}"),
    }
}

fn set(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut policy = Settings::default();
    match super::set_policy(&text, &mut policy) {
        Ok(()) => {
            let shown = show("[policy]", keys::POLICY, &policy);
            let again = shown
                .lines()
                .skip(1)
                .try_fold(Settings::default(), |mut read, line| {
                    super::set_policy(line, &mut read).map(|()| read)
                });
            assert_eq!(again.ok(), Some(policy), "{shown}");
        }
        Err(error) => assert!(error.to_string().lines().all(is_one_line), "{error}"),
    }
}

/// With a newline between them.
fn pattern(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, name) = text.split_once('\n').unwrap_or((&text, "a.service"));
    for read in [Pattern::of_unit(pattern), Pattern::of_cgroup(pattern)] {
        match read {
            Ok(read) => {
                let _ = read.matches(name);
                assert_eq!(read.to_string(), pattern);
            }
            Err(error) => assert!(is_one_line(&error.to_string()), "{error}"),
        }
    }
    assert!(is_one_line(&Quoted::new(&text).to_string()));
}
