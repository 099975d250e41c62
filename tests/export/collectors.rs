//! What people run: rotel takes incidents as OTLP's logs, VictoriaMetrics the figures as its metrics. What they say
//! that they got is held against what was sent, field by field.

use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::SystemTime,
};

use memwatch::control::{
    Call, Server, Status,
    status::{Counts, GuardedBy, Losses, Machine, Oomd, SCHEMA_VERSION, Target},
};
use serde_json::Value;

use super::desk::{Desk, grave};
use super::lab::{Lab, Pair, wait_for, wait_until};
use super::receiver::{get, nobodys_port};
use super::service::Service;
use super::users::block_on;

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

/// Each value of it under its path, as rotel prints it; of a list its length.
fn expect(path: &str, value: &Value, all: &mut BTreeMap<String, String>) {
    let shown = match value {
        Value::Null => return,
        Value::Object(fields) => {
            for (name, value) in fields {
                expect(&format!("{path}.{name}"), value, all);
            }
            return;
        }
        Value::Number(number) => format!("Int({number})"),
        Value::Bool(value) => format!("Bool({value})"),
        Value::String(value) => format!("Str({value})"),
        Value::Array(list) => format!("Int({})", list.len()),
    };
    all.insert(path.to_owned(), shown);
}

/// The attributes that [`grave`] must have beside the record itself: what others have names for, and the rest by its
/// path, but for what stands elsewhere and what is too bulky.
fn expected(kept: &Value) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let elsewhere = ["id", "kind", "host", "suite", "flight", "settings"];
    for (name, value) in kept.as_object().expect("an object") {
        if !elsewhere.contains(&name.as_str()) {
            expect(&format!("memwatch.{name}"), value, &mut all);
        }
    }
    for (name, value) in [
        ("incident.id", &kept["id"]),
        ("incident.kind", &kept["kind"]),
        ("host.boot_id", &kept["host"]["boot_id"]),
        ("intervention", &kept["interventions"][0]),
        ("victim", &kept["victims"][0]),
    ] {
        expect(&format!("memwatch.{name}"), value, &mut all);
    }
    let conventional = [
        (
            "process.linux.cgroup",
            "Str(/sys/fs/cgroup/memwatch-0123abcd)",
        ),
        ("process.exit.code", "Int(137)"),
        (
            "process.command_args",
            "Slice(Str(tests/), Str(-n), Str(4))",
        ),
        ("process.pid", "Int(4250)"),
        ("process.executable.name", "Str(python3)"),
        ("process.parent_pid", "Int(4242)"),
        ("process.group_leader.pid", "Int(4242)"),
        ("error.type", "Str(exhaustion)"),
        ("test.case.name", "Str(tests/test_b.py::test_index)"),
        (
            "exception.stacktrace",
            "Str(  File \"t.py\", line 3 in test_index)",
        ),
    ];
    all.extend(conventional.map(|(name, value)| (name.to_owned(), value.to_owned())));
    all
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
    let record = grave();
    desk.spool().keep(&record).expect("room");
    let _delivering = desk.deliver();
    wait_until("a delivery", || queue.waiting().is_empty());
    wait_until("its print", || {
        read()
            .lines()
            .map(str::trim)
            .any(|line| line.starts_with("-> memwatch.record: Str(") && line.ends_with(')'))
    });
    let text = read();
    let (head, text) = text.split_once("Attributes:\n").expect("attributes");
    for line in [
        "EventName: memwatch.incident.kill",
        "SeverityText: ERROR",
        "SeverityNumber: SEVERITY_NUMBER_ERROR(17)",
        "InstrumentationScope memwatch 0.1.0",
    ] {
        assert!(head.contains(line), "no `{line}` in: {head}");
    }
    let resource = attributes(head);
    for (name, value) in [
        ("service.name", "Str(memwatch)"),
        ("service.version", "Str(0.1.0)"),
        ("os.type", "Str(linux)"),
        ("os.version", "Str(6.8.0-52-generic)"),
        ("host.name", "Str(workstation)"),
    ] {
        assert_eq!(resource[name], value, "{name}");
    }
    let us = record.ended_at.unix_us().expect("a time");
    assert!(head.contains(&format!("Timestamp: {us}000\n")), "{head}");
    let mut attributes = attributes(text);
    let whole = attributes.remove("memwatch.record").expect("the record");
    let whole = whole
        .strip_prefix("Str(")
        .and_then(|text| text.strip_suffix(')'));
    let whole: Value = serde_json::from_str(whole.expect("a string")).expect("JSON");
    let kept = serde_json::to_value(&record).expect("JSON");
    assert_eq!(whole, kept, "the record, as it is on the disk");
    // By name and value, and no other.
    let expected = expected(&kept);
    for (name, value) in &expected {
        assert_eq!(attributes.get(name), Some(value), "{name}");
    }
    let more: Vec<_> = attributes
        .keys()
        .filter(|name| !expected.contains_key(*name))
        .collect();
    assert!(more.is_empty(), "{more:?}");
    assert!(expected.len() > 80, "{}", expected.len());
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

