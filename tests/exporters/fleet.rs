//! docs/fleet, by the tools that read it. What cannot be had here is parsed and held together: the OpenTelemetry
//! Collector and Grafana itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use memwatch::config;
use serde_json::Value;

use super::lab::{Lab, MEMWATCH, python, wait_until};
use super::prometheus::{Fixed, Prometheus, endpoint, everything};
use super::receiver::{get_json, program, succeed};

fn file(name: &str) -> PathBuf {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fleet");
    docs.canonicalize().expect("docs/fleet").join(name)
}

/// A program of the Python that has what reads these files.
fn reader(name: &str) -> Command {
    let python = env::var_os("MEMWATCH_TEST_FLEET_PYTHON").unwrap_or_else(|| {
        panic!("MEMWATCH_TEST_FLEET_PYTHON is not set: run these tests with `cargo xtask test`")
    });
    Command::new(Path::new(&python).with_file_name(name))
}

/// The documents of a YAML file.
fn yaml(name: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout, default=str)";
    let mut python = reader("python");
    let text = fs::File::open(file(name)).expect("there");
    let said = succeed(python.args(["-c", script]).stdin(Stdio::from(text)));
    serde_json::from_str(&said).expect("JSON")
}

fn promtool(arguments: &[&str], name: &str) -> String {
    let mut promtool = Command::new(program("promtool"));
    succeed(promtool.args(arguments).arg(file(name)))
}

#[test]
fn promtool_takes_rules_and_configuration_and_every_alert_is_tested() {
    promtool(
        &["check", "rules", "--lint=all", "--lint-fatal"],
        "memwatch.rules.yml",
    );
    promtool(&["test", "rules"], "memwatch.rules.test.yml");
    promtool(&["check", "config", "--lint=all"], "prometheus.yml");
    let fires = |test: &Value| {
        let alerts = test["exp_alerts"].as_array().expect("alerts");
        let name = test["alertname"].as_str().expect("a name");
        (!alerts.is_empty()).then(|| name.to_owned())
    };
    let tests = yaml("memwatch.rules.test.yml");
    let tests = tests[0]["tests"].as_array().expect("tests").iter();
    let fired: BTreeSet<String> = tests
        .flat_map(|test| test["alert_rule_test"].as_array().expect("tests"))
        .filter_map(fires)
        .collect();
    let rules = yaml("memwatch.rules.yml");
    let rules = rules[0]["groups"][0]["rules"].as_array().expect("rules");
    let all: BTreeSet<String> = rules
        .iter()
        .map(|rule| rule["alert"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(fired, all);
}

/// All expressions of a dashboard's panels and annotations, with what Grafana puts into them.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| (panel["title"].clone(), target["expr"].clone()))
    });
    targets
        .map(|(title, expr)| {
            let expr = expr.as_str().expect("an expression");
            (title.to_string(), filled_in(expr))
        })
        .collect()
}

fn filled_in(expr: &str) -> String {
    let expr = expr.replace("$__rate_interval", "1m");
    let expr = expr.replace("$__range", "1m");
    expr.replace("$instance", ".*").replace("$cgroup", ".*")
}

#[test]
fn prometheus_itself_answers_every_panel_and_evaluates_every_rule() {
    let dashboard = fs::read(file("grafana-dashboard.json")).expect("there");
    let dashboard: Value = serde_json::from_slice(&dashboard).expect("JSON");
    let scraped = endpoint(Fixed(everything()));
    let prometheus = Prometheus::scraping(scraped, Some(&file("memwatch.rules.yml")));
    // A rise needs two of them.
    wait_until("three scrapes", || {
        let counted = prometheus.query("count_over_time(memwatch_daemon_up[1m])");
        counted.into_values().any(|count| count >= 3.0)
    });
    for (title, expr) in expressions(&dashboard) {
        let answered = prometheus.query(&expr);
        assert!(!answered.is_empty(), "{title} shows nothing: {expr}");
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("a list") {
        prometheus.query(&filled_in(annotation["expr"].as_str().expect("one")));
    }
    wait_until("all rules", || {
        let rules = get_json(prometheus.api, "/api/v1/rules").expect("rules");
        let rules = &rules["data"]["groups"][0]["rules"];
        let rules = rules.as_array().expect("rules");
        rules.iter().all(|rule| rule["health"] == "ok")
    });
    // They see what is wrong in this snapshot: systemd-oomd does not do its work, threads hang.
    wait_until("alerts", || {
        let alerts = prometheus.query("ALERTS");
        let names = alerts.keys().filter_map(|labels| labels.get("alertname"));
        let names: BTreeSet<&str> = names.map(String::as_str).collect();
        names.contains("MemwatchOomdTakenOver") && names.contains("MemwatchBlind")
    });
}

#[test]
fn the_dashboard_is_one_that_can_be_laid_out() {
    let dashboard = fs::read(file("grafana-dashboard.json")).expect("there");
    let dashboard: Value = serde_json::from_slice(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut taken = BTreeMap::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}");
        let place = |side: &str| panel["gridPos"][side].as_u64().expect("a place");
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                let before = taken.insert((x, y), title);
                assert_eq!(before, None, "{title} at {x}, {y}");
            }
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().expect("a list");
    let names: Vec<_> = variables.iter().map(|it| it["name"].as_str()).collect();
    assert_eq!(
        names,
        [Some("datasource"), Some("instance"), Some("cgroup")]
    );
}

