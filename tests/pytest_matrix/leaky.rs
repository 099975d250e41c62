//! A suite of 589 tests in which one leaks, or several: the others have their own verdict, in pytest's file for
//! JUnit and in the record, only the guilty are named, and the run ends by itself. With each way to leak and
//! each way in which pytest-xdist hands out tests.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::Value;

use super::lab::{Lab, Ran};
use super::sides::{environments, outcomes, path, program, write};

const LEAKS: &str = include_str!("suites/leaky/test_leaks.py");
const IMPORT: &str = include_str!("suites/leaky/test_import.py");
const INNOCENT: &str = include_str!("suites/leaky/test_innocent.py");
/// As in the report of an accident that memwatch was made for.
const TESTS: usize = 589;
/// What leaks at its import is collected last: after it only what holds it is reported.
const LAST: &str = "suite/test_zz_import.py";
/// Ten modules before those that leak in the order of collection, nine after.
const BEFORE: usize = 10;
const AFTER: usize = 9;
/// The ways in which pytest-xdist hands out tests.
const DISTS: [&str; 5] = ["load", "worksteal", "loadscope", "loadfile", "loadgroup"];

/// Runs the suite with these leaks and options.
fn suite(leaks: &str, options: &[&str]) -> (Lab, Ran) {
    suite_of(&program("plugins", "pytest"), leaks, options)
}

/// The same with this pytest.
fn suite_of(tested: &str, leaks: &str, options: &[&str]) -> (Lab, Ran) {
    let lab = Lab::new();
    write(&lab, "suite/test_leaks.py", LEAKS);
    write(&lab, LAST, IMPORT);
    for number in 0..BEFORE {
        write(&lab, &format!("suite/test_a_{number}.py"), INNOCENT);
    }
    for number in 0..AFTER {
        write(&lab, &format!("suite/test_z_{number}.py"), INNOCENT);
    }
    let dir = path(&lab, "suite");
    let junit = format!("--junitxml={}", path(&lab, "junit.xml"));
    let mut arguments = vec!["--memory-max", "500M", "--", tested, "-q", &junit];
    arguments.extend(["-p", "no:cacheprovider", "--rootdir", &dir, &dir]);
    arguments.extend(options);
    let mut command = lab.reporting(&arguments);
    command
        .env("LEAKS", leaks)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let ran = lab.run(command);
    (lab, ran)
}

/// With two workers that get their tests in this way.
fn spread(leaks: &str, dist: &str) -> (Lab, Ran) {
    suite(leaks, &["-n", "2", "--dist", dist])
}

/// The tests of pytest's file for JUnit, and those of them that did not pass.
fn junit(lab: &Lab) -> (BTreeSet<String>, BTreeSet<String>) {
    let begin = Regex::new(r#"^ classname="([^"]*)" name="([^"]*)"([^>]*)>"#).expect("a pattern");
    let text = lab.read("junit.xml");
    let (mut all, mut bad) = (BTreeSet::new(), BTreeSet::new());
    for case in text.split("<testcase").skip(1) {
        let found = begin
            .captures(case)
            .unwrap_or_else(|| panic!("a test: {case}"));
        let [class, name] = [&found[1], &found[2]];
        all.insert(format!("{class}.{name}"));
        if case.contains("<failure") || case.contains("<error") {
            bad.insert(name.to_owned());
        }
    }
    (all, bad)
}

/// What the record lays the memory to: who is to blame for an intervention, and the tests that memwatch ended and
/// that did not pass when they ran again.
fn named(report: &Value) -> BTreeSet<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let culprits = list(&report["interventions"])
        .into_iter()
        .filter_map(|it| it["test"]["culprit"]["id"].as_str().map(str::to_owned));
    let last = outcomes(report);
    let ended = list(&report["suite"]["tests"])
        .into_iter()
        .filter(|test| !test["ended_by_memwatch"].is_null() && !is_bystander(test))
        .filter_map(|test| test["id"].as_str().map(str::to_owned))
        .filter(|id| last[id] != "passed");
    culprits
        .chain(ended)
        .map(|id| id.rsplit(['/', ':']).next().unwrap_or(&id).to_owned())
        .collect()
}

/// Whether its process was killed for what another test had left. It runs again, unless pytest knows already how it
/// ended: JUnit's file tells.
fn is_bystander(test: &Value) -> bool {
    test["ended_by_memwatch"]
        .as_str()
        .is_some_and(|why| why.contains("; the memory is that of "))
}