/// A series: its name, and what it is of.
type Series = (String, BTreeMap<String, String>);

fn series(name: &str, of: &[(&str, &str)]) -> Series {
    let of = of
        .iter()
        .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
    (format!("memwatch.{name}"), of.collect())
}

/// Each series' last value. What they all carry is held to be the same: the resource.
fn figures(port: u16) -> BTreeMap<Series, f64> {
    let _ = get(port, "/internal/force_flush");
    let lines = get(
        port,
        "/api/v1/export?match[]=%7B__name__%3D~%22memwatch.*%22%7D",
    );
    let lines = lines.unwrap_or_default();
    let mut found = BTreeMap::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let labels = line["metric"].as_object().expect("labels");
        let text = |label: &str| labels[label].as_str().expect("text").to_owned();
        assert_eq!(text("service.name"), "memwatch", "{line}");
        let own = labels.keys().filter(|label| {
            let label = label.as_str();
            label != "__name__" && !RESOURCE.contains(&label)
        });
        let of = own.map(|label| (label.clone(), text(label))).collect();
        let last = line["values"].as_array().and_then(|values| values.last());
        let last = last.and_then(Value::as_f64).expect("a number");
        let before = found.insert((text("__name__"), of), last);
        assert_eq!(before, None, "two series with the same labels: {line}");
    }
    found
}

/// The labels that every series has.
const RESOURCE: [&str; 7] = [
    "service.name",
    "service.version",
    "os.type",
    "os.version",
    "host.name",
    "scope.name",
    "scope.version",
];

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
    let of = [("exporter", "otlp")];
    // VictoriaMetrics has no place for logs and says so.
    wait_until("a refusal", || queue.waiting().is_empty());
    let found = wait_for("its figure", || {
        let found = figures(port);
        (found.get(&series("exporter.refused", &of)) == Some(&2.0)).then_some(found)
    });
    let expected = BTreeMap::from([
        // No daemon answers here.
        (series("daemon.up", &[]), 0.0),
        (series("incidents.kept", &[]), 2.0),
        (series("exporter.waiting", &of), 0.0),
        (series("exporter.refused", &of), 2.0),
        (series("exporter.lost", &of), 0.0),
    ]);
    assert_eq!(found, expected);
}

/// A daemon that answers every question with this, through the real socket.
fn answering(desk: &Desk, status: Status) -> PathBuf {
    let socket = desk.file("control.sock");
    let path = socket.clone();
    // It ends with the tests.
    thread::spawn(move || {
        block_on(async {
            let mut server = Server::bind(&path).expect("a socket");
            loop {
                if let Call::Status { answer, .. } = server.call().await {
                    let _ = answer.send(Ok(Box::new(status.clone())));
                }
            }
        });
    });
    wait_until("its socket", || socket.exists());
    socket
}

/// In which no two numbers are the same.
fn distinct() -> Status {
    let now = SystemTime::now();
    let target = |id: u64, cgroup: &str| Target {
        id,
        cgroup: cgroup.into(),
        uid: None,
        since: now.into(),
        current_bytes: Some(1000 + id),
        limit_bytes: Some(2000 + id),
        some_permille: Some(300 + id as u32),
        full_permille: Some(200 + id as u32),
        processes: 30 + id,
        interventions: 40 + id,
        guarded_by: GuardedBy::Daemon,
    };
    Status {
        schema_version: SCHEMA_VERSION,
        memwatch: "0.0.0-test".into(),
        pid: 1,
        since: now.into(),
        machine: Machine {
            available_bytes: 700 << 20,
            total_bytes: 32 << 30,
            swap_total_bytes: Some(8 << 30),
            swap_free_bytes: Some(12 << 20),
            some_permille: Some(820),
            full_permille: Some(611),
        },
        targets: vec![target(1, "/a"), target(2, "/b")],
        oomd: Oomd {
            state: "stopped".into(),
            reason: None,
            since: None,
            managed_units: 3,
            taken_over: true,
            kills: 5,
        },
        counts: Counts::default(),
        exporters: Vec::new(),
        losses: Losses {
            late_looks: 11,
            longest_delay_us: 12,
            dropped_notices: 13,
            ring_drops: 14,
            hung_helpers: 15,
            untracked_processes: 16,
            dropped_events: 17,
            dropped_jobs: 18,
            lost_incidents: 19,
        },
        features_lost: Vec::new(),
    }
}

