//! What starts pytest, and with which options and environment.

use std::env;

use super::lab::Lab;
use super::sides::{
    MIXED_TESTS, Sides, environments, in_any_order, install, mixed_lab, path, program, run, write,
};

const NO_CACHE: [&str; 2] = ["-p", "no:cacheprovider"];

fn pytest(lab: &Lab, before: &[&str], after: &[&str], variables: &[(&str, &str)]) -> Sides {
    let command = [before, &NO_CACHE, after].concat();
    run(lab, &command, variables).expect_code(1)
}

#[test]
fn a_python_that_runs_it_as_a_module_may_do_so() {
    let lab = mixed_lab();
    let python = program("plugins", "python");
    pytest(&lab, &[&python, "-m", "pytest"], &[], &[])
        .expect_same()
        .expect_tests(MIXED_TESTS);
}

/// The report that is made when the run, and the plugin's file with it, is gone.
fn assert_reported_without_the_plugin(lab: &Lab, coverage: &str) {
    let mut report = lab.command(coverage);
    let report = report.args(["report", "--data-file=.coverage"]).output();
    let report = String::from_utf8_lossy(&report.expect("a report").stdout).into_owned();
    assert!(report.contains("test_mixed.py"), "{report}");
    assert!(!report.contains("memwatch"), "{report}");
}

#[test]
fn a_coverage_that_is_measured_stays_what_it_is() {
    // One that does not take what is below a pyvenv.cfg for somebody else's, and one that does.
    let mut homes = environments("7.4-");
    homes.extend(environments("plugins"));
    for home in homes {
        let lab = mixed_lab();
        let coverage = home.join("bin/coverage").display().to_string();
        for options in [&[][..], &["--branch"]] {
            let before = [&[&*coverage, "run"], options, &["-m", "pytest"]].concat();
            pytest(&lab, &before, &[], &[])
                .expect_same()
                .expect_tests(MIXED_TESTS);
            assert_reported_without_the_plugin(&lab, &coverage);
        }
    }
}

#[test]
fn a_coverage_that_pytest_measures_stays_what_it_is() {
    let lab = mixed_lab();
    let [tested, coverage] = ["pytest", "coverage"].map(|name| program("plugins", name));
    for measured in ["--cov", "--cov=."] {
        let options = [measured, "--cov-report=term-missing"];
        pytest(&lab, &[&tested], &options, &[])
            .expect_same()
            .expect_tests(MIXED_TESTS);
        assert_reported_without_the_plugin(&lab, &coverage);
    }
    pytest(&lab, &[&tested, "-n", "2"], &["--cov"], &[])
        .expect_same_but(in_any_order)
        .expect_tests(MIXED_TESTS);
    assert_reported_without_the_plugin(&lab, &coverage);
}

#[test]
fn a_python_that_looks_at_no_environment_runs_its_tests_without_the_plugin() {
    let lab = mixed_lab();
    let python = program("plugins", "python");
    for before in [
        &[&*python, "-I", "-m", "pytest"][..],
        &[&*python, "-E", "-m", "pytest"],
        &["env", "-u", "PYTHONPATH", &python, "-m", "pytest"],
        &["env", "-i", &python, "-m", "pytest"],
    ] {
        pytest(&lab, before, &[], &[])
            .expect_same()
            .expect_no_suite();
    }
}

#[test]
fn an_autoload_that_is_off_is_no_hindrance() {
    let lab = mixed_lab();
    let tested = program("plugins", "pytest");
    for options in ["", "-rA", "-p xdist"] {
        let variables = [
            ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
            ("PYTEST_ADDOPTS", options),
        ];
        pytest(&lab, &[&tested], &[], &variables)
            .expect_same()
            .expect_tests(MIXED_TESTS);
    }
}

#[test]
fn who_does_not_want_the_plugin_has_none() {
    let lab = mixed_lab();
    let tested = program("plugins", "pytest");
    pytest(&lab, &[&tested], &["-p", "no:memwatch_pytest"], &[])
        .expect_same()
        .expect_no_suite();
}

