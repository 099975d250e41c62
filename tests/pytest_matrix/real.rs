//! Suites that nobody here wrote: each test by its id, and all that pytest prints, is what it is without
//! memwatch. What their time becomes is `cargo xtask bench suites`'.

use super::lab::Lab;
use super::sides::{environments, program, run};

fn same(directory: Option<&str>, options: &[&str]) {
    let lab = Lab::new();
    let tested = program("plugins", "pytest");
    // One of these plugins warns of its settings, and they make an error of that.
    let mut command = vec![
        tested.as_str(),
        "-v",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
    ];
    let sources = directory.map(|name| {
        let home = environments("sources").pop().expect("sources");
        home.join(name).display().to_string()
    });
    let source = sources.as_ref().map(|home| format!("{home}/src"));
    if let Some(home) = &sources {
        command.extend(["--rootdir", home]);
    }
    let files: Vec<String> = options
        .iter()
        .map(|option| match &sources {
            Some(home) if !option.starts_with('-') => format!("{home}/{option}"),
            _ => (*option).to_owned(),
        })
        .collect();
    command.extend(files.iter().map(String::as_str));
    let variables: Vec<_> = source
        .iter()
        .map(|path| ("PYTHONPATH", path.as_str()))
        .collect();
    run(&lab, &command, &variables)
        .expect_code(0)
        .expect_same()
        .expect_all_tests();
}

#[test]
fn tests_of_numpy() {
    same(
        None,
        &[
            "--pyargs",
            "numpy.lib.tests.test_arraypad",
            "numpy.lib.tests.test_arraysetops",
        ],
    );
}

#[test]
fn tests_of_pandas() {
    same(None, &["--pyargs", "pandas.tests.series.test_constructors"]);
}

#[test]
fn tests_of_attrs() {
    same(Some("attrs"), &["tests/test_make.py"]);
}

#[test]
fn tests_of_pluggy() {
    same(Some("pluggy"), &["testing"]);
}
