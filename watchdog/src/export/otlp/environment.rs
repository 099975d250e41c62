//! The variables that the OpenTelemetry specification names for exporters, which count where the configuration
//! is silent; those of one signal before those of both. None of them makes an exporter: that takes a table in the
//! configuration, since a project may bring an environment along.

use crate::config::{Compression, Exporter, HeaderError, Headers};
use crate::export::http::{self, Certificates, SetupError};
use crate::export::percent;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use reqwest::Url;
use std::path::PathBuf;
use std::time::Duration;

/// Where nobody says where.
const DEFAULT: &str = "http://localhost:4318";

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Logs,
    Metrics,
}

/// What a variable says, by its name.
type Get = dyn Fn(&str) -> Option<String>;

/// The variables.
pub(super) struct Environment {
    get: Box<Get>,
}

impl Environment {
    pub(super) fn of_this_process() -> Self {
        Self {
            get: Box::new(|name| std::env::var(name).ok()),
        }
    }

    /// The variable of this signal, or of both, with its name.
    fn of(&self, signal: Signal, what: What) -> Option<(&'static str, String)> {
        let (logs, metrics, both) = what.names();
        let own = match signal {
            Signal::Logs => logs,
            Signal::Metrics => metrics,
        };
        let set = |name: &'static str| Some((name, (self.get)(name).filter(|v| !v.is_empty())?));
        set(own).or_else(|| set(both))
    }

    /// The configuration's `url`, like the variable for both, is what the signal's own path is put below.
    pub(super) fn url(&self, config: &Exporter, signal: Signal) -> Result<Url, SetupError> {
        if let Some(receiver) = &config.url {
            return Ok(below(receiver.url(), signal));
        }
        let (name, text) = match self.of(signal, What::Endpoint) {
            Some(found) => found,
            None => ("OTEL_EXPORTER_OTLP_ENDPOINT", DEFAULT.to_owned()),
        };
        let is_whole = name != "OTEL_EXPORTER_OTLP_ENDPOINT";
        let url = Url::parse(&text).map_err(|error| SetupError::Environment {
            name,
            why: error.to_string(),
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            let why = "it is not an address of HTTP".to_owned();
            return Err(SetupError::Environment { name, why });
        }
        Ok(if is_whole { url } else { below(&url, signal) })
    }

    pub(super) fn headers(&self, config: &Exporter, signal: Signal) -> Result<Headers, SetupError> {
        let said = http::headers(config)?;
        // What the environment has is meant for the receiver that it names.
        if config.url.is_some() || !said.0.is_empty() {
            return Ok(said);
        }
        let Some((name, list)) = self.of(signal, What::Headers) else {
            return Ok(said);
        };
        let mut headers = Headers::default();
        for (key, value) in pairs(&list) {
            let added = headers.add(&key, &value);
            added.map_err(|error| SetupError::Environment {
                name,
                why: match error {
                    // What stands there may be a whole header, with its secret.
                    HeaderError::Name(_) => "it is not NAME=VALUE,NAME=VALUE".to_owned(),
                    HeaderError::Value(_) => error.to_string(),
                },
            })?;
        }
        Ok(headers)
    }

    pub(super) fn certificates(&self, config: &Exporter, signal: Signal) -> Certificates {
        let mut certificates = Certificates::from(config);
        if config.url.is_none() {
            let file = |what| Some(PathBuf::from(self.of(signal, what)?.1));
            certificates.ca = certificates.ca.or_else(|| file(What::Certificate));
            certificates.own = certificates.own.or_else(|| file(What::ClientCertificate));
            certificates.key = certificates.key.or_else(|| file(What::ClientKey));
        }
        certificates
    }

    pub(super) fn timeout(
        &self,
        config: &Exporter,
        signal: Signal,
    ) -> Result<Duration, SetupError> {
        if let Some(timeout) = config.timeout {
            return Ok(timeout);
        }
        let Some((name, text)) = self.of(signal, What::Timeout) else {
            return Ok(Exporter::TIMEOUT);
        };
        match text.trim().parse() {
            Ok(ms @ 1..) => Ok(Duration::from_millis(ms)),
            _ => Err(SetupError::Environment {
                name,
                why: "it is not a number of milliseconds".to_owned(),
            }),
        }
    }

    /// gzip, unless somebody says otherwise: the specification's default is none, for networks that are near.
    pub(super) fn compression(
        &self,
        config: &Exporter,
        signal: Signal,
    ) -> Result<Compression, SetupError> {
        if let Some(compression) = config.compression {
            return Ok(compression);
        }
        match self.of(signal, What::Compression) {
            None => Ok(Compression::Gzip),
            Some((_, text)) if text == "gzip" => Ok(Compression::Gzip),
            Some((_, text)) if text == "none" => Ok(Compression::None),
            Some((name, _)) => Err(SetupError::Environment {
                name,
                why: "memwatch knows gzip and none".to_owned(),
            }),
        }
    }

    /// memwatch itself, with what the environment says of it.
    pub(super) fn resource(&self) -> Vec<KeyValue> {
        let said = (self.get)("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        super::resource::attributes(pairs(&said), (self.get)("OTEL_SERVICE_NAME"))
    }
}

/// What a variable is about.
#[derive(Clone, Copy)]
enum What {
    Endpoint,
    Headers,
    Timeout,
    Compression,
    Certificate,
    ClientCertificate,
    ClientKey,
}

macro_rules! names {
    ($end:literal) => {
        (
            concat!("OTEL_EXPORTER_OTLP_LOGS_", $end),
            concat!("OTEL_EXPORTER_OTLP_METRICS_", $end),
            concat!("OTEL_EXPORTER_OTLP_", $end),
        )
    };
}

impl What {
    /// For logs, for metrics, for both.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Endpoint => names!("ENDPOINT"),
            Self::Headers => names!("HEADERS"),
            Self::Timeout => names!("TIMEOUT"),
            Self::Compression => names!("COMPRESSION"),
            Self::Certificate => names!("CERTIFICATE"),
            Self::ClientCertificate => names!("CLIENT_CERTIFICATE"),
            Self::ClientKey => names!("CLIENT_KEY"),
        }
    }
}