#[test]
fn strictness_finds_nothing_to_be_strict_about() {
    let lab = mixed_lab();
    write(
        &lab,
        "pytest.ini",
        "[pytest]\naddopts = -W error\nasyncio_default_fixture_loop_scope = function\n",
    );
    let tested = program("plugins", "pytest");
    pytest(
        &lab,
        &[&tested],
        &["--strict-markers", "--strict-config"],
        &[],
    )
    .expect_same()
    .expect_tests(MIXED_TESTS);

    let python = program("plugins", "python");

    pytest(
        &lab,
        &[&python, "-W", "error", "-X", "dev", "-bb", "-m", "pytest"],
        &[],
        &[],
    )
    .expect_same()
    .expect_tests(MIXED_TESTS);
}

#[test]
fn lists_of_plugins_show_what_is_installed() {
    let lab = mixed_lab();
    let tested = program("plugins", "pytest");
    run(&lab, &[&*tested, "--version", "--version"], &[])
        .expect_code(0)
        .expect_same();
    install(&lab, "installed");
    let both = pytest(
        &lab,
        &[&tested],
        &[],
        &[("PYTHONPATH", &path(&lab, "installed"))],
    )
    .expect_same()
    .expect_tests(MIXED_TESTS);
    assert!(
        both.watched.text().contains("memwatch-77.7"),
        "{}",
        both.watched.text()
    );
}

fn tox(file: &str, text: &str) {
    let lab = mixed_lab();
    write(
        &lab,
        file,
        &text.replace("PYTEST", &program("plugins", "pytest")),
    );
    // It makes its environment at the first run, and says so.
    let tox = program("runners", "tox");
    let run_once = lab.run({
        let mut command = lab.command(&tox);
        command.args(["run", "-q"]);
        command
    });
    assert_eq!(run_once.status.code(), Some(1), "{run_once:#?}");
    run(&lab, &[&*tox, "run", "-q"], &[])
        .expect_code(1)
        .expect_same()
        .expect_tests(MIXED_TESTS);
}

#[test]
fn tox_with_an_ini_file() {
    tox(
        "tox.ini",
        "[tox]\nskipsdist = true\nenvlist = a\n[testenv]\nskip_install = true\npassenv = HOME\n\
         allowlist_externals = *\ncommands = PYTEST -p no:cacheprovider\n",
    );
}

#[test]
fn tox_with_its_own_toml_file() {
    tox(
        "tox.toml",
        "env_list = ['a']\n[env_run_base]\nskip_install = true\npackage = 'skip'\npass_env = ['HOME']\n\
         allowlist_externals = ['*']\ncommands = [['PYTEST', '-p', 'no:cacheprovider']]\n",
    );
}

#[test]
fn tox_in_a_projects_toml_file() {
    tox(
        "pyproject.toml",
        "[tool.tox]\nenv_list = ['a']\n[tool.tox.env_run_base]\nskip_install = true\npackage = 'skip'\n\
         allowlist_externals = ['*']\ncommands = [['PYTEST', '-p', 'no:cacheprovider']]\n",
    );
}

#[test]
fn nox_uv_and_poetry() {
    let lab = mixed_lab();
    let tested = program("plugins", "pytest");
    write(
        &lab,
        "noxfile.py",
        &format!(
            "import nox\n\n@nox.session(venv_backend='none')\ndef tests(session):\n    \
             session.run({tested:?}, '-p', 'no:cacheprovider', external=True)\n"
        ),
    );
    run(&lab, &[program("runners", "nox")], &[])
        .expect_code(1)
        .expect_same()
        .expect_tests(MIXED_TESTS);

    let python = program("plugins", "python");
    let uv = program("runners", "uv");
    let options = [
        &*uv,
        "run",
        "--offline",
        "--no-project",
        "--python",
        &python,
        "python",
        "-m",
        "pytest",
    ];
    let cache = path(&lab, "uv-cache");
    pytest(&lab, &options, &[], &[("UV_CACHE_DIR", &*cache)])
        .expect_same()
        .expect_tests(MIXED_TESTS);

    write(
        &lab,
        "pyproject.toml",
        "[tool.poetry]\nname = 'probe'\nversion = '0'\ndescription = ''\nauthors = []\npackage-mode = false\n\
         [tool.poetry.dependencies]\npython = '>=3.10'\n",
    );
    let poetry = program("runners", "poetry");
    let bin = tested.trim_end_matches("/pytest");
    let variables = [
        ("POETRY_VIRTUALENVS_CREATE", "false"),
        (
            "PATH",
            &format!("{bin}:{}", env::var("PATH").expect("a path")),
        ),
    ];
    pytest(&lab, &[&poetry, "run", "pytest"], &[], &variables)
        .expect_same()
        .expect_tests(MIXED_TESTS);
}
