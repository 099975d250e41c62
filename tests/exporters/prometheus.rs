//! Prometheus itself scrapes memwatch, and tells what it got.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use memwatch::{
    control::{
        Status,
        status::{Counts, GuardedBy, Losses, Machine, Oomd, SCHEMA_VERSION, Target},
    },
    export::prometheus::{OfDaemon, Queue, Snapshot, Source, serve, textfile},
    incident::{Kind, Rule, Text},
    watch::Rung,
};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::lab::{Lab, wait_for, wait_until};
use super::receiver::{Running, free_address, get, get_json, program, request, succeed};
use super::service::{Service, leave_black_box};
use super::users::block_on;

/// By its labels, its name among them.
pub(crate) type Series = BTreeMap<BTreeMap<String, String>, f64>;

/// Prometheus, scraping one address every second.
pub(crate) struct Prometheus {
    pub(crate) api: SocketAddr,
    _running: Running,
    _dir: TempDir,
}

impl Prometheus {
    pub(crate) fn scraping(at: SocketAddr, rules: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": rules.iter().collect::<Vec<_>>(),
            "scrape_configs": [{
                "job_name": "memwatch",
                "static_configs": [{ "targets": [at.to_string()] }],
            }],
        });
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).expect("room"); // JSON is YAML
        let api = free_address();
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--web.listen-address={api}"))
            .arg(format!("--storage.tsdb.path={}/data", dir.path().display()))
            .arg("--log.level=warn")
            .current_dir(dir.path());
        let running = Running::start(&mut command);
        wait_until("Prometheus", || get(api, "/-/ready").is_some());
        Self {
            api,
            _running: running,
            _dir: dir,
        }
    }

    /// What a query answers.
    pub(crate) fn query(&self, query: &str) -> Series {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let Some(answer) = get_json(self.api, &path) else {
            panic!("{query} is not answered");
        };
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let result = answer["data"]["result"].as_array().expect("a vector");
        result
            .iter()
            .map(|sample| {
                let labels = sample["metric"].as_object().expect("labels").iter();
                let labels = labels
                    .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
                    .filter(|(name, _)| !matches!(&name[..], "instance" | "job"));
                let value = sample["value"][1].as_str().expect("a number");
                (labels.collect(), value.parse().expect("a number"))
            })
            .collect()
    }

    /// All that memwatch told at the last scrape.
    pub(crate) fn told(&self) -> Series {
        self.query("{__name__=~\"memwatch_.*\"}")
    }
}

/// Serves what `source` knows, to the end of the test.
pub(crate) fn endpoint(source: impl Source) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(listener.local_addr().expect("bound"))
                .expect("somebody waits");
            serve(listener, source).await
        })
    });
    told.recv().expect("it listens")
}

/// Reads the text format as its specification has it.
fn parse(page: &str) -> Series {
    let sample = |line: &str| {
        let (labelled, value) = line.rsplit_once(' ').expect("a value");
        let mut labels = BTreeMap::new();
        let (name, mut rest) = labelled.split_once('{').unwrap_or((labelled, "}"));
        labels.insert("__name__".to_owned(), name.to_owned());
        while rest != "}" {
            let (label, quoted) = rest.split_once("=\"").expect("a label");
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next().expect("an end") {
                    (_, '\\') => value.push(match chars.next().expect("escaped").1 {
                        'n' => '\n',
                        other => other,
                    }),
                    (at, '"') => break at,
                    (_, c) => value.push(c),
                }
            };
            // Prometheus takes a label without a value for none.
            if !value.is_empty() {
                labels.insert(label.trim_start_matches(',').to_owned(), value);
            }
            rest = &quoted[end + 1..];
        }
        (labels, value.parse().expect("a number"))
    };
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .map(sample)
        .collect()
}

#[derive(Clone)]
pub(crate) struct Fixed(pub(crate) Snapshot);

impl Source for Fixed {
    async fn snapshot(&self) -> Snapshot {
        self.0.clone()
    }
}

fn target(id: u64, cgroup: Text) -> Target {
    Target {
        id,
        cgroup,
        uid: Some(1000),
        since: SystemTime::now().into(),
        current_bytes: Some(u64::MAX / 1025),
        limit_bytes: Some(1 << 40),
        some_permille: Some(333),
        full_permille: Some(1),
        processes: 12,
        interventions: 3,
        guarded_by: GuardedBy::Daemon,
    }
}

