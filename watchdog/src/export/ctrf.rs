//! The tests of a run as CTRF, the Common Test Report Format: JSON that dashboards and CI tools read whatever
//! ran the tests. memwatch's figures stand in `extra`, where the format leaves room for them. Pure.

use super::node::Node;
use crate::incident::suite::{NotRun, Outcome, Suite, Test};
use crate::incident::{Record, Text};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Version of the format that is written.
const SPECIFICATION: &str = "0.1.0";

/// The file's content; `started` is when the run began. Without tests it is a report of none.
#[must_use]
pub fn render(record: &Record, started: SystemTime) -> Vec<u8> {
    let none = Suite::default();
    let suite = record.suite.as_ref().unwrap_or(&none);
    let start_ms = unix_ms(started);
    let ran = by_name(suite);
    let ran = ran.iter().map(|runs| test(runs, start_ms));
    let tests: Vec<Value> = ran.chain(suite.not_run.iter().map(not_run)).collect();
    let of = |status: &str| tests.iter().filter(|test| test["status"] == status).count();
    let flaky = tests.iter().filter(|test| test["flaky"] == true).count();
    let report = json!({
        "reportFormat": "CTRF",
        "specVersion": SPECIFICATION,
        "reportId": record.id,
        "timestamp": record.ended_at,
        "generatedBy": format!("memwatch {}", record.memwatch_version),
        "results": {
            "tool": tool(suite),
            "summary": {
                "tests": tests.len(),
                "passed": of("passed"),
                "failed": of("failed"),
                "skipped": of("skipped"),
                "pending": of("pending"),
                "other": of("other"),
                "flaky": flaky,
                "start": start_ms,
                "stop": start_ms + record.duration_us / 1000,
                "duration": record.duration_us / 1000,
                "extra": { "memwatch": {
                    "selected": suite.selected,
                    "lost": suite.lost,
                    "verdict": record.verdict,
                    "exit_code": record.exit_code,
                    "peak_bytes": record.peak_bytes,
                    "stall_us": record.stall_us,
                } },
            },
            "tests": tests,
            "environment": environment(record),
        },
    });
    let mut bytes = serde_json::to_vec_pretty(&report).expect("a value serialises");
    bytes.push(b'\n');
    bytes
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_millis() as u64
}

fn tool(suite: &Suite) -> Value {
    let mut tool = json!({ "name": "pytest" });
    if let Some(version) = &suite.pytest_version {
        tool["version"] = json!(version);
    }
    tool
}

fn environment(record: &Record) -> Value {
    let mut environment = json!({ "osPlatform": "linux" });
    if let Some(release) = &record.host.kernel_release {
        environment["osRelease"] = json!(release);
    }
    if let Some(python) = record
        .suite
        .as_ref()
        .and_then(|suite| suite.python_version.as_ref())
    {
        environment["extra"] = json!({ "python": python });
    }
    environment
}

/// The runs of each test, in the order in which the tests began.
fn by_name(suite: &Suite) -> Vec<Vec<&Test>> {
    let mut places: HashMap<&Text, usize> = HashMap::new();
    let mut all: Vec<Vec<&Test>> = Vec::new();
    for test in &suite.tests {
        let place = *places.entry(&test.id).or_insert_with(|| {
            all.push(Vec::new());
            all.len() - 1
        });
        all[place].push(test);
    }
    all
}

/// One test: how its last run ended, with those before as attempts.
fn test(runs: &[&Test], start_ms: u64) -> Value {
    let Some((last, before)) = runs.split_last() else {
        return Value::Null;
    };
    let began_ms = start_ms + last.at_us / 1000;
    let mut entry = named(&last.id);
    entry["status"] = json!(status(last.outcome));
    entry["rawStatus"] = json!(last.outcome.name());
    entry["duration"] = json!(last.wall_us / 1000);
    entry["start"] = json!(began_ms);
    entry["stop"] = json!(began_ms + last.wall_us / 1000);
    entry["extra"] = json!(extra(last));
    if let Some(line) = last.line {
        entry["line"] = json!(line);
    }
    if let Some(worker) = &last.worker {
        entry["threadId"] = json!(worker);
    }
    if let Some(why) = &last.ended_by_memwatch {
        entry["message"] = json!(why);
    }
    if !before.is_empty() {
        entry["retries"] = json!(before.len());
        entry["retryAttempts"] = before
            .iter()
            .zip(1..)
            .map(|(run, n)| attempt(run, n))
            .collect();
        let failed = before.iter().any(|run| status(run.outcome) == "failed");
        entry["flaky"] = json!(failed && status(last.outcome) == "passed");
    }
    entry
}

