//! The tables and keys of the file: TOML text -> a [`Layer`] and changes to the policy's
//! [`Settings`]. A new setting is one line in [`POLICY`] (and one in docs/CONFIG.md); a test fails
//! while either is missing.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem, ValueError};
use super::nearest::nearest;
use super::resolve::{Layer, Origin};
use super::{Quoted, Size, Span};
use crate::watch::Settings;

/// One key: its name, a right value as TOML writes it, and where a value goes.
pub(super) struct Key<T> {
    pub(super) name: &'static str,
    pub(super) example: &'static str,
    set: fn(&mut T, &DeValue<'_>) -> Result<(), Refusal>,
}

/// Why a value was not taken.
enum Refusal {
    /// Another type.
    Type,
    /// The right type, but.
    Value(ValueError),
}

impl<E: Into<ValueError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Value(error.into())
    }
}

/// Keys named like their fields; `$wrap` makes a field of a value that was read.
macro_rules! keys {
    ($wrap:path: $($name:ident = $example:literal, $read:ident;)*) => {
        &[$(Key {
            name: stringify!($name),
            example: $example,
            set: |table, value| {
                table.$name = $wrap($read(value)?);
                Ok(())
            },
        }),*]
    };
}

/// `[attach]`.
pub(super) const ATTACH: &[Key<Layer>] = keys! { Some:
    memory_max = "\"2G\"", parsed;
    memory_high = "\"1536M\"", parsed;
    timeout = "\"5m\"", parsed;
    on_pressure = "\"kill\"", word;
    safe = "true", boolean;
    dry_run = "true", boolean;
    live = "\"auto\"", word;
    report = "\"memwatch-report.json\"", path;
};

/// `[policy]`: the fields of [`Settings`].
pub(super) const POLICY: &[Key<Settings>] = keys! { std::convert::identity:
    stall_window = "\"3s\"", duration;
    stall_full_permille = "300", permille;
    stall_some_permille = "600", permille;
    thrash_full_permille = "50", permille;
    refault_pages_per_s = "512", count;
    hang_full_permille = "800", permille;
    near_limit_permille = "950", permille;
    machine_low_permille = "50", permille;
    machine_low_max_bytes = "\"1G\"", bytes;
    fastest_fill_bytes_per_s = "\"8G\"", bytes;
    shortest_look = "\"2ms\"", duration;
    longest_look = "\"1s\"", duration;
    reaction = "\"3ms\"", duration;
    foresight = "16", count;
    longest_foresight = "\"1s\"", duration;
    term_grace = "\"1s\"", duration;
    growth_window = "\"4s\"", duration;
    death_grace = "\"500ms\"", duration;
    settle = "\"100ms\"", duration;
    guard_stale_after = "\"3s\"", duration;
    guard_stall_permille = "100", permille;
    cooldown = "\"10s\"", duration;
};

/// The tables and an example for one that is no table.
const TABLES: [&str; 2] = ["attach", "policy"];

/// Reads one file: the policy's numbers go straight into `policy`, over those of weaker files.
pub(super) fn parse(path: &Path, text: &str, policy: &mut Settings) -> Result<Layer, ConfigError> {
    let mut layer = Layer {
        origin: Origin::File(path.to_owned()),
        ..Layer::default()
    };
    tables(text, &mut layer, policy)
        .map(|()| layer)
        .map_err(|(offset, problem)| {
            let (line, column) = line_and_column(text, offset);
            let problem = Box::new(problem);
            ConfigError::Line {
                path: path.to_owned(),
                line,
                column,
                problem,
            }
        })
}

/// A problem and the byte that it is at.
type Located = (usize, Problem);

fn tables(text: &str, layer: &mut Layer, policy: &mut Settings) -> Result<(), Located> {
    let document = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        (offset, Problem::Syntax(error.message().to_owned()))
    })?;
    for (name, value) in in_order(document.get_ref()) {
        match name.get_ref().as_ref() {
            "attach" => table(value, "attach", ATTACH, layer)?,
            "policy" => table(value, "policy", POLICY, policy)?,
            other => {
                let place = String::new();
                // A key above the first table's name belongs into one.
                let problem = match home_of(other) {
                    Some(table) => Problem::Unknown {
                        what: "key",
                        name: Quoted::new(other),
                        place: " outside of a table".into(),
                        hint: format!("put it below a line that says [{table}]"),
                    },
                    None => unknown("table", other, place, TABLES.into_iter()),
                };
                return Err((name.span().start, problem));
            }
        }
    }
    Ok(())
}