/// With everything in it, and with names that somebody chose to do harm.
pub(crate) fn everything() -> Snapshot {
    let mut targets: Vec<Target> = (0..200)
        .map(|id| target(id, format!("/sys/fs/cgroup/run-{id}.scope").into()))
        .collect();
    targets[0].cgroup = Text::of_name(b"/a\"} 1\nmemwatch_daemon_up 0\n{\xff\\");
    targets[1].cgroup = "\"quoted\" and \\escaped\\".into();
    let now = SystemTime::now();
    let status = Status {
        schema_version: SCHEMA_VERSION,
        memwatch: "0.0.0-test".into(),
        pid: 1,
        since: now.into(),
        machine: Machine {
            available_bytes: 16_687_497_216,
            total_bytes: 33_374_994_432,
            swap_total_bytes: None,
            swap_free_bytes: None,
            some_permille: Some(412),
            full_permille: Some(77),
        },
        targets,
        oomd: Oomd {
            state: "stands still".into(),
            reason: None,
            since: None,
            managed_units: 2,
            taken_over: true,
            kills: 5,
        },
        counts: Counts {
            incidents: [(Kind::Kill, 2), (Kind::HardReset, 1)].into(),
            interventions: [(Rule::MachineExhaustion, 2), (Rule::Guard, 1)].into(),
            rungs: [(Rung::Sigterm, 2), (Rung::Sigkill, 1)].into(),
        },
        exporters: Vec::new(),
        losses: Losses {
            late_looks: 1,
            longest_delay_us: 123_456,
            dropped_notices: 2,
            ring_drops: 3,
            hung_helpers: 4,
            dropped_jobs: 7,
            lost_incidents: 8,
            untracked_processes: 5,
            dropped_events: 6,
        },
        features_lost: Vec::new(),
    };
    Snapshot {
        status: Some(status),
        exporters: vec![Queue {
            name: "otlp".to_owned(),
            waiting: 4,
            refused: 1,
            lost: 2,
            failing: true,
            delivered_at: Some((now - Duration::from_secs(60)).into()),
        }],
        kept: Some(7),
    }
}

#[test]
fn prometheus_takes_every_number_as_it_was_told() {
    let snapshot = everything();
    let told = parse(&snapshot.page());
    let prometheus = Prometheus::scraping(endpoint(Fixed(snapshot)), None);
    wait_until("a scrape", || !prometheus.told().is_empty());
    assert_eq!(prometheus.told(), told);
    let up = prometheus.query("up{job=\"memwatch\"}");
    assert_eq!(up.into_values().collect::<Vec<_>>(), [1.0]);
}

#[test]
fn promtool_has_nothing_to_say_against_the_page() {
    let mut promtool = Command::new(program("promtool"));
    promtool.args(["check", "metrics"]);
    for snapshot in [everything(), Snapshot::default()] {
        let dir = tempfile::tempdir().expect("a directory");
        let page = dir.path().join("page");
        fs::write(&page, snapshot.page()).expect("room");
        let page = fs::File::open(page).expect("written");
        // It ends with 3 for what is no error and yet not as it should be.
        assert_eq!(succeed(promtool.stdin(Stdio::from(page))), "");
    }
}

#[test]
fn node_exporter_tells_what_the_file_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let snapshot = everything();
    textfile::write(dir.path(), &snapshot.page()).expect("room");
    textfile::write(dir.path(), &snapshot.page()).expect("replaced");
    let names: Vec<_> = fs::read_dir(dir.path())
        .expect("there")
        .map(|entry| entry.expect("read").file_name())
        .collect();
    assert_eq!(names, [textfile::NAME], "nothing unfinished is left");
    let file = dir.path().join(textfile::NAME);
    let mode = fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);

    let at = free_address();
    let mut command = Command::new(program("prometheus-node-exporter"));
    command
        .arg(format!("--web.listen-address={at}"))
        .args(["--collector.disable-defaults", "--collector.textfile"])
        .arg(format!(
            "--collector.textfile.directory={}",
            dir.path().display()
        ))
        .arg("--log.level=warn");
    let _exporter = Running::start(&mut command);
    let page = wait_for("node_exporter's page", || get(at, "/metrics"));
    assert!(page.contains("node_textfile_scrape_error 0"), "{page}");
    let ours: String = page
        .lines()
        .filter(|line| line.starts_with("memwatch_"))
        .map(|line| format!("{line}\n"))
        .collect();
    // It gives each series of a metric all labels of that metric: those without a value are none.
    assert_eq!(parse(&ours), parse(&snapshot.page()));
}