/// Fails unless all ran and passed but these, which are named.
#[track_caller]
fn expect_only(lab: &Lab, ran: &Ran, guilty: &[&str]) {
    let guilty: BTreeSet<String> = guilty.iter().map(ToString::to_string).collect();
    assert_eq!(
        named(&ran.report),
        guilty,
        "{:#}",
        ran.report["interventions"]
    );
    let (all, bad) = junit(lab);
    assert_eq!(bad, guilty, "in JUnit's file; {}", ran.err);
    assert_eq!(all.len(), TESTS, "in JUnit's file");
    let told = outcomes(&ran.report);
    assert_eq!(told.len(), TESTS, "in the record");
    let tests = ran.report["suite"]["tests"].as_array().expect("a suite");
    let killed = tests
        .iter()
        .filter(|test| test["outcome"] == "killed" && !is_bystander(test))
        .map(|test| test["id"].as_str());
    let mut killed: Vec<_> = killed.collect();
    let all = killed.len();
    killed.sort_unstable();
    killed.dedup();
    assert_eq!(
        killed.len(),
        all,
        "tried again after its process was killed"
    );
    // Of one that ran again the last run counts.
    let innocent: BTreeMap<_, _> = tests
        .iter()
        .map(|test| (test["id"].as_str(), is_bystander(test)))
        .collect();
    let bad = told
        .iter()
        .filter(|(id, outcome)| *outcome != "passed" && !innocent[&Some(id.as_str())]);
    let bad: BTreeSet<String> = bad
        .map(|(id, _)| id.rsplit("::").next().unwrap_or(id).to_owned())
        .collect();
    assert_eq!(bad, guilty, "in the record");
    assert_eq!(ran.status.code(), Some(1), "{}", ran.err);
}

/// Fails unless the module that leaks when it is imported is named, and all other tests ran and passed.
#[track_caller]
fn expect_all_but_the_import(lab: &Lab, ran: &Ran) {
    assert_eq!(
        named(&ran.report),
        BTreeSet::from(["test_zz_import.py".to_owned()])
    );
    let told = outcomes(&ran.report);
    assert_eq!(told.len(), TESTS - 1);
    assert!(told.values().all(|outcome| outcome == "passed"), "{told:?}");
    let (all, bad) = junit(lab);
    assert_eq!(bad, BTreeSet::from(["test_zz_import".to_owned()]));
    assert_eq!(all.len(), TESTS, "in JUnit's file");
    assert_eq!(ran.status.code(), Some(1), "{}", ran.err);
}

#[test]
fn each_test_that_leaks_and_heeds_fails_and_the_rest_of_the_suite_runs() {
    let (lab, ran) = suite("python child fixture", &[]);
    expect_only(&lab, &ran, &["test_python", "test_child", "test_fixture"]);
    // What C code has taken nobody can give back: enough is left for the rest.
    let (lab, ran) = suite("c", &[]);
    expect_only(&lab, &ran, &["test_c"]);
}

#[test]
fn without_workers_who_has_to_be_killed_ends_the_run_and_what_did_not_run_is_told() {
    let (lab, ran) = suite("swallows", &[]);
    let ran = ran.expect_verdict("killed_by_memwatch", 137);
    assert_eq!(
        named(&ran.report),
        BTreeSet::from(["test_swallows".to_owned()])
    );
    let told = outcomes(&ran.report);
    // Those before it and itself ran; each of the others is told as not run, and is no failure.
    assert_eq!(ran.report["suite"]["selected"], TESTS);
    let not_run = ran.report["suite"]["not_run"].as_array().expect("a list");
    let not_run = not_run
        .iter()
        .map(|one| one["id"].as_str().expect("a name"));
    let not_run: BTreeSet<_> = not_run.collect();
    assert!(not_run.iter().all(|id| !told.contains_key(*id)));
    assert_eq!(not_run.len() + told.len(), TESTS);
    let junit = lab.read("junit.xml");
    assert_eq!(junit.matches("<testcase ").count(), TESTS);
    let skipped = "<skipped message=\"not run: pytest was killed by memwatch for memory\"/>";
    assert_eq!(junit.matches(skipped).count(), not_run.len());
    assert_eq!(junit.matches("<error ").count(), 1);
    assert_eq!(told["test_leaks.py::test_swallows"], "killed");
    let passed = told.values().filter(|&outcome| outcome == "passed");
    assert_eq!(passed.count(), told.len() - 1);
    assert_eq!(told.len(), BEFORE * 30 + 9);
}

#[test]
fn a_module_that_leaks_when_it_is_imported_fails_to_be_collected() {
    let (lab, ran) = suite("import", &["--continue-on-collection-errors"]);
    expect_all_but_the_import(&lab, &ran);
}

