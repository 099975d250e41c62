//! `memwatch tests guard` as a user meets it: on the command line, and as pre-commit's hook. Needs git; the
//! hook's test the Python that `cargo xtask test` makes, and fails without. What is found in which text is
//! held by the tests of `tests::direct`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const MEMWATCH: &str = env!("CARGO_BIN_EXE_memwatch");

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, text).expect("a file");
    }
    directory
}

fn guard(directory: &TempDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(MEMWATCH);
    command.args(["tests", "guard"]).args(arguments);
    let output = command.current_dir(directory.path()).output();
    let output = output.expect("memwatch runs");
    let [out, err] =
        [output.stdout, output.stderr].map(|said| String::from_utf8(said).expect("text"));
    (output.status.code(), out, err)
}

#[test]
fn it_says_where_and_what_to_write_instead_and_ends_with_one() {
    let files = [
        ("Makefile", "test:\n\tpytest tests/\n"),
        ("good.sh", "memwatch attach -- pytest\n"),
        ("tox.ini", "[testenv]\ncommands = pytest\n"),
    ];
    let directory = directory(&files);
    let (code, out, err) = guard(&directory, &["good.sh"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    let (code, out, err) = guard(&directory, &["Makefile", "good.sh", "tox.ini"]);
    assert_eq!(code, Some(1), "{err}");
    assert_eq!(
        out,
        "Makefile:2: pytest tests/; write instead: memwatch attach -- pytest tests/\n\
         tox.ini:2: pytest; write instead: memwatch attach -- pytest (add memwatch to tox's allowlist_externals)\n"
    );
}

#[test]
fn json_says_the_same() {
    let directory = directory(&[
        ("ci.yml", "run: |\n  a\n  pytest\n"),
        ("x.json", "{}"),
        ("bad.yml", "a: [\n"),
    ]);
    let (code, out, _) = guard(&directory, &["--json", "ci.yml", "x.json", "bad.yml"]);
    assert_eq!(code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["exit_code"], 1);
    assert_eq!(report["files"], 2);
    let finding = &report["findings"][0];
    assert_eq!(finding["file"], "ci.yml");
    assert_eq!(finding["line"], 3);
    assert_eq!(finding["found"], "pytest");
    assert_eq!(finding["instead"], "memwatch attach -- pytest");
    assert_eq!(report["unread"][0]["file"], "x.json");
    assert_eq!(report["unread"][1]["file"], "bad.yml");
    assert!(report["unread"][1]["line"].is_number(), "{out}");
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_looked_through() {
    let directory = directory(&[("a.sh", "pytest\n"), ("latin.sh", "x")]);
    fs::write(directory.path().join("latin.sh"), b"# \xe9\npytest\n").expect("a file");
    symlink("/dev/zero", directory.path().join("zero.sh")).expect("a link");
    let fifo = directory.path().join("fifo.sh");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let names = ["none.sh", "zero.sh", "fifo.sh", ".", "a.sh", "latin.sh"];
    let (code, out, err) = guard(&directory, &names);
    assert_eq!(code, Some(125));
    assert_eq!(out.lines().count(), 2, "{out}");
    for name in ["none.sh", "zero.sh", "fifo.sh", "memwatch: . is no"] {
        assert!(err.contains(name), "{name}: {err}");
    }
    let (code, _, err) = guard(&directory, &[]);
    assert_eq!(code, Some(125));
    assert!(err.contains("<FILE>") && !err.contains("attach"), "{err}");
}

fn git(directory: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    // Neither the user's settings nor the hooks of a git that runs this test.
    git.env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env_remove("GIT_DIR")
        .env_remove("GIT_INDEX_FILE");
    git.args([
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "init.defaultBranch=main",
    ]);
    let output = git.arg("-C").arg(directory).args(arguments).output();
    let output = output.expect("git is installed");
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
}

fn commit_all(directory: &Path) {
    git(directory, &["init", "--quiet"]);
    git(directory, &["add", "--all"]);
    git(directory, &["commit", "--quiet", "--message", "all"]);
}

#[test]
fn pre_commit_runs_the_hook_on_the_files_that_start_tests() {
    let python = std::env::var("MEMWATCH_TEST_PYTHON")
        .expect("MEMWATCH_TEST_PYTHON is not set: run these tests with `cargo xtask test`");
    let hooks = directory(&[(
        ".pre-commit-hooks.yaml",
        include_str!("../.pre-commit-hooks.yaml"),
    )]);
    commit_all(hooks.path());
    let direct = [
        ("Makefile", "t:\n\tpytest\n"),
        ("ci/run", "#!/bin/sh\npytest\n"),
        (".github/workflows/test.yml", "run: pytest\n"),
        ("tox.ini", "[testenv]\ncommands = pytest\n"),
        ("setup.cfg", "[tox:testenv]\ncommands = pytest\n"),
        ("pyproject.toml", "[tool.poe.tasks]\nt = \"pytest\"\n"),
        ("noxfile.py", "session.run(\"pytest\")\n"),
        ("package.json", "{\"scripts\": {\"t\": \"pytest\"}}\n"),
        ("docker/Dockerfile.test", "RUN pytest\n"),
        ("Jenkinsfile", "sh 'pytest'\n"),
        ("justfile", "t:\n  pytest\n"),
        ("Pipfile", "[scripts]\nt = \"pytest\"\n"),
        (".envrc", "pytest\n"),
    ];
    let other = [
        ("README.md", "pytest\n"),
        ("notes.txt", "#!/bin/sh\npytest\n"),
    ];
    let project = directory(&[&direct[..], &other].concat());
    commit_all(project.path());
    let home = TempDir::new().expect("a directory");
    let bin = Path::new(MEMWATCH).parent().expect("a directory");
    let path = std::env::var("PATH").expect("a PATH");
    let run = || -> Output {
        let mut pre_commit = Command::new(&python);
        pre_commit.args([
            "-m",
            "pre_commit",
            "try-repo",
            "--all-files",
            "--color",
            "never",
        ]);
        pre_commit.arg(hooks.path()).arg("memwatch-tests-guard");
        pre_commit.env("PRE_COMMIT_HOME", home.path());
        pre_commit.env("PATH", format!("{}:{path}", bin.display()));
        let output = pre_commit.current_dir(project.path()).output();
        output.expect("pre-commit runs")
    };
    let output = run();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for (name, _) in direct {
        assert!(said.contains(&format!("{name}:")), "{name}: {said}");
    }
    for (name, _) in other {
        assert!(!said.contains(name), "{name}: {said}");
    }
    for (name, _) in direct {
        fs::remove_file(project.path().join(name)).expect("it is there");
    }
    fs::write(project.path().join("a.sh"), "memwatch attach -- pytest\n").expect("a file");
    git(project.path(), &["add", "--all"]);
    let output = run();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Passed"), "{said}");
}
