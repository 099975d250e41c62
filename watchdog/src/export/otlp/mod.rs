//! OTLP over HTTP, as protobuf: an incident is a log record ([`logs`]), how things are is metrics ([`metrics`]).
//! Where to and how is the configuration's to say, and where it is silent the environment's, by the names of the
//! OpenTelemetry specification ([`environment`]). This file owns the two requests and what is answered to them.

mod environment;
mod logs;
pub mod metrics;
mod resource;

use super::exporter::Delivered;
use super::http::{Answer, Http, SetupError, said};
use super::refusal::Refusal;
use crate::config::{self, Compression};
use crate::incident::{Record, Text};
use environment::{Environment, Signal};
use metrics::Measure;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use prost::Message;
use std::time::SystemTime;

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
        let partial = decoded::<ExportLogsServiceResponse>(&answer);
        let partial = partial.and_then(|response| response.partial_success);
        let (refused, why) = partial.map_or((0, String::new()), |partial| {
            (partial.rejected_log_records, partial.error_message)
        });
        verdict(&answer, refused, &why)
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
        let partial = decoded::<ExportMetricsServiceResponse>(&answer);
        let partial = partial.and_then(|response| response.partial_success);
        let (refused, why) = partial.map_or((0, String::new()), |partial| {
            (partial.rejected_data_points, partial.error_message)
        });
        verdict(&answer, refused, &why)
    }
}

impl Way {
    async fn send(&self, body: Vec<u8>) -> Result<Answer, Refusal> {
        let post = self.http.post(&self.url, PROTOBUF, &[], self.packed, body);
        post.await
    }
}

/// What the receiver says to a request that it took, if it says it as it should.
fn decoded<M: Message + Default>(answer: &Answer) -> Option<M> {
    answer
        .content_type
        .starts_with(PROTOBUF)
        .then(|| M::decode(answer.body.as_slice()).ok())?
}

/// A request that was taken in part is not to be sent again, says the specification.
fn verdict(answer: &Answer, refused: i64, why: &str) -> Result<Delivered, Refusal> {
    let why = Text::from(why.chars().take(200).collect::<String>());
    if refused > 0 {
        let why = format!("{}, but not taken: {why}", answer.status);
        return Err(Refusal::Never { why });
    }
    let body: &[u8] = if answer.content_type.starts_with(PROTOBUF) {
        &[]
    } else {
        &answer.body
    };
    let note = match why.as_str() {
        "" => said(answer.status, body),
        warning => format!("{}, with a warning: {warning}", answer.status),
    };
    Ok(Delivered { note: Some(note) })
}