#[test]
fn a_module_that_leaks_in_every_worker_keeps_none_of_the_others_from_running() {
    for dist in DISTS {
        let (lab, ran) = spread("import", dist);
        expect_all_but_the_import(&lab, &ran);
    }
    // What keeps the memory takes its worker along, and the next worker refuses it, and nothing else.
    let (lab, ran) = spread("import_c", "load");
    expect_all_but_the_import(&lab, &ran.expect_verdict("finished_with_kills", 1));
}

#[test]
fn a_killed_workers_test_is_not_tried_again_and_its_other_tests_are() {
    for dist in DISTS {
        let (lab, ran) = spread("swallows", dist);
        let ran = ran.expect_verdict("finished_with_kills", 1);
        expect_only(&lab, &ran, &["test_swallows"]);
        let killed = lab.read("junit.xml");
        assert!(
            killed.contains("memwatch: memwatch killed its process"),
            "{killed}"
        );
    }
}

#[test]
fn who_runs_when_a_thread_of_another_test_leaks_is_innocent_and_runs_again() {
    for dist in DISTS {
        let (lab, ran) = spread("thread", dist);
        expect_only(&lab, &ran, &["test_thread"]);
    }
}

#[test]
fn without_workers_a_thread_that_leaks_on_is_its_tests() {
    let (lab, ran) = suite("thread", &[]);
    let guilty = BTreeSet::from(["test_thread".to_owned()]);
    assert_eq!(
        named(&ran.report),
        guilty,
        "{:#}",
        ran.report["interventions"]
    );
    let suite = &ran.report["suite"];
    let told = outcomes(&ran.report);
    let not_run = suite["not_run"].as_array().expect("a list");
    assert_eq!(told.len() + not_run.len(), TESTS);
    let tests = suite["tests"].as_array().expect("a suite");
    let bad = tests
        .iter()
        .filter(|test| test["outcome"] != "passed" && !is_bystander(test));
    let bad: Vec<_> = bad.map(|test| test["id"].as_str()).collect();
    assert_eq!(bad, [Some("test_leaks.py::test_thread")], "{suite:#}");
    // memwatch's own, in pytest's place.
    assert_eq!(lab.read("junit.xml").matches("<testcase ").count(), TESTS);
}

#[test]
fn with_all_leaks_at_once_only_the_guilty_fail() {
    for dist in DISTS {
        let (lab, ran) = spread("python c swallows child fixture", dist);
        expect_only(
            &lab,
            &ran,
            &[
                "test_python",
                "test_c",
                "test_swallows",
                "test_child",
                "test_fixture",
            ],
        );
    }
}

#[test]
fn each_worker_that_runs_all_tests_has_its_own_verdicts() {
    for (leak, guilty) in [("swallows", "test_swallows"), ("thread", "test_thread")] {
        let (lab, ran) = spread(leak, "each");
        let guilty = BTreeSet::from([guilty.to_owned()]);
        assert_eq!(
            named(&ran.report),
            guilty,
            "{:#}",
            ran.report["interventions"]
        );
        let (all, bad) = junit(&lab);
        assert_eq!(all.len(), TESTS, "in JUnit's file");
        assert_eq!(
            lab.read("junit.xml").matches("<testcase ").count(),
            2 * TESTS
        );
        // Who ran beside the thread of another test is told of, and is an error if it did not come to its end.
        let tests = ran.report["suite"]["tests"].as_array().expect("a suite");
        let bystanders = tests.iter().filter(|test| is_bystander(test));
        let bystanders = bystanders.filter_map(|test| test["id"].as_str()?.rsplit("::").next());
        let may: BTreeSet<_> = bystanders
            .map(str::to_owned)
            .chain(guilty.clone())
            .collect();
        assert!(bad.is_superset(&guilty) && bad.is_subset(&may), "{bad:?}");
        assert_eq!(ran.status.code(), Some(1), "{}", ran.err);
    }
}

#[test]
fn older_pytests_lose_no_test_either() {
    for version in ["6.2-", "7.4-"] {
        for home in environments(version).into_iter().take(1) {
            let tested = home.join("bin/pytest").display().to_string();
            let (lab, ran) = suite_of(&tested, "import", &["-n", "2"]);
            expect_all_but_the_import(&lab, &ran);
            let (lab, ran) = suite_of(&tested, "import_c", &["-n", "2"]);
            expect_all_but_the_import(&lab, &ran.expect_verdict("finished_with_kills", 1));
            let (lab, ran) = suite_of(&tested, "import", &["--continue-on-collection-errors"]);
            expect_all_but_the_import(&lab, &ran);
            let (lab, ran) = suite_of(&tested, "swallows", &["-n", "2"]);
            expect_only(&lab, &ran, &["test_swallows"]);
        }
    }
}
