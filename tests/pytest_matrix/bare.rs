//! A pytest that the project wants under memwatch and that was started without: it is started again as it was, or
//! says how. And one that is under memwatch already, though nothing in its environment says so.

use std::{env, process::Command};

use super::lab::{self, Lab, Ran};
use super::sides::{environments, path, program, write};

const SUITE: &str = "
import os, sys
def test_it():
    assert 'MEMWATCH_ATTACHED' in os.environ
    print('FLAGS', sys.flags.dev_mode, sys.flags.isolated, sys.warnoptions, '' in sys.path or os.getcwd() in sys.path)
";

/// A project with the plugin installed, and memwatch on PATH.
fn project(setting: &str) -> Lab {
    let lab = Lab::new();
    write(&lab, "test_it.py", SUITE);
    write(
        &lab,
        "pytest.ini",
        &format!("[pytest]\nmemwatch = {setting}\n"),
    );
    super::sides::install(&lab, "installed");
    std::fs::create_dir(lab.file("bin")).expect("a directory");
    std::os::unix::fs::symlink(lab::MEMWATCH, lab.file("bin/memwatch")).expect("a link");
    lab
}

fn bare(lab: &Lab, words: &[&str]) -> Command {
    let mut command = lab.command(words[0]);
    let on_path = env::var("PATH").unwrap_or_default();
    command
        .args(&words[1..])
        .args(["-p", "no:cacheprovider", "--import-mode=importlib", "-rP"])
        .env("PYTHONPATH", path(lab, "installed"))
        .env("PATH", format!("{}:{on_path}", path(lab, "bin")));
    command
}

fn run(lab: &Lab, words: &[&str]) -> Ran {
    lab.run(bare(lab, words))
}

#[test]
fn what_was_started_is_started_again_as_it_was() {
    let mut homes = environments("7.4-");
    homes.extend(environments("9-"));
    for home in homes {
        let [python, script] =
            ["python", "pytest"].map(|name| home.join("bin").join(name).display().to_string());
        let lab = project("reexec");
        for (words, flags) in [
            (&[&*script][..], "FLAGS False 0 [] False"),
            (&[&*python, "-m", "pytest"], "FLAGS False 0 [] True"),
            (
                &[
                    &*python,
                    "-X",
                    "dev",
                    "-W",
                    "error::UserWarning",
                    "-m",
                    "pytest",
                ],
                "FLAGS True 0 ['default', 'error::UserWarning'] True",
            ),
            (
                &[&*python, "-W", "error::UserWarning", &script],
                "FLAGS False 0 ['error::UserWarning'] False",
            ),
        ] {
            // Words stay words.
            let words = [words, &["-k", "it or that"]].concat();
            let ran = run(&lab, &words).expect(0);
            assert!(
                ran.err.contains("memwatch: "),
                "its summary: {words:?}: {ran:#?}"
            );
            assert!(
                ran.text().contains(flags),
                "no {flags}: {words:?}: {ran:#?}"
            );
        }
    }
}

#[test]
fn what_measures_coverage_goes_on_measuring_it_or_nothing_is_started_again() {
    let lab = project("reexec");
    let coverage = program("plugins", "coverage");
    run(&lab, &[&coverage, "run", "-m", "pytest"]).expect(0);
    let mut report = lab.command(&coverage);
    report.args(["report", "--data-file=.coverage"]);
    let report = lab.run(report).expect(0);
    assert!(report.text().contains("test_it.py"), "{report:#?}");

    // Before 3.10 Python does not keep how it was started.
    for home in environments("7.4-3.8") {
        let coverage = home.join("bin/coverage").display().to_string();
        let ran = run(
            &lab,
            &[&coverage, "run", "-m", "pytest", "-k", "it or that"],
        )
        .expect(4);
        assert!(
            ran.err.contains("not started by itself")
                && ran
                    .err
                    .contains("memwatch attach -- pytest -k 'it or that'"),
            "{ran:#?}"
        );
    }
}

#[test]
fn what_is_no_start_of_pytests_own_is_not_started_again() {
    let lab = project("reexec");
    let python = program("plugins", "python");
    write(
        &lab,
        "run.py",
        "import sys, pytest\nprint('once')\nsys.exit(pytest.main(['-q'] + sys.argv[1:]))\n",
    );
    let ran = run(&lab, &[&python, "run.py"]).expect(4);
    assert!(ran.err.contains("not started by itself"), "{ran:#?}");
    assert_eq!(ran.text().matches("once").count(), 1, "{ran:#?}");
}

#[test]
fn the_command_that_is_told_is_one_that_can_be_given_to_a_shell() {
    let lab = project("require");
    let [tested, coverage] = ["pytest", "coverage"].map(|name| program("plugins", name));
    let ran = run(&lab, &[&tested, "-k", "it or that"]).expect(4);
    assert!(
        ran.err
            .contains("run: memwatch attach -- pytest -k 'it or that'"),
        "{ran:#?}"
    );
    let ran = run(&lab, &[&coverage, "run", "-m", "pytest"]).expect(4);
    assert!(
        ran.err.contains(&format!("{coverage} run -m pytest")),
        "{ran:#?}"
    );
}

#[test]
fn under_tox_which_hands_no_variable_on_it_is_under_memwatch_already() {
    for setting in ["require", "reexec"] {
        let lab = project(setting);
        write(&lab, "test_it.py", "def test_it(): pass\n");
        // As a project has it in its environment: nothing but its place says what it is.
        let line = format!(
            "[tox]\nskipsdist = true\nenvlist = a\n[testenv]\nskip_install = true\nallowlist_externals = *\n\
             commands = {} -p no:cacheprovider\n",
            program("plugins", "pytest")
        );
        write(&lab, "tox.ini", &line);
        let ran = lab
            .attach(&["--", &program("runners", "tox"), "run", "-q"])
            .expect_verdict("finished", 0);
        assert_eq!(ran.report["suite"]["selected"], 1, "{ran:#?}");
    }
}
