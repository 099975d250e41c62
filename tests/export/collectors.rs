//! What people run: rotel takes incidents as OTLP's logs, VictoriaMetrics the figures as its metrics. What they say
//! that they got is held against what was sent, field by field.

use std::{
    collections::BTreeMap,
    env, fs,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::desk::{Desk, incident};
use super::lab::{Lab, Pair, wait_for, wait_until};
use super::receiver::{get, nobodys_port};
use super::service::Service;

fn program(name: &str) -> Command {
    let home = env::var("MEMWATCH_TEST_COLLECTORS");
    let home = home.unwrap_or_else(|_| {
        panic!("MEMWATCH_TEST_COLLECTORS is not set: run these tests with `cargo xtask test`")
    });
    Command::new(format!("{home}/{name}"))
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The attributes that rotel prints: `     -> name: Str(value)`.
fn attributes(printed: &str) -> BTreeMap<String, String> {
    let lines = printed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("-> "));
    let pairs = lines.filter_map(|line| line.split_once(": "));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn rotel_has_every_field_of_an_incident() {
    let [http, grpc] = [(), ()].map(|()| nobodys_port());
    let desk = Desk::new(&format!(
        "[export.otlp]\nurl = 'http://127.0.0.1:{http}'\nmetrics = false\n"
    ));
    let printed = desk.file("printed");
    let file = fs::File::create(&printed).expect("room");
    let mut rotel = program("rotel");
    rotel
        .args(["start", "--exporter", "blackhole", "--debug-log", "logs"])
        .args(["--debug-log-verbosity", "detailed"])
        .arg("--otlp-http-endpoint")
        .arg(format!("127.0.0.1:{http}"))
        .arg("--otlp-grpc-endpoint")
        .arg(format!("127.0.0.1:{grpc}"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stderr(file.try_clone().expect("descriptors"))
        .stdout(file);
    let _rotel = Running(rotel.spawn().expect("rotel"));
    let read = || fs::read_to_string(&printed).unwrap_or_default();
    wait_until("rotel", || read().contains("Starting Rotel"));
    let queue = desk.queue("otlp");
    let record = incident();
    desk.spool().keep(&record).expect("room");
    let _delivering = desk.deliver();
    wait_until("a delivery", || queue.waiting().is_empty());
    wait_until("its print", || read().contains("memwatch.record"));
    let text = read();
    for line in [
        "EventName: memwatch.incident.kill",
        "SeverityText: ERROR",
        "InstrumentationScope memwatch 0.1.0",
        "service.name: Str(memwatch)",
        "os.type: Str(linux)",
    ] {
        assert!(text.contains(line), "no `{line}` in: {text}");
    }
    let us = record.ended_at.unix_us().expect("a time");
    assert!(text.contains(&format!("Timestamp: {}000\n", us)), "{text}");
    let attributes = attributes(&text);
    let whole = &attributes["memwatch.record"];
    let whole = whole
        .strip_prefix("Str(")
        .and_then(|text| text.strip_suffix(')'));
    let whole: Value = serde_json::from_str(whole.expect("a string")).expect("JSON");
    let kept = serde_json::to_value(&record).expect("JSON");
    assert_eq!(whole, kept, "the record, as it is on the disk");
    assert_eq!(
        attributes["memwatch.incident.id"],
        format!("Str({})", record.id)
    );
    assert_eq!(attributes["process.exit.code"], "Int(1)");
    // Every field that is no part of a list stands under its path.
    let mut fields = 0;
    for (name, value) in kept.as_object().expect("an object") {
        let shown = match value {
            Value::Number(number) => format!("Int({number})"),
            Value::Bool(value) => format!("Bool({value})"),
            Value::String(value) => format!("Str({value})"),
            Value::Array(list) => format!("Int({})", list.len()),
            Value::Null | Value::Object(_) => continue,
        };
        if ["id", "kind", "memwatch_version", "kernel_log"].contains(&name.as_str()) {
            continue;
        }
        assert_eq!(attributes[&format!("memwatch.{name}")], shown, "{name}");
        fields += 1;
    }
    assert!(fields > 12, "{fields}");
}

fn victoria(desk: &Desk, port: u16) -> Running {
    let mut victoria = program("victoria-metrics");
    victoria
        .arg(format!("-storageDataPath={}", desk.file("data").display()))
        .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
        .args(["-memory.allowedBytes=64MB", "-search.latencyOffset=0s"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let running = Running(victoria.spawn().expect("VictoriaMetrics"));
    wait_for("VictoriaMetrics", || get(port, "/health"));
    running
}

/// Each metric's labels and last value, by name.
fn figures(port: u16) -> BTreeMap<String, (Value, f64)> {
    let _ = get(port, "/internal/force_flush");
    let lines = get(
        port,
        "/api/v1/export?match[]=%7B__name__%3D~%22memwatch.*%22%7D",
    );
    let lines = lines.unwrap_or_default();
    let series = lines
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).expect("JSON") });
    let series = series.filter_map(|series| {
        let name = series["metric"]["__name__"].as_str()?.to_owned();
        let last = series["values"].as_array()?.last()?.as_f64()?;
        Some((name, (series["metric"].clone(), last)))
    });
    series.collect()
}

#[test]
fn victoriametrics_has_every_figure() {
    let port = nobodys_port();
    let desk = Desk::new(&format!(
        "[export.otlp]\nurl = 'http://127.0.0.1:{port}/opentelemetry'\nmetrics_every = '200ms'\n"
    ));
    let _victoria = victoria(&desk, port);
    // Nobody takes incidents there: two wait.
    let queue = desk.queue("otlp");
    desk.keep();
    desk.keep();
    let _delivering = desk.deliver();
    let export = || figures(port);
    let found = wait_for("figures", || {
        let found = export();
        found
            .contains_key("memwatch.exporter.refused")
            .then_some(found)
    });
    let kept = &found["memwatch.incidents.kept"];
    assert_eq!(kept.1, 2.0);
    assert_eq!(kept.0["service.name"], "memwatch");
    assert_eq!(found["memwatch.daemon.up"].1, 0.0, "no daemon answers here");
    assert_eq!(found["memwatch.exporter.waiting"].0["exporter"], "otlp");
    assert!(found.contains_key("memwatch.exporter.lost"), "{found:?}");
    // VictoriaMetrics has no place for logs and says so.
    wait_until("a refusal", || queue.waiting().is_empty());
    wait_until("its figure", || {
        export()["memwatch.exporter.refused"].1 == 2.0
    });
}

#[test]
fn victoriametrics_has_what_the_daemon_says() {
    let port = nobodys_port();
    let (service, _sleeper, path) = guarding(&format!(
        "[export.otlp]\nurl = 'http://127.0.0.1:{port}/opentelemetry'\nmetrics_every = '200ms'\n"
    ));
    let desk = Desk::new(&format!(
        "[export.otlp]\nurl = 'http://127.0.0.1:{port}/opentelemetry'\nmetrics_every = '200ms'\n"
    ));
    let _victoria = victoria(&desk, port);
    let mut run = desk.export(&["run", "--socket"]);
    let run = run.arg(service.socket()).stderr(Stdio::null()).spawn();
    let _run = Running(run.expect("it runs"));
    let found = wait_for("figures", || {
        let found = figures(port);
        found.contains_key("memwatch.losses").then_some(found)
    });
    assert_eq!(found["memwatch.daemon.up"].1, 1.0);
    let status = service.status();
    let machine = &status["machine"];
    assert_eq!(
        Some(found["memwatch.machine.memory.total"].1),
        machine["total_bytes"].as_f64()
    );
    let target = &status["targets"][0];
    for (name, field) in [
        ("memwatch.target.memory.limit", "limit_bytes"),
        ("memwatch.target.memory.usage", "current_bytes"),
        ("memwatch.target.processes", "processes"),
        ("memwatch.target.interventions", "interventions"),
    ] {
        // A sleeper's do not change.
        let Some(value) = target[field].as_f64() else {
            continue;
        };
        let (labels, last) = &found[name];
        assert_eq!(*last, value, "{name}");
        assert_eq!(labels["cgroup"], path.as_str());
    }
    assert_eq!(found["memwatch.targets"].1, 1.0);
    service.stop();
}

/// The daemon over a cgroup with a sleeper in it.
fn guarding(config: &str) -> (Service, Sleeper, String) {
    let lab = Lab::new();
    let cgroup = lab.pair.below("watched", "64M");
    let name = lab.pair.v2.file_name().expect("a name").to_string_lossy();
    let watching = format!("{config}[[watch]]\ncgroups = [\"/**/{name}/watched\"]\n");
    let mut sleep = Command::new("sleep");
    cgroup.confine(&mut sleep);
    let sleep = sleep
        .arg("600")
        .stdin(Stdio::null())
        .spawn()
        .expect("sleep");
    let path = cgroup.v2.display().to_string();
    let sleeper = Sleeper {
        _running: Running(sleep),
        _cgroup: cgroup,
        _lab: lab,
    };
    let service = Service::start(&watching);
    wait_until("the target", || service.targets().len() == 1);
    (service, sleeper, path)
}

/// Ends before its cgroup does.
struct Sleeper {
    _running: Running,
    _cgroup: Pair,
    _lab: Lab,
}