#[test]
fn the_daemon_set_is_what_kubernetes_takes_and_its_commands_are_memwatchs() {
    let set = file("kubernetes-daemonset.yaml");
    succeed(reader("kubernetes-validate").arg("--strict").arg(&set));
    let documents = yaml("kubernetes-daemonset.yaml");
    let kind = |kind: &str| {
        let found = documents.iter().find(|document| document["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind}"))
    };
    let pod = &kind("DaemonSet")["spec"]["template"]["spec"];
    for container in pod["containers"].as_array().expect("containers") {
        let mut words = vec![container["command"].clone()];
        words.extend(
            ["livenessProbe", "readinessProbe"]
                .map(|probe| container[probe]["exec"]["command"].clone()),
        );
        for words in words.iter().filter_map(Value::as_array) {
            let mut words = words.iter().map(|word| word.as_str().expect("a word"));
            assert_eq!(words.next(), Some("memwatch"));
            succeed(Command::new(MEMWATCH).args(words).arg("--help"));
        }
        for mount in container["volumeMounts"].as_array().expect("mounts") {
            let volumes = pod["volumes"].as_array().expect("volumes");
            assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]));
        }
    }

    let lab = Lab::new();
    let text = kind("ConfigMap")["data"]["memwatch.toml"].as_str();
    let config = lab.file("memwatch.toml");
    fs::write(&config, text.expect("text")).expect("room");
    let daemon = config::Daemon::load(Some(&config)).expect("right");
    assert!(daemon.exporters.contains_key("otlp"));
    let port = daemon.prometheus.listen.expect("an address").port();
    assert_eq!(
        kind("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"],
        port
    );
    let pods = Path::new("/kubepods.slice");
    let of = |class: &str| {
        let of_class = format!("kubepods-{class}.slice/kubepods-{class}-pod0a1b.slice");
        daemon.watch_of(&pods.join(of_class).join("cri-containerd-0123abcd.scope"))
    };
    assert_eq!(
        of("burstable").map(|watch| watch.on_pressure),
        Some(config::OnPressure::Warn)
    );
    assert!(of("besteffort").is_some());
    let guaranteed = pods.join("kubepods-pod0a1b.slice/cri-containerd-0123abcd.scope");
    assert!(daemon.watch_of(&guaranteed).is_none());
}

#[test]
fn the_collectors_pipelines_are_made_of_what_it_defines() {
    let documents = yaml("otel-collector.yaml");
    let config = &documents[0];
    let defined = |section: &str| -> BTreeSet<String> {
        let components = config[section].as_object().expect("components");
        components.keys().cloned().collect()
    };
    let listed = |value: &Value| -> BTreeSet<String> {
        let names = value.as_array().expect("a list").iter();
        names
            .map(|name| name.as_str().expect("a name").to_owned())
            .collect()
    };
    let service = &config["service"];
    assert_eq!(listed(&service["extensions"]), defined("extensions"));
    let pipelines = service["pipelines"].as_object().expect("pipelines");
    for section in ["receivers", "processors", "exporters"] {
        let used = pipelines.values().flat_map(|it| listed(&it[section]));
        assert_eq!(used.collect::<BTreeSet<_>>(), defined(section), "{section}");
    }
    let signals: BTreeSet<&str> = pipelines
        .keys()
        .map(|name| name.split('/').next().expect("a signal"))
        .collect();
    assert_eq!(signals, BTreeSet::from(["logs", "metrics"]));
}

#[test]
fn the_recipes_for_ci_are_what_their_services_take() {
    for (schema, name) in [
        ("vendor.github-workflows", "github-actions.yml"),
        ("vendor.gitlab-ci", "gitlab-ci.yml"),
    ] {
        let mut check = reader("check-jsonschema");
        succeed(check.args(["--builtin-schema", schema]).arg(file(name)));
    }
}

#[test]
fn the_recipes_for_ci_run_a_suite_and_leave_what_they_collect() {
    let github = yaml("github-actions.yml");
    let steps = github[0]["jobs"]["tests"]["steps"].as_array();
    let tests = steps
        .expect("steps")
        .iter()
        .find(|step| step["id"] == "tests");
    let github = tests.expect("a step")["run"]
        .as_str()
        .expect("a script")
        .to_owned();
    let gitlab = yaml("gitlab-ci.yml");
    let gitlab = gitlab[0]["tests"]["script"][0].as_str().expect("a line");
    for script in [&github[..], gitlab] {
        let lab = Lab::new();
        fs::create_dir(lab.file("tests")).expect("room");
        let suite = "def test_one():\n    pass\n\ndef test_two():\n    assert False\n";
        fs::write(lab.file("tests/test_it.py"), suite).expect("room");
        let mut path = vec![
            Path::new(MEMWATCH)
                .parent()
                .expect("a directory")
                .to_owned(),
            PathBuf::from(python())
                .parent()
                .expect("a directory")
                .to_owned(),
        ];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let mut command = lab.command("sh");
        command
            .args(["-ec", script])
            .env("PATH", env::join_paths(path).expect("a path"))
            .env("MEMWATCH_STATE", lab.file("state"));
        let ran = lab.run(command);
        ran.expect(1);
        let ctrf: Value = serde_json::from_str(&lab.read("ctrf.json")).expect("CTRF");
        let summary = &ctrf["results"]["summary"];
        assert_eq!(
            (&summary["passed"], &summary["failed"]),
            (&1.into(), &1.into())
        );
        let record: Value = serde_json::from_str(&lab.read("memwatch.json")).expect("a record");
        assert_eq!(record["kind"], "run");
        assert_eq!(lab.file("junit.xml").exists(), script.contains("junit.xml"));
    }
}