/// A test whose turn did not come.
fn not_run(one: &NotRun) -> Value {
    let mut entry = named(&one.id);
    entry["status"] = json!("skipped");
    entry["rawStatus"] = json!("not_run");
    entry["duration"] = json!(0);
    entry["message"] = json!("not run: the run ended before");
    entry["extra"] = json!({ "memwatch": { "id": one.id, "pid": one.pid } });
    entry
}

/// What its name says of a test.
fn named(id: &Text) -> Value {
    let node = Node::of(id.as_str());
    let suite: Vec<&str> = std::iter::once(node.path)
        .chain(node.classes.iter().copied())
        .collect();
    json!({ "name": node.name, "suite": suite, "filePath": node.path, "type": "unit" })
}

fn attempt(run: &Test, number: u32) -> Value {
    let mut attempt = json!({
        "attempt": number,
        "status": status(run.outcome),
        "duration": run.wall_us / 1000,
        "extra": extra(run),
    });
    if let Some(why) = &run.ended_by_memwatch {
        attempt["message"] = json!(why);
    }
    attempt
}

/// The word of the format for an outcome.
fn status(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed | Outcome::Xpassed => "passed",
        Outcome::Failed | Outcome::Error | Outcome::Killed => "failed",
        Outcome::Skipped | Outcome::Xfailed => "skipped",
        Outcome::Unknown => "other",
    }
}

/// What memwatch knows beyond the format, under memwatch's name and the record's own.
fn extra(test: &Test) -> Value {
    let figures = [
        ("cpu_us", test.cpu_us),
        ("growth_bytes", test.growth_bytes()),
        ("retained_bytes", test.retained_bytes()),
        ("peak_bytes", test.peak_bytes),
        ("children_peak_bytes", test.children_peak_bytes),
        ("children_retained_bytes", test.children_retained_bytes),
        ("minor_faults", test.minor_faults),
        ("major_faults", test.major_faults),
        ("reclaim_us", test.reclaim_us),
        ("answered_us", test.answered_us),
    ];
    let mut ours: Map<String, Value> = figures
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), json!(value?))))
        .collect();
    ours.insert("id".to_owned(), json!(test.id));
    ours.insert("pid".to_owned(), json!(test.pid));
    if !test.leaks.is_empty() {
        ours.insert("leaks".to_owned(), json!(test.leaks));
    }
    json!({ "memwatch": ours })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample;
    use boon::{Compiler, Schemas};

    /// What the format demands and allows of what is written here.
    const SCHEMA: &str = include_str!("../../../tests/fixtures/ctrf.schema.json");

    fn rendered(record: &Record) -> Value {
        let report = serde_json::from_slice(&render(record, UNIX_EPOCH)).expect("JSON");
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        let schema = serde_json::from_str(SCHEMA).expect("the schema is JSON");
        compiler
            .add_resource("memory:ctrf", schema)
            .expect("a resource");
        let root = compiler
            .compile("memory:ctrf", &mut schemas)
            .expect("a schema");
        if let Err(error) = schemas.validate(&report, root) {
            panic!("{error:#}\n{report:#}");
        }
        report
    }

    #[test]
    fn every_record_is_a_valid_report() {
        for record in [sample::quiet(), sample::killed(), sample::grave()] {
            rendered(&record);
        }
        let report = rendered(&sample::grave());
        let tests = &report["results"]["tests"];
        assert_eq!(tests[0]["status"], "passed");
        assert_eq!(tests[0]["line"], 12);
        assert_eq!(tests[0]["extra"]["memwatch"]["growth_bytes"], 6 << 20);
        assert_eq!(tests[1]["rawStatus"], "killed");
        assert_eq!(tests[1]["threadId"], "gw1");
        assert_eq!(report["results"]["summary"]["failed"], 1);
        assert_eq!(tests[2]["name"], "test_later");
        assert_eq!(tests[2]["rawStatus"], "not_run");
        assert_eq!(report["results"]["summary"]["skipped"], 1);
    }

    #[test]
    fn what_ran_again_is_one_test_with_attempts() {
        let mut record = sample::grave();
        let suite = record.suite.as_mut().expect("tests");
        let again = Test {
            outcome: Outcome::Passed,
            answered_us: None,
            ended_by_memwatch: None,
            ..suite.tests[1].clone()
        };
        suite.tests.push(again);
        let report = rendered(&record);
        let test = &report["results"]["tests"][1];
        assert_eq!(
            (&test["status"], &test["flaky"]),
            (&json!("passed"), &json!(true))
        );
        assert_eq!(test["retryAttempts"][0]["status"], "failed");
        assert_eq!(report["results"]["summary"]["tests"], 3);
    }
}
