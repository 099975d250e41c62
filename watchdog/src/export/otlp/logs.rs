//! An incident as a log record. What there is a name for in the semantic conventions stands under it; everything
//! else stands as the record has it, under `memwatch.` and its path: `memwatch.faults.major`. Of lists the first
//! intervention and the first victim are told; how long each list is stands under its name. The tests, the flight and
//! the settings are in the record alone, which goes along as JSON if it is not too large. Pure.

use super::resource::{SCHEMA_URL, pair, resource, scope, text, texts};
use crate::export::words::{body, word};
use crate::incident::{Kind, Record};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use serde_json::Value as Json;
use std::time::{SystemTime, UNIX_EPOCH};

/// One request with one record. The whole record goes along as JSON if it has at most so many bytes.
pub(super) fn request(
    record: &Record,
    about_us: &[KeyValue],
    record_most_bytes: u64,
    now: SystemTime,
) -> ExportLogsServiceRequest {
    let (severity_number, severity_text) = severity(record.kind);
    let observed = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let happened = record
        .ended_at
        .unix_us()
        .and_then(|us| u64::try_from(us).ok());
    let log = LogRecord {
        time_unix_nano: happened.unwrap_or(0).saturating_mul(1000),
        observed_time_unix_nano: observed.as_nanos() as u64,
        severity_number: severity_number.into(),
        severity_text: severity_text.to_owned(),
        event_name: format!("memwatch.incident.{}", word(&record.kind)),
        body: Some(AnyValue {
            value: Some(Value::StringValue(body(record))),
        }),
        attributes: attributes(record, record_most_bytes),
        ..LogRecord::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource(about_us, &record.host)),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: vec![log],
                schema_url: SCHEMA_URL.to_owned(),
            }],
            schema_url: SCHEMA_URL.to_owned(),
        }],
    }
}

fn severity(kind: Kind) -> (SeverityNumber, &'static str) {
    match kind {
        Kind::HardReset => (SeverityNumber::Fatal, "FATAL"),
        Kind::Kill | Kind::KernelOom | Kind::Timeout => (SeverityNumber::Error, "ERROR"),
        Kind::NearMiss | Kind::Warn | Kind::Hang | Kind::Freeze | Kind::Abort | Kind::Takeover => {
            (SeverityNumber::Warn, "WARN")
        }
        Kind::Run | Kind::Test | Kind::HandBack => (SeverityNumber::Info, "INFO"),
    }
}

/// What stands elsewhere: under `memwatch.incident`, and of the host in the resource.
const ELSEWHERE: [&str; 3] = ["id", "kind", "host"];

/// Parts that say too much to be attributes; in the JSON they are all.
const BULKY: [&str; 3] = ["suite", "flight", "settings"];

fn attributes(record: &Record, record_most_bytes: u64) -> Vec<KeyValue> {
    let mut all = vec![
        text("memwatch.incident.id", &record.id.to_string()),
        text("memwatch.incident.kind", &word(&record.kind)),
    ];
    conventional(record, &mut all);
    if let Some(boot) = &record.host.boot_id {
        all.push(text("memwatch.host.boot_id", boot.as_str()));
    }
    let json = serde_json::to_value(record).unwrap_or_default();
    let fields = json.as_object().into_iter().flatten();
    let is_told = |name: &str| !ELSEWHERE.contains(&name) && !BULKY.contains(&name);
    for (name, value) in fields.filter(|(name, _)| is_told(name)) {
        flatten(&format!("memwatch.{name}"), value, &mut all);
    }
    for (list, name) in [("interventions", "intervention"), ("victims", "victim")] {
        if let Some(first) = json[list].get(0) {
            flatten(&format!("memwatch.{name}"), first, &mut all);
        }
    }
    let whole = json.to_string();
    if whole.len() as u64 <= record_most_bytes {
        all.push(text("memwatch.record", &whole));
    }
    all
}

/// What the semantic conventions have names for.
fn conventional(record: &Record, all: &mut Vec<KeyValue>) {
    if let Some(cgroup) = &record.target.cgroup_path {
        all.push(text("process.linux.cgroup", cgroup.as_str()));
    }
    if let Some(code) = record.exit_code {
        all.push(pair("process.exit.code", Value::IntValue(code.into())));
    }
    let arguments = record.command.as_ref();
    if let Some(arguments) = arguments.and_then(|command| command.arguments.as_ref()) {
        let words = arguments.iter().map(|word| word.as_str().to_owned());
        all.push(pair("process.command_args", texts(words)));
    }
    let first = record.interventions.first();
    let victims = record.victims.first().map(|victim| &victim.process);
    if let Some(victim) = first.and_then(|it| it.victim.as_ref()).or(victims) {
        let number = |pid: u32| Value::IntValue(pid.into());
        all.push(pair("process.pid", number(victim.pid)));
        all.push(text("process.executable.name", &victim.comm.to_string()));
        if let Some(parent) = victim.ppid {
            all.push(pair("process.parent_pid", number(parent)));
        }
        if let Some(leader) = victim.pgid {
            all.push(pair("process.group_leader.pid", number(leader)));
        }
    }
    let Some(first) = first else { return };
    all.push(text("error.type", &word(&first.rule)));
    if let Some(test) = &first.test {
        all.push(text("test.case.name", test.id.as_str()));
    }
    if !first.python_stack.is_empty() {
        let stack = first.python_stack.iter().map(|line| line.as_str());
        let stack = stack.collect::<Vec<_>>().join("\n");
        all.push(text("exception.stacktrace", &stack));
    }
}