#[test]
fn a_file_that_is_not_written_any_more_is_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join(textfile::NAME);
    block_on(async {
        let keeping = textfile::keep(
            dir.path().to_owned(),
            // Once: a write under way when it ends would put the file back.
            Duration::from_secs(3600),
            Fixed(Snapshot::default()),
        );
        tokio::select! {
            _ = keeping => {}
            () = async {
                while !file.exists() {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            } => {}
        }
    });
    assert!(!file.exists());
}

#[test]
fn nothing_but_the_page_can_be_had() {
    let at = endpoint(Fixed(everything()));
    for (head, status) in [
        ("GET / HTTP/1.0", "404"),
        ("GET /metrics/../etc/passwd HTTP/1.0", "404"),
        ("POST /metrics HTTP/1.0\r\nContent-Length: 0", "405"),
        ("DELETE /metrics HTTP/1.0", "405"),
        ("HEAD /metrics HTTP/1.0", "200"),
        ("GET /metrics?x=1 HTTP/1.0", "200"),
    ] {
        let (answer, body) = request(at, head).expect("an answer");
        assert_eq!(answer.split(' ').nth(1), Some(status), "{head}: {answer}");
        assert_eq!(body.contains("memwatch_build_info"), head.contains("x=1"));
    }
}

#[test]
fn who_holds_connections_open_holds_up_nobody_for_long() {
    let at = endpoint(Fixed(Snapshot::default()));
    // More than it answers at a time; none of them ever asks.
    let idle: Vec<TcpStream> = (0..12)
        .map(|_| TcpStream::connect(at).expect("it listens"))
        .collect();
    let page = wait_for("the page", || get(at, "/metrics"));
    assert!(page.contains("memwatch_daemon_up 0"));
    drop(idle);
}

#[test]
fn what_the_daemon_says_is_what_prometheus_knows() {
    let lab = Lab::new();
    let cgroup = lab.pair.below("watched", "64M");
    let name = lab.pair.v2.file_name().expect("a name").to_string_lossy();
    let service = Service::start(&format!("[[watch]]\ncgroups = [\"/**/{name}/watched\"]\n"));
    let mut sleep = Command::new("sleep");
    cgroup.confine(&mut sleep);
    let _sleeper = Running::start(sleep.arg("600"));
    wait_until("the target", || {
        let targets = service.targets();
        targets.first().is_some_and(|target| target.processes == 1)
    });
    let source = OfDaemon::new(&service.socket(), || (Vec::new(), None));
    let prometheus = Prometheus::scraping(endpoint(source), None);
    let target = |number: &str| {
        let of_it = format!("{number}{{cgroup=\"{}\"}}", cgroup.v2.display());
        prometheus.query(&of_it).into_values().next()
    };
    wait_until("its target", || {
        target("memwatch_target_processes") == Some(1.0)
    });

    let status = service.status();
    let one = |query: &str| prometheus.query(query).into_values().next();
    let version = format!("memwatch_daemon_info{{version={}}}", status["memwatch"]);
    assert_eq!(one(&version), Some(1.0));
    assert_eq!(one("memwatch_daemon_up"), Some(1.0));
    assert_eq!(one("memwatch_targets"), Some(1.0));
    assert_eq!(
        one("memwatch_machine_memory_total_bytes"),
        status["machine"]["total_bytes"].as_f64()
    );
    assert_eq!(
        target("memwatch_target_memory_limit_bytes"),
        status["targets"][0]["limit_bytes"].as_f64()
    );
    let since = one("memwatch_daemon_start_time_seconds").expect("told");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    assert!(since > 1e9 && since < now.expect("later").as_secs_f64());

    // Another that did not answer would look like this.
    service.stop();
    wait_until("the daemon's end", || {
        one("memwatch_daemon_up") == Some(0.0)
    });
}

#[test]
fn the_end_of_a_machine_is_counted_by_the_daemon_that_finds_it() {
    let service = Service::start_on("", |state| leave_black_box(state, 1000));
    let source = OfDaemon::new(&service.socket(), || (Vec::new(), None));
    let page = || block_on(source.snapshot()).page();
    let counted = |count: u32| {
        let line = format!("memwatch_incidents_total{{kind=\"hard_reset\"}} {count}\n");
        page().contains(&line)
    };
    wait_until("the count", || counted(1));
    let kept = service.incidents();
    assert_eq!((kept.len(), &kept[0]["kind"]), (1, &"hard_reset".into()));
    service.stop();
}