/// Reads the keys of one table into `into`.
fn table<T>(
    value: &Spanned<DeValue<'_>>,
    name: &'static str,
    keys: &[Key<T>],
    into: &mut T,
) -> Result<(), Located> {
    let DeValue::Table(entries) = value.get_ref() else {
        let found = type_of(value.get_ref());
        let problem = Problem::Syntax(format!(
            "{name} cannot be {found}; write [{name}] on a line of its own and its keys below it"
        ));
        return Err((value.span().start, problem));
    };
    for (written, value) in in_order(entries) {
        let written_name = written.get_ref().as_ref();
        let Some(key) = keys.iter().find(|key| key.name == written_name) else {
            let known = keys.iter().map(|key| key.name);
            let problem = unknown("key", written_name, format!(" in [{name}]"), known);
            return Err((written.span().start, problem));
        };
        (key.set)(into, value.get_ref()).map_err(|refusal| {
            let problem = match refusal {
                Refusal::Value(source) => Problem::Value {
                    key: key.name,
                    source,
                },
                Refusal::Type => Problem::Type {
                    key: key.name,
                    found: type_of(value.get_ref()),
                    example: key.example,
                },
            };
            (value.span().start, problem)
        })?;
    }
    Ok(())
}

/// Entries as the file has them, so that the first error is the topmost.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// The table that has a key of this name.
fn home_of(key: &str) -> Option<&'static str> {
    let attach = ATTACH.iter().any(|known| known.name == key);
    let policy = POLICY.iter().any(|known| known.name == key);
    if attach {
        Some("attach")
    } else {
        policy.then_some("policy")
    }
}

fn unknown(
    what: &'static str,
    name: &str,
    place: String,
    known: impl Iterator<Item = &'static str> + Clone,
) -> Problem {
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", known.collect::<Vec<_>>().join(", ")),
    };
    Problem::Unknown {
        what,
        name: Quoted::new(name),
        place,
        hint,
    }
}

/// A value from its text, so that a number in the file means what it means at the command line.
fn parsed<T>(value: &DeValue<'_>) -> Result<T, Refusal>
where
    T: FromStr<Err: Into<ValueError>>,
{
    Ok(match value {
        DeValue::String(text) => text.parse(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse(),
        DeValue::Float(number) => number.as_str().parse(),
        _ => return Err(Refusal::Type),
    }?)
}

fn duration(value: &DeValue<'_>) -> Result<Duration, Refusal> {
    parsed::<Span>(value).map(Span::duration)
}

fn bytes(value: &DeValue<'_>) -> Result<u64, Refusal> {
    parsed::<Size>(value).map(Size::bytes)
}

/// A share of a thousand. Zero would be a threshold that is always reached.
fn permille(value: &DeValue<'_>) -> Result<u32, Refusal> {
    whole_number(value, 1000)
}

/// A number to multiply, divide or compare by, for which zero makes no sense.
fn count<T: From<u32>>(value: &DeValue<'_>) -> Result<T, Refusal> {
    whole_number(value, 1_000_000).map(T::from)
}

/// From 1 to `most`.
fn whole_number(value: &DeValue<'_>, most: u32) -> Result<u32, Refusal> {
    let DeValue::Integer(number) = value else {
        return Err(Refusal::Type);
    };
    u32::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|n| (1..=most).contains(n))
        .ok_or_else(|| {
            let found = Quoted::new(&number.to_string());
            let least = 1;
            ValueError::Range { found, least, most }.into()
        })
}

fn boolean(value: &DeValue<'_>) -> Result<bool, Refusal> {
    match value {
        DeValue::Boolean(value) => Ok(*value),
        _ => Err(Refusal::Type),
    }
}

fn word<T: ValueEnum>(value: &DeValue<'_>) -> Result<T, Refusal> {
    let DeValue::String(text) = value else {
        return Err(Refusal::Type);
    };
    T::from_str(text, false).map_err(|_| {
        let allowed = T::value_variants()
            .iter()
            .filter_map(|variant| Some(variant.to_possible_value()?.get_name().to_owned()))
            .collect::<Vec<_>>()
            .join(", ");
        ValueError::Word {
            found: Quoted::new(text),
            allowed,
        }
        .into()
    })
}

fn path(value: &DeValue<'_>) -> Result<PathBuf, Refusal> {
    match value {
        DeValue::String(text) if text.is_empty() => Err(ValueError::EmptyPath.into()),
        DeValue::String(text) => Ok(text.as_ref().into()),
        _ => Err(Refusal::Type),
    }
}

/// A type of TOML, with its article.
fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(number) if number.radix() != 10 => "a hexadecimal, octal or binary number",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Line and column of a byte, from 1; the column in characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
