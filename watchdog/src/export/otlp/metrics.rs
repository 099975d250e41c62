//! Figures as OTLP's metrics. Which figures there are, and where they come from, is for who calls. Pure.

use super::resource::{SCHEMA_URL, resource, scope, text};
use crate::incident::Host;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use std::time::{SystemTime, UNIX_EPOCH};

/// A metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    /// Its unit, as UCUM writes it.
    pub unit: &'static str,
    /// Whether it only ever grows.
    pub is_count: bool,
    /// What was measured.
    pub points: Vec<Point>,
}

/// One figure of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Of what, by names.
    pub of: Vec<(&'static str, String)>,
    /// How much.
    pub value: Amount,
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A whole number.
    Whole(u64),
    /// A share of one.
    Share(f64),
}

/// One request with all of them; counts are since `since`.
pub(super) fn request(
    measures: &[Measure],
    about_us: &[KeyValue],
    since: SystemTime,
    now: SystemTime,
) -> ExportMetricsServiceRequest {
    let host = Host {
        hostname: read("/proc/sys/kernel/hostname"),
        kernel_release: read("/proc/sys/kernel/osrelease"),
        boot_id: None,
    };
    let measures = measures.iter().filter(|measure| !measure.points.is_empty());
    let metrics = measures.map(|measure| metric(measure, nanos(since), nanos(now)));
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource(about_us, &host)),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics: metrics.collect(),
                schema_url: SCHEMA_URL.to_owned(),
            }],
            schema_url: SCHEMA_URL.to_owned(),
        }],
    }
}

fn metric(measure: &Measure, since: u64, now: u64) -> Metric {
    let data_points = measure.points.iter().map(|point| NumberDataPoint {
        attributes: point
            .of
            .iter()
            .map(|(key, value)| text(key, value))
            .collect(),
        start_time_unix_nano: if measure.is_count { since } else { 0 },
        time_unix_nano: now,
        value: Some(match point.value {
            Amount::Whole(value) => Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX)),
            Amount::Share(value) => Value::AsDouble(value),
        }),
        ..NumberDataPoint::default()
    });
    let data_points = data_points.collect();
    Metric {
        name: measure.name.to_owned(),
        description: measure.description.to_owned(),
        unit: measure.unit.to_owned(),
        data: Some(if measure.is_count {
            Data::Sum(Sum {
                data_points,
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            })
        } else {
            Data::Gauge(Gauge { data_points })
        }),
        ..Metric::default()
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos() as u64
}

fn read(path: &str) -> Option<crate::incident::Text> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().into())
}
