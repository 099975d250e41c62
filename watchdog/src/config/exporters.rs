//! Where incidents go: `[incidents]`, which are kept and how many, and `[export.NAME]`, who is told of them.
//! Delivering them is `export`'s.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use super::error::Contradiction;
use super::{OrNone, Quoted, Size};

/// `[incidents]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incidents {
    /// Keep what happened to `memwatch attach` on the disk.
    pub of_runs: bool,
    /// As many are kept.
    pub most: u32,
    /// As many bytes of them are kept.
    pub most_bytes: u64,
}

impl Default for Incidents {
    fn default() -> Self {
        Self {
            of_runs: true,
            most: 1000,
            most_bytes: 256 << 20,
        }
    }
}

/// All exporters, by their names.
pub type Exporters = BTreeMap<String, Exporter>;

/// `[export.NAME]`, as the files say it; `None` is silence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exporter {
    /// Of which type; [`Exporter::of_name`] where the name says it.
    pub kind: Option<ExporterType>,
    /// Where its receiver is.
    pub url: Option<Receiver>,
    /// What each request carries beside what its type asks for.
    pub headers: Option<Headers>,
    /// More of these, in a file that is not for everybody's eyes.
    pub headers_file: Option<PathBuf>,
    /// The only certificates, PEM, by which the receiver is believed.
    pub ca_file: Option<PathBuf>,
    /// By which memwatch says who it is, PEM ...
    pub certificate_file: Option<PathBuf>,
    /// ... and its key.
    pub key_file: Option<PathBuf>,
    /// How long a receiver has for an answer.
    pub timeout: Option<Duration>,
    /// How long is waited before it is tried again, at first ...
    pub retry_least: Option<Duration>,
    /// ... and in the end.
    pub retry_most: Option<Duration>,
    /// OTLP: how requests are packed.
    pub compression: Option<Compression>,
    /// OTLP: the largest record that goes along as JSON.
    pub record_most: Option<OrNone<Size>>,
    /// OTLP: whether metrics are sent.
    pub metrics: Option<bool>,
    /// OTLP: how often.
    pub metrics_every: Option<Duration>,
}

/// What an exporter speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExporterType {
    /// OTLP over HTTP, as protobuf
    Otlp,
    /// CloudEvents as JSON
    Webhook,
    /// systemd's journal
    Journal,
    /// The desktop's notifications
    Desktop,
}

/// How requests are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// By gzip
    #[default]
    Gzip,
    /// Not at all
    None,
}

impl Exporter {
    /// The type, if it or the name says one. The check of a configuration leaves none without.
    #[must_use]
    pub fn of_name(&self, name: &str) -> Option<ExporterType> {
        self.kind
            .or_else(|| ExporterType::from_str(name, false).ok())
    }

    /// How long a receiver has for an answer, unless something else says otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// Between tries: at first, and in the end.
    #[must_use]
    pub fn retry(&self) -> (Duration, Duration) {
        let least = self.retry_least.unwrap_or(Duration::from_secs(1));
        let most = self.retry_most.unwrap_or(Duration::from_secs(300));
        (least, most.max(least))
    }

    /// The largest record that goes along as JSON.
    #[must_use]
    pub fn record_most_bytes(&self) -> u64 {
        match self.record_most {
            None => 64 << 10,
            Some(OrNone(size)) => size.map_or(0, Size::bytes),
        }
    }

    /// How often metrics are sent; `None` for never.
    #[must_use]
    pub fn metrics_every(&self) -> Option<Duration> {
        let every = self.metrics_every.unwrap_or(Duration::from_secs(15));
        self.metrics.unwrap_or(true).then_some(every)
    }
}

/// What no file can say alone.
pub(super) fn check(exporters: &Exporters) -> Result<(), Box<Contradiction>> {
    for (name, exporter) in exporters {
        let Some(kind) = exporter.of_name(name) else {
            return Err(Box::new(Contradiction::NoExporterType {
                name: name.clone(),
            }));
        };
        if kind == ExporterType::Otlp {
            continue;
        }
        let is_http = kind == ExporterType::Webhook;
        if is_http && exporter.url.is_none() {
            return Err(Box::new(Contradiction::NoReceiver { name: name.clone() }));
        }
        let https = [
            ("url", exporter.url.is_some()),
            ("headers", exporter.headers.is_some()),
            ("headers_file", exporter.headers_file.is_some()),
            ("ca_file", exporter.ca_file.is_some()),
            ("certificate_file", exporter.certificate_file.is_some()),
            ("key_file", exporter.key_file.is_some()),
        ];
        let otlps = [
            ("compression", exporter.compression.is_some()),
            ("record_most", exporter.record_most.is_some()),
            ("metrics", exporter.metrics.is_some()),
            ("metrics_every", exporter.metrics_every.is_some()),
        ];
        let foreign = otlps
            .into_iter()
            .map(|(key, is_said)| (key, is_said, "\"otlp\""));
        let https = https
            .into_iter()
            .map(|(key, is_said)| (key, is_said && !is_http, "\"otlp\" or \"webhook\""));
        let mut foreign = foreign.chain(https);
        if let Some((key, _, of)) = foreign.find(|(_, is_said, _)| *is_said) {
            return Err(Box::new(Contradiction::NotOfThisType {
                name: name.clone(),
                key,
                of,
            }));
        }
    }
    Ok(())
}

/// A name that can be a directory's, and stand in a message and in TOML as it is.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

/// Where a receiver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver(reqwest::Url);

/// Why a text names no receiver. The text itself is not shown: what stands behind a host may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiverError {
    /// It is none.
    #[error("this is no address ({0}); write for example https://collector.example:4318")]
    NoUrl(String),
    /// It is of another kind.
    #[error("this is not an address of HTTP; write one that begins with https:// or http://")]
    NotHttp,
    /// It has a user's name or password in it.
    #[error(
        "an address is no place for a user's name or password, which would be shown; put an Authorization into headers_file"
    )]
    Secret,
}

impl Receiver {
    /// As it is asked for.
    #[must_use]
    pub fn url(&self) -> &reqwest::Url {
        &self.0
    }

    /// Where it is, without what may be nobody else's business: what stands behind the host.
    #[must_use]
    pub fn place(&self) -> String {
        let place = self.0.origin().ascii_serialization();
        let is_all = self.0.path() == "/" && self.0.query().is_none();
        place + if is_all { "" } else { "/..." }
    }
}

impl FromStr for Receiver {
    type Err = ReceiverError;

    fn from_str(text: &str) -> Result<Self, ReceiverError> {
        let url =
            reqwest::Url::parse(text).map_err(|error| ReceiverError::NoUrl(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(ReceiverError::NotHttp);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ReceiverError::Secret);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Headers of HTTP, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub BTreeMap<String, String>);

/// Why something is no header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The name is none.
    #[error("{0} is no name of a header")]
    Name(Quoted),
    /// The value, which is not shown: it may be a secret.
    #[error("the value of the header {0} has characters that no header may have")]
    Value(Quoted),
}

impl Headers {
    /// Adds one, in place of what there was.
    ///
    /// # Errors
    /// It cannot be one.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        reqwest::header::HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| HeaderError::Name(Quoted::new(name)))?;
        reqwest::header::HeaderValue::from_str(value)
            .map_err(|_| HeaderError::Value(Quoted::new(name)))?;
        self.0.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}