fn below(base: &Url, signal: Signal) -> Url {
    let mut url = base.clone();
    let end = match signal {
        Signal::Logs => "v1/logs",
        Signal::Metrics => "v1/metrics",
    };
    url.set_path(&format!("{}/{end}", base.path().trim_end_matches('/')));
    url
}

/// `key=value,key=value`, percent-encoded, as in the specification's Baggage.
pub(in crate::export) fn pairs(list: &str) -> Vec<(String, String)> {
    let pairs = list.split(',').filter_map(|pair| pair.split_once('='));
    let pairs =
        pairs.map(|(key, value)| (percent::decode(key.trim()), percent::decode(value.trim())));
    pairs.filter(|(key, _)| !key.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &'static [(&'static str, &'static str)]) -> Environment {
        let get = |name: &str| {
            let mut found = variables.iter().filter(|(known, _)| *known == name);
            Some(found.next()?.1.to_owned())
        };
        Environment { get: Box::new(get) }
    }

    fn urls(config: &Exporter, environment: &Environment) -> [String; 2] {
        [Signal::Logs, Signal::Metrics].map(|signal| {
            let url = environment.url(config, signal);
            url.map_or_else(|error| error.to_string(), |url| url.to_string())
        })
    }

    #[test]
    fn the_configuration_counts_before_the_environment_and_both_before_the_default() {
        let silent = Exporter::default();
        assert_eq!(
            urls(&silent, &environment(&[])),
            [
                "http://localhost:4318/v1/logs",
                "http://localhost:4318/v1/metrics"
            ]
        );
        let both = environment(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://both/base/"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://logs/as/it/is"),
        ]);
        assert_eq!(
            urls(&silent, &both),
            ["https://logs/as/it/is", "https://both/base/v1/metrics"]
        );
        let said = Exporter {
            url: Some("https://said:1/x".parse().expect("one")),
            ..Exporter::default()
        };
        assert_eq!(
            urls(&said, &both),
            ["https://said:1/x/v1/logs", "https://said:1/x/v1/metrics"]
        );
        let wrong = environment(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://both")]);
        assert!(urls(&silent, &wrong)[0].starts_with("OTEL_EXPORTER_OTLP_ENDPOINT in the"));
    }

    #[test]
    fn a_secret_for_the_environments_receiver_goes_to_no_other() {
        let variables = environment(&[
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20x, a=1",
            ),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ]);
        let silent = Exporter::default();
        let headers = variables.headers(&silent, Signal::Logs).expect("right").0;
        assert_eq!(headers["authorization"], "Bearer x");
        assert_eq!(headers["a"], "1");
        let ca = variables.certificates(&silent, Signal::Metrics).ca;
        assert_eq!(ca, Some("/ca.pem".into()));
        let said = Exporter {
            url: Some("https://said:1/x".parse().expect("one")),
            ..Exporter::default()
        };
        let headers = variables.headers(&said, Signal::Logs).expect("right").0;
        assert!(headers.is_empty());
        assert_eq!(variables.certificates(&said, Signal::Logs).ca, None);
    }

    #[test]
    fn times_and_packing_are_read_and_what_is_unknown_is_an_error() {
        let silent = Exporter::default();
        let right = environment(&[
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"),
        ]);
        let timeout = right.timeout(&silent, Signal::Logs).expect("right");
        assert_eq!(timeout, Duration::from_millis(2500));
        let packing = |signal| right.compression(&silent, signal).expect("right");
        assert_eq!(packing(Signal::Logs), Compression::Gzip);
        assert_eq!(packing(Signal::Metrics), Compression::None);
        let wrong = environment(&[
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ]);
        assert!(wrong.timeout(&silent, Signal::Logs).is_err());
        assert!(wrong.compression(&silent, Signal::Logs).is_err());
    }
}