/// Each value of it under its path; of a list its length.
fn flatten(path: &str, value: &Json, all: &mut Vec<KeyValue>) {
    let value = match value {
        Json::Null => return,
        Json::Object(fields) => {
            for (name, value) in fields {
                flatten(&format!("{path}.{name}"), value, all);
            }
            return;
        }
        Json::Array(list) => Value::IntValue(list.len() as i64),
        Json::Bool(value) => Value::BoolValue(*value),
        Json::String(value) => Value::StringValue(value.clone()),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::IntValue(number),
            None => Value::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        },
    };
    all.push(pair(path, value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;
    use std::collections::BTreeMap;

    fn log_of(record: &Record, most: u64) -> (LogRecord, BTreeMap<String, Value>) {
        let request = request(record, &[], most, SystemTime::now());
        let mut logs = request.resource_logs;
        let log = logs.remove(0).scope_logs.remove(0).log_records.remove(0);
        let values = log.attributes.iter().cloned();
        let values = values.filter_map(|pair| Some((pair.key, pair.value?.value?)));
        let values: BTreeMap<_, _> = values.collect();
        assert_eq!(values.len(), log.attributes.len(), "no name comes twice");
        (log, values)
    }

    #[test]
    fn a_kill_says_who_and_why_under_the_names_that_others_know() {
        let record = sample::killed();
        let (log, values) = log_of(&record, 1 << 20);
        assert_eq!(log.event_name, "memwatch.incident.kill");
        assert_eq!(log.severity_text, "ERROR");
        assert_eq!(log.time_unix_nano, 1_772_356_470_000_000_000);
        for (name, number) in [
            ("process.pid", 4250),
            ("process.parent_pid", 4242),
            ("process.exit.code", 1),
            ("memwatch.faults.major", 312),
            ("memwatch.interventions", 1),
            ("memwatch.intervention.observed.value", 35_000),
            ("memwatch.intervention.memory_after_bytes", 566 << 20),
            ("memwatch.victim.rss_bytes", 1434 << 20),
        ] {
            assert_eq!(values[name], Value::IntValue(number), "{name}");
        }
        let said = |name: &str| match &values[name] {
            Value::StringValue(text) => text.as_str(),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(said("error.type"), "exhaustion");
        assert_eq!(said("memwatch.incident.id"), record.id.to_string());
        let whole = said("memwatch.record").as_bytes();
        assert_eq!(Record::from_json(whole).expect("whole"), record);
        assert!(!values.contains_key("process.command_args"));
    }

    #[test]
    fn a_record_that_is_too_large_stays_at_home_and_no_secret_is_in_the_rest() {
        let record = sample::grave();
        let (_, values) = log_of(&record, 100);
        assert!(!values.contains_key("memwatch.record"));
        for part in ["settings", "flight", "suite"] {
            let of_part = format!("memwatch.{part}");
            assert!(values.keys().all(|name| !name.starts_with(&of_part)));
        }
    }

    #[test]
    fn the_machine_and_its_boot_can_be_filtered_by() {
        let (_, values) = log_of(&sample::grave(), 100);
        for (name, number) in [
            ("memory_available_bytes", 700 << 20),
            ("swap_total_bytes", 8192 << 20),
            ("swap_free_bytes", 12 << 20),
            ("swaps", 1),
            ("some_permille", 820),
            ("full_permille", 611),
            ("arc.size_bytes", 1_323_119_696),
            ("arc.c_bytes", 1_402_630_144),
            ("arc.c_min_bytes", 1_042_968_576),
            ("arc.c_max_bytes", 16_687_497_216),
        ] {
            let name = format!("memwatch.machine.{name}");
            assert_eq!(values[&name], Value::IntValue(number), "{name}");
        }
        assert_eq!(
            values["memwatch.machine.arc.shrank"],
            Value::BoolValue(false)
        );
        let said = |name: &str| match &values[name] {
            Value::StringValue(text) => text.clone(),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(
            said("memwatch.machine.oomd"),
            "stopped by a signal or a debugger"
        );
        let boot = sample::quiet().host.boot_id.expect("one");
        assert_eq!(said("memwatch.host.boot_id"), boot.as_str());
        assert_eq!(values["memwatch.kernel_log"], Value::IntValue(3));
    }
}
