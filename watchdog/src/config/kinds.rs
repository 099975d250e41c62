//! The kinds of values: each is read from TOML and shown as TOML. Which key takes which is `keys`'.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use toml::de::DeValue;

use super::error::ValueError;
use super::pattern::{Pattern, PatternError};
use super::{Headers, Quoted, Size, Span};

/// How values of a type are read and shown.
pub(super) struct Kind<T> {
    pub(super) read: fn(&DeValue<'_>) -> Result<T, Refusal>,
    pub(super) show: fn(&T) -> String,
}

/// Why a value was not taken.
pub(super) enum Refusal {
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

/// A value from its text, so that a number in the file means what it means at the command line.
pub(super) const fn parsed<T>() -> Kind<T>
where
    T: FromStr<Err: Into<ValueError>> + Display,
{
    Kind {
        read: parse,
        show: |value| format!("\"{value}\""),
    }
}

fn parse<T>(value: &DeValue<'_>) -> Result<T, Refusal>
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

pub(super) const DURATION: Kind<Duration> = Kind {
    read: |value| parse::<Span>(value).map(Span::duration),
    show: |duration| match Span::new(*duration) {
        Some(span) => format!("\"{span}\""),
        None => "\"0s\"".to_owned(),
    },
};

pub(super) const BYTES: Kind<u64> = Kind {
    read: |value| parse::<Size>(value).map(Size::bytes),
    show: |bytes| match Size::new(*bytes) {
        Some(size) => format!("\"{size}\""),
        None => "0".to_owned(),
    },
};

/// A share of a thousand. Zero would be a threshold that is always reached.
pub(super) const PERMILLE: Kind<u32> = Kind {
    read: |value| whole_number(value, 1000),
    show: u32::to_string,
};

/// A number to multiply, divide or compare by, for which zero makes no sense.
pub(super) const fn count<T: From<u32> + Display>() -> Kind<T> {
    Kind {
        read: |value| whole_number(value, 1_000_000).map(T::from),
        show: T::to_string,
    }
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

pub(super) const BOOLEAN: Kind<bool> = Kind {
    read: |value| match value {
        DeValue::Boolean(value) => Ok(*value),
        _ => Err(Refusal::Type),
    },
    show: bool::to_string,
};

pub(super) const fn word<T: ValueEnum>() -> Kind<T> {
    Kind {
        read: read_word,
        show: |value| format!("\"{}\"", name_of(value).unwrap_or_default()),
    }
}

fn read_word<T: ValueEnum>(value: &DeValue<'_>) -> Result<T, Refusal> {
    let DeValue::String(text) = value else {
        return Err(Refusal::Type);
    };
    T::from_str(text, false).map_err(|_| {
        let allowed = T::value_variants().iter().filter_map(name_of);
        ValueError::Word {
            found: Quoted::new(text),
            allowed: allowed.collect::<Vec<_>>().join(", "),
        }
        .into()
    })
}

fn name_of<T: ValueEnum>(value: &T) -> Option<String> {
    Some(value.to_possible_value()?.get_name().to_owned())
}

pub(super) const PATH: Kind<PathBuf> = Kind {
    read: |value| match value {
        DeValue::String(text) if text.is_empty() => Err(ValueError::EmptyPath.into()),
        DeValue::String(text) => Ok(text.as_ref().into()),
        _ => Err(Refusal::Type),
    },
    show: |path| format!("{path:?}"),
};

pub(super) const HEADERS: Kind<Headers> = Kind {
    read: |value| {
        let DeValue::Table(entries) = value else {
            return Err(Refusal::Type);
        };
        let mut headers = Headers::default();
        for (name, value) in entries {
            let DeValue::String(value) = value.get_ref() else {
                return Err(Refusal::Type);
            };
            headers.add(name.get_ref(), value)?;
        }
        Ok(headers)
    },
    show: |headers| {
        let shown = headers.0.iter();
        let shown: Vec<String> = shown
            .map(|(name, value)| format!("{name:?} = {value:?}"))
            .collect();
        format!("{{ {} }}", shown.join(", "))
    },
};

pub(super) const UNITS: Kind<Vec<Pattern>> = Kind {
    read: |value| list(value, Pattern::of_unit),
    show: |patterns| show_list(patterns),
};

pub(super) const CGROUPS: Kind<Vec<Pattern>> = Kind {
    read: |value| list(value, Pattern::of_cgroup),
    show: |patterns| show_list(patterns),
};

/// Strings, each of which `read` takes.
fn list(
    value: &DeValue<'_>,
    read: fn(&str) -> Result<Pattern, PatternError>,
) -> Result<Vec<Pattern>, Refusal> {
    let DeValue::Array(items) = value else {
        return Err(Refusal::Type);
    };
    items
        .iter()
        .map(|item| match item.get_ref() {
            DeValue::String(text) => Ok(read(text)?),
            _ => Err(Refusal::Type),
        })
        .collect()
}

fn show_list(patterns: &[Pattern]) -> String {
    let shown: Vec<String> = patterns
        .iter()
        .map(|p| format!("{:?}", p.to_string()))
        .collect();
    format!("[{}]", shown.join(", "))
}

/// A type of TOML, with its article.
pub(super) fn type_of(value: &DeValue<'_>) -> &'static str {
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
