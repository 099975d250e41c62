//! OTLP over HTTP, as protobuf: an incident is a log record ([`logs`]), how things are is metrics ([`metrics`]).
//! Where to and how is the configuration's to say, and where it is silent the environment's, by the names of the
//! OpenTelemetry specification ([`environment`]). This file owns the two requests and what is answered to them.

mod environment;
mod logs;
pub mod metrics;
mod resource;

use super::exporter::Delivered;
use super::http::{Answer, Http, SetupError};
use super::refusal::Refusal;
use crate::config::{self, Compression};
use crate::incident::Record;
use environment::{Environment, Signal};
use metrics::Measure;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use prost::Message;
use std::time::SystemTime;

#[cfg(any(test, feature = "fuzzing"))]
pub(super) use environment::pairs;

const PROTOBUF: &str = "application/x-protobuf";

/// One receiver, or one for each of the two.
#[derive(Debug)]
pub struct Otlp {
    logs: Way,
    metrics: Way,
    resource: Vec<KeyValue>,
    record_most_bytes: u64,
}

/// Where one of the two goes, and how.
#[derive(Debug)]
struct Way {
    url: reqwest::Url,
    http: Http,
    packed: bool,
}

impl Otlp {
    pub(super) fn new(config: &config::Exporter) -> Result<Self, SetupError> {
        Self::in_environment(config, &Environment::of_this_process())
    }

    fn in_environment(
        config: &config::Exporter,
        environment: &Environment,
    ) -> Result<Self, SetupError> {
        let way = |signal| -> Result<Way, SetupError> {
            let url = environment.url(config, signal)?;
            let headers = environment.headers(config, signal)?;
            let certificates = environment.certificates(config, signal);
            let timeout = environment.timeout(config, signal)?;
            let compression = environment.compression(config, signal)?;
            Ok(Way {
                http: Http::new(&[&url], &headers, &certificates, timeout)?,
                url,
                packed: compression == Compression::Gzip,
            })
        };
        Ok(Self {
            logs: way(Signal::Logs)?,
            metrics: way(Signal::Metrics)?,
            resource: environment.resource(),
            record_most_bytes: config.record_most_bytes(),
        })
    }

    pub(super) async fn deliver(&self, record: &Record) -> Result<Delivered, Refusal> {
        let now = SystemTime::now();
        let request = logs::request(record, &self.resource, self.record_most_bytes, now);
        let answer = self.logs.send(request.encode_to_vec()).await?;
        self.logs.verdict(&answer, of_logs)
    }

    /// Tells how things are. Nobody tries again: there will be newer figures.
    ///
    /// # Errors
    /// They were not taken.
    pub async fn measure(
        &self,
        measures: &[Measure],
        since: SystemTime,
    ) -> Result<Delivered, Refusal> {
        let request = metrics::request(measures, &self.resource, since, SystemTime::now());
        let answer = self.metrics.send(request.encode_to_vec()).await?;
        self.metrics.verdict(&answer, of_metrics)
    }
}

impl Way {
    async fn send(&self, body: Vec<u8>) -> Result<Answer, Refusal> {
        let post = self.http.post(&self.url, PROTOBUF, &[], self.packed, body);
        post.await
    }

    /// A request that was taken in part is not to be sent again, says the specification.
    fn verdict(
        &self,
        answer: &Answer,
        read: fn(&[u8]) -> Option<Partial>,
    ) -> Result<Delivered, Refusal> {
        let is_message = answer.content_type.starts_with(PROTOBUF);
        let body = answer.body.as_slice();
        let partial = is_message.then(|| read(body)).flatten();
        let (refused, why) = partial.unwrap_or_default();
        let why = self.http.excerpt(&why);
        if refused > 0 {
            let why = format!("{}, but not taken: {why}", answer.status);
            return Err(Refusal::Never { why });
        }
        let note = match why.as_str() {
            "" => self
                .http
                .said(answer.status, if is_message { &[] } else { body }),
            warning => format!("{}, with a warning: {warning}", answer.status),
        };
        Ok(Delivered { note: Some(note) })
    }
}

/// How much of a request was not taken, and why; or nothing of it and a warning.
pub(super) type Partial = (i64, String);

/// What the receiver says to a request that it took, if it says it as it should.
pub(super) fn of_logs(body: &[u8]) -> Option<Partial> {
    let partial = ExportLogsServiceResponse::decode(body)
        .ok()?
        .partial_success?;
    Some((partial.rejected_log_records, partial.error_message))
}

pub(super) fn of_metrics(body: &[u8]) -> Option<Partial> {
    let partial = ExportMetricsServiceResponse::decode(body)
        .ok()?
        .partial_success?;
    Some((partial.rejected_data_points, partial.error_message))
}
