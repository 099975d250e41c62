//! CloudEvents over HTTP, in structured mode: the whole record as `data` of one JSON object.

use super::exporter::Delivered;
use super::http::{Certificates, Http, SetupError, headers};
use super::refusal::Refusal;
use super::words::word;
use crate::config;
use crate::incident::Record;
use reqwest::Url;
use serde_json::{Value, json};

/// One receiver.
#[derive(Debug)]
pub struct Webhook {
    url: Url,
    http: Http,
}

impl Webhook {
    pub(super) fn new(config: &config::Exporter) -> Result<Self, SetupError> {
        let url = config.url.as_ref().ok_or(SetupError::NoReceiver)?.url();
        let timeout = config.timeout.unwrap_or(config::Exporter::TIMEOUT);
        let certificates = Certificates::from(config);
        Ok(Self {
            http: Http::new(&[url], &headers(config)?, &certificates, timeout)?,
            url: url.clone(),
        })
    }

    pub(super) async fn deliver(&self, record: &Record) -> Result<Delivered, Refusal> {
        let body = event(record).to_string().into_bytes();
        let once = [("idempotency-key", record.id.to_string())];
        let kind = "application/cloudevents+json; charset=UTF-8";
        let answer = self.http.post(&self.url, kind, &once, false, body).await?;
        Ok(Delivered {
            note: Some(self.http.said(answer.status, &answer.body)),
        })
    }
}

/// The record as a CloudEvent 1.0.
fn event(record: &Record) -> Value {
    json!({
        "specversion": "1.0",
        "id": record.id,
        "source": source(record),
        "type": format!("memwatch.incident.{}", word(&record.kind)),
        "time": record.ended_at,
        "datacontenttype": "application/json",
        "data": record,
    })
}

/// A URI reference that tells machines apart.
fn source(record: &Record) -> String {
    let host = record.host.hostname.as_ref();
    let host = host.map_or("unknown", |name| name.as_str());
    let mut source = String::from("/memwatch/");
    for byte in host.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            source.push(byte.into());
        } else {
            source.push_str(&format!("%{byte:02X}"));
        }
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;

    #[test]
    fn an_event_carries_the_record_as_it_is() {
        let mut record = sample::grave();
        record.host.hostname = Some("a machine/é".into());
        let event = event(&record);
        assert_eq!(event["source"], "/memwatch/a%20machine%2F%C3%A9");
        assert_eq!(event["id"], record.id.to_string());
        assert_eq!(event["type"], "memwatch.incident.kill");
        let data = event["data"].to_string();
        assert_eq!(Record::from_json(data.as_bytes()).expect("whole"), record);
    }
}