#[test]
fn victoriametrics_has_every_series_with_its_labels_and_its_value() {
    let port = nobodys_port();
    let desk = Desk::new(&format!(
        "[export.otlp]\nurl = 'http://127.0.0.1:{port}/opentelemetry'\nmetrics_every = '200ms'\n"
    ));
    let _victoria = victoria(&desk, port);
    let socket = answering(&desk, distinct());
    let mut run = desk.export(&["run", "--socket"]);
    let run = run.arg(socket).stderr(Stdio::null()).spawn();
    let _run = Running(run.expect("it runs"));
    let mut expected = BTreeMap::new();
    let mut expect = |name: &str, of: &[(&str, &str)], value: f64| {
        expected.insert(series(name, of), value);
    };
    expect("daemon.up", &[], 1.0);
    expect("incidents.kept", &[], 0.0);
    for name in ["waiting", "refused", "lost"] {
        expect(&format!("exporter.{name}"), &[("exporter", "otlp")], 0.0);
    }
    expect("machine.memory.available", &[], f64::from(700 << 20));
    expect("machine.memory.total", &[], (32_u64 << 30) as f64);
    expect("machine.pressure", &[("kind", "some")], 0.820);
    expect("machine.pressure", &[("kind", "full")], 0.611);
    expect("oomd.taken_over", &[], 1.0);
    expect("targets", &[], 2.0);
    for (cgroup, id) in [("/a", 1.0), ("/b", 2.0)] {
        let of = [("cgroup", cgroup)];
        expect("target.memory.usage", &of, 1000.0 + id);
        expect("target.memory.limit", &of, 2000.0 + id);
        expect("target.processes", &of, 30.0 + id);
        expect("target.interventions", &of, 40.0 + id);
        for (kind, permille) in [("some", 300.0), ("full", 200.0)] {
            let of = [("cgroup", cgroup), ("kind", kind)];
            expect("target.pressure", &of, (permille + id) / 1000.0);
        }
    }
    for (kind, count) in [
        ("late_looks", 11.0),
        ("dropped_notices", 13.0),
        ("ring_drops", 14.0),
        ("hung_helpers", 15.0),
        ("untracked_processes", 16.0),
        ("dropped_events", 17.0),
        ("dropped_jobs", 18.0),
        ("lost_incidents", 19.0),
    ] {
        expect("losses", &[("kind", kind)], count);
    }
    let last = series("losses", &[("kind", "dropped_events")]);
    let found = wait_for("figures", || {
        let found = figures(port);
        found.contains_key(&last).then_some(found)
    });
    assert_eq!(found, expected);
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
        let last = series("losses", &[("kind", "dropped_events")]);
        found.contains_key(&last).then_some(found)
    });
    let figure = |name: &str, of: &[(&str, &str)]| found.get(&series(name, of)).copied();
    assert_eq!(figure("daemon.up", &[]), Some(1.0));
    let status = service.status();
    let machine = &status["machine"];
    let total = machine["total_bytes"].as_f64().expect("a machine");
    assert_eq!(figure("machine.memory.total", &[]), Some(total));
    let available = figure("machine.memory.available", &[]).expect("sent");
    assert!(available > 0.0 && available < total, "{available}");
    for kind in ["some", "full"] {
        let share = figure("machine.pressure", &[("kind", kind)]);
        let is_share = share.is_some_and(|share| (0.0..=1.0).contains(&share));
        // Where the kernel tells of none, none is sent.
        let field = format!("{kind}_permille");
        assert_eq!(is_share, machine[field].is_u64(), "{kind}: {share:?}");
    }
    assert_eq!(figure("oomd.taken_over", &[]), Some(0.0));
    let target = &status["targets"][0];
    let of = [("cgroup", path.as_str())];
    for (name, field) in [
        ("memory.limit", "limit_bytes"),
        ("memory.usage", "current_bytes"),
        ("processes", "processes"),
        ("interventions", "interventions"),
    ] {
        // A sleeper's hardly change: the kernel may settle what it has counted ahead.
        let series = series(&format!("target.{name}"), &of);
        wait_until(name, || {
            let sent = figures(port).get(&series).copied();
            sent.is_some() && sent == service.status()["targets"][0][field].as_f64()
        });
    }
    for kind in ["some", "full"] {
        let of = [("cgroup", path.as_str()), ("kind", kind)];
        let said = target[format!("{kind}_permille")].as_f64();
        let said = said.map(|permille| permille / 1000.0);
        assert_eq!(figure("target.pressure", &of), said, "{kind}");
    }
    assert_eq!(figure("targets", &[]), Some(1.0));
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
